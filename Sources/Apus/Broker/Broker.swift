import ApusBus
import ApusCodec
import ApusPlatform
import Logging

/// Publish, signal and request across workers: this worker's topics, the publications of the
/// current turn, and the bus to the other workers.
///
/// Order: a connection receives one worker's publications and signals in the order sent; there is
/// no order between workers. Delivery: at most once, to current subscribers. What fits neither a
/// stopped worker's mailbox nor the outbox is dropped, counted, and reported to that worker's
/// connections by `missed`. Requests to write or resume carry no data: they coalesce and are never
/// lost.
final class Broker {
    private let table: ConnectionTable
    private let limits: Limits
    private let loop: EventLoop
    private let logger: Logger
    private let slot: Int
    /// Calls a handler's `signaled`.
    private let signaled: (WebSocket, UInt32, [UInt8]) -> Void
    /// The other workers; nil in a process without any.
    private var bus: BroadcastBus?
    private var topics = TopicTable()
    /// Published in this turn and not delivered yet.
    private var publications: Publications
    /// Whether `publications` has any: a separate flag, because every send reads it.
    private(set) var hasPublications = false
    private var isDelivering = false
    /// Streams with so much buffered output that reading the mailbox is suspended.
    private var slow: [ByteStream] = []
    /// How long it was suspended, and when that was last counted.
    private var suspension: (milliseconds: UInt64, counted: MonotonicTime)?
    /// One bit per subprotocol whose connections are to call `writable`, or to resume receiving.
    private var requests: (writable: UInt64, resume: UInt64) = (0, 0)
    /// Whether there are any.
    private(set) var hasRequests = false
    private var clientRequests: Set<ClientRequest> = []
    private let clientRequestTimer = ClosureTimer()

    /// A pending request to the client connections of a subprotocol; repeated requests coalesce.
    private struct ClientRequest: Hashable {
        let request: InterestTable.Request
        let id: WebSocketProtocol.ID
    }

    /// How long slow subscribers may suspend reading the mailbox.
    private static let slowSubscriberTime = Duration.milliseconds(500)
    /// The most that one look at the clock adds to that time: a stopped worker's subscribers could
    /// not read meanwhile.
    private static let maxSuspensionStep = Duration.milliseconds(50)

    init(
        table: ConnectionTable, memory: MemoryAccounts, limits: Limits, loop: EventLoop, logger: Logger, slot: Int,
        signaled: @escaping (WebSocket, UInt32, [UInt8]) -> Void
    ) {
        self.table = table
        self.limits = limits
        self.loop = loop
        self.logger = logger
        self.slot = slot
        self.signaled = signaled
        publications = Publications(in: memory.pool)
        clientRequestTimer.body = { [unowned self] _, _ in serveClientRequests() }
    }

    deinit { loop.cancel(clientRequestTimer) }

    // MARK: Turn

    /// Whether deferred work exists, so that the next turn must not wait.
    var hasWork: Bool { hasPublications || hasRequests }

    /// Executes the requests made since the last turn.
    func serveRequests() {
        hasRequests = false
        let pending = requests
        requests = (0, 0)
        for socket in table.servedWebSockets {
            let bit: UInt64 = 1 << UInt64(socket.webSocketProtocol.id.index)
            if pending.resume & bit != 0 { socket.resumeReceiving() }
            if pending.writable & bit != 0 { socket.requestWritable() }
        }
    }

    /// Delivers this turn's publications.
    func endTurn() { deliverPublications(isLast: true) }

    /// Sends what the outbox holds for other workers.
    func flush() { bus?.flush() }

    // MARK: Publishing

    func publish(_ payload: RawSpan, _ kind: MessageKind, _ name: RawSpan, _ excluding: WebSocket?, _ scope: Scope) {
        guard name.byteCount <= Topic.maxNameBytes else {
            return logger.error("a publication was dropped: expected a topic of at most \(Topic.maxNameBytes) bytes, got \(name.byteCount)")
        }
        let hash = TopicHash.of(name)
        publishHere(payload, kind, name, hash, excluding)
        if scope == .allWorkers { bus?.publish(topic: name, hash: hash, isText: kind == .text, payload: payload) }
    }

    func signal(all id: WebSocketProtocol.ID, _ signal: UInt32, payload: [UInt8], scope: Scope) {
        deliver(signal, payload, to: id)
        if scope == .allWorkers, id.client == nil { bus?.signal(protocolIndex: id.index, signal, payload: payload.rawSpan) }
    }

    func request(_ request: InterestTable.Request, _ id: WebSocketProtocol.ID, _ scope: Scope) {
        guard id.client == nil else {
            if clientRequests.isEmpty { loop.schedule(clientRequestTimer, after: .zero) }
            clientRequests.insert(ClientRequest(request: request, id: id))
            return
        }
        note(request, 1 << UInt64(id.index))
        if scope == .allWorkers { bus?.request(request, protocolIndex: id.index) }
    }

    /// Records requests for subprotocols, one bit each; `serveRequests` executes them once.
    private func note(_ request: InterestTable.Request, _ bits: UInt64) {
        hasRequests = true
        switch request {
        case .writable: requests.writable |= bits
        case .resume: requests.resume |= bits
        }
    }

    private func serveClientRequests() {
        let pending = clientRequests
        clientRequests = []
        for asked in pending {
            for socket in table.openWebSockets(of: asked.id) {
                switch asked.request {
                case .writable: socket.requestWritable()
                case .resume: socket.resumeReceiving()
                }
            }
        }
    }

    private func deliver(_ signal: UInt32, _ payload: [UInt8], to id: WebSocketProtocol.ID) {
        for socket in table.openWebSockets(of: id) where socket.isOpen { signaled(socket, signal, payload) }
    }

    private func publishHere(_ payload: RawSpan, _ kind: MessageKind, _ name: RawSpan, _ hash: UInt32, _ excluding: WebSocket?) {
        let matching = topics.matching(name, hash)
        guard matching.first != nil else { return }
        publications.add(payload, as: kind, to: matching, excluding: excluding)
        hasPublications = true
        if publications.isFull { deliverPublications(isLast: false) }
    }

    /// Delivers publications before other output to a subscriber, and before its subscriptions
    /// change.
    func deliverPublications(before subscriber: some TopicSubscriber) {
        if subscriber.membership?.subscriptions.isEmpty == false { deliverPublications(isLast: false) }
    }

    /// Delivers this turn's publications. A connection with several matching subscriptions gets
    /// each publication once.
    ///
    /// - Parameter isLast: true at the end of the turn: output is sent at once where possible.
    private func deliverPublications(isLast: Bool) {
        // A handler that publishes in `missed` does so behind the current delivery.
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        hasPublications = false
        let runs = publications.take()
        for run in runs {
            if let topic = run.topics.first, run.topics.others.isEmpty {
                let isLastOfTopic = isLast && topic.lastRun == run.number
                for socket in topic.subscribers {
                    run.deliver(to: socket, atOnce: isLastOfTopic && (runs.count == 1 || socket.membership?.subscriptions.count == 1))
                }
                if !topic.exchanges.isEmpty { for exchange in topic.exchanges { exchange.deliver(run) } }
            } else {
                for exchange in exchanges(of: run) { exchange.deliver(run) }
                for socket in receivers(of: run) { run.deliver(to: socket, atOnce: isLast && runs.count == 1) }
            }
        }
    }

    /// Collect all receivers first: a handler's `missed` may publish another run.
    private func receivers(of run: PublicationRun) -> [WebSocket] {
        var receivers: [WebSocket] = []
        for topic in [run.topics.first].compactMap(\.self) + run.topics.others {
            for socket in topic.subscribers where socket.membership?.set(.receives, in: run.number) == true {
                receivers.append(socket)
            }
        }
        return receivers
    }

    /// The exchanges that receive a run by any of its topics, each once.
    private func exchanges(of run: PublicationRun) -> [HTTPExchange] {
        var receivers: [HTTPExchange] = []
        for topic in [run.topics.first].compactMap(\.self) + run.topics.others {
            for exchange in topic.exchanges where exchange.membership?.set(.receives, in: run.number) == true { receivers.append(exchange) }
        }
        return receivers
    }

    // MARK: Subscriptions

    func subscribe(_ subscriber: some TopicSubscriber, to text: String) {
        // Earlier publications are not for the new subscriber.
        if hasPublications { deliverPublications(isLast: false) }
        guard let topic = topics.add(subscriber, to: text) else { return }
        countInterest(1, topic)
    }

    func unsubscribe(_ subscriber: some TopicSubscriber, from text: String) {
        if hasPublications { deliverPublications(before: subscriber) }
        guard let topic = topics.remove(subscriber, from: text) else { return }
        countInterest(-1, topic)
    }

    /// Removes all subscriptions of one that has ended.
    func unsubscribe(_ subscriber: some TopicSubscriber) {
        for topic in topics.removeAll(of: subscriber) { countInterest(-1, topic) }
    }

    func opened(_ socket: WebSocket) { count(1, socket) }

    func ended(_ socket: WebSocket) {
        unsubscribe(socket)
        count(-1, socket)
    }

    private func count(_ change: Int, _ socket: WebSocket) {
        // Subprotocols of client connections are local to their worker.
        guard socket.role == .server else { return }
        bus?.count(change, .connections(protocolIndex: socket.webSocketProtocol.id.index))
    }

    private func countInterest(_ change: Int, _ topic: Topic) {
        switch topic.kind {
        case .exact: bus?.count(change, .topic(hash: topic.hash))
        case .pattern, .everything: bus?.count(change, .pattern)
        }
    }

    // MARK: Other workers

    /// Joins the bus of the server's workers.
    func join(_ mailboxes: Mailboxes, _ interest: InterestTable, at mailbox: Int, generation: Int) throws(SystemError) {
        bus = try BroadcastBus(
            // Generations on the bus start at 1; 0 marks a mailbox without an owner.
            place: mailbox, generation: generation + 1, mailboxes: mailboxes, interest: interest, loop: loop,
            handlers: .init(
                received: { [unowned self] record in
                    switch record {
                    case .publication(let topic, let hash, let isText, let payload):
                        publishHere(payload, isText ? .text : .binary, topic, hash, nil)
                    case .signal(let index, let signal, let payload):
                        deliver(signal, payload.copied, to: WebSocketProtocol.ID(index: Int(index)))
                    case .part: preconditionFailure("records are reassembled by the bus")
                    }
                },
                gap: { [unowned self] sender, lost in
                    logger.warning("worker \(slot) did not read in time: \(lost) records of \(Self.name(ofSender: sender)) were dropped")
                    if hasPublications { deliverPublications(isLast: false) }
                    for socket in table.servedWebSockets { socket.handler.missed(lost, on: socket) }
                },
                requested: { [unowned self] request, bits in note(request, bits) },
                takesMore: { [unowned self] in takesMore(isContinued: $0) }, disturbed: { [unowned self] in logger.error(message(for: $0)) }
            ))
    }

    private func message(for disturbance: BroadcastBus.Disturbance) -> Logger.Message {
        let (me, others) = ("worker \(slot)", "publications and signals of other workers")
        return switch disturbance {
        case .placeTaken(let process):
            "\(me) does not receive \(others): its mailbox is owned by another process (\(process)); checking again"
        case .placeReturned: "\(me) receives \(others) again; those sent meanwhile are lost"
        case .mailboxShut: "\(me) does not receive \(others): its mailbox was shut down; a reload (SIGHUP) creates new ones"
        }
    }

    private static func name(ofSender place: Int) -> String {
        place == Packet.externalSender ? "the master" : "worker \(place / Mailboxes.placesPerSlot)"
    }

    // MARK: Slow connections

    /// Called when a connection may have more output buffered than it sends in a turn.
    func noteSlow(_ stream: ByteStream) {
        guard bus != nil, !stream.isSlow, stream.bufferedBytes > limits.maxBufferedBytes / 2 else { return }
        stream.isSlow = true
        slow.append(stream)
    }

    /// Called when the connection has no buffered output.
    func caughtUp(_ stream: ByteStream) {
        guard stream.isSlow else { return }
        stream.isSlow = false
        slow.removeAll { $0 === stream }
    }

    /// Whether to read more of the mailbox. With a backlog, as after this worker was stopped,
    /// reading is suspended for a moment while subscribers read their output: they must not be
    /// closed as slow because their worker was.
    ///
    /// - Parameter isContinued: whether the mailbox has not been empty since the last call. The
    ///   suspension happens once until it is empty.
    private func takesMore(isContinued: Bool) -> Bool {
        if !isContinued { suspension = nil }
        slow.removeAll { stream in
            stream.isSlow = stream.bufferedBytes > limits.maxBufferedBytes / 2
            return !stream.isSlow
        }
        if slow.isEmpty { return true }
        let now = loop.currentTime
        let last = suspension ?? (0, now)
        let total = last.milliseconds + min(now.millisecondsSince(last.counted), Self.maxSuspensionStep.wholeMilliseconds)
        suspension = (total, now)
        return total >= Self.slowSubscriberTime.wholeMilliseconds
    }
}
