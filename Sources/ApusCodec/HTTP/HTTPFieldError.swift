/// A value from the application that must not be written into a head. Nothing was written.
public enum HTTPFieldError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The field name is empty or not a token.
    case invalidName(String)
    /// The value of the named field contains a control character.
    case invalidValue(name: String, byte: UInt8)
    /// The library writes this field from another parameter.
    case reservedName(String)
    /// The method is empty or not a token.
    case invalidMethod(String)
    /// The request target is empty or contains a control character, a space, a `#` or a byte
    /// outside ASCII.
    case invalidTarget(String)
    /// The host is not `host[:port]`.
    case invalidHost(String)
    /// The subprotocol is not a token, or is listed twice.
    case invalidSubprotocol(String)

    /// What is wrong and what is expected; the application's text is quoted, control characters are
    /// escaped.
    public var description: String {
        switch self {
        case .invalidName(let name):
            "field name \(name.debugDescription) is not a token: one or more of A-Z a-z 0-9 !#$%&'*+-.^_`|~"
        case .invalidValue(let name, let byte):
            "value of field \(name.debugDescription) holds byte 0x\(hexadecimal(byte)): no control character but HTAB is allowed"
        case .reservedName(let name):
            "field \(name.debugDescription) is written by the library, from the address or from a parameter of its own: leave it out"
        case .invalidMethod(let method):
            "method \(method.debugDescription) is not a token: one or more of A-Z a-z 0-9 !#$%&'*+-.^_`|~"
        case .invalidTarget(let target):
            "request target \(target.debugDescription) must be visible ASCII without '#': percent-encode the rest"
        case .invalidHost(let host):
            "host \(host.debugDescription) is not host[:port]"
        case .invalidSubprotocol(let name):
            "subprotocol \(name.debugDescription) must be a token and listed once"
        }
    }
}
