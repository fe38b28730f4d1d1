// Declarations on the hot path are public, not package: Swift 6.3 inlines `@inlinable` code across
// modules only then. Apus re-exports none of them.

/// Which side of a connection this endpoint is. A client masks its frames, a server does not
/// (RFC 6455 §5.1).
public enum Role: Sendable {
    case client, server
}

/// The opcode of a frame (RFC 6455 §5.2). Values 3–7 and 11–15 are reserved.
public enum Opcode: UInt8, Sendable {
    case continuation = 0
    case text = 1
    case binary = 2
    case close = 8
    case ping = 9
    case pong = 10

    public var isControl: Bool { rawValue >= 8 }
}

/// The type of a message.
public enum MessageKind: Sendable, Hashable {
    /// UTF-8, validated before it is delivered.
    case text
    /// Arbitrary bytes.
    case binary

    @inlinable public var opcode: Opcode {
        switch self {
        case .text: .text
        case .binary: .binary
        }
    }
}

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
public let maxControlPayloadBytes = 125

/// Why the peer's bytes are not a valid frame stream.
public enum FrameViolation: Error, Equatable {
    /// A server received an unmasked frame, or a client a masked one (RFC 6455 §5.1).
    case maskMismatch
    /// A reserved bit that no extension uses is set (§5.2).
    case reservedBits(UInt8)
    /// The opcode is reserved (§5.2).
    case reservedOpcode(UInt8)
    /// A length is not encoded in the shortest form, or the top bit of its 64 is set (§5.2).
    case malformedLength
    /// A control frame of more than 125 bytes (§5.5).
    case controlTooLong(Int)
    /// A control frame without FIN (§5.5).
    case controlFragmented
    /// A continuation frame outside a message, or a new message inside one (§5.4).
    case unexpectedContinuation
    case messageInsideMessage
    /// The message exceeds the limit; both in bytes.
    case messageTooBig(size: UInt64, limit: UInt64)
    /// Text, or the reason of a close frame, is not UTF-8 (§8.1).
    case invalidUTF8
    /// A close frame of one byte, or with a code that must not be sent (§7.4).
    case malformedClose
    case invalidCloseCode(UInt16)
    /// An extension cannot decode the payload.
    case extensionFailed(ExtensionError)

    /// The code of the close frame to send.
    public var closeCode: CloseCode {
        switch self {
        case .messageTooBig, .extensionFailed(.messageTooBig): .messageTooBig
        case .invalidUTF8, .extensionFailed(.invalidData): .invalidPayload
        case .extensionFailed(.negotiation): .missingExtension
        case .maskMismatch, .reservedBits, .reservedOpcode, .malformedLength, .controlTooLong, .controlFragmented,
            .unexpectedContinuation, .messageInsideMessage, .malformedClose, .invalidCloseCode:
            .protocolError
        }
    }

    /// The reason of the close frame to send; at most 123 bytes.
    public var reason: String {
        switch self {
        case .maskMismatch: "client frames must be masked, server frames must not"
        case .reservedBits: "reserved bit set without an extension"
        case .reservedOpcode(let opcode): "reserved opcode \(opcode)"
        case .malformedLength: "payload length not in its shortest form or over 2^63"
        case .controlTooLong(let size): "control frame of \(size) bytes; 125 is the limit"
        case .controlFragmented: "fragmented control frame"
        case .unexpectedContinuation: "continuation without a message"
        case .messageInsideMessage: "new message inside a fragmented one"
        case .messageTooBig(_, let limit): "message over the limit of \(limit) bytes"
        case .invalidUTF8: "text is not UTF-8"
        case .malformedClose: "close frame of one byte"
        case .extensionFailed(let error): error.description
        case .invalidCloseCode(let code): "close code \(code) must not be sent"
        }
    }
}

/// A part of a data frame's payload, in the caller's buffer.
public struct DataPiece: Equatable {
    /// The unmasked bytes, in the decoded buffer.
    public var range: Range<Int>
    /// The type of the piece's message.
    public var kind: MessageKind
    /// RSV1–RSV3 of the message's first frame, as bits 0x40, 0x20 and 0x10.
    public var reservedBits: UInt8
    /// Whether this piece starts the message.
    public var startsMessage: Bool
    /// Payload bytes of the current frame that have not arrived yet.
    public var remainingInFrame: UInt64
    /// Whether the frame has FIN set.
    public var isFinalFrame: Bool

    @inlinable
    public init(
        range: Range<Int>, kind: MessageKind, reservedBits: UInt8, startsMessage: Bool, remainingInFrame: UInt64, isFinalFrame: Bool
    ) {
        self.range = range
        self.kind = kind
        self.reservedBits = reservedBits
        self.startsMessage = startsMessage
        self.remainingInFrame = remainingInFrame
        self.isFinalFrame = isFinalFrame
    }

    /// Whether this piece completes the message.
    @inlinable public var endsMessage: Bool { isFinalFrame && remainingInFrame == 0 }
}

/// An event of the frame decoder. Ranges refer to the decoded buffer.
public enum FrameEvent: Equatable {
    case data(DataPiece)
    case ping(Range<Int>)
    case pong(Range<Int>)
    /// `code` is nil if the frame was empty; `reason` is valid UTF-8.
    case close(code: CloseCode?, reason: Range<Int>)
}
