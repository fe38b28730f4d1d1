/// `host[:port]` as ranges of some bytes (RFC 3986 §3.2, without user information; RFC 9110 §7.2).
struct Authority {
    /// The host, with the brackets of an IP literal. Never empty.
    let host: Range<Int>
    /// 0–65535; nil without a colon or without digits after it.
    let port: Int?

    /// Parses all of `range`; nil if it is not a host with an optional port.
    ///
    /// The host is a registered name (RFC 3986 §3.2.2, which includes IPv4 addresses) or an IPv6
    /// address in brackets.
    init?(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        guard let host = Self.hostRange(bytes, range) else { return nil }
        self.host = host
        guard host.upperBound < range.upperBound else {
            port = nil
            return
        }
        guard bytes[host.upperBound] == UInt8(ascii: ":") else { return nil }
        let digits = host.upperBound + 1..<range.upperBound
        guard digits.count <= 5 else { return nil }
        var number = 0
        for index in digits {
            guard ByteClass.isDigit(bytes[index]) else { return nil }
            number = number * 10 + Int(bytes[index] - 0x30)
        }
        guard number <= 65535 else { return nil }
        port = digits.isEmpty ? nil : number
    }

    private static func hostRange(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Range<Int>? {
        guard let first = range.first else { return nil }
        if bytes[first] == UInt8(ascii: "[") { return literalRange(bytes, range) }
        var index = first
        while index < range.upperBound, bytes[index] != UInt8(ascii: ":") {
            if bytes[index] == UInt8(ascii: "%") {
                guard index + 2 < range.upperBound, ByteClass.hexValue(bytes[index + 1]) != nil,
                    ByteClass.hexValue(bytes[index + 2]) != nil
                else { return nil }
                index += 3
            } else {
                guard ByteClass.isRegisteredName(bytes[index]) else { return nil }
                index += 1
            }
        }
        return index > first ? first..<index : nil
    }

    /// `[` IPv6 address `]`: at least two colons, groups of up to four digits, optionally an IPv4
    /// part at the end. Zone identifiers and future address forms are refused.
    private static func literalRange(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Range<Int>? {
        var colons = 0
        var digits = 0
        for index in range.lowerBound + 1..<range.upperBound {
            let byte = bytes[index]
            if byte == UInt8(ascii: "]") {
                return (2...7).contains(colons) ? range.lowerBound..<index + 1 : nil
            } else if byte == UInt8(ascii: ":") {
                colons += 1
                digits = 0
            } else if byte == UInt8(ascii: ".") {
                digits = 0
            } else {
                digits += 1
                guard ByteClass.hexValue(byte) != nil, digits <= 4 else { return nil }
            }
        }
        return nil
    }

    /// Whether both have the same host, without regard to case, and the same port. `defaultPort` is
    /// used where none is given.
    func isSame(
        _ bytes: Span<UInt8>, as other: Authority, _ otherBytes: Span<UInt8>, defaultPort: Int
    ) -> Bool {
        (port ?? defaultPort) == (other.port ?? defaultPort) && bytes.matches(host, otherBytes, other.host)
    }

    /// The default port of a supported scheme: 80 for http and ws, 443 for https and wss; nil for
    /// any other.
    static func defaultPort(_ bytes: Span<UInt8>, scheme: Range<Int>) -> Int? {
        if bytes.matches(scheme, lowercase: "http") || bytes.matches(scheme, lowercase: "ws") { return 80 }
        if bytes.matches(scheme, lowercase: "https") || bytes.matches(scheme, lowercase: "wss") { return 443 }
        return nil
    }
}
