/// An IPv4 or IPv6 address without port and zone: 16 bytes in network order as two big-endian
/// words. An IPv4 address is the IPv6 address that maps it, `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
package struct IPAddress: Hashable, Sendable, CustomStringConvertible {
    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// - Parameter ipv4: Four bytes, the most significant one first.
    package init(ipv4: UInt32) { self.init(high: 0, low: 0xFFFF << 32 | UInt64(ipv4)) }

    /// Parses the text of an address: `127.0.0.1`, `::1` (without brackets), `::ffff:127.0.0.1`.
    ///
    /// Decimal numbers must not have leading zeros, which some parsers take for octal.
    ///
    /// - Returns: nil for any other text, also with a port or a zone.
    package init?(parsing text: some StringProtocol) {
        let bytes = Array(text.utf8)
        self.init(parsing: bytes.span)
    }

    init?(parsing bytes: Span<UInt8>) {
        let all = 0..<bytes.count
        if bytes.firstIndex(of: UInt8(ascii: ":"), in: all) == nil {
            guard let address = Self.ipv4(bytes, all) else { return nil }
            self.init(ipv4: address)
        } else {
            guard let address = Self.ipv6(bytes) else { return nil }
            self = address
        }
    }

    /// Whether this is an IPv4 address, or the IPv6 address that maps one.
    package var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// All 16 bytes as one number.
    var number: UInt128 { UInt128(high) << 64 | UInt128(low) }

    init(number: UInt128) {
        self.init(high: UInt64(truncatingIfNeeded: number >> 64), low: UInt64(truncatingIfNeeded: number))
    }

    /// Four decimal numbers of 0 to 255, separated by dots.
    private static func ipv4(_ bytes: Span<UInt8>, _ range: Range<Int>) -> UInt32? {
        guard range.count <= 15 else { return nil }
        var address: UInt32 = 0
        var dots = 0
        var number: UInt32?
        for index in range {
            let byte = bytes[index]
            if byte == UInt8(ascii: ".") {
                guard let part = number, dots < 3 else { return nil }
                address = address << 8 | part
                dots += 1
                number = nil
            } else {
                guard ByteClass.isDigit(byte), number != 0 else { return nil }
                let next = (number ?? 0) * 10 + UInt32(byte - 0x30)
                guard next <= 255 else { return nil }
                number = next
            }
        }
        guard let part = number, dots == 3 else { return nil }
        return address << 8 | part
    }

    /// Eight groups of one to four hexadecimal digits; `::` stands once for one or more groups of
    /// zeros, and the last two groups may be an IPv4 address (RFC 4291 §2.2).
    private static func ipv6(_ bytes: Span<UInt8>) -> IPAddress? {
        guard bytes.count <= 45 else { return nil }
        var groups: [UInt16] = []
        // How many groups precede `::`.
        var gap: Int?
        var index = 0
        if bytes[0] == UInt8(ascii: ":") {
            guard bytes.count >= 2, bytes[1] == UInt8(ascii: ":") else { return nil }
            gap = 0
            index = 2
        }
        while index < bytes.count {
            let end = bytes.firstIndex(of: UInt8(ascii: ":"), in: index..<bytes.count) ?? bytes.count
            if bytes.firstIndex(of: UInt8(ascii: "."), in: index..<end) != nil {
                guard end == bytes.count, let address = ipv4(bytes, index..<end) else { return nil }
                groups += [UInt16(truncatingIfNeeded: address >> 16), UInt16(truncatingIfNeeded: address)]
                break
            }
            guard let group = group(bytes, index..<end) else { return nil }
            groups.append(group)
            index = end
            guard index < bytes.count else { break }
            index += 1
            // A colon at the end must be a part of `::`.
            guard index < bytes.count else { return nil }
            if bytes[index] == UInt8(ascii: ":") {
                guard gap == nil else { return nil }
                gap = groups.count
                index += 1
            }
        }
        return address(groups, gap: gap)
    }

    private static func group(_ bytes: Span<UInt8>, _ range: Range<Int>) -> UInt16? {
        guard (1...4).contains(range.count) else { return nil }
        var group: UInt16 = 0
        for index in range {
            guard let digit = ByteClass.hexValue(bytes[index]) else { return nil }
            group = group << 4 | UInt16(digit)
        }
        return group
    }

    private static func address(_ groups: [UInt16], gap: Int?) -> IPAddress? {
        var groups = groups
        if let gap {
            guard groups.count <= 7 else { return nil }
            groups.insert(contentsOf: [UInt16](repeating: 0, count: 8 - groups.count), at: gap)
        }
        guard groups.count == 8 else { return nil }
        return IPAddress(number: groups.reduce(0) { $0 << 16 | UInt128($1) })
    }

    /// The text of the address (RFC 5952): `127.0.0.1` for an IPv4 address, `2001:db8::1` for an
    /// IPv6 address.
    package var description: String {
        if isIPv4 { return "\(low >> 24 & 255).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255)" }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: number >> UInt128(112 - 16 * $0)) }
        // The first of the longest runs of zeros, of two groups at least, is written as `::`.
        var zeros = 0..<0
        var start = 0
        for (index, group) in groups.enumerated() {
            if group != 0 { start = index + 1 } else if index + 1 - start > max(1, zeros.count) { zeros = start..<index + 1 }
        }
        let text = { (range: Range<Int>) in range.map { String(groups[$0], radix: 16) }.joined(separator: ":") }
        return zeros.isEmpty ? text(0..<8) : text(0..<zeros.lowerBound) + "::" + text(zeros.upperBound..<8)
    }
}
