/// The zlib streams that the connections of a process share where they need none of their own. Each
/// serves one message at a time.
final class DeflatePool {
    private let level: Int
    private let memoryLevel: Int
    private var deflaters: [Int: [Deflater]] = [:]
    private var inflaters: [Inflater] = []

    /// Idle streams kept per kind. More are in use only while messages of several connections
    /// arrive in pieces.
    private static let maxIdle = 4

    init(level: Int, memoryLevel: Int) {
        self.level = level
        self.memoryLevel = memoryLevel
    }

    func makeDeflater(windowBits: Int) -> Deflater { Deflater(windowBits: windowBits, level: level, memoryLevel: memoryLevel) }

    /// A compressor without context, for one message.
    func takeDeflater(windowBits: Int) -> Deflater { deflaters[windowBits]?.popLast() ?? makeDeflater(windowBits: windowBits) }

    func giveBack(_ deflater: Deflater, windowBits: Int) {
        guard deflaters[windowBits, default: []].count < Self.maxIdle else { return }
        deflater.reset()
        deflaters[windowBits, default: []].append(deflater)
    }

    /// A decompressor without context, for one message. Its window may be larger than the peer's.
    func takeInflater() -> Inflater { inflaters.popLast() ?? Inflater(windowBits: 15) }

    func giveBack(_ inflater: Inflater) {
        guard inflaters.count < Self.maxIdle else { return }
        inflater.reset()
        inflaters.append(inflater)
    }
}

/// The permessage-deflate state of one connection.
final class PerMessageDeflateSession: ExtensionSession {
    struct Direction {
        let windowBits: Int
        /// Whether a message may refer to those before it.
        let hasContextTakeover: Bool
    }

    private let pool: DeflatePool
    private let threshold: Int
    private let outgoing: Direction
    private let incoming: Direction
    /// Owned for the connection's life with context takeover, otherwise for one message that comes
    /// in pieces.
    private var deflater: Deflater?
    private var inflater: Inflater?
    /// Whether the message being sent is compressed; decided at its first piece.
    private var isCompressing = false

    init(pool: DeflatePool, threshold: Int, outgoing: Direction, incoming: Direction) {
        self.pool = pool
        self.threshold = threshold
        self.outgoing = outgoing
        self.incoming = incoming
    }

    /// Level and memory level belong to the extension's pool, so the window size is the only
    /// difference between sessions of a process.
    var sharingKey: String? { outgoing.hasContextTakeover ? nil : "\(outgoing.windowBits)" }

    func receive(
        _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
    ) throws(ExtensionError) -> ExtensionOutcome {
        // The first frame's bit counts for the whole message (§6).
        guard piece.reservedBits.contains(.rsv1) else { return .unchanged }
        let inflater =
            self.inflater ?? (incoming.hasContextTakeover ? Inflater(windowBits: max(9, incoming.windowBits)) : pool.takeInflater())
        self.inflater = inflater
        try inflater.decompress(payload, endsMessage: piece.endsMessage, into: &output, maxBytes: maxBytes)
        if piece.endsMessage, !incoming.hasContextTakeover {
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
            ?? (outgoing.hasContextTakeover
                ? pool.makeDeflater(windowBits: outgoing.windowBits) : pool.takeDeflater(windowBits: outgoing.windowBits))
        self.deflater = deflater
        deflater.compress(payload, endsMessage: piece.endsMessage, into: &output)
        if piece.endsMessage, !outgoing.hasContextTakeover {
            pool.giveBack(deflater, windowBits: outgoing.windowBits)
            self.deflater = nil
        }
        return .replaced(.rsv1)
    }
}
