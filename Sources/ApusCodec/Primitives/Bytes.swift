// Conversions between spans, arrays and strings. All accesses are checked against the bounds.

extension [UInt8] {
    /// The array's bytes, borrowed until the array is changed.
    package var rawSpan: RawSpan {
        @_lifetime(borrow self)
        borrowing get {
            let span = self.span
            // SAFETY: an octet is represented by its one byte.
            return unsafe _overrideLifetime(span.bytes, borrowing: self)
        }
    }

    /// Reserves memory for a message that has grown to `needed` octets and may grow to `maxBytes`.
    ///
    /// Growing by a factor keeps appending linear. Reserved memory that is not touched costs
    /// nothing, but the C library may keep buffers that a message has outgrown. So from 16 KiB on
    /// there is one step, to the limit or to 1 MiB, whichever is less.
    package mutating func reserve(growingTo needed: Int, maxBytes: Int) {
        guard needed > capacity else { return }
        let step = needed <= 16 * 1024 ? needed * 4 : Swift.max(needed * 4, 1 << 20)
        // The last step goes to the limit, so that it is not followed by another one.
        reserveCapacity(step > maxBytes - maxBytes / 4 ? Swift.max(needed, maxBytes) : step)
    }

    /// Appends the span's octets.
    package mutating func append(_ bytes: borrowing RawSpan) {
        // SAFETY: the pointer is used only inside the closure and never beyond the count.
        unsafe bytes.withUnsafeBytes { unsafe append(contentsOf: $0) }
    }

    /// Appends a text of the source code.
    package mutating func append(_ text: StaticString) {
        // SAFETY: the text is in constant memory.
        unsafe append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends a text's UTF-8.
    package mutating func append(_ text: String) { append(text.utf8.span) }

    /// Appends octets.
    package mutating func append(_ octets: Span<UInt8>) {
        // SAFETY: an octet is represented by its one byte.
        unsafe append(octets.bytes)
    }

    /// Masks or unmasks the octets in `range`.
    package mutating func mask(_ range: Range<Int>, key: UInt32) {
        var octets = mutableSpan
        // SAFETY: every bit pattern is an octet.
        var bytes = unsafe octets.mutableBytes
        Masking.apply(key: key, phase: 0, to: &bytes, range: range)
    }
}

extension String {
    /// Calls `body` with the text's UTF-8, which is made contiguous first if necessary.
    package func withRawSpan<Result>(_ body: (RawSpan) -> Result) -> Result {
        var text = self
        return text.withUTF8 { bytes in
            // SAFETY: the span is used only inside the closure.
            unsafe body(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(bytes)))
        }
    }
}

extension RawSpan {
    /// A copy of the bytes.
    package var copied: [UInt8] { unsafe withUnsafeBytes { unsafe Array($0) } }

    /// Whether both have the same bytes.
    package func isSame(as other: borrowing RawSpan) -> Bool {
        // SAFETY: the pointers are used only inside the closures.
        unsafe withUnsafeBytes { one in
            unsafe other.withUnsafeBytes { two in unsafe one.count == two.count && one.elementsEqual(two) }
        }
    }

    /// A copy as text; invalid UTF-8 is replaced by U+FFFD.
    package var string: String { unsafe withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) } }

    /// The octets, for decoders that read them one by one.
    package var octets: Span<UInt8> {
        @_lifetime(copy self)
        get {
            // SAFETY: octets have no other representation than their bytes.
            unsafe _unsafeView(as: UInt8.self)
        }
    }
}

extension Span where Element == UInt8 {
    /// Eight octets from `offset` on, checked against the bounds, as an integer of any order.
    @inline(__always)
    func word(at offset: Int) -> UInt64 {
        // SAFETY: octets are represented by their bytes, and any bytes are an integer.
        unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }
}

/// Loads of octets and words, checked against the buffer's bounds.
extension MutableRawSpan {
    @inlinable
    func octet(at offset: Int) -> UInt8 { unsafe bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self) }

    @inlinable
    func bigEndian16(at offset: Int) -> UInt16 { UInt16(octet(at: offset)) << 8 | UInt16(octet(at: offset + 1)) }

    @inlinable
    func bigEndian64(at offset: Int) -> UInt64 {
        UInt64(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    @inlinable
    func littleEndian32(at offset: Int) -> UInt32 {
        UInt32(littleEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}
