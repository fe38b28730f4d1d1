import ApusCodec
import ApusPlatform

/// A client's destination, from a URL: `ws`, `wss`, `http`, `https`, or `ws+unix` and `http+unix`
/// for a Unix socket.
///
/// `ws://[USER:PASSWORD@]HOST[:PORT][/PATH][?QUERY]`, IPv6 addresses in brackets;
/// `ws+unix:///PATH/OF/SOCKET[:/PATH][?QUERY]`. User and password are sent as
/// `Authorization: Basic`.
public struct ClientAddress: Hashable, Sendable, CustomStringConvertible {
    /// The protocol, and the transport below it.
    public enum Scheme: String, Sendable {
        case ws, wss, http, https
        case webSocketUnix = "ws+unix"
        case httpUnix = "http+unix"

        /// Whether the connection uses TLS.
        public var isSecure: Bool {
            switch self {
            case .wss, .https: true
            case .ws, .http, .webSocketUnix, .httpUnix: false
            }
        }

        /// Whether the request opens a WebSocket.
        public var isWebSocket: Bool {
            switch self {
            case .ws, .wss, .webSocketUnix: true
            case .http, .https, .httpUnix: false
            }
        }

        var isUnix: Bool {
            switch self {
            case .webSocketUnix, .httpUnix: true
            case .ws, .wss, .http, .https: false
            }
        }

        /// 443 with TLS, else 80.
        public var defaultPort: UInt16 { isSecure ? 443 : 80 }
    }

    public let scheme: Scheme
    /// A name, or an address without brackets; for a Unix socket its path.
    public let host: String
    /// 1 to 65535; 0 for a Unix socket.
    public let port: UInt16
    /// Path and query as in the request line; begins with `/`.
    public let target: String
    let credentials: BasicCredentials?

    /// - Throws: `ConnectError.address` with what was expected.
    public init(parsing text: String) throws(ConnectError) {
        do {
            self = try Self.parse(text)
        } catch {
            throw .address(text, error.reason)
        }
    }

    init(scheme: Scheme, host: String, port: UInt16, target: String, credentials: BasicCredentials? = nil) {
        self.scheme = scheme
        self.host = host
        self.port = port
        self.target = target
        self.credentials = credentials
    }

    /// The value of `Host`, without the scheme's default port.
    public var authority: String {
        if scheme.isUnix { return "localhost" }
        return port == scheme.defaultPort ? bracketedHost : "\(bracketedHost):\(port)"
    }

    var bracketedHost: String { host.contains(":") ? "[\(host)]" : host }

    /// The socket address of a numeric host or of a Unix socket; nil for a name.
    var numericAddress: SocketAddress? {
        scheme.isUnix ? .unix(path: host) : SocketAddress(numericHost: host, port: port)
    }

    /// Whether scheme security, host and port are the same (RFC 6454): credentials for one may be
    /// sent to the other.
    func hasSameOrigin(as other: ClientAddress) -> Bool {
        scheme.isSecure == other.scheme.isSecure && scheme.isUnix == other.scheme.isUnix && port == other.port
            && host.lowercased() == other.host.lowercased()
    }

    /// The URL, without user and password.
    public var description: String {
        if scheme.isUnix { return "\(scheme.rawValue)://\(host):\(target)" }
        return "\(scheme.rawValue)://\(authority)\(target)"
    }
}

extension ClientAddress {
    struct Malformed: Error {
        let reason: String
        init(_ reason: String) { self.reason = reason }
    }

    private static let wanted = "expected ws://HOST[:PORT][/PATH], or wss, http, https, ws+unix"

    static func parse(_ text: String) throws(Malformed) -> ClientAddress {
        if let start = text.firstRange(of: "://")?.upperBound {
            let authority = text[start...].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
            if let character = authority.first(where: { !$0.isASCII }) {
                throw Malformed("host: expected ASCII, got \"\(character)\"; write other names in punycode (xn--…)")
            }
        }
        for byte in text.utf8 where !(0x21...0x7E).contains(byte) {
            let digits = String(byte, radix: 16, uppercase: true)
            throw Malformed("expected visible ASCII, got byte 0x\(digits.count < 2 ? "0" : "")\(digits): percent-encode it")
        }
        guard let colon = text.firstRange(of: "://") else { throw Malformed(wanted) }
        guard let scheme = Scheme(rawValue: text[..<colon.lowerBound].lowercased()) else {
            throw Malformed("scheme \(text[..<colon.lowerBound]): \(wanted)")
        }
        let rest = text[colon.upperBound...]
        guard !rest.contains("#") else { throw Malformed("expected no fragment (RFC 6455 §3)") }
        if scheme.isUnix { return try parseUnix(scheme, rest) }
        let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        var authority = rest[..<end]
        var credentials: BasicCredentials?
        if let at = authority.lastIndex(of: "@") {
            credentials = try parseCredentials(authority[..<at])
            authority = authority[authority.index(after: at)...]
        }
        let (host, port) = try parseAuthority(authority, defaultPort: scheme.defaultPort)
        return ClientAddress(scheme: scheme, host: host, port: port, target: target(rest[end...]), credentials: credentials)
    }

    private static func target(_ text: Substring) -> String { text.hasPrefix("/") ? String(text) : "/\(text)" }

    /// `/PATH/OF/SOCKET[:/PATH]`.
    private static func parseUnix(_ scheme: Scheme, _ rest: Substring) throws(Malformed) -> ClientAddress {
        let end = rest.firstRange(of: ":/")?.lowerBound ?? rest.endIndex
        guard let path = decode(rest[..<end]) else { throw Malformed("invalid percent-encoding in the socket's path") }
        guard path.hasPrefix("/"), path.utf8.count <= SocketAddress.maxUnixPathBytes else {
            throw Malformed(
                "expected \(scheme.rawValue):///PATH/OF/SOCKET[:/PATH], the socket's path of 1 to \(SocketAddress.maxUnixPathBytes) bytes"
            )
        }
        return ClientAddress(scheme: scheme, host: path, port: 0, target: target(rest[end...].dropFirst()))
    }

    /// `HOST[:PORT]`, brackets around an IPv6 address.
    static func parseAuthority(_ text: Substring, defaultPort: UInt16) throws(Malformed) -> (host: String, port: UInt16) {
        var host = text
        var digits: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw Malformed("expected a closing bracket after the IPv6 address") }
            host = text[text.index(after: text.startIndex)..<end]
            let behind = text[text.index(after: end)...]
            guard behind.isEmpty || behind.hasPrefix(":") else { throw Malformed("expected :PORT after the bracket, got \"\(behind)\"") }
            if !behind.isEmpty { digits = behind.dropFirst() }
            guard host.contains(":"), SocketAddress(numericHost: String(host), port: 0) != nil else {
                throw Malformed("expected an IPv6 address in brackets, got \"\(host)\"")
            }
        } else {
            if let colon = text.firstIndex(of: ":") {
                host = text[..<colon]
                digits = text[text.index(after: colon)...]
                guard digits?.contains(":") == false else { throw Malformed("expected brackets around the IPv6 address: [\(text)]") }
            }
            try checkName(host)
        }
        guard let digits else { return (String(host), defaultPort) }
        guard let port = UInt16(digits), port > 0, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw Malformed("expected port 1 to 65535, got port \"\(digits)\"")
        }
        return (String(host), port)
    }

    /// Accepts labels of 1 to 63 letters, digits, hyphens and underscores; at most 253 bytes in
    /// total.
    private static func checkName(_ host: Substring) throws(Malformed) {
        guard !host.isEmpty else { throw Malformed("the host is missing: \(wanted)") }
        let name = host.hasSuffix(".") ? host.dropLast() : host
        guard name.utf8.count <= 253 else { throw Malformed("host: expected at most 253 bytes, got \(name.utf8.count)") }
        for label in name.split(separator: ".", omittingEmptySubsequences: false) {
            guard (1...63).contains(label.utf8.count) else {
                throw Malformed("host \"\(host)\": expected labels of 1 to 63 bytes")
            }
            for byte in label.utf8 {
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "-"), UInt8(ascii: "_"):
                    continue
                default:
                    throw Malformed("host \"\(host)\": expected letters, digits, - and _, got \"\(Character(UnicodeScalar(byte)))\"")
                }
            }
        }
    }

    static func parseCredentials(_ text: Substring) throws(Malformed) -> BasicCredentials {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let user = decode(parts[0]), let password = decode(parts.count > 1 ? parts[1] : ""),
            let credentials = BasicCredentials(user: user, password: password)
        else { throw Malformed("user or password: expected valid percent-encoding without control characters") }
        return credentials
    }

    /// Percent-decodes; nil if the result is not UTF-8 or contains NUL.
    static func decode(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let digits = String(rest.prefix(2)), digits.utf8.count == 2, let value = UInt8(digits, radix: 16), value != 0 else {
                return nil
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
