/// Validates UTF-8 that arrives in pieces, and fails at the first octet that no continuation could
/// make valid (RFC 3629, RFC 6455 §8.1).
public struct UTF8Validator: Equatable, Sendable {
    /// Octets missing from the current sequence.
    private var needed: UInt8 = 0
    /// The bounds of the next octet; narrower than 80…BF only after E0, ED, F0 and F4.
    private var low: UInt8 = 0x80
    private var high: UInt8 = 0xBF

    package init() {}

    /// Whether the text may end here.
    package var isComplete: Bool { needed == 0 }

    /// Whether the bytes are complete UTF-8.
    @inlinable
    public static func isValid(_ bytes: borrowing RawSpan) -> Bool {
        // SAFETY: the pointer is used only inside the closure and never beyond the count.
        unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return true }
            return unsafe isShortASCII(base, count: buffer.count) || isValid(base, count: buffer.count)
        }
    }

    /// The fast path: 8 to 64 octets, all ASCII.
    @inlinable
    static func isShortASCII(_ base: UnsafeRawPointer, count: Int) -> Bool {
        guard count >= 8, count <= 64 else { return false }
        // The last eight octets overlap those before them.
        var bits = unsafe base.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
        var index = 0
        while index < count &- 8 {
            unsafe bits |= base.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            index &+= 8
        }
        return bits & 0x8080_8080_8080_8080 == 0
    }

    @usableFromInline
    static func isValid(_ base: UnsafeRawPointer, count: Int) -> Bool {
        var validator = UTF8Validator()
        return unsafe validator.accept(base, count: count) && validator.isComplete
    }

    /// Validates the next piece; false as soon as the text cannot be UTF-8.
    package mutating func accept(_ bytes: borrowing RawSpan) -> Bool {
        // SAFETY: the pointer is used only inside the closure and never beyond the count.
        unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return true }
            return unsafe accept(base, count: buffer.count)
        }
    }

    private mutating func accept(_ base: UnsafeRawPointer, count: Int) -> Bool {
        var index = 0
        while index < count, needed > 0 {
            guard unsafe acceptContinuation(base.load(fromByteOffset: index, as: UInt8.self)) else { return false }
            index &+= 1
        }
        while index < count {
            index = unsafe Self.skipASCII(base, from: index, count: count)
            // A sequence begins at `index`.
            if index >= 3, index &+ 64 <= count {
                guard let next = unsafe UTF8Blocks.check(base, from: index, count: count) else { return false }
                index = next
            }
            // Checks a sequence at once while four octets are available.
            while index &+ 4 <= count {
                let word = unsafe base.loadUnaligned(fromByteOffset: index, as: UInt32.self)
                if word & 0x80 == 0 { break }
                guard let length = Self.sequenceLength(word) else { return false }
                index &+= length
            }
            guard index < count else { return true }
            let octet = unsafe base.load(fromByteOffset: index, as: UInt8.self)
            if octet < 0x80 {
                index &+= 1
            } else if index &+ 4 > count {
                return unsafe acceptTail(base + index, count: count &- index)
            }
        }
        return true
    }

    /// Skips ASCII, up to 32 octets at a time.
    ///
    /// - Returns: the index of the first octet that may not be ASCII.
    private static func skipASCII(_ base: UnsafeRawPointer, from start: Int, count: Int) -> Int {
        var index = start
        while index &+ 32 <= count {
            let vector = unsafe base.loadUnaligned(fromByteOffset: index, as: SIMD4<UInt64>.self)
            let folded = (vector[0] | vector[1]) | (vector[2] | vector[3])
            if folded & 0x8080_8080_8080_8080 != 0 { break }
            index &+= 32
        }
        while index &+ 8 <= count {
            let bits = unsafe base.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080
            if bits != 0 { return index &+ bits.trailingZeroBitCount / 8 }
            index &+= 8
        }
        return index
    }

    /// The length of the well-formed sequence at the start of four octets (first octet lowest); nil
    /// if there is none.
    @inline(__always)
    private static func sequenceLength(_ word: UInt32) -> Int? {
        // Two octets: 110xxxxx 10xxxxxx, not C0 or C1.
        if word & 0xC0E0 == 0x80C0 { return word & 0x1E != 0 ? 2 : nil }
        // Three: 1110xxxx 10xxxxxx 10xxxxxx, not overlong, not a surrogate.
        if word & 0xC0C0F0 == 0x8080E0 {
            let lead = word & 0x200F
            return lead != 0 && lead != 0x200D ? 3 : nil
        }
        // Four: 11110xxx and three more, U+10000…U+10FFFF.
        if word & 0xC0C0_C0F8 == 0x8080_80F0 {
            let lead = (word & 0x07) << 6 | (word >> 8) & 0x30
            return lead >= 0x10 && lead < 0x110 ? 4 : nil
        }
        return nil
    }

    /// Validates the last octets of a piece, fewer than four, one by one, and keeps the state.
    private mutating func acceptTail(_ base: UnsafeRawPointer, count: Int) -> Bool {
        for index in 0..<count {
            let octet = unsafe base.load(fromByteOffset: index, as: UInt8.self)
            guard needed > 0 ? acceptContinuation(octet) : acceptLead(octet) else { return false }
        }
        return true
    }

    private mutating func acceptContinuation(_ octet: UInt8) -> Bool {
        guard octet >= low, octet <= high else { return false }
        needed &-= 1
        low = 0x80
        high = 0xBF
        return true
    }

    private mutating func acceptLead(_ octet: UInt8) -> Bool {
        switch octet {
        case 0x00...0x7F: return true
        case 0xC2...0xDF: needed = 1
        case 0xE0: (needed, low) = (2, 0xA0)
        case 0xED: (needed, high) = (2, 0x9F)
        case 0xE1...0xEF: needed = 2
        case 0xF0: (needed, low) = (3, 0x90)
        case 0xF4: (needed, high) = (3, 0x8F)
        case 0xF1...0xF3: needed = 3
        default: return false
        }
        return true
    }
}
