/// Deflate data (RFC 1951) made by hand, without zlib: the payload of compressed messages as a hostile peer would make it.
public enum Deflated {
    /// `count` zeros, rounded up to 258: a literal and then matches of 258 at distance 1, 13 bits each.
    public static func zeros(_ count: Int) -> [UInt8] {
        var bits = Bits()
        // Not final, fixed codes; the zero.
        bits.append(0b010, 3)
        bits.appendCode(0b0011_0000, 8)
        for _ in 0..<(count + 256) / 258 {
            bits.appendCode(0b1100_0101, 8)
            bits.appendCode(0, 5)
        }
        // The end of the block, and the beginning of the empty stored one that the receiver completes.
        bits.appendCode(0, 7)
        bits.append(0, 3)
        return bits.bytes
    }

    /// Up to 65,535 bytes as they are, in a stored block.
    public static func stored(_ bytes: [UInt8]) -> [UInt8] {
        let low = UInt8(bytes.count & 0xFF)
        let high = UInt8(bytes.count >> 8)
        return [0, low, high, ~low, ~high] + bytes + [0]
    }

    private struct Bits {
        var bytes: [UInt8] = []
        private var free = 0

        /// Numbers stand with the lowest bit first.
        mutating func append(_ value: Int, _ count: Int) {
            for index in 0..<count {
                if free == 0 {
                    bytes.append(0)
                    free = 8
                }
                bytes[bytes.count - 1] |= UInt8(value >> index & 1) << (8 - free)
                free -= 1
            }
        }

        /// Huffman codes stand with the highest bit first.
        mutating func appendCode(_ code: Int, _ count: Int) {
            for index in (0..<count).reversed() { append(code >> index & 1, 1) }
        }
    }
}
