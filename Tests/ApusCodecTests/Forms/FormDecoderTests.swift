import ApusCodec
import Testing

@Suite("URL standard §5.1: application/x-www-form-urlencoded")
struct FormDecoderTests {
    /// The pairs as text, the same whole and byte by byte.
    static func decode(_ bytes: [UInt8], limits: FormDecoder.Limits = .init()) throws(FormViolation) -> [String] {
        var decoder = FormDecoder(limits: limits)
        for byte in bytes { try decoder.receive([byte].span) }
        let cut = try decoder.finish().map { "\($0.name)|\($0.value)" }
        let whole = try FormDecoder.decode(bytes.span, limits: limits).map { "\($0.name)|\($0.value)" }
        #expect(cut == whole)
        return whole
    }

    @Test(
        "forms",
        arguments: [
            ("", []), ("a=1", ["a|1"]), ("a=1&b=2&a=3", ["a|1", "b|2", "a|3"]), ("a", ["a|"]), ("a=", ["a|"]), ("=b", ["|b"]),
            ("=", ["|"]), ("&&a=1&&", ["a|1"]), ("a=b=c", ["a|b=c"]), ("a+b=c+d", ["a b|c d"]), ("a%2Bb=%26%3D", ["a+b|&="]),
            ("name=J%c3%bcrgen+M%C3%BCller", ["name|Jürgen Müller"]), ("text=one%0D%0Atwo", ["text|one\r\ntwo"]), ("a%00=%00", ["a\0|\0"]),
            // Invalid escapes are kept.
            ("a=%", ["a|%"]), ("a=%4", ["a|%4"]), ("a=%zz", ["a|%zz"]), ("a=%4&b=1", ["a|%4", "b|1"]), ("a=%%41", ["a|%A"]),
            ("%=1", ["%|1"]), ("a%3=1", ["a%3|1"]), ("a=100%25", ["a|100%"]),
            // Not UTF-8, also cut sequences.
            ("a=%FF", ["a|\u{FFFD}"]), ("a=%C3", ["a|\u{FFFD}"]), ("a=%C3&b=%BC", ["a|\u{FFFD}", "b|\u{FFFD}"]),
            ("a=ü", ["a|ü"]), ("a=%EF%BB%BFx", ["a|\u{FEFF}x"]), ("a;b=1", ["a;b|1"]), (" a = b ", [" a | b "]),
        ] as [(String, [String])])
    func forms(text: String, expected: [String]) throws { #expect(try Self.decode(Array(text.utf8)) == expected) }

    @Test("limits of bytes and pairs")
    func limits() throws {
        let limits = FormDecoder.Limits(maxBytes: 8, maxPairs: 2)
        #expect(try Self.decode(Array("a=1&b=23".utf8), limits: limits).count == 2)
        #expect(try Self.decode(Array("&&&a&b&&".utf8), limits: limits).count == 2)
        #expect(throws: FormViolation.tooLarge(limit: 8)) { try Self.decode(Array("a=1&b=234".utf8), limits: limits) }
        #expect(throws: FormViolation.tooLarge(limit: 8)) { try FormDecoder.decode(Array("a=1&b=234".utf8).span, limits: limits) }
        #expect(throws: FormViolation.tooManyPairs(limit: 2)) { try Self.decode(Array("a&b&c".utf8), limits: limits) }
        #expect(throws: FormViolation.tooManyPairs(limit: 2)) { try Self.decode(Array("a&b&c&".utf8), limits: limits) }
        #expect(try Self.decode([], limits: .init(maxBytes: 0, maxPairs: 0)) == [])
        for violation in [FormViolation.tooLarge(limit: 8), .tooManyPairs(limit: 2)] {
            #expect(violation.status == .contentTooLarge)
            #expect(violation.description.hasPrefix("expected "))
        }
    }
}
