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
// most once; what does not fit a stopped worker's mailbox and the outbox behind it is dropped, counted, and told to that worker's subscribers
// by `missed`. Requests to write or to resume carry no data: they coalesce and are never lost.
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
        if scope == .allWorkers { bus?.signal(protocolIndex: id.index, signal, payload: payload) }
    }

    /// Sends a message to all who subscribed to `topic`, on all workers. Connections of this worker have it queued when this returns.
    ///
    /// - Parameter excluding: a connection of this worker that shall not get it, such as the sender.
    public func publish(
        _ payload: [UInt8], as kind: MessageKind, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers
    ) {
        guard topic.utf8.count <= Topic.maxNameBytes else {
            return logger.error("a publication to a topic of \(topic.utf8.count) bytes was dropped: it may have \(Topic.maxNameBytes)")
        }
        deliver(EncodedMessage(payload, as: kind), to: topic, excluding: excluding)
        if scope == .allWorkers { bus?.publish(topic: Array(topic.utf8), isText: kind == .text, payload: payload) }
    }

    /// Publishes a message that is being delivered.
    public func publish(_ message: Message, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers) {
        publish(message.bytes, as: message.kind, to: topic, excluding: excluding, scope: scope)
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

    private func deliver(_ signal: UInt32, _ payload: [UInt8], to id: WebSocketProtocol.ID) {
        for socket in openWebSockets() where socket.webSocketProtocol.id == id && socket.isOpen {
            socket.handler.signaled(signal, payload: payload, on: socket)
        }
    }

    /// Queues a publication for this worker's subscribers. Who subscribed to several matching topics gets it once.
    private func deliver(_ message: EncodedMessage, to name: String, excluding: WebSocket?) {
        let matching = topics.matching(name)
        if matching.count == 1 {
            for socket in matching[0].subscribers where socket !== excluding { socket.deliver(message) }
            return
        }
        // All are found before any is told, because a handler that misses this one may publish another.
        publications &+= 1
        var receivers: [WebSocket] = []
        for topic in matching {
            for socket in topic.subscribers where socket !== excluding && socket.lastPublication != publications {
                socket.lastPublication = publications
                receivers.append(socket)
            }
        }
        for socket in receivers { socket.deliver(message) }
    }

    // MARK: Other workers

    /// What other processes say.
    func makeBus(_ mailboxes: Mailboxes, _ interest: InterestTable) throws(SystemError) -> BroadcastBus {
        try BroadcastBus(
            slot: worker.slot, mailboxes: mailboxes, interest: interest, loop: loop,
            handlers: .init(
                received: { [unowned self] record in
                    switch record {
                    case .publication(let topic, let isText, let payload):
                        let message = EncodedMessage(payload, as: isText ? .text : .binary)
                        deliver(message, to: String(decoding: topic, as: UTF8.self), excluding: nil)
                    case .signal(let index, let signal, let payload):
                        deliver(signal, payload, to: WebSocketProtocol.ID(index: Int(index)))
                    case .part: preconditionFailure("the bus puts parts together")
                    }
                },
                gap: { [unowned self] sender, lost in
                    logger.warning("\(lost) records of worker \(sender) were dropped while this worker did not read")
                    for socket in openWebSockets() where !socket.subscriptions.isEmpty { socket.handler.missed(lost, on: socket) }
                },
                requested: { [unowned self] request, bits in requested(request, bits) }))
    }
}

extension WebSocket {
    /// Subscribes to a topic: an exact name, or a pattern that ends in `/#` and matches what stands before it and everything beneath; `#` matches
    /// all. Ends with the connection.
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

    /// A publication has come.
    func deliver(_ message: EncodedMessage) {
        guard let connection else { return }
        if connection.bufferedBytes > context.limits.maxBufferedBytes, context.limits.slowSubscribers == .skip {
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
        }
    }

    /// Publications that wait for the end of a message in fragments.
    private static let maxDeferred = 1024
}

extension Context {
    func subscribe(_ socket: WebSocket, to text: String) {
        guard let topic = topics.add(socket, to: text) else { return }
        countInterest(1, topic)
    }

    func unsubscribe(_ socket: WebSocket, from text: String) {
        guard let topic = topics.remove(socket, from: text) else { return }
        countInterest(-1, topic)
    }

    /// A WebSocket has opened (1) or ended (-1).
    func count(_ change: Int, _ socket: WebSocket) {
        if change < 0 { for topic in topics.removeAll(of: socket) { countInterest(-1, topic) } }
        // Client connections have protocols of their own, which no worker shares.
        if socket.role == .server { bus?.interest.count(change, protocolIndex: socket.webSocketProtocol.id.index, in: worker.slot) }
    }

    private func countInterest(_ change: Int, _ topic: Topic) {
        guard let interest = bus?.interest else { return }
        if topic.isPattern {
            interest.countPattern(change, in: worker.slot)
        } else {
            interest.count(change, topicHash: InterestTable.hash(Array(topic.name.utf8)), in: worker.slot)
        }
    }
}
