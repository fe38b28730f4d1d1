import ApusCodec
import ApusTransport

/// A complete message, valid only during the handler call. Copy what must be kept: `bytes`, `text`.
public struct Message: ~Escapable {
    /// A `.text` payload is valid UTF-8.
    public let kind: MessageKind
    /// The bytes, in the worker's buffer.
    public let payload: RawSpan
    /// The chunk that holds exactly this payload, if there is one; output can share it.
    let chunk: SharedChunk?

    @_lifetime(copy payload)
    public init(kind: MessageKind, payload: RawSpan) {
        self.kind = kind
        self.payload = payload
        chunk = nil
    }

    @_lifetime(copy payload)
    init(kind: MessageKind, payload: RawSpan, in chunk: SharedChunk) {
        self.kind = kind
        self.payload = payload
        self.chunk = chunk
    }

    /// A copy of the payload.
    public var bytes: [UInt8] { payload.copied }

    /// A copy of a text message's payload; nil for a binary message.
    public var text: String? {
        switch kind {
        case .text: payload.string
        case .binary: nil
        }
    }
}

/// A part of a message, for handlers with `delivery` `.fragments`.
///
/// In libwebsockets 1.6: `lws_frame_is_binary`, `lws_remaining_packet_payload` and
/// `lws_is_final_fragment`.
public struct Fragment: ~Escapable {
    /// The kind of the message. A fragment of text may end inside a character; the whole message is
    /// valid UTF-8.
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
