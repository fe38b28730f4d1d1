import ApusCodec
import ApusTransport

/// The message that arrives in several pieces, and the memory that it takes. Without extensions it
/// is assembled in a chunk of the worker's pool, which output can share; with extensions, in the
/// chain's array.
struct MessageAssembly {
    /// Nil if none were negotiated.
    let extensions: ExtensionChain?
    private var chunk: ByteChunk?

    /// Most bytes reserved for announced payload before much of it has arrived: a frame header
    /// alone must not cost memory.
    private static let firstReserve = 63 * 1024
    /// A frame's remaining payload, in bytes, from which it is received directly into the message.
    private static let leastDirect = 32 * 1024
    /// Most bytes per direct receive: few enough to be in the processor's cache when they are
    /// unmasked.
    private static let mostDirect = 256 * 1024

    init(_ extensions: ExtensionChain?, maxMessageBytes: Int) {
        self.extensions = extensions
        extensions?.assembler = MessageAssembler(maxBytes: maxMessageBytes)
    }

    /// Bytes assembled so far.
    var byteCount: Int {
        if let extensions { return extensions.assembler.bytes.count }
        return chunk?.count ?? 0
    }

    /// Appends a piece, after the extensions.
    ///
    /// - Returns: by how many bytes the message has grown; nil if the worker's memory limit does
    ///   not allow it.
    /// - Throws: `FrameViolation.messageTooBig` when the message exceeds the limit after the
    ///   extensions. Without extensions the decoder has checked the size.
    mutating func append(
        _ piece: DataPiece, _ payload: RawSpan, _ memory: MemoryAccounts, _ limits: Limits
    ) throws(FrameViolation) -> Int? {
        if let extensions {
            guard memory.hasRoom(for: payload.byteCount) else { return nil }
            let before = byteCount
            defer { memory.pool.note(byteCount - before) }
            try extensions.assemble(piece, payload)
            return byteCount - before
        }
        guard let chunk = room(for: payload.byteCount, announced: piece.remainingInFrame, memory, limits) else { return nil }
        chunk.append(payload)
        return payload.byteCount
    }

    /// The chunk of the current message, with room for `count` more bytes.
    ///
    /// The frame's announced payload is reserved too, up to seven times what has arrived, so that
    /// memory stays proportional to received bytes. A growing chunk at least doubles, up to the
    /// limit, so that many fragments do not each reallocate it.
    ///
    /// - Returns: nil if the worker's memory limit does not allow it.
    private mutating func room(for count: Int, announced: UInt64, _ memory: MemoryAccounts, _ limits: Limits) -> ByteChunk? {
        let needed = (chunk?.count ?? 0) + count
        let held = chunk?.capacity ?? 0
        if let chunk, held >= needed { return chunk }
        guard memory.hasRoom(for: needed - held) else { return nil }
        let (sevenfold, isTooMuch) = needed.multipliedReportingOverflow(by: 7)
        let most = isTooMuch ? Int.max - needed : max(Self.firstReserve, sevenfold)
        var wanted = needed + Int(clamping: min(announced, UInt64(most)))
        if chunk != nil { wanted = max(wanted, min(2 * needed, limits.maxMessageBytes)) }
        // When less than half the limit is free, reserve only what has arrived: otherwise a few
        // bytes each of many messages would take all memory.
        if !memory.hasRoom(for: wanted - held + limits.maxWorkerBufferBytes / 2) { wanted = needed }
        guard let chunk else {
            let chunk = ByteChunk(capacity: wanted, from: memory.pool)
            self.chunk = chunk
            return chunk
        }
        chunk.reserve(wanted)
        return chunk
    }

    /// Calls `body` with the last `count` bytes.
    func withLast<Failure>(_ count: Int, _ body: (RawSpan) throws(Failure) -> Void) throws(Failure) {
        if let extensions {
            let bytes = extensions.assembler.bytes
            try body(bytes.rawSpan.extracting((bytes.count - count)...))
        } else if let chunk {
            try body(chunk.span.extracting((chunk.count - count)...))
        }
    }

    /// A complete message.
    enum Content {
        case chunk(ByteChunk)
        case bytes([UInt8])
    }

    /// Returns the complete message and forgets it.
    mutating func take(_ memory: MemoryAccounts) -> Content {
        if let extensions {
            let bytes = extensions.assembler.take()
            memory.pool.note(-bytes.count)
            return .bytes(bytes)
        }
        guard let chunk else { preconditionFailure("a message that ends has begun") }
        self.chunk = nil
        return .chunk(chunk)
    }

    /// Discards what has been assembled.
    mutating func drop(_ memory: MemoryAccounts) {
        if extensions != nil || chunk != nil { _ = take(memory) }
    }

    // MARK: Receiving directly into the message

    /// Where the current frame's payload can be received directly, and at most how many bytes; nil
    /// if too little of it remains.
    mutating func directBuffer(
        remaining: UInt64, _ memory: MemoryAccounts, _ limits: Limits
    ) -> (chunk: ByteChunk, maxBytes: Int)? {
        guard let count = chunk?.count else { return nil }
        let most = min(Int(clamping: remaining), Self.mostDirect)
        guard most >= Self.leastDirect,
            let chunk = room(for: Self.leastDirect, announced: remaining - UInt64(Self.leastDirect), memory, limits)
        else { return nil }
        return (chunk, min(most, chunk.capacity - count))
    }

    /// Unmasks the last `count` bytes, which were received directly.
    func unmask(_ count: Int, by decoder: inout FrameDecoder) throws(FrameViolation) -> DataPiece {
        var event: FrameEvent?
        var position = 0
        try chunk?.withLast(count) { (bytes) throws(FrameViolation) in
            event = try decoder.next(in: &bytes, until: count, from: &position)
        }
        guard case .data(let piece) = event else { preconditionFailure("payload is data") }
        return piece
    }
}
