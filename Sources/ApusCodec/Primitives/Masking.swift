/// The masking of RFC 6455 §5.3: octet i of the payload is XORed with octet i mod 4 of the key.
public enum Masking {
    /// Masks or unmasks `bytes` in place.
    ///
    /// - Parameters:
    ///   - key: the four octets of the masking key, loaded as one little-endian word.
    ///   - phase: the number of payload octets before these; only the remainder by 4 counts.
    /// - Returns: whether the result is ASCII.
    @inlinable @discardableResult
    public static func apply(key: UInt32, phase: Int, to bytes: inout MutableRawSpan, range: Range<Int>) -> Bool {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.byteCount, "the range lies in the buffer")
        // SAFETY: the range was checked; loads and stores below stay inside it and are unaligned by
        // design.
        return unsafe bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return true }
            return unsafe apply(key: key.rotated(by: phase), at: base + range.lowerBound, count: range.count)
        }
    }

    /// Masks 32 octets per step, then 8; the last 8 overlap those before them. Fewer than 8 are
    /// masked one by one.
    @inlinable
    static func apply(key: UInt32, at start: UnsafeMutableRawPointer, count: Int) -> Bool {
        guard count >= 8 else { return unsafe applyShort(key: key, at: start, count: count) }
        let turned = key.rotated(by: count)
        let last = unsafe (start + count - 8).loadUnaligned(as: UInt64.self) ^ (UInt64(turned) << 32 | UInt64(turned))
        let wide = UInt64(key) << 32 | UInt64(key)
        var seen = last
        var offset = 0
        if count >= 32 {
            let vector = SIMD4<UInt64>(repeating: wide)
            var all = SIMD4<UInt64>.zero
            while offset &+ 32 <= count {
                let at = unsafe start + offset
                let masked = unsafe at.loadUnaligned(as: SIMD4<UInt64>.self) ^ vector
                unsafe at.storeBytes(of: masked, as: SIMD4<UInt64>.self)
                all |= masked
                offset &+= 32
            }
            seen |= (all[0] | all[1]) | (all[2] | all[3])
        }
        while offset &+ 8 <= count {
            let at = unsafe start + offset
            let masked = unsafe at.loadUnaligned(as: UInt64.self) ^ wide
            unsafe at.storeBytes(of: masked, as: UInt64.self)
            seen |= masked
            offset &+= 8
        }
        // `last` was loaded before the loops, so octets that they have masked are overwritten, not
        // masked twice.
        unsafe (start + count - 8).storeBytes(of: last, as: UInt64.self)
        return seen & 0x8080_8080_8080_8080 == 0
    }

    @inlinable
    static func applyShort(key: UInt32, at start: UnsafeMutableRawPointer, count: Int) -> Bool {
        var rest = key
        var seen: UInt8 = 0
        var offset = 0
        while offset < count {
            let at = unsafe start + offset
            let masked = unsafe at.load(as: UInt8.self) ^ UInt8(truncatingIfNeeded: rest)
            unsafe at.storeBytes(of: masked, as: UInt8.self)
            seen |= masked
            rest = rest >> 8 | rest << 24
            offset &+= 1
        }
        return seen < 0x80
    }
}

extension UInt32 {
    /// The key as it applies `phase` octets into the payload.
    @inlinable @inline(__always)
    func rotated(by phase: Int) -> UInt32 {
        let bits = UInt32(truncatingIfNeeded: phase & 3) &* 8
        return bits == 0 ? self : self >> bits | self << (32 &- bits)
    }
}
