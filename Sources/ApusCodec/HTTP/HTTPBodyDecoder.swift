/// Finds the content of a body in a byte stream (RFC 9112 §6, §7.1) without copying it.
///
/// The decoder must not be used after an error.
package struct HTTPBodyDecoder: Equatable, Sendable {
    /// The next part of the body.
    package enum BodyEvent: Hashable, Sendable {
        /// Content, a non-empty range of the input.
        case data(Range<Int>)
        /// The body is complete; the following bytes belong to the next message.
        case end
    }

    private enum State: Equatable {
        case counted(left: Int)
        case untilClose
        /// In a chunk's size, after `digits` digits.
        case size(UInt64, digits: Int)
        /// After a chunk's size, in white space or in extensions.
        case chunkExtension(size: Int, ChunkExtension)
        /// After the CR that ends a chunk's first line.
        case sizeLineFeed(size: Int)
        case chunkData(left: Int)
        case dataCarriageReturn
        case dataLineFeed
        case trailer
        case done
    }

    /// Hexadecimal digits of a chunk size, including leading zeros: as many as fit 64 bits.
    package static let maxChunkSizeDigits = 16
    /// Bytes of chunk extensions allowed in excess of the content, so that a peer cannot pad every
    /// byte of it.
    package static let maxChunkExtensionBytes = 4096

    private var state: State
    /// Bytes of content that the limit still allows.
    private var allowance: Int
    private let maxBytes: Int
    private let toleratesPadding: Bool
    /// Bytes of chunk extensions minus the content after them; never negative.
    private var extensionDebt = 0
    private var trailer = HeadReader()
    private let trailerLimits = HTTPHeadLimits()

    /// A decoder at the first byte after the head.
    ///
    /// - Parameters:
    ///   - maxBytes: The limit of the content, in bytes. A counted body that is larger throws on
    ///     the first call of `next`.
    ///   - toleratesPadding: Whether white space is allowed between a chunk's size and the end of
    ///     its line, as old servers send it. Safe for a client; in a request it would be ambiguous
    ///     (RFC 9112 §7.1.1).
    package init(framing: HTTPBodyFraming, maxBytes: Int, toleratesPadding: Bool = false) {
        self.maxBytes = maxBytes
        self.toleratesPadding = toleratesPadding
        allowance = maxBytes
        state =
            switch framing {
            case .none: .counted(left: 0)
            case .counted(let count): .counted(left: count)
            case .chunked: .size(0, digits: 0)
            case .untilClose: .untilClose
            }
    }

    /// Whether `end` has been returned.
    package var isComplete: Bool {
        if case .done = state { return true }
        return false
    }

    /// Ends the body: the connection has ended and no more bytes arrive.
    ///
    /// - Throws: `HTTPViolation.bodyCutShort` unless the body was complete or framed `untilClose`.
    package mutating func finish() throws(HTTPViolation) {
        switch state {
        case .done, .untilClose, .counted(left: 0): state = .done
        case .counted, .size, .chunkExtension, .sizeLineFeed, .chunkData, .dataCarriageReturn, .dataLineFeed, .trailer:
            throw .bodyCutShort
        }
    }

    /// The next event in `bytes` from `offset` on, which moves past it. Nil: all bytes are consumed
    /// and more are needed, or `end` was returned.
    ///
    /// A body without content returns `end` for an empty input, so call this once before reading
    /// more.
    ///
    /// - Throws: `HTTPViolation` for malformed chunks or trailers (400, 431) and for content over
    ///   the limit (413).
    package mutating func next(_ bytes: Span<UInt8>, from offset: inout Int) throws(HTTPViolation) -> BodyEvent? {
        while true {
            switch state {
            case .done:
                return nil
            case .counted(let left):
                guard left > 0 else { return finishBody() }
                guard left <= allowance else { throw .bodyTooLarge(limit: maxBytes) }
                guard let range = take(bytes, &offset, atMost: left) else { return nil }
                state = .counted(left: left - range.count)
                return .data(range)
            case .untilClose:
                guard let range = take(bytes, &offset, atMost: Int.max) else { return nil }
                guard allowance >= 0 else { throw .bodyTooLarge(limit: maxBytes) }
                return .data(range)
            case .chunkData(let left):
                guard let range = take(bytes, &offset, atMost: left) else { return nil }
                extensionDebt = max(0, extensionDebt - range.count)
                state = range.count == left ? .dataCarriageReturn : .chunkData(left: left - range.count)
                return .data(range)
            case .trailer:
                return try readTrailer(bytes, &offset)
            case .size, .chunkExtension, .sizeLineFeed, .dataCarriageReturn, .dataLineFeed:
                guard offset < bytes.count else { return nil }
                try step(bytes[offset])
                offset += 1
            }
        }
    }

    private mutating func finishBody() -> BodyEvent {
        state = .done
        return .end
    }

    /// Takes content; nil at the end of the input.
    private mutating func take(_ bytes: Span<UInt8>, _ offset: inout Int, atMost most: Int) -> Range<Int>? {
        let count = min(most, bytes.count - offset)
        guard count > 0 else { return nil }
        defer { offset += count }
        allowance -= count
        return offset..<offset + count
    }

    /// Processes one byte of the chunked framing (RFC 9112 §7.1).
    private mutating func step(_ byte: UInt8) throws(HTTPViolation) {
        switch state {
        case .size(let value, let digits):
            if let digit = ByteClass.hexValue(byte) {
                guard digits < Self.maxChunkSizeDigits else { throw .chunkSizeTooLong(limit: Self.maxChunkSizeDigits) }
                state = .size(value << 4 | UInt64(digit), digits: digits + 1)
            } else {
                guard digits > 0 else { throw .chunkSizeMalformed }
                guard let size = Int(exactly: value), size <= allowance else { throw .bodyTooLarge(limit: maxBytes) }
                switch byte {
                case ByteClass.carriageReturn: state = .sizeLineFeed(size: size)
                case UInt8(ascii: ";"), ByteClass.space, ByteClass.tab: try enterExtension(size, .afterSize, byte)
                case ByteClass.lineFeed: throw .bareLineFeed
                default: throw .chunkSizeMalformed
                }
            }
        case .chunkExtension(let size, let part):
            switch byte {
            case ByteClass.carriageReturn where part.mayEnd || part == .afterSize && toleratesPadding:
                state = .sizeLineFeed(size: size)
            case ByteClass.carriageReturn: throw part == .afterSize ? .chunkSizeMalformed : .chunkExtensionMalformed
            case ByteClass.lineFeed: throw .bareLineFeed
            case _ where ByteClass.isControl(byte) && byte != ByteClass.tab: throw .controlCharacter(byte)
            default: try enterExtension(size, part, byte)
            }
        case .sizeLineFeed(let size):
            guard byte == ByteClass.lineFeed else { throw .bareCarriageReturn }
            state = size > 0 ? .chunkData(left: size) : .trailer
        case .dataCarriageReturn:
            guard byte == ByteClass.carriageReturn else { throw .chunkNotTerminated }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == ByteClass.lineFeed else { throw .chunkNotTerminated }
            state = .size(0, digits: 0)
        case .counted, .untilClose, .chunkData, .trailer, .done:
            preconditionFailure("content and trailers are not decoded byte by byte")
        }
    }

    private mutating func enterExtension(_ size: Int, _ part: ChunkExtension, _ byte: UInt8) throws(HTTPViolation) {
        guard let next = part.next(byte) else { throw part == .afterSize ? .chunkSizeMalformed : .chunkExtensionMalformed }
        extensionDebt += 1
        guard extensionDebt <= Self.maxChunkExtensionBytes else {
            throw .chunkExtensionsTooLong(limit: Self.maxChunkExtensionBytes)
        }
        state = .chunkExtension(size: size, next)
    }

    /// RFC 9112 §7.1.2: field lines up to an empty one. They are validated and dropped.
    private mutating func readTrailer(_ bytes: Span<UInt8>, _ offset: inout Int) throws(HTTPViolation) -> BodyEvent? {
        while true {
            switch try trailer.readLine(bytes, &offset, limit: trailerLimits.maxHeadBytes) {
            case .incomplete: return nil
            case .limitReached: throw .headTooLarge(limit: trailerLimits.maxHeadBytes)
            case .complete(let line) where line.isEmpty:
                trailer = HeadReader()
                return finishBody()
            case .complete(let line): _ = try trailer.addField(line, maxFields: trailerLimits.maxFields)
            }
        }
    }
}
