/// A WebSocket extension (RFC 6455 §9): what it offers and accepts, and how it changes payload.
///
/// One object serves all connections of a process; the `ExtensionSession` it makes holds the state
/// of one connection. It is called on the worker's thread. Several extensions can be combined if no
/// two own the same reserved bit.
public protocol WebSocketExtension: AnyObject {
    /// The name in `Sec-WebSocket-Extensions`, a token.
    var name: String { get }

    /// The reserved bits that it uses on the first frame of a message.
    var reservedBits: ReservedBits { get }

    /// A client's offers in order of preference. Every element has this extension's name.
    func offers() -> [ExtensionParameters]

    /// Decides about one offer, on a server.
    ///
    /// - Returns: nil declines the offer; the client's next offer of this name is tried.
    func accept(_ offer: ExtensionParameters) -> ExtensionAgreement?

    /// Checks the server's response, on a client.
    ///
    /// - Throws: `ExtensionError.negotiation` if the response does not fit the offers: the
    ///   connection fails.
    func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession
}

/// An accepted offer.
public struct ExtensionAgreement {
    /// The element of the server's response; its name is the extension's.
    public let answer: ExtensionParameters
    /// The state of the connection.
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

/// A part of a message's payload. Control frames never pass through extensions.
public struct ExtensionPiece: Hashable, Sendable {
    public let kind: MessageKind
    /// The reserved bits of the message's first frame.
    public let reservedBits: ReservedBits
    public let startsMessage: Bool
    public let endsMessage: Bool

    public init(kind: MessageKind, reservedBits: ReservedBits, startsMessage: Bool, endsMessage: Bool) {
        self.kind = kind
        self.reservedBits = reservedBits
        self.startsMessage = startsMessage
        self.endsMessage = endsMessage
    }

    init(_ piece: DataPiece) {
        kind = piece.kind
        reservedBits = ReservedBits(rawValue: piece.reservedBits)
        startsMessage = piece.startsMessage
        endsMessage = piece.endsMessage
    }
}

/// The result for one piece.
public enum ExtensionOutcome: Hashable, Sendable {
    /// Nothing was appended: the payload is used unchanged.
    case unchanged
    /// The appended bytes replace the payload. On sending, the first frame of the message gets
    /// these bits.
    case replaced(ReservedBits = [])
}

/// An extension's state for one connection.
public protocol ExtensionSession: AnyObject {
    /// Sessions with the same key produce the same bytes for the same message, whatever they sent
    /// before, so a message to many connections is encoded once. Nil, the default, if `send`
    /// depends on earlier messages.
    var sharingKey: String? { get }

    /// Decodes received payload, which is unmasked, and appends the result to `output`.
    ///
    /// - Parameter maxBytes: the limit of `output`.
    /// - Throws: `ExtensionError.invalidData` closes with 1007, `.messageTooBig` with 1009.
    func receive(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int) throws(ExtensionError)
        -> ExtensionOutcome

    /// Encodes payload to send and appends the result to `output`. Either all pieces of a message
    /// are changed or none.
    func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome
}

extension ExtensionSession {
    public var sharingKey: String? { nil }
}

/// Why an extension fails a connection.
public enum ExtensionError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The server's response is not acceptable; with the reason.
    case negotiation(String)
    /// The payload is not valid data of the extension; with the reason.
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
