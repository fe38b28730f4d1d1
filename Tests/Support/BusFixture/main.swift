// Four workers whose connections say things to all others: `main FILE` writes its address there. What a text message asks for:
//   ask N      requests N times that all write; answered with how long that took
//   say A B    publishes and signals the numbers from A to B (without), one after the other
//   signal N   signals the numbers from 0 to N (without), then answers
//   outside N  the same from 0 to N by a process that is no worker, which then asks all to write and to go on reading
//   leave      unsubscribes, and is silent about signals from then on
//   pause      stops reading; `resume N` asks N times that all go on
// Everything else comes back. `writable` says how often had been asked by then, in all workers together.
import Apus
import ApusPlatform
import Glibc
import Synchronization

guard let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), memory != MAP_FAILED else { exit(1) }
let asked = memory.bindMemory(to: Atomic<Int>.self, capacity: 1)
/// Where a worker tells the outside process what to do; it ends when nobody holds this any more.
var orders: [Int32] = [-1, -1]
guard pipe(&orders) == 0 else { exit(1) }

final class Member: WebSocketHandler {
    private let asked: UnsafeMutablePointer<Atomic<Int>>
    private let orders: Int32
    private var hasLeft = false

    init(_ asked: UnsafeMutablePointer<Atomic<Int>>, _ orders: Int32) {
        self.asked = asked
        self.orders = orders
    }

    func opened(_ socket: WebSocket) { socket.subscribe(to: "all") }

    func received(_ message: Message, on socket: WebSocket) {
        guard let text = message.text else { return }
        let words = text.split(separator: " ")
        let numbers = words.dropFirst().compactMap { Int($0) }
        let (worker, all) = (socket.worker, socket.webSocketProtocol)
        switch (words.first, numbers.count) {
        case ("ask", 1):
            let started = ContinuousClock.now
            for _ in 0..<numbers[0] {
                asked.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
                worker.requestWritable(all: all)
            }
            socket.send(text: "asked \((ContinuousClock.now - started) / .microseconds(1))")
        case ("say", 2):
            for number in numbers[0]..<numbers[1] {
                worker.publish(Array("\(worker.identity.slot) \(number)".utf8), as: .text, to: "all")
                worker.signal(all: all, UInt32(number), payload: [UInt8(worker.identity.slot)])
            }
        case ("signal", 1):
            let filler = [UInt8](repeating: 0, count: 64)
            for number in 0..<numbers[0] { worker.signal(all: all, UInt32(number), payload: filler) }
            socket.send(text: "signaled")
        case ("outside", 1):
            var count = numbers[0]
            write(orders, &count, MemoryLayout<Int>.size)
        case ("leave", 0):
            hasLeft = true
            socket.unsubscribe(from: "all")
            socket.send(text: "left")
        case ("pause", 0): socket.pauseReceiving()
        case ("resume", 1): for _ in 0..<numbers[0] { worker.resumeReceiving(all: all) }
        default: socket.send(text: text)
        }
    }

    func signaled(_ signal: UInt32, payload: [UInt8], on socket: WebSocket) {
        if !hasLeft { socket.send(text: "\(payload.first ?? 255) \(signal) signal") }
    }

    func missed(_ count: Int, on socket: WebSocket) { socket.send(text: "missed \(count)") }

    func writable(_ socket: WebSocket) { socket.send(text: "writable \(asked.pointee.load(ordering: .sequentiallyConsistent))") }
}

var server = Server()
server.workers = .count(4)
server.listen(on: .tcp("127.0.0.1", port: 0))
// Workers ask the outside process by this.
server.sandbox.keptDescriptors = [orders[1]]
server.portFile = CommandLine.arguments.last
let all = server.webSocket("member", at: "/") { [asked, orders] _ in Member(asked, orders[1]) }
server.http(.get, at: "/worker") {
    let worker = $0.worker.identity
    $0.respond(text: "\(worker.slot) \(worker.pid)", type: "text/plain")
}
server.onStart = { [orders, id = all.id] remote in
    _ = try? Process.fork {
        close(orders[1])
        var count = 0
        while read(orders[0], &count, MemoryLayout<Int>.size) == MemoryLayout<Int>.size {
            for number in 0..<count {
                remote.publish(Array("9 \(number)".utf8), as: .text, to: "all")
                remote.signal(all: id, UInt32(number), payload: [9])
            }
            remote.publish(Array("dropped \(remote.dropped)".utf8), as: .text, to: "all")
            remote.requestWritable(all: id)
            remote.resumeReceiving(all: id)
        }
        return 0
    }
    close(orders[0])
}
try server.run()
