import Apus
import TestSupport

/// What one client does: a WebSocket that sends its messages and waits for what must come back, or a request.
final class Conversation: WebSocketHandler {
    private enum Kind { case echo, news, request }
    private enum End { case closes(CloseCode), terminates, vanishes }

    private let name: String
    private unowned let simulation: ServerSimulation
    private var random: SeededGenerator
    private let kind: Kind
    private let messages: [[UInt8]]
    private let end: End
    /// The network cuts or the server drains: then it may end early, but what comes is still right.
    private let isDisturbed: Bool
    private var sent = 0
    private var received = 0
    private var hasOpened = false
    private var ends = 0
    private(set) var fault: String?

    init(_ name: String, seed: UInt64, simulation: ServerSimulation, isDisturbed: Bool) {
        self.name = name
        self.simulation = simulation
        self.isDisturbed = isDisturbed
        var random = SeededGenerator(seed: seed)
        kind = [.echo, .echo, .news, .request][Int.random(in: 0..<4, using: &random)]
        let sizes = [0, 1, 125, 126, 1000, 5000, 65_535, 65_536, 200_000]
        messages = (0..<Int.random(in: 1...10, using: &random)).map { index in
            let size = sizes[Int.random(in: 0..<sizes.count, using: &random)]
            return Array("\(name) \(index) ".utf8) + [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: size)
        }
        switch UInt8.random(in: 0..<6, using: &random) {
        case 0: end = .terminates
        case 1: end = .vanishes
        case 2: end = .closes(.goingAway)
        default: end = .closes(.normal)
        }
        self.random = random
    }

    var isOver: Bool { ends > 0 || fault != nil }

    func start(in worker: Worker, at path: String) {
        switch kind {
        case .echo, .news:
            let target = kind == .echo ? "/echo" : "/news"
            worker.connect(to: "ws+unix://\(path):\(target)", makeHandler: { _ in self }, failed: { [unowned self] in failed($0) })
        case .request:
            let body = messages[0]
            worker.request("http+unix://\(path):/length", method: .post, body: body) { [self] outcome in
                switch outcome {
                case .success(let response):
                    expect(response.body.elementsEqual("\(body.count)".utf8), "the answer to \(body.count) bytes is another's")
                    ended("answered \(response.status.code)", isRegular: true)
                case .failure(let error): ended("failed \(error)", isRegular: false)
                }
            }
        }
    }

    private func failed(_ error: ConnectError) {
        expect(!hasOpened, "an attempt failed after it had opened")
        ended("failed \(error)", isRegular: false)
    }

    private func expect(_ isRight: Bool, _ what: String) { if !isRight, fault == nil { fault = "\(name): \(what)" } }

    private func ended(_ how: String, isRegular: Bool) {
        ends += 1
        simulation.note("\(name) \(how)")
        expect(ends == 1, "it ended \(ends) times")
        expect(isRegular || isDisturbed, "it ended early without a reason: \(how)")
    }

    // MARK: WebSocket

    func opened(_ socket: WebSocket) {
        expect(!hasOpened, "it opened twice")
        hasOpened = true
        simulation.note("\(name) opens")
        for _ in 0..<Int.random(in: 1...3, using: &random) { sendNext(on: socket) }
    }

    private func sendNext(on socket: WebSocket) {
        guard sent < messages.count else { return }
        socket.send(binary: messages[sent])
        sent += 1
        if UInt8.random(in: 0..<8, using: &random) == 0 { socket.ping(Array("p".utf8)) }
    }

    func received(_ message: Message, on socket: WebSocket) {
        let bytes = message.bytes
        if kind == .news, !bytes.starts(with: "\(name) ".utf8) { return }
        guard received < messages.count else { return expect(false, "more came back than was sent") }
        expect(bytes == messages[received], "message \(received) came back changed or out of order")
        received += 1
        simulation.note("\(name) gets \(received)")
        if UInt8.random(in: 0..<10, using: &random) == 0 {
            socket.pauseReceiving()
            socket.worker.schedule(after: .milliseconds(Int64.random(in: 0...5000, using: &random))) { socket.resumeReceiving() }
        }
        sendNext(on: socket)
        if received == messages.count { finish(socket) }
    }

    private func finish(_ socket: WebSocket) {
        switch end {
        case .closes(let code): socket.close(code: code)
        case .terminates: socket.terminate()
        // The other side may close first, when it drains; silence is cut by its pings.
        case .vanishes: socket.worker.schedule(after: .seconds(300)) { socket.close() }
        }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        let isWhole = received == messages.count
        let expected: CloseCode =
            switch end {
            case .closes(let code): code
            case .terminates: .abnormal
            case .vanishes: .normal
            }
        ended("closed \(code) after \(received)", isRegular: isWhole && code == expected)
    }
}
