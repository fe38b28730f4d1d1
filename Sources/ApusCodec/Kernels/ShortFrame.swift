/// The kernel of `FrameDecoder.nextShortMessage`: reads and unmasks a frame of the simplest kind.
@usableFromInline
enum ShortFrame {
    /// What stands in front of the payload: two octets and the key.
    @usableFromInline static let headerBytes = 6

    /// Unmasks the frame at `start` if it is a whole, masked text or binary message of at most `maxBytes`, and otherwise changes nothing.
    @inlinable @inline(__always)
    static func unmask(
        in buffer: inout MutableRawSpan, from start: Int, until end: Int, maxBytes: UInt8
    ) -> (isText: Bool, count: Int, isASCII: Bool)? {
        // An end below zero is taken for one beyond the buffer.
        guard start >= 0, UInt(bitPattern: end) <= UInt(bitPattern: buffer.byteCount), end &- start >= headerBytes else { return nil }
        // SAFETY: six octets were checked to lie in the buffer.
        let head = unsafe buffer.bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: start, as: UInt16.self).littleEndian
        let key = unsafe buffer.bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: start &+ 2, as: UInt32.self).littleEndian
        // Both wrap around where they are less than the bits that must be set.
        let kind = UInt8(truncatingIfNeeded: head) &- 0x81
        let length = UInt8(truncatingIfNeeded: head >> 8) &- 0x80
        guard kind <= 1, length <= maxBytes, end &- start &- headerBytes >= Int(length) else { return nil }
        // SAFETY: so was the payload.
        let isASCII = unsafe buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return true }
            return unsafe Masking.apply(key: key, at: base + start + headerBytes, count: Int(length))
        }
        return (kind == 0, Int(length), isASCII)
    }
}
