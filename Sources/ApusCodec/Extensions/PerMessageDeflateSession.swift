/// The streams that a process's connections share while they need none of their own. Each serves one message at a time.
final class DeflatePool {
    private let level: Int
    private let memoryLevel: Int
    private var deflaters: [Int: [Deflater]] = [:]
    private var inflaters: [Inflater] = []

    /// Idle streams that are kept, of a kind: more are needed only while messages of several connections arrive in pieces.
    private static let maxIdle = 4

    init(level: Int, memoryLevel: Int) {
        self.level = level
        self.memoryLevel = memoryLevel
    }

    func makeDeflater(windowBits: Int) -> Deflater { Deflater(windowBits: windowBits, level: level, memoryLevel: memoryLevel) }

    /// A compressor that remembers nothing, for one message.
    func takeDeflater(windowBits: Int) -> Deflater { deflaters[windowBits]?.popLast() ?? makeDeflater(windowBits: windowBits) }

    func giveBack(_ deflater: Deflater, windowBits: Int) {
        guard deflaters[windowBits, default: []].count < Self.maxIdle else { return }
        deflater.reset()
        deflaters[windowBits, default: []].append(deflater)
    }

    /// A decompressor that remembers nothing, for one message. A larger window than the peer's does no harm.
    func takeInflater() -> Inflater { inflaters.popLast() ?? Inflater(windowBits: 15) }

    func giveBack(_ inflater: Inflater) {
        guard inflaters.count < Self.maxIdle else { return }
        inflater.reset()
        inflaters.append(inflater)
    }
}

/// One connection's part of permessage-deflate.
final class PerMessageDeflateSession: ExtensionSession {
    struct Direction {
        let windowBits: Int
        /// Whether a message may refer to those before it.
        let takesOver: Bool
    }

    private let pool: DeflatePool
    private let threshold: Int
    private let outgoing: Direction
    private let incoming: Direction
    /// Held for the connection's life with context takeover, otherwise for the length of a message that comes in pieces.
    private var deflater: Deflater?
    private var inflater: Inflater?
    /// Whether the message being sent is compressed: its first piece decides.
    private var isCompressing = false

    init(pool: DeflatePool, threshold: Int, outgoing: Direction, incoming: Direction) {
        self.pool = pool
        self.threshold = threshold
        self.outgoing = outgoing
        self.incoming = incoming
    }

    /// The level and the like are the pool's, which is the extension's own: sessions of one process that share a window size agree.
    var sharingKey: String? { outgoing.takesOver ? nil : "\(outgoing.windowBits)" }

    func receive(
        _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
    ) throws(ExtensionError) -> ExtensionOutcome {
        // "An endpoint MUST NOT set the bit … of control frames and non-first fragments": the message's bit is the first frame's (§6).
        guard piece.reservedBits.contains(.rsv1) else { return .unchanged }
        let inflater = self.inflater ?? (incoming.takesOver ? Inflater(windowBits: max(9, incoming.windowBits)) : pool.takeInflater())
        self.inflater = inflater
        try inflater.decompress(payload, endsMessage: piece.endsMessage, into: &output, maxBytes: maxBytes)
        if piece.endsMessage, !incoming.takesOver {
            pool.giveBack(inflater)
            self.inflater = nil
        }
        return .replaced()
    }

    func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome {
        if piece.startsMessage { isCompressing = !piece.endsMessage || payload.byteCount >= threshold }
        guard isCompressing else { return .unchanged }
        let deflater =
            self.deflater
            ?? (outgoing.takesOver
                ? pool.makeDeflater(windowBits: outgoing.windowBits) : pool.takeDeflater(windowBits: outgoing.windowBits))
        self.deflater = deflater
        deflater.compress(payload, endsMessage: piece.endsMessage, into: &output)
        if piece.endsMessage, !outgoing.takesOver {
            pool.giveBack(deflater, windowBits: outgoing.windowBits)
            self.deflater = nil
        }
        return .replaced(.rsv1)
    }
}
