import Apus
import Histogram

/// The load of `apus bench fanout`: subscribers that each receive the messages of one publisher.
final class FanoutLoad: Load {
    static let unit = "delivery"
    private let target: String
    private let client: ClientOptions
    private let subscribers: Int
    private let depth: Int
    /// The time between a publication's last delivery and the next publication.
    private let pause: Duration
    private let worker: Worker
    private let payload: [UInt8]
    private var sockets: [WebSocket] = []
    private var publisher: WebSocket?
    private var isMeasuring = true
    /// Publications in flight, oldest first: when each was sent, and how many subscribers have not
    /// received it.
    private var pending: [(sent: ContinuousClock.Instant, left: Int)] = []
    private var firstPending = 0
    /// Why the measurement is invalid.
    private var abortReason: RuntimeFailure?

    private(set) var count = 0
    private(set) var failures = 0
    private(set) var firstFailure: String?
    /// Nanoseconds from passing a publication to the library to its delivery to the last
    /// subscriber.
    private(set) var latencies = Histogram<UInt64>(highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)

    init(target: String, client: ClientOptions, subscribers: Int, size: Int, depth: Int, pause: Duration) throws {
        self.target = target
        self.client = client
        self.subscribers = subscribers
        self.depth = depth
        self.pause = pause
        payload = (0..<size).map { UInt8(ascii: "a") + UInt8($0 % 26) }
        worker = try Worker(Server())
    }

    /// Opens the subscribers and then the publisher, which is subscribed too, like every client of
    /// a broadcasting path.
    func connect(progress: (Int) -> Void) throws {
        try worker.openAll(count: subscribers + 1, opened: { self.sockets.count }, failure: { self.abortReason }, progress: progress) {
            self.worker.connect(to: self.target, options: self.client) { _ in
                Client(self)
            } failed: { [unowned self] error in
                abort(RuntimeFailure("cannot connect: \(error)", ClientExit.status(error)))
            }
        }
        publisher = sockets.last
        for _ in 0..<depth { publish() }
    }

    func run(for seconds: Double, progress: (Double) -> Void) throws -> Double {
        try worker.serve(for: seconds, failure: { self.abortReason }, progress: progress)
    }

    var nothingMeasured: String? {
        if firstPending > 0, count > 0 { return nil }
        return firstFailure
            ?? "no message reached all \(sockets.count) connections: \(target) does not broadcast the messages of a client, or is very slow"
    }

    func reset() {
        count = 0
        latencies.reset()
    }

    func close() {
        isMeasuring = false
        worker.closeAll(sockets)
    }

    private func publish() {
        pending.append((.now, sockets.count))
        publisher?.send(payload, as: .text)
    }

    /// - Parameter index: the number of publications that this subscriber has received before.
    private func delivered(_ index: Int, _ message: Message) {
        let position = index - firstPending
        guard message.payload.byteCount == payload.count, position < pending.count else {
            return abort(RuntimeFailure("received a message that was not sent here: \(target) sends more than the messages of one client"))
        }
        count += 1
        if count % 1024 == 0 && message.bytes != payload { fail("a delivery differs from its message") }
        guard position >= 0 else { return fail("a publication was delivered twice") }
        pending[position].left -= 1
        guard pending[position].left == 0 else { return }
        latencies.record(UInt64((ContinuousClock.now - pending[position].sent) / .nanoseconds(1)))
        while let first = pending.first, first.left == 0 {
            pending.removeFirst()
            firstPending += 1
        }
        guard isMeasuring else { return }
        if pause == .zero { return publish() }
        worker.schedule(after: pause) { [unowned self] in if isMeasuring { publish() } }
    }

    private func abort(_ failure: RuntimeFailure) { abortReason = abortReason ?? failure }

    private func fail(_ reason: String) {
        guard isMeasuring else { return }
        failures += 1
        firstFailure = firstFailure ?? reason
    }

    /// One subscriber. Publications are identified by their number: all come from one sender, so in
    /// order.
    private final class Client: WebSocketHandler {
        private unowned let load: FanoutLoad
        private var count = 0

        init(_ load: FanoutLoad) { self.load = load }

        func opened(_ socket: WebSocket) { load.sockets.append(socket) }

        func received(_ message: Message, on socket: WebSocket) {
            load.delivered(count, message)
            count += 1
        }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
            let ending = "closed with \(code.rawValue) \(reason)"
            if load.publisher == nil, load.isMeasuring { load.abort(RuntimeFailure("a connection was \(ending) before all were open")) }
            load.fail(ending)
        }
    }
}
