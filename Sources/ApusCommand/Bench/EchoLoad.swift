import Apus
import ArgumentParser
import Histogram

/// The load: connections that each keep some messages on their way.
final class EchoLoad: Load {
    static let unit = "message"
    let size: Int
    private let depth: Int
    private let kind: MessageKind
    private let target: String
    private let client: ClientOptions
    private let connections: Int
    private let context: Context
    private var sockets: [WebSocket] = []
    private var isMeasuring = true
    fileprivate let payload: [UInt8]

    private(set) var count = 0
    private(set) var failures = 0
    private(set) var firstFailure: String?
    /// Nanoseconds.
    private(set) var latencies = Histogram<UInt64>(highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)

    init(target: String, client: ClientOptions, connections: Int, size: Int, depth: Int, kind: MessageKind) throws {
        self.target = target
        self.client = client
        self.connections = connections
        self.size = size
        self.depth = depth
        self.kind = kind
        payload = (0..<size).map { UInt8(ascii: "a") + UInt8($0 % 26) }
        var client = Server()
        client.limits.maxMessageBytes = max(1 << 20, size)
        client.limits.maxBufferedBytes = max(1 << 20, size * depth)
        context = try Context(client)
    }

    func connect(progress: (Int) -> Void) throws {
        try context.openAll(count: connections, opened: { self.sockets.count }, progress: progress) {
            self.context.connect(to: self.target, options: self.client) { _ in
                Client(self)
            } failed: { [unowned self] error in
                fail("\(error)")
            }
            return self.firstFailure
        }
        for socket in sockets { (socket.handler as? Client)?.fill(socket, depth: depth) }
    }

    func run(for seconds: Double, progress: (Double) -> Void) throws -> Double {
        try context.serve(for: seconds, while: { !self.sockets.isEmpty }, progress: progress)
    }

    func reset() {
        count = 0
        latencies.reset()
    }

    func close() {
        isMeasuring = false
        context.closeAll(sockets)
    }

    fileprivate func opened(_ socket: WebSocket) { sockets.append(socket) }

    fileprivate func send(on socket: WebSocket) { socket.send(payload, as: kind) }

    fileprivate func fail(_ reason: String) {
        guard isMeasuring else { return }
        failures += 1
        firstFailure = firstFailure ?? reason
    }

    fileprivate func echoed(_ message: Message, after time: Duration) {
        count += 1
        latencies.record(UInt64(time / .nanoseconds(1)))
        if message.payload.byteCount != size || count % 16 == 0 && message.bytes != payload {
            fail("an echo differs from what was sent")
        }
    }

    /// One connection.
    private final class Client: WebSocketHandler {
        private unowned let load: EchoLoad
        /// When the messages on their way were sent, oldest at `next`.
        private var sent: [ContinuousClock.Instant] = []
        private var next = 0

        init(_ load: EchoLoad) { self.load = load }

        func opened(_ socket: WebSocket) { load.opened(socket) }

        func fill(_ socket: WebSocket, depth: Int) {
            sent = Array(repeating: .now, count: depth)
            for _ in 0..<depth { load.send(on: socket) }
        }

        func received(_ message: Message, on socket: WebSocket) {
            let now = ContinuousClock.now
            load.echoed(message, after: now - sent[next])
            sent[next] = now
            next = next + 1 == sent.count ? 0 : next + 1
            if load.isMeasuring { load.send(on: socket) }
        }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) { load.fail("closed with \(code.rawValue) \(reason)") }
    }
}

/// Something that went wrong while a command ran.
struct RuntimeFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
