import Testing

@testable import ApusCodec

@Suite("RFC 3174 §7.3 SHA-1")
struct SHA1Tests {
    @Test(
        "digests of the RFC, and of every length around a block",
        arguments: [
            ("abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d"), ("", 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
            ("0123456701234567012345670123456701234567012345670123456701234567", 10, "dea356a2cddd90c7a7ecedc5ebb563934f460452"),
            ("a", 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"), ("a", 56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"),
            ("a", 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"), ("a", 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
            ("a", 65, "11655326c708d70319be2610e8a57d9a5b959d3b"), ("a", 10_000, "a080cbda64850abb7b7f67ee875ba068074ff6fe"),
        ])
    func digest(text: String, times: Int, expected: String) {
        let digest = SHA1.digest(Array(String(repeating: text, count: times).utf8).span)
        var hex = ""
        for index in 0..<20 { hex += hexadecimal(digest[index]).lowercased() }
        #expect(hex == expected)
    }
}

@Suite("RFC 4648 §10 base 64")
struct Base64Tests {
    @Test(
        "test vectors of the RFC",
        arguments: [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ])
    func vectors(text: String, encoded: String) {
        var output: [UInt8] = []
        Base64.append(Array(text.utf8).span, to: &output)
        #expect(String(decoding: output, as: UTF8.self) == encoded)
        #expect(Base64.decodedCount(output.span) == text.utf8.count)
    }

    @Test("all sixty-four digits")
    func digits() {
        var output: [UInt8] = []
        let bytes: [UInt8] = [
            0x00, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8B, 0x30, 0xD3, 0x8F, 0x41, 0x14, 0x93, 0x51, 0x55, 0x97, 0x61,
            0x96, 0x9B, 0x71,
            0xD7, 0x9F, 0x82, 0x18, 0xA3, 0x92, 0x59, 0xA7, 0xA2, 0x9A, 0xAB, 0xB2, 0xDB, 0xAF, 0xC3, 0x1C, 0xB3, 0xD3, 0x5D,
            0xB7, 0xE3, 0x9E,
            0xBB, 0xF3, 0xDF, 0xBF,
        ]
        Base64.append(bytes.span, to: &output)
        #expect(String(decoding: output, as: UTF8.self) == "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    }

    @Test(
        "invalid base 64 has no decoded count",
        arguments: ["A", "AA", "AAA", "====", "A===", "=AAA", "AA=A", "AA A", "AA-_", "AA\u{7F}A"])
    func refuses(text: String) {
        #expect(Base64.decodedCount(Array(text.utf8).span) == nil)
    }
}
