import ApusBus
import ApusCodec
import ApusPlatform
import Logging

/// Whom a call is for.
public enum Scope: Sendable, Hashable {
    /// The connections of this worker.
    case worker
    /// The connections of all workers.
    case allWorkers
}

// What reaches every connection of a protocol, or every subscriber of a topic, on every worker.
//
// Order: what one worker publishes or signals reaches a connection in the order it was said; nothing is ordered between workers. Delivery: at
// most once, to those who were there when it was said; what does not fit a stopped worker's mailbox and the outbox behind it is dropped,
// counted, and told to that worker's connections by `missed`. Requests to write or to resume carry no data: they coalesce and are never lost.
//
// The protocol of a client's connection (`socket.webSocketProtocol`) stands for this worker's client connections that agreed on the same
// subprotocol, whatever the scope.
extension Context {
    /// Asks every connection that uses the protocol to write: each handler's `writable` is called once nothing is buffered, once for any number
    /// of requests before it (libwebsockets' `lws_callback_on_writable_all_protocol`).
    public func requestWritable(all webSocketProtocol: WebSocketProtocol, scope: Scope = .allWorkers) {
        request(.writable, webSocketProtocol.id, scope)
    }

    /// Resumes every paused connection that uses the protocol (libwebsockets' `lws_rx_flow_allow_all_protocol`). Other workers do so at their next
    /// turn; a connection that pauses after its worker has heard stays paused.
    public func resumeReceiving(all webSocketProtocol: WebSocketProtocol, scope: Scope = .allWorkers) {
        request(.resume, webSocketProtocol.id, scope)
    }

    /// Calls the handler's `signaled` of every connection that uses the protocol: of this worker before this returns, of others at their next turn
    /// (libwebsockets' `lws_callback_all_protocol`).
    public func signal(
        all webSocketProtocol: WebSocketProtocol, _ signal: UInt32, payload: [UInt8] = [], scope: Scope = .allWorkers
    ) {
        self.signal(all: webSocketProtocol.id, signal, payload: payload, scope: scope)
    }

    private func signal(all id: WebSocketProtocol.ID, _ signal: UInt32, payload: [UInt8], scope: Scope) {
        deliver(signal, payload, to: id)
        if scope == .allWorkers, id.client == nil { bus?.signal(protocolIndex: id.index, signal, payload: payload.rawSpan) }
    }

    /// Sends a message to all who have subscribed to `topic` by now, on all workers. Those of this worker get it at the end of the loop's turn,
    /// or before anything that is sent to them later in it; until then it does not count as buffered.
    ///
    /// - Parameter topic: at most 65,535 bytes of UTF-8. Topics are compared byte by byte: two spellings of one character are two topics.
    /// - Parameter excluding: a connection of this worker that shall not get it, such as the sender.
    public func publish(
        _ payload: borrowing RawSpan, as kind: MessageKind, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers
    ) {
        let payload = copy payload
        topic.withRawSpan { name in publish(payload, kind, name, excluding, scope) }
    }

    /// Sends a message whose bytes are in an array.
    public func publish(
        _ payload: [UInt8], as kind: MessageKind, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers
    ) {
        publish(payload.rawSpan, as: kind, to: topic, excluding: excluding, scope: scope)
    }

    /// Publishes a message that is being delivered.
    public func publish(_ message: Message, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers) {
        publish(message.payload, as: message.kind, to: topic, excluding: excluding, scope: scope)
    }

    private func publish(_ payload: RawSpan, _ kind: MessageKind, _ name: RawSpan, _ excluding: WebSocket?, _ scope: Scope) {
        guard name.byteCount <= Topic.maxNameBytes else {
            return logger.error("a publication to a topic of \(name.byteCount) bytes was dropped: it may have \(Topic.maxNameBytes)")
        }
        let hash = TopicHash.of(name)
        publishHere(payload, kind, name, hash, excluding)
        if scope == .allWorkers { bus?.publish(topic: name, hash: hash, isText: kind == .text, payload: payload) }
    }

    /// Does what other threads asked for.
    func serveRemote() {
        guard let remoteIfAsked else { return }
        for command in remoteIfAsked.take() {
            switch command {
            case .publish(let payload, let kind, let topic): publish(payload, as: kind, to: topic)
            case .signal(let id, let number, let payload): signal(all: id, number, payload: payload, scope: .allWorkers)
            case .requestWritable(let id): request(.writable, id, .allWorkers)
            case .resumeReceiving(let id): request(.resume, id, .allWorkers)
            }
        }
    }

    // MARK: This worker

    private func request(_ request: InterestTable.Request, _ id: WebSocketProtocol.ID, _ scope: Scope) {
        guard id.client == nil else {
            if pendingClientRequests.isEmpty { schedule(after: .zero) { [unowned self] in serveClientRequests() } }
            pendingClientRequests.insert(ClientRequest(request: request, id: id))
            return
        }
        requested(request, 1 << UInt64(id.index))
        if scope == .allWorkers { bus?.request(request, protocolIndex: id.index) }
    }

    /// Notes requests for protocols, given as bits; `serveRequests` acts on them once, however many there were.
    func requested(_ request: InterestTable.Request, _ bits: UInt64) {
        switch request {
        case .writable: pendingRequests.writable |= bits
        case .resume: pendingRequests.resume |= bits
        }
    }

    func serveRequests() {
        let pending = pendingRequests
        pendingRequests = (0, 0)
        for socket in openWebSockets() {
            let bit: UInt64 = 1 << UInt64(socket.webSocketProtocol.id.index)
            if pending.resume & bit != 0 { socket.resumeReceiving() }
            if pending.writable & bit != 0 { socket.requestWritable() }
        }
    }

    private func serveClientRequests() {
        let pending = pendingClientRequests
        pendingClientRequests = []
        for asked in pending {
            for socket in openWebSockets(of: asked.id) {
                switch asked.request {
                case .writable: socket.requestWritable()
                case .resume: socket.resumeReceiving()
                }
            }
        }
    }

    private func deliver(_ signal: UInt32, _ payload: [UInt8], to id: WebSocketProtocol.ID) {
        for socket in openWebSockets(of: id) where socket.isOpen {
            if let connection = socket.connection { serving(connection, .signal, route: socket.webSocketProtocol.number) }
            socket.handler.signaled(signal, payload: payload, on: socket)
        }
    }

    private func publishHere(_ payload: RawSpan, _ kind: MessageKind, _ name: RawSpan, _ hash: UInt32, _ excluding: WebSocket?) {
        let matching = topics.matching(name, hash)
        guard matching.first != nil else { return }
        publications.add(payload, as: kind, to: matching, excluding: excluding)
        hasPublications = true
        if publications.isFull { deliverPublications(isLast: false) }
    }

    /// Something is about to be sent to a subscriber, or its subscriptions are about to change: what was published comes first.
    func deliverPublications(before socket: WebSocket) {
        if !socket.subscriptions.isEmpty { deliverPublications(isLast: false) }
    }

    /// Hands this turn's publications to the connections. Who subscribed to several topics that match gets each once.
    ///
    /// - Parameter isLast: the turn ends: what can leave at once does.
    func deliverPublications(isLast: Bool) {
        // What a handler publishes because it misses something comes after what is being delivered.
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        hasPublications = false
        let runs = publications.take()
        for run in runs {
            if let topic = run.topics.first, run.topics.others.isEmpty {
                let isLastOfTopic = isLast && topic.lastRun == run.number
                for socket in topic.subscribers {
                    socket.deliver(run, atOnce: isLastOfTopic && (runs.count == 1 || socket.subscriptions.count == 1))
                }
            } else {
                for socket in receivers(of: run) { socket.deliver(run, atOnce: isLast && runs.count == 1) }
            }
        }
    }

    /// All are found before any is told, because a handler that misses this run may publish another.
    private func receivers(of run: PublicationRun) -> [WebSocket] {
        var receivers: [WebSocket] = []
        for topic in [run.topics.first].compactMap(\.self) + run.topics.others {
            for socket in topic.subscribers where !socket.runMark.has(.receives, in: run.number) {
                socket.runMark.set(.receives, in: run.number)
                receivers.append(socket)
            }
        }
        return receivers
    }

    // MARK: Other workers

    /// What other processes say.
    func makeBus(_ mailboxes: Mailboxes, _ interest: InterestTable) throws(SystemError) -> BroadcastBus {
        try BroadcastBus(
            // The bus counts from 1: 0 is a place that nobody has.
            place: mailbox, generation: worker.generation + 1, mailboxes: mailboxes, interest: interest, loop: loop,
            handlers: .init(
                received: { [unowned self] record in
                    switch record {
                    case .publication(let topic, let hash, let isText, let payload):
                        publishHere(payload, isText ? .text : .binary, topic, hash, nil)
                    case .signal(let index, let signal, let payload):
                        deliver(signal, payload.copied, to: WebSocketProtocol.ID(index: Int(index)))
                    case .part: preconditionFailure("the bus puts parts together")
                    }
                },
                gap: { [unowned self] sender, lost in
                    logger.warning(
                        "worker \(worker.slot) did not read in time: \(lost) records of \(Self.name(ofSender: sender)) were dropped")
                    if hasPublications { deliverPublications(isLast: false) }
                    for socket in openWebSockets() { socket.handler.missed(lost, on: socket) }
                },
                requested: { [unowned self] request, bits in requested(request, bits) },
                takesMore: { [unowned self] in takesMore(isContinued: $0) }, disturbed: { [unowned self] in logger.error(message(for: $0)) }
            ))
    }

    private func message(for disturbance: BroadcastBus.Disturbance) -> Logger.Message {
        let (me, others) = ("worker \(worker.slot)", "what other workers publish and signal")
        return switch disturbance {
        case .placeTaken(let process): "\(me) does not hear \(others): its place is said to be another's (\(process)); it looks again"
        case .placeReturned: "\(me) hears again \(others); what they did meanwhile is lost"
        case .mailboxShut: "\(me) does not hear \(others): its mailbox has been shut down; a reload (HUP) makes new ones"
        }
    }

    private static func name(ofSender place: Int) -> String {
        place == Packet.outsider ? "the master" : "worker \(place / Mailboxes.placesPerSlot)"
    }

    /// A connection has more waiting than it takes in a turn.
    func noteBehind(_ connection: Connection) {
        guard bus != nil, !connection.isBehind, connection.bufferedBytes > limits.maxBufferedBytes / 2 else { return }
        connection.isBehind = true
        behind.connections.append(connection)
    }

    /// Nothing waits for the connection any more.
    func caughtUp(_ connection: Connection) {
        guard connection.isBehind else { return }
        connection.isBehind = false
        behind.connections.removeAll { $0 === connection }
    }

    /// Whether other workers' mail may go on to be read. When there is more of it than a turn takes, as after this worker was stopped, its
    /// subscribers are given a moment to take what they have: they shall not be closed as slow ones because their worker was.
    ///
    /// - Parameter isContinued: the mailbox has not been empty since this was last asked. The moment is given once until it is.
    private func takesMore(isContinued: Bool) -> Bool {
        if !isContinued { behind.since = nil }
        behind.connections.removeAll { connection in
            connection.isBehind = connection.bufferedBytes > limits.maxBufferedBytes / 2
            return !connection.isBehind
        }
        if behind.connections.isEmpty { return true }
        let since = behind.since ?? loop.now
        behind.since = since
        return loop.now.millisecondsSince(since) >= Self.patienceForSubscribers.wholeMilliseconds
    }

    private static let patienceForSubscribers = Duration.milliseconds(500)
}

extension WebSocket {
    /// Subscribes to a topic: an exact name, or a pattern that ends in `/#` and matches what stands before it and everything beneath; `#` matches
    /// all. Names are compared byte by byte. Ends with the connection.
    ///
    /// - Returns: false if the connection has ended or has `Limits.maxSubscriptions` already, or the topic has more than 65,535 bytes.
    @discardableResult
    public func subscribe(to topic: String) -> Bool {
        guard connection != nil, subscriptions.count < context.limits.maxSubscriptions, topic.utf8.count <= Topic.maxNameBytes else {
            return false
        }
        context.subscribe(self, to: topic)
        return true
    }

    /// Takes a subscription back; no effect if there is none.
    public func unsubscribe(from topic: String) { context.unsubscribe(self, from: topic) }

    /// Sends a message to all who subscribed to `topic`, on all workers, but not to this connection.
    public func publish(_ payload: [UInt8], as kind: MessageKind, to topic: String) {
        context.publish(payload, as: kind, to: topic, excluding: self)
    }

    /// Publications have come.
    ///
    /// - Parameter atOnce: nothing more will come in this turn.
    @inline(__always)
    func deliver(_ run: PublicationRun, atOnce: Bool) {
        guard case .open = state, let connection else { return }
        guard extensions == nil, !isSendingFragments, !run.excludes(self), role == .server, connection.bufferedBytes <= admittedBytes
        else { return deliverWithCare(run, connection) }
        if atOnce { connection.send(run.frames) } else { connection.write(run.frames) }
        if connection.bufferedBytes > 0 { context.noteBehind(connection) }
    }

    private func deliverWithCare(_ run: PublicationRun, _ connection: Connection) {
        if !isSendingFragments, !run.excludes(self), role == .server, connection.bufferedBytes <= admittedBytes, let extensions,
            let frames = run.frames(for: extensions)
        {
            connection.write(frames)
            return context.noteBehind(connection)
        }
        for index in 0..<run.count where !run.excludes(self, from: index) { deliver(run.message(index)) }
    }

    /// A publication has come.
    func deliver(_ message: EncodedMessage) {
        guard let connection else { return }
        if context.limits.slowSubscribers == .skip, !admitsMore(through: connection) {
            handler.missed(1, on: self)
        } else if isSendingFragments {
            // It waits for the end of the message that is being sent.
            if rareState.deferred.count < Self.maxDeferred {
                rareState.deferred.append(message)
            } else if context.limits.slowSubscribers == .skip {
                handler.missed(1, on: self)
            } else {
                _ = refuseSlowConsumer()
            }
        } else {
            send(message)
            context.noteBehind(connection)
        }
    }

    /// Publications that wait for the end of a message in fragments.
    private static let maxDeferred = 1024
}

extension Context {
    func subscribe(_ socket: WebSocket, to text: String) {
        // What was published before is not for it.
        if hasPublications { deliverPublications(isLast: false) }
        guard let topic = topics.add(socket, to: text) else { return }
        countInterest(1, topic)
    }

    func unsubscribe(_ socket: WebSocket, from text: String) {
        if hasPublications { deliverPublications(before: socket) }
        guard let topic = topics.remove(socket, from: text) else { return }
        countInterest(-1, topic)
    }

    /// A WebSocket has opened (1) or ended (-1).
    func count(_ change: Int, _ socket: WebSocket) {
        if change < 0 { for topic in topics.removeAll(of: socket) { countInterest(-1, topic) } }
        // Client connections have protocols of their own, which no worker shares.
        guard socket.role == .server else { return }
        bus?.count(change, .connections(protocolIndex: socket.webSocketProtocol.id.index))
    }

    private func countInterest(_ change: Int, _ topic: Topic) {
        switch topic.kind {
        case .exact: bus?.count(change, .topic(hash: topic.hash))
        case .pattern, .everything: bus?.count(change, .pattern)
        }
    }
}

/// What the client connections of a protocol are asked to do, once for any number of times that it was asked.
struct ClientRequest: Hashable {
    let request: InterestTable.Request
    let id: WebSocketProtocol.ID
}
