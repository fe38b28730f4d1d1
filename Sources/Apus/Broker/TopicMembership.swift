/// What a subscriber keeps for its topics; others have none.
final class TopicMembership {
    private(set) var subscriptions: [Subscription] = []
    /// The last run of publications with an entry for this connection; see `PublicationRun`.
    private var mark = PublicationRun.Mark()
    /// Publications that arrived while a message was being sent in fragments.
    private var deferred: [EncodedMessage] = []

    /// Most publications queued until a message in fragments ends.
    private static let maxDeferred = 1024

    // MARK: Subscriptions

    /// The place of a topic among the subscriptions.
    func place(_ name: [UInt8], _ kind: Topic.Kind) -> Int? {
        subscriptions.firstIndex { $0.topic.kind == kind && $0.topic.name == name }
    }

    /// - Parameter index: among the topic's subscribers.
    func add(_ topic: Topic, at index: Int) { subscriptions.append(Subscription(topic: topic, index: index)) }

    func remove(at place: Int) -> Subscription { subscriptions.remove(at: place) }

    /// The index among the topic's subscribers has changed.
    func moved(in topic: Topic, to index: Int) {
        if let place = subscriptions.firstIndex(where: { $0.topic === topic }) { subscriptions[place].index = index }
    }

    // MARK: Runs

    func has(_ note: PublicationRun.Mark.Note, in run: Int) -> Bool { mark.has(note, in: run) }

    /// Notes something about a run.
    ///
    /// - Returns: false if it was noted already.
    @discardableResult
    func set(_ note: PublicationRun.Mark.Note, in run: Int) -> Bool {
        if mark.has(note, in: run) { return false }
        mark.set(note, in: run)
        return true
    }

    // MARK: Delivery

    /// Delivers a run to a connection that has extensions, is excluded from some of it, or cannot
    /// be sent all of it at once.
    func deliver(_ run: PublicationRun, to socket: WebSocket, on stream: ByteStream) {
        if !socket.wire.isSendingFragments, !run.excludes(socket), socket.role == .server, FrameWriter.hasRoom(on: stream),
            let extensions = socket.extensions, let frames = run.frames(for: extensions)
        {
            stream.write(frames)
            return socket.worker.broker.noteSlow(stream)
        }
        for index in 0..<run.count where !run.excludes(socket, from: index) { deliver(run.message(index), to: socket) }
    }

    /// Delivers one publication.
    private func deliver(_ message: EncodedMessage, to socket: WebSocket) {
        guard let writer = socket.writer else { return }
        let skips = socket.worker.limits.slowSubscribers == .skip
        if skips, !writer.makeRoom() {
            socket.handler.missed(1, on: socket)
        } else if !socket.wire.isSendingFragments {
            socket.send(message)
            socket.worker.broker.noteSlow(writer.stream)
        } else if deferred.count < Self.maxDeferred {
            deferred.append(message)
        } else if skips {
            socket.handler.missed(1, on: socket)
        } else {
            writer.refuse()
        }
    }

    /// Delivers what has waited for the end of a message in fragments.
    func fragmentsEnded(on socket: WebSocket) {
        guard !deferred.isEmpty else { return }
        let messages = deferred
        deferred = []
        for message in messages { deliver(message, to: socket) }
    }
}
