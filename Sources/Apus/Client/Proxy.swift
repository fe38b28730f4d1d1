import ApusCodec
import ApusPlatform

/// A proxy for clients: HTTP (CONNECT, RFC 9110 §9.3.6) or SOCKS 5 (RFC 1928). The proxy resolves
/// the server's name.
public struct Proxy: Hashable, Sendable, CustomStringConvertible {
    /// The proxy's protocol.
    public enum Kind: String, Sendable {
        case http, socks5
    }

    public let kind: Kind
    /// A name, or an address without brackets.
    public let host: String
    public let port: UInt16
    let credentials: BasicCredentials?

    /// Parses `[http://][USER:PASSWORD@]HOST[:PORT]` or `socks5://…`; user and password may be
    /// percent-encoded. The default port is 3128 for HTTP, 1080 for SOCKS. `socks5h` means
    /// `socks5`.
    ///
    /// - Throws: `ConnectError.address` with what was expected.
    public init(parsing text: String) throws(ConnectError) {
        do {
            self = try Self.parse(text)
        } catch {
            throw .address(text, error.reason)
        }
    }

    private init(_ kind: Kind, _ host: String, _ port: UInt16, _ credentials: BasicCredentials?) {
        self.kind = kind
        self.host = host
        self.port = port
        self.credentials = credentials
    }

    private static func parse(_ text: String) throws(ClientAddress.Malformed) -> Proxy {
        for byte in text.utf8 where !(0x21...0x7E).contains(byte) { throw ClientAddress.Malformed("expected visible ASCII only") }
        var rest = text[...]
        var kind = Kind.http
        if let colon = text.firstRange(of: "://") {
            switch text[..<colon.lowerBound].lowercased() {
            case "http": kind = .http
            case "socks5", "socks5h": kind = .socks5
            case let scheme: throw ClientAddress.Malformed("scheme \(scheme): expected http:// or socks5://")
            }
            rest = text[colon.upperBound...]
        }
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        var credentials: BasicCredentials?
        if let at = rest.lastIndex(of: "@") {
            credentials = try ClientAddress.parseCredentials(rest[..<at])
            rest = rest[rest.index(after: at)...]
        }
        guard let first = rest.first, first != ":" else {
            throw ClientAddress.Malformed("the host is missing: expected [http://][USER:PASSWORD@]HOST[:PORT], or socks5://…")
        }
        let (host, port) = try ClientAddress.parseAuthority(rest, defaultPort: kind == .http ? 3128 : 1080)
        return Proxy(kind, host, port, credentials)
    }

    /// The URL, without user and password.
    public var description: String { "\(kind.rawValue)://\(host.contains(":") ? "[\(host)]" : host):\(port)" }
}

/// Which proxy clients use.
public enum ProxyChoice: Sendable, Hashable {
    /// From `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`: see `ProxyEnvironment`.
    case environment
    /// No proxy.
    case none
    /// This proxy, for all destinations but Unix sockets.
    case through(Proxy)

    /// The proxy for `address`; nil: none.
    ///
    /// - Throws: `ConnectError.request` for an invalid environment variable.
    func proxy(to address: ClientAddress) throws(ConnectError) -> Proxy? {
        if address.scheme.isUnix { return nil }
        switch self {
        case .none: return nil
        case .through(let proxy): return proxy
        case .environment: return try ProxyEnvironment().proxy(to: address)
        }
    }
}

/// The proxy settings of the environment variables.
///
/// `ws` and `http` use `http_proxy`, in lower case only, because CGI sets `HTTP_PROXY` from a
/// request's field; `wss` and `https` use `https_proxy` or `HTTPS_PROXY`; both fall back to
/// `all_proxy` or `ALL_PROXY`. An empty value means no proxy. `localhost`, loopback addresses and
/// the entries of `no_proxy` or `NO_PROXY` are reached directly. Entries are separated by commas: a
/// name covers itself and its subdomains, with or without a leading dot; an address may be a
/// network, as in `10.0.0.0/8`; `HOST:PORT` covers that port only; `*` covers everything.
struct ProxyEnvironment {
    private let variable: (String) -> String?

    init(variable: @escaping (String) -> String? = Process.environment) { self.variable = variable }

    func proxy(to address: ClientAddress) throws(ConnectError) -> Proxy? {
        let names = address.scheme.isSecure ? ["https_proxy", "HTTPS_PROXY"] : ["http_proxy"]
        guard let found = value(of: names + ["all_proxy", "ALL_PROXY"]), !isDirect(address) else { return nil }
        do {
            return try Proxy(parsing: found.value)
        } catch {
            throw .request("\(found.name): \(error)")
        }
    }

    /// The first variable that is set and not empty.
    private func value(of names: [String]) -> (name: String, value: String)? {
        for name in names {
            if let value = variable(name), !value.isEmpty { return (name, value) }
        }
        return nil
    }

    private func isDirect(_ address: ClientAddress) -> Bool {
        let host = Self.plain(address.host)
        let numeric = address.numericAddress
        if host == "localhost" || host.hasSuffix(".localhost") || numeric?.isLoopback == true { return true }
        guard let list = value(of: ["no_proxy", "NO_PROXY"])?.value else { return false }
        return list.split { $0 == "," || $0 == " " }.contains { Self.matches($0, host, numeric, address.port) }
    }

    /// In lower case, without the root's dot.
    private static func plain(_ host: String) -> String {
        let lowercase = host.lowercased()
        return lowercase.hasSuffix(".") ? String(lowercase.dropLast()) : lowercase
    }

    private static func matches(_ entry: Substring, _ host: String, _ numeric: SocketAddress?, _ port: UInt16) -> Bool {
        if entry == "*" { return true }
        var name = plain(String(entry))
        if let slash = name.firstIndex(of: "/") {
            guard let numeric, let bits = Int(name[name.index(after: slash)...]),
                let network = SocketAddress(numericHost: String(name[..<slash]), port: 0)
            else { return false }
            return numeric.isIn(network, prefixBits: bits)
        }
        if name.hasPrefix("["), let end = name.firstIndex(of: "]") {
            let behind = name[name.index(after: end)...]
            if behind.hasPrefix(":"), UInt16(behind.dropFirst()) != port { return false }
            name = String(name[name.index(after: name.startIndex)..<end])
        } else if let colon = name.firstIndex(of: ":"), name.lastIndex(of: ":") == colon {
            guard UInt16(name[name.index(after: colon)...]) == port else { return false }
            name = String(name[..<colon])
        }
        if let numeric { return SocketAddress(numericHost: name, port: port) == numeric }
        if name.hasPrefix("*.") { name = String(name.dropFirst(1)) }
        let suffix = name.hasPrefix(".") ? name : "." + name
        return suffix.utf8.count > 1 && (host == suffix.dropFirst() || host.hasSuffix(suffix))
    }
}

extension SocketAddress {
    /// Whether the address is this host's loopback or a Unix socket.
    var isLoopback: Bool {
        switch self {
        case .ipv4(let bytes, _): bytes >> 24 == 127
        // ::1, and ::ffff:127.0.0.0/104.
        case .ipv6(let high, let low, _, _): high == 0 && (low == 1 || low >> 24 == 0xFF_FF7F)
        case .unix: true
        }
    }

    /// Whether the first `prefixBits` bits equal those of `network`.
    func isIn(_ network: SocketAddress, prefixBits: Int) -> Bool {
        switch (self, network) {
        case (.ipv4(let mine, _), .ipv4(let theirs, _)):
            guard (0...32).contains(prefixBits) else { return false }
            return prefixBits == 0 || (mine ^ theirs) >> UInt32(32 - prefixBits) == 0
        case (.ipv6(let high, let low, _, _), .ipv6(let networkHigh, let networkLow, _, _)):
            guard (0...128).contains(prefixBits) else { return false }
            if prefixBits == 0 { return true }
            if prefixBits <= 64 { return (high ^ networkHigh) >> UInt64(64 - prefixBits) == 0 }
            return high == networkHigh && (low ^ networkLow) >> UInt64(128 - prefixBits) == 0
        case (.ipv4, _), (.ipv6, _), (.unix, _): return false
        }
    }

    /// The 4 or 16 bytes of an address in network order; nil for a Unix socket.
    var networkBytes: [UInt8]? {
        func bytes(_ word: some FixedWidthInteger) -> [UInt8] {
            stride(from: word.bitWidth - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> $0) }
        }
        switch self {
        case .ipv4(let address, _): return bytes(address)
        case .ipv6(let high, let low, _, _): return bytes(high) + bytes(low)
        case .unix: return nil
        }
    }
}
