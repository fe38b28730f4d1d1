/// Whose pages may open a WebSocket (RFC 6455 §10.2). A client that sends no Origin is no browser and always passes.
public enum OriginPolicy: Hashable, Sendable {
    /// Pages from the host and port that the request was sent to, by http or https.
    case sameOrigin
    /// Any page; the application checks for itself.
    case any
    /// Pages from these origins: `https://example.com`, `http://localhost:8080`; without a scheme, `example.com`, by http and https;
    /// `null` admits pages without an origin of their own, such as files. Case and the scheme's own port do not matter.
    case list([String])

    /// Why no page has the origin that an entry of `list` stands for; nil if one may.
    package static func objection(to entry: String) -> String? {
        if entry.lowercased() == "null" { return nil }
        let wanted = "it wants SCHEME://HOST[:PORT] with http or https, HOST[:PORT] for both, or null"
        let bytes = entry.utf8.span
        var start = 0
        if let end = Handshake.schemeEnd(bytes) {
            guard bytes.matches(0..<end, lowercase: "http") || bytes.matches(0..<end, lowercase: "https") else { return wanted }
            start = end + 3
        }
        guard Authority(bytes, start..<bytes.count) == nil else { return nil }
        return entry.utf8.dropFirst(start).contains(UInt8(ascii: "/")) ? "an origin has no path, not even a last slash: \(wanted)" : wanted
    }
}

extension Handshake {
    /// Whether the policy lets a page of `origin` connect to `host`.
    ///
    /// - Parameters:
    ///   - origin: The value of Origin; nil passes.
    ///   - host: The value of Host. Without a port it is on the port that the origin's scheme stands for, since TLS may end at a proxy.
    package static func originIsAllowed(origin: String?, host: String, allowed policy: OriginPolicy) -> Bool {
        guard let origin else { return true }
        switch policy {
        case .any: return true
        case .sameOrigin: return matches(origin, host)
        case .list(let entries): return entries.contains { matches(origin, $0) || isNull(origin, $0) }
        }
    }

    private static func isNull(_ origin: String, _ entry: String) -> Bool { origin == "null" && entry.lowercased() == "null" }

    /// Whether the origin `scheme://host[:port]` is `entry`, which may lack the scheme.
    private static func matches(_ origin: String, _ entry: String) -> Bool {
        let (mine, theirs) = (origin.utf8, entry.utf8)
        let (left, right) = (mine.span, theirs.span)
        guard let scheme = schemeEnd(left), let port = Authority.defaultPort(left, scheme: 0..<scheme),
            let ours = Authority(left, scheme + 3..<left.count)
        else { return false }
        var start = 0
        if let otherScheme = schemeEnd(right) {
            guard left.matches(0..<scheme, right, 0..<otherScheme) else { return false }
            start = otherScheme + 3
        }
        guard let other = Authority(right, start..<right.count) else { return false }
        return ours.names(left, sameAs: other, right, defaultPort: port)
    }

    /// The position of `://`, or nil.
    fileprivate static func schemeEnd(_ bytes: Span<UInt8>) -> Int? {
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":"), in: 0..<bytes.count), colon + 2 < bytes.count,
            bytes[colon + 1] == UInt8(ascii: "/"), bytes[colon + 2] == UInt8(ascii: "/")
        else { return nil }
        return colon
    }
}
