import ApusCodec
import ApusPlatform

/// Where a client connects, from a URL: `ws`, `wss`, `http`, `https`, or `ws+unix` and `http+unix` for a local socket.
///
/// `ws://host[:port][/path][?query]`, IPv6 addresses in brackets; `ws+unix:///path/of/socket[:/path?query]`. A user and a password in front
/// of the host become `Authorization: Basic`.
public struct ClientAddress: Hashable, Sendable, CustomStringConvertible {
    /// What is spoken, and on what.
    public enum Scheme: String, Sendable {
        case ws, wss, http, https
        case webSocketUnix = "ws+unix"
        case httpUnix = "http+unix"

        /// Whether it runs on TLS.
        public var isSecure: Bool {
            switch self {
            case .wss, .https: true
            case .ws, .http, .webSocketUnix, .httpUnix: false
            }
        }

        /// Whether it opens a WebSocket.
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

        /// 80 or 443.
        public var defaultPort: UInt16 { isSecure ? 443 : 80 }
    }

    public let scheme: Scheme
    /// A name or an address, without brackets; of a local socket its path.
    public let host: String
    /// 1 to 65535; of no meaning for a local socket.
    public let port: UInt16
    /// Path and query as they stand in the request line; begins with `/`.
    public let target: String
    let credentials: BasicCredentials?

    /// - Throws: `ConnectError.address` that says what is wrong and what would be right.
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

    /// The value of `Host`: without the port if it is the scheme's own.
    public var authority: String {
        if scheme.isUnix { return "localhost" }
        return port == scheme.defaultPort ? bracketedHost : "\(bracketedHost):\(port)"
    }

    var bracketedHost: String { host.contains(":") ? "[\(host)]" : host }

    /// The address if the host is one, or a local socket; nil if it is a name.
    var numericAddress: SocketAddress? {
        scheme.isUnix ? .unix(path: host) : SocketAddress(numericHost: host, port: port)
    }

    /// Whether both lead to the same server in the same way (RFC 6454): what is meant for one may be told the other.
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

    private static let wanted = "it wants ws://HOST[:PORT][/PATH], or wss, http, https, ws+unix"

    static func parse(_ text: String) throws(Malformed) -> ClientAddress {
        if let start = text.firstRange(of: "://")?.upperBound {
            let authority = text[start...].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
            if let character = authority.first(where: { !$0.isASCII }) {
                throw Malformed("the host holds \"\(character)\": names beyond ASCII are written in punycode, with xn--")
            }
        }
        for byte in text.utf8 where !(0x21...0x7E).contains(byte) {
            let digits = String(byte, radix: 16, uppercase: true)
            throw Malformed("byte 0x\(digits.count < 2 ? "0" : "")\(digits): only visible ASCII may stand in it; percent-encode the rest")
        }
        guard let colon = text.firstRange(of: "://") else { throw Malformed(wanted) }
        guard let scheme = Scheme(rawValue: text[..<colon.lowerBound].lowercased()) else {
            throw Malformed("scheme \(text[..<colon.lowerBound]): \(wanted)")
        }
        let rest = text[colon.upperBound...]
        guard !rest.contains("#") else { throw Malformed("a fragment: it is never sent (RFC 6455 §3)") }
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

    /// `/path/of/socket`, then perhaps a colon and the target.
    private static func parseUnix(_ scheme: Scheme, _ rest: Substring) throws(Malformed) -> ClientAddress {
        let end = rest.firstRange(of: ":/")?.lowerBound ?? rest.endIndex
        guard let path = decode(rest[..<end]) else { throw Malformed("a path with a broken percent-encoding") }
        guard path.hasPrefix("/"), path.utf8.count <= SocketAddress.maxUnixPathBytes else {
            throw Malformed(
                "it wants \(scheme.rawValue):///PATH/OF/SOCKET[:/PATH], the socket's path with 1 to \(SocketAddress.maxUnixPathBytes) bytes"
            )
        }
        return ClientAddress(scheme: scheme, host: path, port: 0, target: target(rest[end...].dropFirst()))
    }

    /// `host[:port]`, brackets around an IPv6 address.
    static func parseAuthority(_ text: Substring, defaultPort: UInt16) throws(Malformed) -> (host: String, port: UInt16) {
        var host = text
        var digits: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw Malformed("an IPv6 address without its closing bracket") }
            host = text[text.index(after: text.startIndex)..<end]
            let behind = text[text.index(after: end)...]
            guard behind.isEmpty || behind.hasPrefix(":") else { throw Malformed("\"\(behind)\" behind the bracket: it wants :PORT") }
            if !behind.isEmpty { digits = behind.dropFirst() }
            guard host.contains(":"), SocketAddress(numericHost: String(host), port: 0) != nil else {
                throw Malformed("\"\(host)\" is no IPv6 address")
            }
        } else {
            if let colon = text.firstIndex(of: ":") {
                host = text[..<colon]
                digits = text[text.index(after: colon)...]
                guard digits?.contains(":") == false else { throw Malformed("an IPv6 address stands in brackets: [\(text)]") }
            }
            try checkName(host)
        }
        guard let digits else { return (String(host), defaultPort) }
        guard let port = UInt16(digits), port > 0, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw Malformed("port \"\(digits)\": it wants 1 to 65535")
        }
        return (String(host), port)
    }

    /// What resolvers take: labels of 1 to 63 letters, digits, hyphens and underscores; 253 bytes in all.
    private static func checkName(_ host: Substring) throws(Malformed) {
        guard !host.isEmpty else { throw Malformed("a host is missing: \(wanted)") }
        let name = host.hasSuffix(".") ? host.dropLast() : host
        guard name.utf8.count <= 253 else { throw Malformed("a host of \(name.utf8.count) bytes: it may have 253") }
        for label in name.split(separator: ".", omittingEmptySubsequences: false) {
            guard (1...63).contains(label.utf8.count) else {
                throw Malformed("host \"\(host)\" has a label that is empty or over 63 bytes")
            }
            for byte in label.utf8 {
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "-"), UInt8(ascii: "_"):
                    continue
                default:
                    throw Malformed("host \"\(host)\" holds \"\(Character(UnicodeScalar(byte)))\": letters, digits, - and _ make names")
                }
            }
        }
    }

    static func parseCredentials(_ text: Substring) throws(Malformed) -> BasicCredentials {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let user = decode(parts[0]), let password = decode(parts.count > 1 ? parts[1] : ""),
            let credentials = BasicCredentials(user: user, password: password)
        else { throw Malformed("user or password hold a control character or a broken percent-encoding") }
        return credentials
    }

    /// Percent-decodes; nil if that is not UTF-8 or holds NUL.
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
