/// Reads and unmasks one short frame: the inner part of `FrameDecoder.nextShortMessage`.
@usableFromInline
enum ShortFrame {
    /// The bytes before the payload: two octets and the masking key.
    @usableFromInline static let headerBytes = 6

    /// Unmasks the frame at `start` if it is a complete, masked, unfragmented text or binary
    /// message of at most `maxBytes`. Otherwise it changes nothing.
    @inlinable @inline(__always)
    static func unmask(
        in buffer: inout MutableRawSpan, from start: Int, until end: Int, maxBytes: UInt8
    ) -> (isText: Bool, count: Int, isASCII: Bool)? {
        // As an unsigned number, a negative `end` lies beyond the buffer.
        guard start >= 0, UInt(bitPattern: end) <= UInt(bitPattern: buffer.byteCount), end &- start >= headerBytes else { return nil }
        // SAFETY: six octets were checked to lie in the buffer.
        let head = unsafe buffer.bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: start, as: UInt16.self).littleEndian
        let key = unsafe buffer.bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: start &+ 2, as: UInt32.self).littleEndian
        // Both wrap around if a required bit is not set.
        let kind = UInt8(truncatingIfNeeded: head) &- 0x81
        let length = UInt8(truncatingIfNeeded: head >> 8) &- 0x80
        guard kind <= 1, length <= maxBytes, end &- start &- headerBytes >= Int(length) else { return nil }
        // SAFETY: the payload was checked to lie in the buffer.
        let isASCII = unsafe buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return true }
            return unsafe Masking.apply(key: key, at: base + start + headerBytes, count: Int(length))
        }
        return (kind == 0, Int(length), isASCII)
    }
}
