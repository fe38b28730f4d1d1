import Apus

/// The demo of `apus serve`: the protocols of libwebsockets' test server, and a page that tests
/// them.
enum Demo {
    /// Allows messages large enough for the Autobahn cases.
    static var limits: Limits {
        var limits = Limits()
        limits.maxMessageBytes = 64 << 20
        return limits
    }

    /// - Parameter hasPage: whether the page is served at `/`.
    static func configure(_ server: inout Server, hasPage: Bool) {
        // Compresses even short messages, as Autobahn's cases require.
        var compression = PerMessageDeflate.Configuration()
        compression.threshold = 0
        server.extensions = [PerMessageDeflate(compression)]
        // libwebsockets' client offers compression for this protocol and then fails to set it up:
        // its buffer is too small.
        server.allowsExtension = { _, request in request.fields["sec-websocket-protocol"] != "dumb-increment-protocol" }
        server.webSocket("echo", at: "/") { _ in Echo() }
        server.webSocket("dumb-increment-protocol", at: "/") { _ in Increment() }
        let mirror = server.workerState { _ in Mirror() }
        server.webSocket("lws-mirror-protocol", at: "/") { _ in Mirror.Member(of: mirror) }
        server.webSocket("board", at: "/board") { _ in Mirror.BoardMember(of: mirror) }
        server.webSocket("broadcast", at: "/broadcast") { _ in Broadcaster() }
        server.webSocket("fraggle-protocol", at: "/") { _ in Fraggle() }
        server.webSocket("worker", at: "/worker") { _ in WorkerName() }
        server.http(.get, at: "/worker") { exchange in
            exchange.respond(text: WorkerName.json(of: exchange.worker.identity), type: "application/json")
        }
        if hasPage {
            server.http(.get, at: "/") { exchange in
                exchange.respond(text: String(decoding: PackageResources.page_html, as: UTF8.self), type: "text/html; charset=utf-8")
            }
        }
    }
}

/// Sends received messages back.
final class Echo: WebSocketHandler {
    func received(_ message: Message, on socket: WebSocket) { socket.send(message) }
}

/// Sends the identity of the connection's worker.
final class WorkerName: WebSocketHandler {
    func opened(_ socket: WebSocket) { socket.send(text: Self.json(of: socket.worker.identity)) }

    static func json(of worker: WorkerIdentity) -> String {
        #"{"slot":\#(worker.slot),"pid":\#(worker.pid),"workers":\#(worker.count),"generation":\#(worker.generation)}"#
    }
}

/// `dumb-increment-protocol`: a decimal counter every 50 ms, reset by the text `reset\n`.
final class Increment: WebSocketHandler {
    private static let interval = Duration.milliseconds(50)
    private var count = 0
    private var timer: DeadlineTimer?

    func opened(_ socket: WebSocket) {
        timer = socket.worker.schedule(after: Self.interval) { [self] in
            // A peer that does not read misses numbers, so that they do not accumulate.
            if !socket.hasBufferedOutput { socket.send(text: "\(count)") }
            count += 1
            timer?.start(after: Self.interval)
        }
    }

    func received(_ message: Message, on socket: WebSocket) {
        if message.text == "reset\n" { count = 0 }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        timer?.cancel()
        timer = nil
    }
}

/// `fraggle-protocol`: random binary messages in random fragments, each followed by a message with
/// the four-byte big-endian sum of its bytes.
final class Fraggle: WebSocketHandler {
    private static let maxFragments = 64
    private static let maxFragmentBytes = 4096

    private enum Next {
        case fragment(left: Int, sum: UInt32)
        case sum(UInt32)
    }

    private var next = Next.fragment(left: .random(in: 1...maxFragments), sum: 0)

    func opened(_ socket: WebSocket) { socket.requestWritable() }

    func writable(_ socket: WebSocket) {
        switch next {
        case .fragment(let left, let sum):
            let bytes = (0..<Int.random(in: 1...Self.maxFragmentBytes)).map { _ in UInt8.random(in: 0...255) }
            let total = bytes.reduce(sum) { $0 &+ UInt32($1) }
            socket.sendFragment(binary: bytes, isLast: left == 1)
            next = left == 1 ? .sum(total) : .fragment(left: left - 1, sum: total)
        case .sum(let sum):
            socket.send(binary: (0..<4).map { UInt8(truncatingIfNeeded: sum >> (24 - 8 * $0)) })
            next = .fragment(left: .random(in: 1...Self.maxFragments), sum: 0)
        }
        socket.requestWritable()
    }
}
