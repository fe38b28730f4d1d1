/// The status code of a WebSocket close frame (RFC 6455 §7.4, IANA registry).
public struct CloseCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public var description: String { "\(rawValue)" }

    /// The purpose of the connection is fulfilled.
    public static let normal = CloseCode(rawValue: 1000)
    /// The endpoint goes away: a server stops, or the user leaves the page.
    public static let goingAway = CloseCode(rawValue: 1001)
    /// The peer violated the protocol.
    public static let protocolError = CloseCode(rawValue: 1002)
    /// A type of data that the endpoint does not accept.
    public static let unsupportedData = CloseCode(rawValue: 1003)
    /// Reported for a close frame without a code; never sent.
    public static let noStatus = CloseCode(rawValue: 1005)
    /// Reported for a connection that ended without a close frame; never sent.
    public static let abnormal = CloseCode(rawValue: 1006)
    /// Data that do not match the message's type, such as text that is not UTF-8.
    public static let invalidPayload = CloseCode(rawValue: 1007)
    /// The message violates the endpoint's policy.
    public static let policyViolation = CloseCode(rawValue: 1008)
    /// The message is too big.
    public static let messageTooBig = CloseCode(rawValue: 1009)
    /// The client requires an extension that the server did not accept.
    public static let missingExtension = CloseCode(rawValue: 1010)
    /// The server met a condition it did not expect.
    public static let internalError = CloseCode(rawValue: 1011)
    /// The service restarts: reconnect after a random delay.
    public static let serviceRestart = CloseCode(rawValue: 1012)
    /// The service is overloaded, or the peer reads too slowly.
    public static let tryAgainLater = CloseCode(rawValue: 1013)

    /// Whether a close frame may contain the code: 1000–1003, 1007–1014 (IANA) and 3000–4999.
    public var mayBeSent: Bool {
        switch rawValue {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }
}
