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
        server.webSocket("chat", at: "/") { _ in RecordingHandler() }
        return server
    }

    @Test("they are made in the order declared, found by handlers, and ended in the opposite order when the worker has ended")
    func life() throws {
        let notes = Notes()
        var server = server(notes)
        let count = server.workerState { worker in
            notes.lines.append("make count in \(worker.identity.slot) of \(worker.identity.count)")
            return 7
        } end: { count, _ in
            notes.lines.append("end \(count)")
        }
        let names = server.workerState { worker -> [String] in
            notes.lines.append("make names")
            return ["count is \(worker[count])"]
        } end: { names, worker in
            notes.lines.append("end \(names) while \(worker[count])")
        }
        let worker = try Worker(server)
        #expect(notes.lines == ["make count in 0 of 1", "make names"])
        worker[count] += 1
        worker[names].append("more")
        #expect(worker[count] == 8 && worker[names] == ["count is 7", "more"])
        worker.stop()
        try worker.run()
        let ends = ["end [\"count is 7\", \"more\"] while 8", "end 8"]
        #expect(Array(notes.lines.dropFirst(2)) == ends)
        try worker.service(timeout: .zero)
        #expect(notes.lines.count == 4, "once")
    }

    @Test("two contexts of one server have each their own")
    func separate() throws {
        var server = server(Notes())
        let state = server.workerState { _ in 0 }
        let contexts = try [Worker(server), Worker(server)]
        contexts[0][state] = 1
        #expect(contexts.map { $0[state] } == [1, 0])
    }

    @Test("what cannot be made is a configuration error with its reason")
    func broken() throws {
        var server = server(Notes())
        _ = server.workerState { _ in throw Broken() } as WorkerState<Int>
        #expect(throws: ConfigurationError.system("cannot make a worker's state: Broken()")) { try Worker(server) }
    }
}
