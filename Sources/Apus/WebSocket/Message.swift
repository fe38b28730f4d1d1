import ApusCodec

/// A whole message, lent to a handler for the length of a call. Copy what is to be kept: `bytes`, `text`.
public struct Message: ~Escapable {
    /// Text is valid UTF-8.
    public let kind: MessageKind
    /// The bytes, where they lie in the worker's buffer.
    public let payload: RawSpan

    @_lifetime(copy payload)
    @inlinable
    public init(kind: MessageKind, payload: RawSpan) {
        self.kind = kind
        self.payload = payload
    }

    /// A copy of the payload.
    public var bytes: [UInt8] { payload.copied }

    /// A copy of a text's payload; nil for a binary message.
    public var text: String? {
        switch kind {
        case .text: payload.string
        case .binary: nil
        }
    }
}

/// A part of a message, for handlers that take messages as they arrive (`delivery` is `.fragments`).
///
/// libwebsockets 1.6 has these as `lws_frame_is_binary`, `lws_remaining_packet_payload` and `lws_is_final_fragment`.
public struct Fragment: ~Escapable {
    /// The kind of the message. Text may be cut inside a character; the whole is valid UTF-8.
    public let kind: MessageKind
    public let payload: RawSpan
    /// Whether the message starts here.
    public let startsMessage: Bool
    /// Payload bytes of the current frame that have not arrived yet.
    public let bytesRemainingInFrame: UInt64
    /// Whether the current frame is the message's last.
    public let isFinalFrame: Bool

    /// Whether the message ends here.
    public var endsMessage: Bool { isFinalFrame && bytesRemainingInFrame == 0 }

    @_lifetime(copy payload)
    init(_ piece: DataPiece, payload: RawSpan) {
        kind = piece.kind
        self.payload = payload
        startsMessage = piece.startsMessage
        bytesRemainingInFrame = piece.remainingInFrame
        isFinalFrame = piece.isFinalFrame
    }

    /// A copy of the payload.
    public var bytes: [UInt8] { payload.copied }
}
