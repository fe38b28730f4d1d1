import Apus
import Logging
import Testing

@Suite("Values that each worker has one of")
struct WorkerStateTests {
    final class Notes { var lines: [String] = [] }

    struct Broken: Error {}

    private func server(_ notes: Notes) -> Server {
        var server = Server()
        server.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.webSocket("chat", at: "/") { _ in Script() }
        return server
    }

    @Test("they are made in the order declared, found by handlers, and ended in the opposite order when the context has ended")
    func life() throws {
        let notes = Notes()
        var server = server(notes)
        let count = server.workerState { context in
            notes.lines.append("make count in \(context.worker.slot) of \(context.worker.count)")
            return 7
        } end: { count, _ in
            notes.lines.append("end \(count)")
        }
        let names = server.workerState { context -> [String] in
            notes.lines.append("make names")
            return ["count is \(context[count])"]
        } end: { names, context in
            notes.lines.append("end \(names) while \(context[count])")
        }
        let context = try Context(server)
        #expect(notes.lines == ["make count in 0 of 1", "make names"])
        context[count] += 1
        context[names].append("more")
        #expect(context[count] == 8 && context[names] == ["count is 7", "more"])
        context.stop()
        try context.run()
        let ends = ["end [\"count is 7\", \"more\"] while 8", "end 8"]
        #expect(Array(notes.lines.dropFirst(2)) == ends)
        try context.service(timeout: .zero)
        #expect(notes.lines.count == 4, "once")
    }

    @Test("two contexts of one server have each their own")
    func separate() throws {
        var server = server(Notes())
        let state = server.workerState { _ in 0 }
        let contexts = try [Context(server), Context(server)]
        contexts[0][state] = 1
        #expect(contexts.map { $0[state] } == [1, 0])
    }

    @Test("what cannot be made is a configuration error with its reason")
    func broken() throws {
        var server = server(Notes())
        _ = server.workerState { _ in throw Broken() } as WorkerState<Int>
        #expect(throws: ConfigurationError.system("a worker's state cannot be made: Broken()")) { try Context(server) }
    }
}
