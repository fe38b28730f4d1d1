import ApusCodec
import TestSupport
import Testing

@Suite("RFC 4291 §2.2, RFC 5952: texts of addresses")
struct IPAddressTests {
    @Test(
        "addresses and their shortest text",
        arguments: [
            ("0.0.0.0", 0, 0xFFFF_0000_0000, "0.0.0.0"), ("127.0.0.1", 0, 0xFFFF_7F00_0001, "127.0.0.1"),
            ("255.255.255.255", 0, 0xFFFF_FFFF_FFFF, "255.255.255.255"), ("::", 0, 0, "::"), ("::1", 0, 1, "::1"),
            ("1::", 0x1_0000_0000_0000, 0, "1::"), ("::ffff:10.1.2.3", 0, 0xFFFF_0A01_0203, "10.1.2.3"),
            ("::FFFF:0a01:0203", 0, 0xFFFF_0A01_0203, "10.1.2.3"), ("::10.1.2.3", 0, 0x0A01_0203, "::a01:203"),
            ("2001:db8::1", 0x2001_0DB8_0000_0000, 1, "2001:db8::1"), ("2001:0DB8:0:0:0:0:0:1", 0x2001_0DB8_0000_0000, 1, "2001:db8::1"),
            ("2001:db8:0:1:1:1:1:1", 0x2001_0DB8_0000_0001, 0x0001_0001_0001_0001, "2001:db8:0:1:1:1:1:1"),
            ("2001:db8::1:0:0:1", 0x2001_0DB8_0000_0000, 0x0001_0000_0000_0001, "2001:db8::1:0:0:1"),
            ("1:0:0:2:0:0:0:3", 0x0001_0000_0000_0002, 3, "1:0:0:2::3"),
            ("1:2:3:4:5:6:7::", 0x0001_0002_0003_0004, 0x0005_0006_0007_0000, "1:2:3:4:5:6:7:0"),
            ("::2:3:4:5:6:7:8", 0x0000_0002_0003_0004, 0x0005_0006_0007_0008, "0:2:3:4:5:6:7:8"),
            ("1:2:3:4:5:6:77.77.88.88", 0x0001_0002_0003_0004, 0x0005_0006_4D4D_5858, "1:2:3:4:5:6:4d4d:5858"),
            ("fe80::", 0xFE80_0000_0000_0000, 0, "fe80::"), ("::ffff:0:1.2.3.4", 0, 0xFFFF_0000_0102_0304, "::ffff:0:102:304"),
        ] as [(String, UInt64, UInt64, String)])
    func addresses(text: String, high: UInt64, low: UInt64, shortest: String) {
        #expect(IPAddress(parsing: text) == IPAddress(high: high, low: low))
        #expect(IPAddress(high: high, low: low).description == shortest)
        #expect(IPAddress(parsing: shortest) == IPAddress(high: high, low: low))
        #expect(IPAddress(high: high, low: low).isIPv4 == !shortest.contains(":"))
    }

    @Test(
        "texts that are not addresses",
        arguments: [
            "", ".", ":", ":::", "1", "1.2.3", "1.2.3.", ".1.2.3", "1.2.3.4.", "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "01.2.3.4", "1..2.3",
            "1.2.3.4 ", " 1.2.3.4", "1.2.3.+4", "1.2.3.0x4", "1.2.3.4:80", "1.2.3.4/8", "999999999999.1.1.1", "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1::2::3", "1:::2", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:",
            "12345::",
            "g::", "[::1]", "::1%eth0", "fe80::1%1", "::1.2.3", "::1.2.3.4:1", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4", "::1 ", "::٣",
            "::ffff:1.2.3.04", "host", "localhost", "::" + String(repeating: "0", count: 100),
        ])
    func malformed(text: String) { #expect(IPAddress(parsing: text) == nil) }

    @Test("every address is parsed from its own text", arguments: 0..<5 as Range<UInt64>)
    func random(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            // Sparse, so that runs of zeros occur.
            var words: [UInt64] = [0, 0]
            for shift in 0..<8 where Bool.random(using: &generator) {
                words[shift / 4] |= UInt64(UInt16.random(in: 0...0xFFFF, using: &generator)) << UInt64(16 * (shift % 4))
            }
            let address = IPAddress(high: words[0], low: words[1])
            #expect(IPAddress(parsing: address.description) == address, "seed \(seed)")
        }
    }
}

@Suite("RFC 4632 §3.1: networks")
struct NetworkTests {
    @Test(
        "networks, what they contain and what they do not",
        arguments: [
            ("10.0.0.0/8", "10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"], ["9.255.255.255", "11.0.0.0", "::a00:0"]),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", ["10.9.9.9"], ["11.0.0.0"]),
            ("127.0.0.1", "127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "::1"]),
            ("127.0.0.1/32", "127.0.0.1", ["127.0.0.1"], ["127.0.0.0"]),
            ("0.0.0.0/0", "0.0.0.0/0", ["0.0.0.0", "255.1.2.3"], ["::", "::1"]),
            ("2001:db8::/32", "2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db9::", "2001:db7:ffff::"]),
            ("::/0", "::/0", ["::", "::1", "ffff::"], ["1.2.3.4", "::ffff:1.2.3.4"]), ("::1", "::1", ["::1"], ["::2"]),
            ("::1/128", "::1", ["::1"], ["::"]),
            ("2001:db8::8000:0:0:0/65", "2001:db8:0:0:8000::/65", ["2001:db8::ffff:0:0:1"], ["2001:db8::7fff:0:0:0"]),
            ("192.168.1.128/25", "192.168.1.128/25", ["192.168.1.255"], ["192.168.1.127"]), ("::/96", "::/96", ["::1.2.3.4"], ["1.2.3.4"]),
            ("::ffff:0:0/96", "0.0.0.0/0", ["1.2.3.4"], ["::1"]),
        ] as [(String, String, [String], [String])])
    func contains(text: String, shortest: String, inside: [String], outside: [String]) throws {
        let network = try Network(parsing: text)
        #expect(network.description == shortest)
        #expect(try Network(parsing: shortest) == network)
        let list = NetworkList([network])
        for address in try inside.map({ try #require(IPAddress(parsing: $0)) }) {
            #expect(network.contains(address) && list.contains(address), "\(address)")
        }
        for address in try outside.map({ try #require(IPAddress(parsing: $0)) }) {
            #expect(!network.contains(address) && !list.contains(address), "\(address)")
        }
    }

    @Test(
        "texts that are not networks",
        arguments: [
            ("", .addressMalformed("")), ("/8", .addressMalformed("/8")), ("10/8", .addressMalformed("10/8")),
            ("host", .addressMalformed("host")),
            ("10.0.0.0 /8", .addressMalformed("10.0.0.0 /8")), ("10.0.0.0/", .prefixMalformed("10.0.0.0/", most: 32)),
            ("10.0.0.0/33", .prefixMalformed("10.0.0.0/33", most: 32)), ("10.0.0.0/08", .prefixMalformed("10.0.0.0/08", most: 32)),
            ("10.0.0.0/-1", .prefixMalformed("10.0.0.0/-1", most: 32)), ("10.0.0.0/8/8", .prefixMalformed("10.0.0.0/8/8", most: 32)),
            ("10.0.0.0/255.0.0.0", .prefixMalformed("10.0.0.0/255.0.0.0", most: 32)), ("::/129", .prefixMalformed("::/129", most: 128)),
            ("::/99999999999999999999", .prefixMalformed("::/99999999999999999999", most: 128)),
            ("::/a", .prefixMalformed("::/a", most: 128)),
            ("10.0.0.1/8", .hostBitsSet("10.0.0.1/8", network: "10.0.0.0/8")),
            ("1.2.3.4/0", .hostBitsSet("1.2.3.4/0", network: "0.0.0.0/0")),
            ("2001:db8::1/32", .hostBitsSet("2001:db8::1/32", network: "2001:db8::/32")), ("::1/0", .hostBitsSet("::1/0", network: "::/0")),
            ("::ffff:10.0.0.1/104", .hostBitsSet("::ffff:10.0.0.1/104", network: "10.0.0.0/8")),
            ("::ffff:10.0.0.0/8", .hostBitsSet("::ffff:10.0.0.0/8", network: "::/8")),
        ] as [(String, NetworkFault)])
    func refused(text: String, fault: NetworkFault) {
        #expect(throws: fault) { try Network(parsing: text) }
        #expect(throws: fault) { try NetworkList(parsing: ["::/0", text]) }
        #expect(fault.description.hasPrefix("expected "))
    }

    @Test("a list contains what one of its networks contains", arguments: 0..<10 as Range<UInt64>)
    func lists(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let texts = [
            "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.0.0.1", "10.0.0.2", "255.255.255.255",
            "::/0",
            "::/1", "8000::/1", "::/96", "::/95", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/32", "::1:0:0:0/80",
        ]
        let probes = try texts.flatMap { text in
            let number = try Network(parsing: text).address
            return [number, IPAddress(high: number.high, low: number.low &- 1), IPAddress(high: number.high, low: number.low &+ 1)]
        }
        for _ in 0..<50 {
            let list = try NetworkList(
                parsing: texts.shuffled(using: &generator).prefix(Int.random(in: 0...5, using: &generator)).map { $0 })
            #expect(list.isEmpty == list.networks.isEmpty)
            for probe in probes {
                let expected = list.networks.contains { $0.contains(probe) }
                #expect(list.contains(probe) == expected, "\(probe) in \(list.networks) of seed \(seed)")
            }
        }
    }
}
