import ApusCodec
import Testing

@Suite("RFC 9110 §14 ranges")
struct ByteRangeTests {
    @Test(
        "of 10 bytes",
        arguments: [
            (nil, .whole), ("bytes=0-9", .part(0..<10)), ("bytes=0-0", .part(0..<1)), ("bytes=9-", .part(9..<10)),
            ("bytes=2-5", .part(2..<6)), ("bytes=5-100", .part(5..<10)), ("bytes=-3", .part(7..<10)), ("bytes=-100", .part(0..<10)),
            ("BYTES = 1-2", .whole), ("Bytes=1 - 2", .part(1..<3)), ("bytes=10-", .unsatisfiable), ("bytes=10-20", .unsatisfiable),
            ("bytes=-0", .unsatisfiable), ("bytes=99999999999999999999-", .unsatisfiable),
            ("bytes=0-99999999999999999999", .part(0..<10)), ("bytes=-99999999999999999999", .part(0..<10)),
            ("bytes=9223372036854775807-9223372036854775807", .unsatisfiable),
            // Malformed, or of another unit: as if it were not there.
            ("bytes=5-2", .whole), ("bytes=", .whole), ("bytes=-", .whole), ("bytes=a-b", .whole), ("bytes=1", .whole),
            ("bytes=+1-2", .whole), ("items=0-1", .whole), ("0-1", .whole), ("bytes=0-1-2", .whole), ("bytes=٣-٤", .whole),
            // Several parts may be answered with the whole.
            ("bytes=0-1,3-4", .whole),
            // Empty list elements are ignored.
            ("bytes=,0-4", .part(0..<5)), ("bytes=0-4, ,", .part(0..<5)), ("bytes=,", .whole),
        ] as [(String?, ByteRange)])
    func ten(field: String?, range: ByteRange) { #expect(ByteRange(field, of: 10) == range) }

    @Test("of nothing")
    func nothing() {
        #expect(ByteRange("bytes=0-", of: 0) == .unsatisfiable)
        #expect(ByteRange("bytes=-1", of: 0) == .whole, "§14.1.2: the whole, which is shorter than the suffix")
        #expect(ByteRange("bytes=-0", of: 0) == .unsatisfiable)
        #expect(ByteRange(nil, of: 0) == .whole)
    }
}
