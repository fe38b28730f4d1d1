/// Decodes the frames of a byte stream and unmasks them in place (RFC 6455 §5).
///
/// Contract: call `next` with the received bytes until it returns nil. Keep the octets from
/// `position` on and pass them again in front of the next bytes. They are the start of a header or
/// of a control frame, at most `maxUnconsumedBytes`. Payload of data frames is always consumed, in
/// as many pieces as arrive.
public struct FrameDecoder: Equatable, Sendable {
    /// A header (2 + 8 + 4) and a control payload, less the octet that would complete them.
    public static let maxUnconsumedBytes = 14 + maxControlPayloadBytes

    // In an order that leaves no gaps: every idle connection pays for them.

    /// Bytes of a message on the wire.
    @usableFromInline let maxMessageBytes: UInt64
    @usableFromInline var frame: DataFrame?
    @usableFromInline var message: OpenMessage?
    /// This endpoint's side.
    public let role: Role
    /// Reserved bits of an extension: allowed on the first frame of a data message.
    @usableFromInline let ownedReservedBits: UInt8
    /// The limit of a message for `nextShortMessage`, in bytes.
    @usableFromInline let maxShortMessageBytes: UInt8

    /// A data frame whose header has been read and whose payload has not ended.
    @usableFromInline
    struct DataFrame: Equatable, Sendable {
        @usableFromInline var remaining: UInt64
        /// The masking key, rotated to apply to the next octet.
        @usableFromInline var key: UInt32
        @usableFromInline var isFinal: Bool
        @usableFromInline var startsMessage: Bool

        @usableFromInline
        init(remaining: UInt64, key: UInt32, isFinal: Bool, startsMessage: Bool) {
            self.remaining = remaining
            self.key = key
            self.isFinal = isFinal
            self.startsMessage = startsMessage
        }
    }

    /// A message whose final frame has not ended.
    @usableFromInline
    struct OpenMessage: Equatable, Sendable {
        /// Payload bytes announced so far, all frames together.
        @usableFromInline var bytes: UInt64
        @usableFromInline var kind: MessageKind
        @usableFromInline var reservedBits: UInt8

        @usableFromInline
        init(kind: MessageKind, reservedBits: UInt8, bytes: UInt64) {
            self.kind = kind
            self.reservedBits = reservedBits
            self.bytes = bytes
        }
    }

    /// - Parameters:
    ///   - ownedReservedBits: bits 0x40, 0x20, 0x10 that a negotiated extension uses.
    ///   - maxMessageBytes: the limit of a message, checked when a header announces more.
    public init(role: Role, ownedReservedBits: UInt8 = 0, maxMessageBytes: Int) {
        self.role = role
        self.ownedReservedBits = ownedReservedBits
        self.maxMessageBytes = UInt64(max(0, maxMessageBytes))
        maxShortMessageBytes = UInt8(min(max(0, maxMessageBytes), maxControlPayloadBytes))
    }

    /// Whether a message has begun and not ended.
    public var isInsideMessage: Bool { message != nil }

    /// Payload bytes of the current data frame that have not arrived; 0 between frames.
    public var remainingInFrame: UInt64 { frame?.remaining ?? 0 }

    /// Whether the bytes at `position` belong to a data frame rather than to a control frame.
    public func isAtData(in buffer: borrowing MutableRawSpan, at position: Int) -> Bool {
        remainingInFrame > 0 || buffer.octet(at: position) & 0x0f < 8
    }

    /// The fast path for most messages: decodes one complete, masked, unfragmented frame of at most
    /// 125 octets without reserved bits, on a server. Nil means only that `next` must be called.
    ///
    /// - Returns: where the payload lies, and whether it is ASCII.
    @inlinable @inline(__always)
    public mutating func nextShortMessage(
        in buffer: inout MutableRawSpan, until end: Int, from position: inout Int
    ) -> (kind: MessageKind, range: Range<Int>, isASCII: Bool)? {
        // A frame in progress implies a message in progress.
        guard message == nil, role == .server,
            let frame = ShortFrame.unmask(in: &buffer, from: position, until: end, maxBytes: maxShortMessageBytes)
        else { return nil }
        let payload = position &+ ShortFrame.headerBytes
        position = payload &+ frame.count
        return (frame.isText ? .text : .binary, payload..<position, frame.isASCII)
    }

    /// The next event in `buffer` from `position` on, which moves past the consumed bytes; nil if
    /// more bytes are needed.
    ///
    /// - Throws: `FrameViolation`; the decoder must not be used again.
    @inlinable
    public mutating func next(
        in buffer: inout MutableRawSpan, until end: Int, from position: inout Int
    ) throws(FrameViolation) -> FrameEvent? {
        precondition(position >= 0 && position <= end && end <= buffer.byteCount, "the position lies in the buffer")
        if frame != nil { return takePayload(in: &buffer, until: end, from: &position) }
        let available = end &- position
        guard available >= 2 else { return nil }
        let first = buffer.octet(at: position)
        let second = buffer.octet(at: position &+ 1)
        guard (second & 0x80 != 0) == (role == .server) else { throw .maskMismatch }
        let maskBytes = role == .server ? 4 : 0
        let length: UInt64
        let headerBytes: Int
        let short = second & 0x7F
        if short < 126 {
            length = UInt64(short)
            headerBytes = 2 &+ maskBytes
        } else if short == 126 {
            headerBytes = 4 &+ maskBytes
            guard available >= 4 else { return try Self.checkIncomplete(first, short) }
            length = UInt64(buffer.bigEndian16(at: position &+ 2))
            guard length >= 126 else { throw .malformedLength }
        } else {
            headerBytes = 10 &+ maskBytes
            guard available >= 10 else { return try Self.checkIncomplete(first, short) }
            length = buffer.bigEndian64(at: position &+ 2)
            // "The minimal number of bytes MUST be used", "the most significant bit MUST be 0"
            // (§5.2).
            guard length > 0xFFFF, length >> 63 == 0 else { throw .malformedLength }
        }
        let starts = try checkHeader(first: first, length: length, short: short)
        guard available >= headerBytes else { return nil }
        let key = role == .server ? buffer.littleEndian32(at: position &+ headerBytes &- 4) : 0

        if first & 0x08 != 0 {
            let payload = position &+ headerBytes
            guard available &- headerBytes >= Int(length) else { return nil }
            let range = payload..<(payload &+ Int(length))
            if key != 0 { Masking.apply(key: key, phase: 0, to: &buffer, range: range) }
            position = range.upperBound
            return try controlEvent(first, range, in: buffer)
        }
        position &+= headerBytes
        beginFrame(first: first, length: length, key: key, startsMessage: starts)
        return takePayload(in: &buffer, until: end, from: &position)
    }

    /// Reports a violation that is certain although the extended length has not arrived.
    @usableFromInline
    static func checkIncomplete(_ first: UInt8, _ short: UInt8) throws(FrameViolation) -> FrameEvent? {
        if first & 0x08 != 0 { throw .controlTooLong(Int(short)) }
        return nil
    }

    /// Checks a header (§5.2, §5.4, §5.5).
    ///
    /// - Returns: whether the frame starts a message.
    @inlinable
    func checkHeader(first: UInt8, length: UInt64, short: UInt8) throws(FrameViolation) -> Bool {
        let reserved = first & 0x70
        let opcode = first & 0x0F
        if opcode >= 8 {
            guard reserved == 0 else { throw .reservedBits(reserved) }
            guard opcode <= 10 else { throw .reservedOpcode(opcode) }
            guard first & 0x80 != 0 else { throw .controlFragmented }
            guard short < 126 else { throw .controlTooLong(Int(clamping: length)) }
            return false
        }
        guard opcode <= 2 else { throw .reservedOpcode(opcode) }
        let starts = opcode != 0
        // An extension sets its bit on the first frame of a message only (RFC 7692 §6).
        guard reserved & ~(starts ? ownedReservedBits : 0) == 0 else { throw .reservedBits(reserved) }
        let before: UInt64
        if let message {
            guard !starts else { throw .messageInsideMessage }
            before = message.bytes
        } else {
            guard starts else { throw .unexpectedContinuation }
            before = 0
        }
        let (size, overflow) = before.addingReportingOverflow(length)
        guard !overflow, size <= maxMessageBytes else { throw .messageTooBig(size: overflow ? .max : size, limit: maxMessageBytes) }
        return starts
    }

    @inlinable
    mutating func beginFrame(first: UInt8, length: UInt64, key: UInt32, startsMessage: Bool) {
        frame = DataFrame(remaining: length, key: key, isFinal: first & 0x80 != 0, startsMessage: startsMessage)
        if startsMessage {
            message = OpenMessage(kind: first & 0x0F == 1 ? .text : .binary, reservedBits: first & 0x70, bytes: length)
        } else {
            message?.bytes += length
        }
    }

    /// The payload of the current data frame that has arrived.
    @inlinable
    mutating func takePayload(in buffer: inout MutableRawSpan, until end: Int, from position: inout Int) -> FrameEvent? {
        guard var current = frame, let open = message else { preconditionFailure("a frame belongs to a message") }
        let count = Int(min(current.remaining, UInt64(end &- position)))
        // An empty piece is reported only when it ends the frame.
        guard count > 0 || current.remaining == 0 else { return nil }
        let range = position..<(position &+ count)
        if current.key != 0 {
            Masking.apply(key: current.key, phase: 0, to: &buffer, range: range)
        }
        position = range.upperBound
        current.remaining -= UInt64(count)
        let piece = DataPiece(
            range: range, kind: open.kind, reservedBits: open.reservedBits, startsMessage: current.startsMessage,
            remainingInFrame: current.remaining, isFinalFrame: current.isFinal)
        if current.remaining > 0 {
            current.key = current.key.rotated(by: count)
            current.startsMessage = false
            frame = current
        } else {
            frame = nil
            if current.isFinal { message = nil }
        }
        return .data(piece)
    }

    /// The event of a complete control frame, unmasked.
    @usableFromInline
    func controlEvent(_ first: UInt8, _ range: Range<Int>, in buffer: borrowing MutableRawSpan) throws(FrameViolation) -> FrameEvent {
        switch first & 0x0F {
        case Opcode.ping.rawValue: return .ping(range)
        case Opcode.pong.rawValue: return .pong(range)
        default: break
        }
        if range.isEmpty { return .close(code: nil, reason: range) }
        guard range.count >= 2 else { throw .malformedClose }
        let code = CloseCode(rawValue: buffer.bigEndian16(at: range.lowerBound))
        guard code.mayBeSent else { throw .invalidCloseCode(code.rawValue) }
        let reason = (range.lowerBound + 2)..<range.upperBound
        var validator = UTF8Validator()
        guard validator.accept(buffer.bytes.extracting(reason)), validator.isComplete else { throw .invalidUTF8 }
        return .close(code: code, reason: reason)
    }
}
