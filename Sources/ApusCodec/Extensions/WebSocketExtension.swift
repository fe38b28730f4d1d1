/// A WebSocket extension (RFC 6455 §9): what it offers and accepts, and how it changes payload.
///
/// One object serves all connections of a process; what belongs to one connection is in the `ExtensionSession` it makes. It is called on
/// the worker's thread. Several extensions compose as long as no two own the same reserved bit.
public protocol WebSocketExtension: AnyObject {
    /// The name in `Sec-WebSocket-Extensions`, a token.
    var name: String { get }

    /// The reserved bits it gives a meaning on the first frame of a message.
    var reservedBits: ReservedBits { get }

    /// What a client offers, best first. Every element has this extension's name.
    func offers() -> [ExtensionParameters]

    /// A server's answer to one offer; nil declines it, and the client's next offer of this name is tried.
    func accept(_ offer: ExtensionParameters) -> ExtensionAgreement?

    /// A client's check of the server's answer.
    ///
    /// - Throws: `ExtensionError.negotiation` if the answer is not one to what was offered: the connection fails.
    func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession
}

/// An accepted offer.
public struct ExtensionAgreement {
    /// What the server answers; its name is the extension's.
    public let answer: ExtensionParameters
    /// The connection's state.
    public let session: any ExtensionSession

    public init(answer: ExtensionParameters, session: any ExtensionSession) {
        self.answer = answer
        self.session = session
    }
}

/// RSV1, RSV2 and RSV3 of a frame's header.
public struct ReservedBits: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static var rsv1: ReservedBits { ReservedBits(rawValue: 0x40) }
    public static var rsv2: ReservedBits { ReservedBits(rawValue: 0x20) }
    public static var rsv3: ReservedBits { ReservedBits(rawValue: 0x10) }
}

/// A part of a message's payload on its way through an extension. Control frames never pass here.
public struct ExtensionPiece: Hashable, Sendable {
    public let kind: MessageKind
    /// The message's reserved bits, of the first frame.
    public let reservedBits: ReservedBits
    public let startsMessage: Bool
    public let endsMessage: Bool

    public init(kind: MessageKind, reservedBits: ReservedBits, startsMessage: Bool, endsMessage: Bool) {
        self.kind = kind
        self.reservedBits = reservedBits
        self.startsMessage = startsMessage
        self.endsMessage = endsMessage
    }
}

/// What became of a piece.
public enum ExtensionOutcome: Hashable, Sendable {
    /// Nothing was appended: the payload stands as it is.
    case unchanged
    /// What was appended takes the payload's place; on sending, the first frame of the message gets these bits.
    case replaced(ReservedBits = [])
}

/// An extension's state for one connection.
public protocol ExtensionSession: AnyObject {
    /// Says that `send` makes the same of the same message in every session with this key, whatever was sent before; nil (the default)
    /// if it does not. A message to many connections is then passed through only once.
    var sharingKey: String? { get }

    /// Takes payload that came in, unmasked, and appends what it stands for to `output`.
    ///
    /// - Parameter maxBytes: `output` may not grow beyond this many bytes.
    /// - Throws: `ExtensionError.invalidData` closes with 1007, `.messageTooBig` with 1009.
    func receive(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int) throws(ExtensionError)
        -> ExtensionOutcome

    /// Takes payload that goes out and appends what is to be sent in its place to `output`. All pieces of a message are either changed
    /// or unchanged.
    func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome
}

extension ExtensionSession {
    public var sharingKey: String? { nil }
}

/// Why an extension fails a connection.
public enum ExtensionError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The answer to an offer is not acceptable, and why.
    case negotiation(String)
    /// The payload is not what the extension makes of any message.
    case invalidData(String)
    /// The message is larger than the limit, in bytes.
    case messageTooBig(limit: Int)

    public var description: String {
        switch self {
        case .negotiation(let reason), .invalidData(let reason): reason
        case .messageTooBig(let limit): "message over the limit of \(limit) bytes"
        }
    }
}
