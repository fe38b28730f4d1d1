import ApusCodec
import Testing

@Suite("RFC 6455 §5.3 masking")
struct MaskingTests {
    /// The definition: "transformed-octet-i = original-octet-i XOR masking-key-octet-j, j = i MOD
    /// 4".
    static func reference(_ bytes: [UInt8], key: [UInt8], phase: Int, range: Range<Int>) -> [UInt8] {
        var bytes = bytes
        for (index, position) in range.enumerated() { bytes[position] ^= key[(index + phase) % 4] }
        return bytes
    }

    static func apply(_ bytes: [UInt8], key: UInt32, phase: Int, range: Range<Int>) -> [UInt8] {
        var bytes = bytes
        var octets = bytes.mutableSpan
        var raw = octets.mutableBytes
        Masking.apply(key: key, phase: phase, to: &raw, range: range)
        return bytes
    }

    @Test("every length up to 200 in every phase follows the definition, and no other octet changes", arguments: 0...7)
    func reference(phase: Int) {
        let bytes = (0..<220).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }
        for length in 0...200 {
            // The start varies, so every alignment occurs.
            let range = length % 17..<length % 17 + length
            let masked = Self.apply(bytes, key: sampleKeyWord, phase: phase, range: range)
            let expected = Self.reference(bytes, key: sampleKey, phase: phase, range: range)
            if masked != expected { Issue.record("length \(length), phase \(phase)") }
        }
    }

    @Test("masking in pieces equals masking the whole", arguments: 1...40)
    func pieces(size: Int) {
        let bytes = (0..<131).map { UInt8($0) }
        var piecewise = bytes
        for start in stride(from: 0, to: bytes.count, by: size) {
            piecewise = Self.apply(piecewise, key: sampleKeyWord, phase: start, range: start..<min(bytes.count, start + size))
        }
        #expect(piecewise == Self.apply(bytes, key: sampleKeyWord, phase: 0, range: 0..<bytes.count))
    }

    @Test("masking twice gives the original", arguments: [0, 1, 0xFFFF_FFFF, 0x8000_0000, 0x0102_0304] as [UInt32])
    func twice(key: UInt32) {
        let bytes = (0..<100).map { UInt8($0) }
        let once = Self.apply(bytes, key: key, phase: 3, range: 0..<100)
        #expect((once == bytes) == (key == 0))
        #expect(Self.apply(once, key: key, phase: 3, range: 0..<100) == bytes)
    }

    @Test("an octet that is not ASCII is found anywhere in the range, and ignored outside")
    func ascii() {
        for length in 0...140 {
            let range = 3..<3 + length
            let ends = [UInt8](repeating: 0xFF, count: 3)
            let text = ends + [UInt8](repeating: 0x7F, count: length) + ends
            let masked = Self.reference(text, key: sampleKey, phase: 0, range: range)
            #expect(Self.isASCII(masked, range), "length \(length)")
            for place in range {
                var bytes = masked
                bytes[place] ^= 0x80
                if Self.isASCII(bytes, range) { Issue.record("length \(length), octet \(place - 3)") }
            }
        }
    }

    private static func isASCII(_ bytes: [UInt8], _ range: Range<Int>) -> Bool {
        var bytes = bytes
        var octets = bytes.mutableSpan
        var raw = octets.mutableBytes
        return Masking.apply(key: sampleKeyWord, phase: 0, to: &raw, range: range)
    }

    @Test("an empty buffer is accepted")
    func empty() {
        #expect(Self.apply([], key: sampleKeyWord, phase: 0, range: 0..<0).isEmpty)
    }
}
