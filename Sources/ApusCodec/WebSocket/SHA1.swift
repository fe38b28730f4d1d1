/// The SHA-1 digest (RFC 3174) of the opening handshake (RFC 6455 §4.2.2). Not for security.
enum SHA1 {
    /// The digest of `message`: 20 bytes.
    static func digest(_ message: Span<UInt8>) -> InlineArray<20, UInt8> {
        var state: InlineArray<5, UInt32> = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0]
        var block = InlineArray<16, UInt32>(repeating: 0)
        // The message, one bit 1, zeros, and the message's length in bits (64 bits) fill whole
        // blocks of 64 bytes.
        let blockCount = (message.count + 8) / 64 + 1
        for blockIndex in 0..<blockCount {
            for word in 0..<16 {
                block[word] = self.word(message, at: blockIndex * 64 + word * 4)
            }
            if blockIndex == blockCount - 1 {
                let bits = UInt64(message.count) &* 8
                block[14] = UInt32(truncatingIfNeeded: bits >> 32)
                block[15] = UInt32(truncatingIfNeeded: bits)
            }
            compress(&block, into: &state)
        }
        var digest = InlineArray<20, UInt8>(repeating: 0)
        for index in 0..<20 {
            digest[index] = UInt8(truncatingIfNeeded: state[index >> 2] >> UInt32(24 - 8 * (index & 3)))
        }
        return digest
    }

    /// Four bytes of the padded message, without its length field, as a big-endian number.
    @inline(__always)
    private static func word(_ message: Span<UInt8>, at offset: Int) -> UInt32 {
        var word: UInt32 = 0
        for index in offset..<offset + 4 {
            let byte: UInt8 = index < message.count ? message[index] : (index == message.count ? 0x80 : 0)
            word = word << 8 | UInt32(byte)
        }
        return word
    }

    /// RFC 3174 §6.2, method 2: the schedule is a ring of 16 words.
    private static func compress(_ block: inout InlineArray<16, UInt32>, into state: inout InlineArray<5, UInt32>) {
        var a = state[0]
        var b = state[1]
        var c = state[2]
        var d = state[3]
        var e = state[4]
        for round in 0..<80 {
            if round >= 16 {
                let mixed = block[(round + 13) & 15] ^ block[(round + 8) & 15] ^ block[(round + 2) & 15] ^ block[round & 15]
                block[round & 15] = rotated(mixed, by: 1)
            }
            let mix: UInt32
            switch round {
            case ..<20: mix = ((b & c) | (~b & d)) &+ 0x5A82_7999
            case ..<40: mix = (b ^ c ^ d) &+ 0x6ED9_EBA1
            case ..<60: mix = ((b & c) | (b & d) | (c & d)) &+ 0x8F1B_BCDC
            default: mix = (b ^ c ^ d) &+ 0xCA62_C1D6
            }
            let next = rotated(a, by: 5) &+ mix &+ e &+ block[round & 15]
            (e, d, c, b, a) = (d, c, rotated(b, by: 30), a, next)
        }
        state[0] &+= a
        state[1] &+= b
        state[2] &+= c
        state[3] &+= d
        state[4] &+= e
    }

    @inline(__always)
    private static func rotated(_ word: UInt32, by count: UInt32) -> UInt32 { word &<< count | word &>> (32 - count) }
}
