import ApusCodec
import ApusTransport

/// Publications of this turn for this worker's subscribers. They are sent together at the end of
/// the turn, or before other output to a subscriber.
struct Publications {
    /// Runs, oldest first. All publications of a run have the same topics.
    private var runs: [PublicationRun] = []
    private var frameBytes = 0
    private var lastRun = 0

    /// Most bytes of frames held; more are sent before the turn ends.
    private static let maxFrameBytes = 64 * 1024
    /// Most runs held.
    private static let maxRuns = 1024

    private let buffers: BufferPool

    init(in buffers: BufferPool) { self.buffers = buffers }

    var isFull: Bool { frameBytes >= Self.maxFrameBytes || runs.count >= Self.maxRuns }

    mutating func add(_ payload: borrowing RawSpan, as kind: MessageKind, to topics: MatchingTopics, excluding: WebSocket?) {
        if runs.last?.topics.isSame(as: topics) != true {
            lastRun += 1
            let run = PublicationRun(number: lastRun, topics: topics, buffers: buffers)
            runs.append(run)
            topics.first?.lastRun = lastRun
            for topic in topics.others { topic.lastRun = lastRun }
        }
        frameBytes += runs[runs.count - 1].add(payload, as: kind, excluding: excluding)
    }

    /// Returns the runs and removes them.
    mutating func take() -> [PublicationRun] {
        defer {
            runs = []
            frameBytes = 0
        }
        return runs
    }
}

/// Consecutive publications to the same topics: framed one after another in one chunk that all
/// queues share.
final class PublicationRun {
    private struct Entry {
        let kind: MessageKind
        /// The payload's range in `frames`.
        let payload: Range<Int>
        let excluded: WebSocket?
    }

    /// A subscriber's note about the last run with an entry for it.
    struct Mark {
        enum Note: Int {
            /// At least one publication excludes it.
            case excluded = 1
            /// It is among the receivers already, by another topic.
            case receives = 2
        }

        private var word = 0

        func has(_ note: Note, in run: Int) -> Bool { word >> 2 == run && word & note.rawValue != 0 }

        mutating func set(_ note: Note, in run: Int) { word = (word >> 2 == run ? word : run << 2) | note.rawValue }
    }

    /// Increases from run to run, from 1.
    let number: Int
    let topics: MatchingTopics
    /// The frames for connections without extensions.
    private(set) var frames: ByteChunk
    /// The worker's pool, which counts the frames' memory.
    private let buffers: BufferPool
    private var entries: [Entry] = []
    /// Whether a publication excludes a connection.
    private var excludes = false
    /// Frames for connections with extensions, by `ExtensionChain.sharingKey`.
    private var changedFrames: [String: ByteChunk] = [:]
    private var knownEventChunk: ByteChunk?

    /// Initial size of a chunk, in bytes.
    private static let minChunkBytes = 256

    init(number: Int, topics: MatchingTopics, buffers: BufferPool) {
        frames = ByteChunk(capacity: 0, from: buffers)
        self.buffers = buffers
        self.number = number
        self.topics = topics
    }

    var count: Int { entries.count }

    /// - Returns: the size of the publication's frame, in bytes.
    fileprivate func add(_ payload: borrowing RawSpan, as kind: MessageKind, excluding: WebSocket?) -> Int {
        let header = FrameHeader(opcode: kind.opcode, payloadBytes: payload.byteCount)
        let size = header.byteCount + payload.byteCount
        if frames.capacity - frames.count < size {
            let wider = ByteChunk(capacity: max(frames.count == 0 ? size : 2 * (frames.count + size), Self.minChunkBytes), from: buffers)
            wider.append(contentsOf: frames)
            frames = wider
        }
        frames.append(header.bytes.rawSpan)
        let start = frames.count
        frames.append(payload)
        entries.append(Entry(kind: kind, payload: start..<frames.count, excluded: excluding))
        if let excluding {
            excludes = true
            excluding.membership?.set(.excluded, in: number)
        }
        return size
    }

    /// Whether a publication of the run excludes this connection.
    @inline(__always)
    func excludes(_ socket: WebSocket) -> Bool { excludes && socket.membership?.has(.excluded, in: number) == true }

    /// Delivers the run to a subscriber.
    ///
    /// - Parameter atOnce: true if no more publications will arrive in this turn.
    @inline(__always)
    func deliver(to socket: WebSocket, atOnce: Bool) {
        guard case .open = socket.wire.session, let stream = socket.stream else { return }
        guard socket.usesSendFastPath, !socket.wire.isSendingFragments, !excludes(socket),
            FrameWriter.hasRoom(on: stream)
        else { return socket.membership?.deliver(self, to: socket, on: stream) ?? () }
        if atOnce { stream.send(frames) } else { stream.write(frames) }
        if stream.bufferedBytes > 0 { socket.worker.broker.noteSlow(stream) }
    }

    /// The frames for connections with the extensions `chain`.
    ///
    /// - Returns: nil if those extensions keep state per connection, so that frames cannot be
    ///   shared.
    func frames(for chain: ExtensionChain) -> ByteChunk? {
        guard let key = chain.sharingKey else { return nil }
        if let known = changedFrames[key] { return known }
        var parts: [ByteChunk] = []
        for index in entries.indices { if let part = message(index).frame(for: chain) { parts.append(part) } }
        let whole = ByteChunk(capacity: parts.reduce(0) { $0 + $1.count }, from: buffers)
        for part in parts { whole.append(contentsOf: part) }
        changedFrames[key] = whole
        return whole
    }

    /// The publications as server-sent events in one chunk of a chunked body, for exchanges.
    func eventChunk() -> ByteChunk {
        if let knownEventChunk { return knownEventChunk }
        var events: [UInt8] = []
        for index in entries.indices { ServerSentEvent(payload(index)).append(to: &events) }
        var framed: [UInt8] = []
        HTTPEncoder.appendChunk(events.span, to: &framed)
        let chunk = ByteChunk(capacity: framed.count, from: buffers)
        chunk.append(framed.rawSpan)
        knownEventChunk = chunk
        return chunk
    }

    /// A copy of one publication's payload.
    func payload(_ index: Int) -> [UInt8] { frames.copy(entries[index].payload) }

    /// A copy of one publication as a message.
    func message(_ index: Int) -> EncodedMessage {
        EncodedMessage(payload(index), as: entries[index].kind)
    }

    func excludes(_ socket: WebSocket, from index: Int) -> Bool { entries[index].excluded === socket }
}
