/// Which origins may open a WebSocket (RFC 6455 §10.2). A request without Origin does not come from
/// a browser and always passes.
public enum OriginPolicy: Hashable, Sendable {
    /// Pages from the host and port of the request, by http or https.
    case sameOrigin
    /// Any page. The application checks the origin.
    case any
    /// Pages from these origins: `https://example.com`, `http://localhost:8080`,
    /// `capacitor://localhost`; without a scheme, `example.com`, by http and https.
    /// `https://*.example.com` matches every name with one or more labels before `.example.com`.
    /// `null` matches pages without an origin, such as local files. Case and the scheme's default
    /// port are ignored.
    case list([String])

    /// Checks an entry of `list`.
    ///
    /// - Returns: what is wrong, if no page can have such an origin; nil if one can.
    package static func problem(with entry: String) -> String? {
        if entry.lowercased() == "null" { return nil }
        let reason = "expected SCHEME://HOST[:PORT], HOST[:PORT] for http and https, or null; HOST may begin with \"*.\""
        if entry.utf8.contains(UInt8(ascii: ",")) { return "expected one origin per entry: \(reason)" }
        let text = Handshake.withoutWildcard(entry)
        let bytes = text.utf8.span
        var start = 0
        if let end = Handshake.schemeEnd(bytes) {
            guard Handshake.isScheme(bytes, 0..<end) else { return reason }
            start = end + 3
        }
        if text.utf8.contains(UInt8(ascii: "*")) { return reason }
        guard Authority(bytes, start..<bytes.count) == nil else { return nil }
        return text.utf8.dropFirst(start).contains(UInt8(ascii: "/")) ? "expected no path and no slash at the end: \(reason)" : reason
    }
}

extension Handshake {
    /// Whether the policy allows a page of `origin` to connect to `host`.
    ///
    /// - Parameters:
    ///   - origin: The value of Origin; nil is allowed.
    ///   - host: The value of Host. Without a port, the default port of the origin's scheme is
    ///     assumed, because TLS may end at a proxy.
    package static func originIsAllowed(origin: String?, host: String, allowed policy: OriginPolicy) -> Bool {
        guard let origin else { return true }
        switch policy {
        case .any: return true
        case .sameOrigin: return matches(origin, host)
        case .list(let entries): return entries.contains { isListed(origin, $0) }
        }
    }

    private static func isListed(_ origin: String, _ entry: String) -> Bool {
        if origin == "null" { return entry.lowercased() == "null" }
        let name = withoutWildcard(entry)
        return name == entry ? matches(origin, entry) : matches(origin, subdomainOf: name)
    }

    /// Whether the origin `scheme://host[:port]` equals `entry`, which may lack the scheme.
    private static func matches(_ origin: String, _ entry: String) -> Bool {
        compare(origin, entry) { host, bytes, other, otherBytes, port in host.isSame(bytes, as: other, otherBytes, defaultPort: port) }
    }

    /// Whether the origin's host is a subdomain of the host of `entry`, a wildcard entry without
    /// its wildcard.
    private static func matches(_ origin: String, subdomainOf entry: String) -> Bool {
        compare(origin, entry) { host, bytes, other, otherBytes, port in
            // The part of the name after one of its dots, with the same port.
            let start = host.host.upperBound - other.host.count
            guard start - 1 > host.host.lowerBound, bytes[start - 1] == UInt8(ascii: "."),
                let rest = Authority(bytes, start..<bytes.count)
            else { return false }
            return rest.isSame(bytes, as: other, otherBytes, defaultPort: port)
        }
    }

    /// - Parameter isSame: compares two authorities, each with the bytes it refers to; the last
    ///   argument is the port where none is given.
    private static func compare(
        _ origin: String, _ entry: String, _ isSame: (Authority, Span<UInt8>, Authority, Span<UInt8>, Int) -> Bool
    ) -> Bool {
        let (mine, theirs) = (origin.utf8, entry.utf8)
        let (left, right) = (mine.span, theirs.span)
        guard let scheme = schemeEnd(left), isScheme(left, 0..<scheme), let ours = Authority(left, scheme + 3..<left.count)
        else { return false }
        let port = Authority.defaultPort(left, scheme: 0..<scheme)
        var start = 0
        if let otherScheme = schemeEnd(right) {
            guard left.matches(0..<scheme, right, 0..<otherScheme) else { return false }
            start = otherScheme + 3
        } else if port == nil {
            return false
        }
        guard let other = Authority(right, start..<right.count) else { return false }
        // An application's own scheme has no default port.
        return isSame(ours, left, other, right, port ?? 0)
    }

    /// RFC 3986 §3.1.
    fileprivate static func isScheme(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
        guard let first = range.first, ByteClass.isLetter(bytes[first]) else { return false }
        for index in range.dropFirst() {
            let byte = bytes[index]
            guard
                ByteClass.isLetter(byte) || ByteClass.isDigit(byte) || byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-")
                    || byte == UInt8(ascii: ".")
            else { return false }
        }
        return true
    }

    /// `https://example.com` for `https://*.example.com`; an entry without a wildcard is unchanged.
    fileprivate static func withoutWildcard(_ entry: String) -> String {
        if entry.hasPrefix("*.") { return String(entry.dropFirst(2)) }
        guard let place = entry.firstRange(of: "://*.") else { return entry }
        return entry[..<place.lowerBound] + "://" + entry[place.upperBound...]
    }

    /// The position of `://`; nil without one.
    fileprivate static func schemeEnd(_ bytes: Span<UInt8>) -> Int? {
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":"), in: 0..<bytes.count), colon + 2 < bytes.count,
            bytes[colon + 1] == UInt8(ascii: "/"), bytes[colon + 2] == UInt8(ascii: "/")
        else { return nil }
        return colon
    }
}
