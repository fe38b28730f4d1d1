import ApusCodec
import ApusTransport

/// Publications of this turn, for this worker's subscribers. They leave together at the end of the turn, or when something else is sent to a
/// subscriber and must stand behind them.
struct Publications {
    /// Runs, oldest first. All publications of a run go to the same topics.
    private var runs: [PublicationRun] = []
    private var frameBytes = 0
    private var lastRun = 0

    /// Frames kept, in bytes: more leaves before the turn ends.
    private static let maxFrameBytes = 64 * 1024
    /// Runs kept.
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

    /// Gives the runs, and forgets them.
    mutating func take() -> [PublicationRun] {
        defer {
            runs = []
            frameBytes = 0
        }
        return runs
    }
}

/// Publications in a row to the same topics: framed one behind the other in one chunk, which all queues share.
final class PublicationRun {
    private struct Entry {
        let kind: MessageKind
        /// Where the payload lies in `frames`.
        let payload: Range<Int>
        let excluded: WebSocket?
    }

    /// What a connection knows of the last run that concerns it: one word, because every connection has it.
    struct Mark {
        enum Note: Int {
            /// There is a publication that it does not get.
            case excluded = 1
            /// It is among the receivers already, by another topic.
            case receives = 2
        }

        private var word = 0

        func has(_ note: Note, in run: Int) -> Bool { word >> 2 == run && word & note.rawValue != 0 }

        mutating func set(_ note: Note, in run: Int) { word = (word >> 2 == run ? word : run << 2) | note.rawValue }
    }

    /// Rises from run to run, from 1.
    let number: Int
    let topics: MatchingTopics
    /// The frames for connections without extensions.
    private(set) var frames: ByteChunk
    /// The worker's, which counts what waits of the frames.
    private let buffers: BufferPool
    private var entries: [Entry] = []
    /// Whether somebody does not get all of it.
    private var excludes = false
    /// The same for connections with extensions, by what these do to any message.
    private var changedFrames: [String: ByteChunk] = [:]

    /// A chunk grows from this many bytes on.
    private static let minChunkBytes = 256

    init(number: Int, topics: MatchingTopics, buffers: BufferPool) {
        frames = ByteChunk(capacity: 0, from: buffers)
        self.buffers = buffers
        self.number = number
        self.topics = topics
    }

    var count: Int { entries.count }

    /// Gives how many bytes its frame has.
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
            excluding.runMark.set(.excluded, in: number)
        }
        return size
    }

    /// Whether this connection does not get all of it.
    @inline(__always)
    func excludes(_ socket: WebSocket) -> Bool { excludes && socket.runMark.has(.excluded, in: number) }

    /// The frames for connections whose extensions are `chain`; nil if those treat each connection's messages differently.
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

    /// One of the messages, by itself.
    func message(_ index: Int) -> EncodedMessage {
        EncodedMessage(frames.copy(entries[index].payload), as: entries[index].kind)
    }

    func excludes(_ socket: WebSocket, from index: Int) -> Bool { entries[index].excluded === socket }
}
