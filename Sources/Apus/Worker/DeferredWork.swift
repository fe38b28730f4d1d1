/// What a worker does for its streams, WebSockets and exchanges at the end of the loop's turn. Work
/// that this causes is done in the next turn, so that no handler can block the loop.
final class DeferredWork {
    // Flags beside the arrays: they are read every turn, and reading an array would cost an
    // exclusivity check.
    private var streams: [ByteStream] = []
    private(set) var hasStreams = false
    private var writableRequests: [any WritableTarget] = []
    private(set) var hasWritableRequests = false

    /// Whether there is any, so that the next turn must not wait.
    var isPending: Bool { hasWritableRequests || hasStreams }

    /// Adds a stream whose `endTurn` will be called.
    func add(_ stream: ByteStream) {
        guard !stream.needsEndOfTurn else { return }
        stream.needsEndOfTurn = true
        streams.append(stream)
        hasStreams = true
    }

    /// Adds a target whose `serveWritable` will be called.
    func add(_ target: any WritableTarget) {
        writableRequests.append(target)
        hasWritableRequests = true
    }

    func serveWritable() {
        hasWritableRequests = false
        let requests = writableRequests
        writableRequests = []
        for target in requests { target.serveWritable() }
    }

    /// Sends queued output.
    func serveStreams() {
        hasStreams = false
        let streams = streams
        self.streams = []
        for stream in streams {
            stream.needsEndOfTurn = false
            stream.endTurn()
        }
        // Streams that have closed meanwhile would keep this worker alive until its next turn.
        if hasStreams { self.streams.removeAll(where: \.isClosed) }
    }
}

/// What calls an application's `writable` at the end of a turn.
protocol WritableTarget: AnyObject {
    func serveWritable()
}
