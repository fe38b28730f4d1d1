// Four workers whose connections ask all others to write: `main FILE` writes its address there. A text message with a number asks so many
// times, and is answered with how long that took; `writable` answers with how often had been asked by then, in all workers together.
import Apus
import Glibc
import Synchronization

guard let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), memory != MAP_FAILED else { exit(1) }
let asked = memory.bindMemory(to: Atomic<Int>.self, capacity: 1)

final class Asker: WebSocketHandler {
    private let asked: UnsafeMutablePointer<Atomic<Int>>

    init(_ asked: UnsafeMutablePointer<Atomic<Int>>) { self.asked = asked }

    func received(_ message: Message, on socket: WebSocket) {
        let all = socket.webSocketProtocol
        let started = ContinuousClock.now
        for _ in 0..<(message.text.flatMap { Int($0) } ?? 0) {
            asked.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
            socket.context.requestWritable(all: all)
        }
        socket.send(text: "asked \((ContinuousClock.now - started) / .microseconds(1))")
    }

    func writable(_ socket: WebSocket) { socket.send(text: "writable \(asked.pointee.load(ordering: .sequentiallyConsistent))") }
}

var server = Server()
server.workers = .count(4)
server.listen(on: .tcp("127.0.0.1", port: 0))
server.portFile = CommandLine.arguments.last
server.webSocket("asker", at: "/") { [asked] _ in Asker(asked) }
server.http(.get, at: "/worker") { $0.respond(text: "\($0.context.worker.slot)", type: "text/plain") }
try server.run()
