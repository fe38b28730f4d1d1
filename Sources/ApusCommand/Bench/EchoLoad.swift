import Apus
import ArgumentParser
import Histogram

/// The load of `apus bench echo`: connections that each keep some messages in flight.
final class EchoLoad: Load {
    static let unit = "message"
    let size: Int
    private let depth: Int
    private let kind: MessageKind
    private let target: String
    private let client: ClientOptions
    private let connections: Int
    private let worker: Worker
    private var sockets: [WebSocket] = []
    private var isMeasuring = true
    /// Two payloads that differ in every byte, for alternate connections: an echo of the other
    /// payload reveals a server that is not an echo server.
    private let payloads: [[UInt8]]
    /// Why the measurement is invalid.
    private var abortReason: RuntimeFailure?

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
        payloads = [0, 13].map { shift in (0..<size).map { UInt8(ascii: "a") + UInt8(($0 + shift) % 26) } }
        var client = Server()
        client.limits.maxMessageBytes = max(1 << 20, size)
        client.limits.maxBufferedBytes = max(1 << 20, size * depth)
        worker = try Worker(client)
    }

    func connect(progress: (Int) -> Void) throws {
        var started = 0
        try worker.openAll(count: connections, opened: { self.sockets.count }, failure: { self.abortReason }, progress: progress) {
            let payload = self.payloads[started % self.payloads.count]
            started += 1
            self.worker.connect(to: self.target, options: self.client) { _ in
                Client(self, payload)
            } failed: { [unowned self] error in
                abort(RuntimeFailure("cannot connect: \(error)", ClientExit.status(error)))
            }
        }
        for socket in sockets { (socket.currentHandler as? Client)?.fill(socket, depth: depth) }
    }

    func run(for seconds: Double, progress: (Double) -> Void) throws -> Double {
        try worker.serve(for: seconds, failure: { self.abortReason }, progress: progress)
    }

    func reset() {
        count = 0
        latencies.reset()
    }

    var nothingMeasured: String? {
        count > 0 ? nil : firstFailure ?? "no message came back: \(target) is not an echo server, or is very slow"
    }

    func close() {
        isMeasuring = false
        worker.closeAll(sockets)
    }

    fileprivate func opened(_ socket: WebSocket) { sockets.append(socket) }

    fileprivate func send(_ payload: [UInt8], on socket: WebSocket) { socket.send(payload, as: kind) }

    private var notAnEchoServer: RuntimeFailure {
        RuntimeFailure("expected the messages that were sent, got others: \(target) is not an echo server")
    }

    fileprivate func abort(_ failure: RuntimeFailure) { abortReason = abortReason ?? failure }

    fileprivate func fail(_ reason: String) {
        guard isMeasuring else { return }
        failures += 1
        firstFailure = firstFailure ?? reason
    }

    /// - Parameter isFirst: whether it is the connection's first echo.
    fileprivate func echoed(_ message: Message, of payload: [UInt8], isFirst: Bool, after time: Duration) {
        count += 1
        latencies.record(UInt64(time / .nanoseconds(1)))
        if message.payload.byteCount != size { return abort(notAnEchoServer) }
        guard count % 16 == 0 || isFirst else { return }
        let bytes = message.bytes
        if bytes == payload { return }
        if payloads.contains(bytes) { abort(notAnEchoServer) } else { fail("an echo differs from its message") }
    }

    /// One connection.
    private final class Client: WebSocketHandler {
        private unowned let load: EchoLoad
        private let payload: [UInt8]
        /// When the messages in flight were sent, the oldest at `next`.
        private var sent: [ContinuousClock.Instant] = []
        private var next = 0
        private var isFirst = true

        init(_ load: EchoLoad, _ payload: [UInt8]) {
            self.load = load
            self.payload = payload
        }

        func opened(_ socket: WebSocket) { load.opened(socket) }

        func fill(_ socket: WebSocket, depth: Int) {
            sent = Array(repeating: .now, count: depth)
            for _ in 0..<depth { load.send(payload, on: socket) }
        }

        func received(_ message: Message, on socket: WebSocket) {
            guard !sent.isEmpty else {
                return load.abort(RuntimeFailure("\(load.target) sent a message before it received one: it is not an echo server"))
            }
            let now = ContinuousClock.now
            load.echoed(message, of: payload, isFirst: isFirst, after: now - sent[next])
            isFirst = false
            sent[next] = now
            next = next + 1 == sent.count ? 0 : next + 1
            if load.isMeasuring { load.send(payload, on: socket) }
        }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
            let ending = "closed with \(code.rawValue) \(reason)"
            if sent.isEmpty, load.isMeasuring { load.abort(RuntimeFailure("a connection was \(ending) before all were open")) }
            load.fail(ending)
        }
    }
}

/// An error while a command runs.
struct RuntimeFailure: Error, CustomStringConvertible {
    let description: String
    /// The exit status.
    let status: Int32

    init(_ description: String, _ status: Int32 = 1) {
        self.description = description
        self.status = status
    }
}
