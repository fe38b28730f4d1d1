// The few places where spans, arrays and strings are turned into one another. Everything here is checked against the bounds.

extension [UInt8] {
    /// The array's bytes, lent for as long as the array is not changed.
    package var rawSpan: RawSpan {
        @_lifetime(borrow self)
        borrowing get {
            let span = self.span
            // SAFETY: octets have no other representation than their bytes.
            return unsafe _overrideLifetime(span.bytes, borrowing: self)
        }
    }

    /// Makes room for a message that has grown to `needed` octets and may grow on, up to `maxBytes`.
    ///
    /// Growing by a factor keeps appending linear. Memory that is set aside and not touched costs nothing, but what a message has outgrown
    /// the C library may keep: so from 16 KiB on there is one step to the whole limit, or to 1 MiB if that is less.
    package mutating func reserve(growingTo needed: Int, maxBytes: Int) {
        guard needed > capacity else { return }
        let step = needed <= 16 * 1024 ? needed * 4 : Swift.max(needed * 4, 1 << 20)
        // The last step goes to the most there can be, so that it is not taken twice.
        reserveCapacity(step > maxBytes - maxBytes / 4 ? Swift.max(needed, maxBytes) : step)
    }

    /// Appends the span's octets.
    package mutating func append(_ bytes: borrowing RawSpan) {
        // SAFETY: the pointer is used only inside the closure and never beyond the count.
        unsafe bytes.withUnsafeBytes { unsafe append(contentsOf: $0) }
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
    /// Lends the text's UTF-8; made contiguous first if it is not.
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

    /// Whether both hold the same bytes.
    package func isSame(as other: borrowing RawSpan) -> Bool {
        // SAFETY: the pointers are used only inside the closures.
        unsafe withUnsafeBytes { one in
            unsafe other.withUnsafeBytes { two in unsafe one.count == two.count && one.elementsEqual(two) }
        }
    }

    /// A copy as text; what is not UTF-8 is replaced by U+FFFD.
    package var string: String { unsafe withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) } }

    /// The octets, for decoders that read one by one.
    package var octets: Span<UInt8> {
        @_lifetime(copy self)
        get {
            // SAFETY: octets have no other representation than their bytes.
            unsafe _unsafeView(as: UInt8.self)
        }
    }
}

/// Octets and words in network order; every access is checked against the buffer.
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
