/// The masking of RFC 6455 §5.3: octet i of the payload is XORed with octet i mod 4 of the key.
package enum Masking {
    /// Masks or unmasks `bytes` in place.
    ///
    /// - Parameters:
    ///   - key: the four key octets as they lie in memory, loaded as one little-endian word.
    ///   - phase: how many payload octets came before these; only the remainder by 4 counts.
    @inlinable
    package static func apply(key: UInt32, phase: Int, to bytes: inout MutableRawSpan, range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.byteCount, "the range lies in the buffer")
        // SAFETY: the range was checked; loads and stores below stay inside it and are unaligned by design.
        unsafe bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            unsafe apply(key: key.rotated(by: phase), at: base + range.lowerBound, count: range.count)
        }
    }

    /// The kernel: 32 octets a step, then 8, then one by one.
    @inlinable
    static func apply(key: UInt32, at start: UnsafeMutableRawPointer, count: Int) {
        let wide = UInt64(key) << 32 | UInt64(key)
        var offset = 0
        if count >= 32 {
            let vector = SIMD8<UInt32>(repeating: key)
            while offset &+ 32 <= count {
                let at = unsafe start + offset
                unsafe at.storeBytes(of: at.loadUnaligned(as: SIMD8<UInt32>.self) ^ vector, as: SIMD8<UInt32>.self)
                offset &+= 32
            }
        }
        while offset &+ 8 <= count {
            let at = unsafe start + offset
            unsafe at.storeBytes(of: at.loadUnaligned(as: UInt64.self) ^ wide, as: UInt64.self)
            offset &+= 8
        }
        var rest = key
        while offset < count {
            let at = unsafe start + offset
            unsafe at.storeBytes(of: at.load(as: UInt8.self) ^ UInt8(truncatingIfNeeded: rest), as: UInt8.self)
            rest = rest >> 8 | rest << 24
            offset &+= 1
        }
    }
}

extension UInt32 {
    /// The key as it applies `phase` octets into the payload.
    @inlinable
    func rotated(by phase: Int) -> UInt32 {
        let bits = UInt32(truncatingIfNeeded: phase & 3) &* 8
        return bits == 0 ? self : self >> bits | self << (32 &- bits)
    }
}
