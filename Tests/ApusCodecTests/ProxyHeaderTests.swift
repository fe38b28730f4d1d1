import ApusCodec
import TestSupport
import Testing

@Suite("PROXY protocol, versions 1 and 2")
struct ProxyHeaderTests {
    /// The header in `bytes`, the same whole, byte by byte and with trailing bytes; nil if it is
    /// incomplete.
    static func decode(_ bytes: [UInt8]) throws -> ProxyHeader? {
        var results: [Result<ProxyHeader?, ProxyHeaderViolation>] = []
        for feed in 0..<3 {
            var decoder = ProxyHeaderDecoder()
            #expect(decoder.isIdle)
            var consumed = 0
            do throws(ProxyHeaderViolation) {
                var header: ProxyHeader?
                if feed == 1 {
                    for (index, byte) in bytes.enumerated() {
                        header = try decoder.decode([byte].span, consumed: &consumed)
                        #expect(consumed == 1)
                        if header != nil { #expect(index == bytes.count - 1, "complete before the last byte") }
                    }
                } else {
                    header = try decoder.decode(bytes.span, consumed: &consumed)
                    #expect(consumed == bytes.count)
                    if feed == 2, header != nil {
                        decoder = ProxyHeaderDecoder()
                        header = try decoder.decode((bytes + Array("\r\nPROXY GET".utf8)).span, consumed: &consumed)
                        #expect(consumed == bytes.count, "trailing bytes were touched")
                    }
                }
                results.append(.success(header))
            } catch { results.append(.failure(error)) }
        }
        #expect(Set(results).count == 1, "depends on the feed: \(results)")
        return try results[0].get()
    }

    static func addresses(_ source: String, _ sourcePort: UInt16, _ destination: String, _ port: UInt16) -> ProxyHeader? {
        guard let from = IPAddress(parsing: source), let to = IPAddress(parsing: destination) else { return nil }
        return .addresses(source: .init(from, port: sourcePort), destination: .init(to, port: port))
    }

    static let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535"

    @Test(
        "lines of version 1",
        arguments: [
            ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443", addresses("192.168.0.1", 56324, "192.168.0.11", 443)),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", addresses("255.255.255.255", 65535, "255.255.255.255", 65535)),
            ("PROXY TCP6 2001:db8::1 ::1 0 8", addresses("2001:db8::1", 0, "::1", 8)),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                addresses("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
            ), ("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2", addresses("1.2.3.4", 1, "::1", 2)), ("PROXY UNKNOWN", .unknown), (longest, .unknown),
            ("PROXY UNKNOWN " + String(repeating: "x", count: 107 - 16), .unknown),
        ] as [(String, ProxyHeader?)])
    func version1(line: String, expected: ProxyHeader?) throws {
        #expect(expected != nil)
        #expect(try Self.decode(Array((line + "\r\n").utf8)) == expected)
        #expect(try Self.decode(Array((line + "\r").utf8)) == nil)
    }

    @Test(
        "lines that are refused",
        arguments: [
            ("GET / HTTP/1.1\r\n", .notProxyHeader), ("PROXY\r\n", .notProxyHeader), ("proxy TCP4", .notProxyHeader),
            ("PROXX", .notProxyHeader),
            ("\u{16}\u{3}\u{1}", .notProxyHeader), ("PROXY \r\n", .lineMalformed), ("PROXY TCP4\r\n", .lineMalformed),
            ("PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", .lineMalformed), ("PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", .lineMalformed),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", .lineMalformed), ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rx", .lineMalformed),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", .lineMalformed), ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", .lineMalformed),
            ("PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", .lineMalformed), ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", .lineMalformed),
            ("PROXY TCP4 ::1 2.2.2.2 1 2\r\n", .lineMalformed), ("PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", .lineMalformed),
            ("PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", .lineMalformed), ("PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", .lineMalformed),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", .lineMalformed), ("PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", .lineMalformed),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 999999999999999999999 2\r\n", .lineMalformed),
            ("PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n", .lineMalformed),
            ("PROXY UNKNOWN " + String(repeating: "x", count: 93), .tooLong(limit: 107)),
        ] as [(String, ProxyHeaderViolation)])
    func refused1(text: String, violation: ProxyHeaderViolation) {
        #expect(throws: violation) { try Self.decode(Array(text.utf8)) }
        #expect(violation.description.hasPrefix("expected "))
    }

    static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]

    /// A header of version 2 with what follows its length.
    static func block(_ command: UInt8, _ family: UInt8, _ rest: [UInt8]) -> [UInt8] {
        signature + [command, family, UInt8(rest.count >> 8), UInt8(rest.count & 0xFF)] + rest
    }

    static let four: [UInt8] = [192, 0, 2, 1, 192, 0, 2, 2, 0xDC, 0x04, 0x01, 0xBB]
    static let six: [UInt8] =
        [0x20, 0x01, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [1] + [UInt8](repeating: 0, count: 15) + [1, 0, 80, 1, 0xBB]
    /// NOOP, the authority, and a type that is not assigned.
    static let values: [UInt8] = [0x04, 0, 0, 0x02, 0, 3, 97, 46, 98, 0xEE, 0, 1, 0xFF]
    /// The CRC-32C of the block in `checksum()`, computed by another implementation.
    static let sum: [UInt8] = [0xAF, 0x4F, 0x55, 0x76]

    @Test("headers of version 2")
    func version2() throws {
        let ipv4 = Self.addresses("192.0.2.1", 56324, "192.0.2.2", 443)
        let ipv6 = Self.addresses("2001:db8::1", 80, "::1", 443)
        let unix = [UInt8](repeating: 0x61, count: 216)
        for (bytes, expected) in [
            (Self.block(0x21, 0x11, Self.four), ipv4), (Self.block(0x21, 0x12, Self.four), ipv4), (Self.block(0x21, 0x21, Self.six), ipv6),
            (Self.block(0x21, 0x22, Self.six), ipv6), (Self.block(0x21, 0x11, Self.four + Self.values), ipv4),
            (Self.block(0x21, 0x21, Self.six + Self.values), ipv6), (Self.block(0x21, 0x31, unix), .unknown),
            (Self.block(0x21, 0x32, unix), .unknown),
            (Self.block(0x21, 0x00, []), .unknown), (Self.block(0x21, 0x00, [1, 2, 3]), .unknown), (Self.block(0x20, 0x00, []), .local),
            (Self.block(0x20, 0x11, Self.four), .local), (Self.block(0x20, 0xFF, [1, 2, 3]), .local),
            (Self.block(0x21, 0x11, Self.four + [0x04, 0x0F, 0xF1] + [UInt8](repeating: 0, count: 4081)), ipv4),
        ] as [([UInt8], ProxyHeader?)] {
            #expect(expected != nil)
            #expect(try Self.decode(bytes) == expected)
            #expect(try Self.decode(Array(bytes.dropLast())) == nil)
        }
    }

    @Test("headers of version 2 that are refused")
    func refused2() {
        for (bytes, violation) in [
            (Self.signature.dropLast() + [0x0D], .notProxyHeader), ([0x0D, 0x0A, 0x0D, 0x0A, 0x01], .notProxyHeader),
            ([0x0D, 0x0D], .notProxyHeader), (Self.signature + [0x11], .versionNotSupported(1)),
            (Self.signature + [0x31], .versionNotSupported(3)),
            (Self.block(0x22, 0x11, Self.four), .commandNotSupported(2)), (Self.block(0x21, 0x13, Self.four), .familyNotSupported(0x13)),
            (Self.block(0x21, 0x41, Self.four), .familyNotSupported(0x41)), (Self.block(0x21, 0x03, []), .familyNotSupported(0x03)),
            (Self.block(0x21, 0x11, Array(Self.four.dropLast())), .addressesCutShort),
            (Self.block(0x21, 0x21, Self.four), .addressesCutShort),
            (Self.block(0x21, 0x31, Self.six), .addressesCutShort), (Self.block(0x21, 0x11, Self.four + [4, 0]), .valuesMalformed),
            (Self.block(0x21, 0x11, Self.four + [4, 0, 1]), .valuesMalformed),
            (Self.block(0x21, 0x11, Self.four + [4, 0xFF, 0xFF, 1]), .valuesMalformed),
            (Self.block(0x21, 0x11, Self.four + [3, 0, 3, 1, 1, 1]), .valuesMalformed),
            (Self.block(0x21, 0x11, Self.four + [3, 0, 4, 0, 0, 0, 0]), .checksumMismatch),
            (Self.signature + [0x21, 0x11, 0x10, 0x01], .tooLong(limit: 4112)),
        ] as [([UInt8], ProxyHeaderViolation)] {
            #expect(throws: violation) { try Self.decode(bytes) }
            #expect(violation.description.hasPrefix("expected "))
        }
    }

    @Test("a checksum is verified over all bytes")
    func checksum() throws {
        let bytes = Self.block(0x21, 0x11, Self.four + Self.values + [0x03, 0, 4] + Self.sum)
        #expect(try Self.decode(bytes) == Self.addresses("192.0.2.1", 56324, "192.0.2.2", 443))
        for index in 16..<28 {
            var changed = bytes
            changed[index] ^= 0x10
            #expect(throws: ProxyHeaderViolation.checksumMismatch) { try Self.decode(changed) }
        }
    }

    @Test("random bytes are refused or incomplete", arguments: 0..<5 as Range<UInt64>)
    func random(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            let prefix = [Array("PROXY ".utf8), Array("PROXY TCP4 ".utf8), Self.signature, Self.signature + [0x21], []].randomElement(
                using: &generator)
            let tail = (0..<Int.random(in: 0...200, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator) }
            _ = try? Self.decodeWhole((prefix ?? []) + tail)
        }
    }

    private static func decodeWhole(_ bytes: [UInt8]) throws(ProxyHeaderViolation) -> ProxyHeader? {
        var decoder = ProxyHeaderDecoder()
        var consumed = 0
        return try decoder.decode(bytes.span, consumed: &consumed)
    }
}
