import Apus
import Histogram

/// The load of `apus bench fanout`: subscribers that each receive what one publisher sends to a broadcasting path.
final class FanoutLoad: Load {
    static let unit = "delivery"
    private let target: String
    private let client: ClientOptions
    private let subscribers: Int
    private let depth: Int
    /// Between a publication's last delivery and the next publication.
    private let pause: Duration
    private let context: Context
    private let payload: [UInt8]
    private var sockets: [WebSocket] = []
    private var publisher: WebSocket?
    private var isMeasuring = true
    /// Publications on their way, oldest first: when each was sent and how many subscribers it still has to reach.
    private var pending: [(sent: ContinuousClock.Instant, left: Int)] = []
    private var firstPending = 0
    /// What makes the measurement worthless.
    private var objection: RuntimeFailure?

    private(set) var count = 0
    private(set) var failures = 0
    private(set) var firstFailure: String?
    /// Nanoseconds from handing a publication to the library to its delivery to the last subscriber.
    private(set) var latencies = Histogram<UInt64>(highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)

    init(target: String, client: ClientOptions, subscribers: Int, size: Int, depth: Int, pause: Duration) throws {
        self.target = target
        self.client = client
        self.subscribers = subscribers
        self.depth = depth
        self.pause = pause
        payload = (0..<size).map { UInt8(ascii: "a") + UInt8($0 % 26) }
        context = try Context(Server())
    }

    /// Opens the subscribers and then the publisher, which subscribes too, as every client of a broadcasting path does.
    func connect(progress: (Int) -> Void) throws {
        try context.openAll(count: subscribers + 1, opened: { self.sockets.count }, failure: { self.objection }, progress: progress) {
            self.context.connect(to: self.target, options: self.client) { _ in
                Client(self)
            } failed: { [unowned self] error in
                object(RuntimeFailure("cannot connect: \(error)", ClientExit.status(error)))
            }
        }
        publisher = sockets.last
        for _ in 0..<depth { publish() }
    }

    func run(for seconds: Double, progress: (Double) -> Void) throws -> Double {
        try context.serve(for: seconds, failure: { self.objection }, progress: progress)
    }

    var nothingMeasured: String? {
        if firstPending > 0, count > 0 { return nil }
        return firstFailure
            ?? "no message reached all \(sockets.count) connections: \(target) does not send what one client says to all, or is very slow"
    }

    func reset() {
        count = 0
        latencies.reset()
    }

    func close() {
        isMeasuring = false
        context.closeAll(sockets)
    }

    private func publish() {
        pending.append((.now, sockets.count))
        publisher?.send(payload, as: .text)
    }

    /// `index` is how many publications this subscriber has had before.
    private func delivered(_ index: Int, _ message: Message) {
        let place = index - firstPending
        guard message.payload.byteCount == payload.count, place < pending.count else {
            return object(RuntimeFailure("a message came that was not sent here: \(target) sends more than what one client says"))
        }
        count += 1
        if count % 1024 == 0 && message.bytes != payload { fail("a delivery differs") }
        guard place >= 0 else { return fail("a publication came twice") }
        pending[place].left -= 1
        guard pending[place].left == 0 else { return }
        latencies.record(UInt64((ContinuousClock.now - pending[place].sent) / .nanoseconds(1)))
        while let first = pending.first, first.left == 0 {
            pending.removeFirst()
            firstPending += 1
        }
        guard isMeasuring else { return }
        if pause == .zero { return publish() }
        context.schedule(after: pause) { [unowned self] in if isMeasuring { publish() } }
    }

    private func object(_ failure: RuntimeFailure) { objection = objection ?? failure }

    private func fail(_ reason: String) {
        guard isMeasuring else { return }
        failures += 1
        firstFailure = firstFailure ?? reason
    }

    /// One subscriber. It knows a publication by its number: all come from one sender, so in order.
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
            let words = "closed with \(code.rawValue) \(reason)"
            if load.publisher == nil, load.isMeasuring { load.object(RuntimeFailure("a connection was \(words) before all were open")) }
            load.fail(words)
        }
    }
}
