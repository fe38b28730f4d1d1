/// The masking of RFC 6455 §5.3: octet i of the payload is XORed with octet i mod 4 of the key.
public enum Masking {
    /// Masks or unmasks `bytes` in place.
    ///
    /// - Parameters:
    ///   - key: the four key octets as they lie in memory, loaded as one little-endian word.
    ///   - phase: how many payload octets came before these; only the remainder by 4 counts.
    @inlinable
    public static func apply(key: UInt32, phase: Int, to bytes: inout MutableRawSpan, range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.byteCount, "the range lies in the buffer")
        // SAFETY: the range was checked; loads and stores below stay inside it and are unaligned by design.
        unsafe bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            unsafe apply(key: key.rotated(by: phase), at: base + range.lowerBound, count: range.count)
        }
    }

    /// The kernel: 32 octets a step, then 8; the last 8 overlap those before them. Fewer than 8 go one by one.
    @inlinable
    static func apply(key: UInt32, at start: UnsafeMutableRawPointer, count: Int) {
        guard count >= 8 else { return unsafe applyShort(key: key, at: start, count: count) }
        let turned = key.rotated(by: count)
        let last = unsafe (start + count - 8).loadUnaligned(as: UInt64.self) ^ (UInt64(turned) << 32 | UInt64(turned))
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
        // Loaded before the loops, so octets that they have masked are written again, not masked twice.
        unsafe (start + count - 8).storeBytes(of: last, as: UInt64.self)
    }

    @inlinable
    static func applyShort(key: UInt32, at start: UnsafeMutableRawPointer, count: Int) {
        var rest = key
        var offset = 0
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
    @inlinable @inline(__always)
    func rotated(by phase: Int) -> UInt32 {
        let bits = UInt32(truncatingIfNeeded: phase & 3) &* 8
        return bits == 0 ? self : self >> bits | self << (32 &- bits)
    }
}
