/// Validates sixteen octets at a time without branches that depend on them, because text beyond
/// ASCII is hard to predict.
enum UTF8Blocks {
    private typealias Block = SIMD16<UInt8>

    /// Validates whole blocks from `start` on, where a sequence begins. At least three octets
    /// precede `start`, all of complete sequences.
    ///
    /// - Returns: where the first sequence begins that the blocks do not contain completely, or an
    ///   earlier index where plain ASCII begins; nil if there are octets that no continuation could
    ///   make valid.
    static func check(_ base: UnsafeRawPointer, from start: Int, count: Int) -> Int? {
        precondition(start >= 3)
        var index = start
        var errors = Block.zero
        while index &+ 16 <= count {
            // SAFETY: the three octets before `index` and the sixteen from it on lie in the buffer.
            let now = unsafe base.loadUnaligned(fromByteOffset: index, as: Block.self)
            let one = unsafe base.loadUnaligned(fromByteOffset: index &- 1, as: Block.self)
            let two = unsafe base.loadUnaligned(fromByteOffset: index &- 2, as: Block.self)
            let three = unsafe base.loadUnaligned(fromByteOffset: index &- 3, as: Block.self)
            // A continuation octet must follow a lead of two or more octets, two follow a lead of
            // three or more, three follow a lead of four. It may occur nowhere else.
            let isContinuation = octets((now & octet(0xC0)) .== octet(0x80))
            let mustBe = octets(one .>= octet(0xC0)) | octets(two .>= octet(0xE0)) | octets(three .>= octet(0xF0))
            errors |= isContinuation ^ mustBe
            // Overlong forms of three and four octets, surrogates, and values above U+10FFFF.
            errors |= octets(one .== octet(0xE0)) & octets(now .< octet(0xA0))
            errors |= octets(one .== octet(0xED)) & octets(now .>= octet(0xA0))
            errors |= octets(one .== octet(0xF0)) & octets(now .< octet(0x90))
            errors |= octets(one .== octet(0xF4)) & octets(now .>= octet(0x90))
            // Overlong forms of two octets, leads of more than four octets, and octets that UTF-8
            // does not use.
            errors |= octets((now & octet(0xFE)) .== octet(0xC0)) | octets(now .>= octet(0xF5))
            index &+= 16
            if !hasHighBit(now | one) { break }
        }
        return hasHighBit(errors) ? nil : unsafe beginning(base, before: index)
    }

    /// Where the sequence begins that does not end before `end`; `end` if there is none.
    private static func beginning(_ base: UnsafeRawPointer, before end: Int) -> Int {
        // SAFETY: `check` began after the third octet.
        if unsafe base.load(fromByteOffset: end &- 1, as: UInt8.self) >= 0xC0 { return end &- 1 }
        if unsafe base.load(fromByteOffset: end &- 2, as: UInt8.self) >= 0xE0 { return end &- 2 }
        if unsafe base.load(fromByteOffset: end &- 3, as: UInt8.self) >= 0xF0 { return end &- 3 }
        return end
    }

    @inline(__always)
    private static func octet(_ value: UInt8) -> Block { Block(repeating: value) }

    /// All bits set where the mask is true.
    @inline(__always)
    private static func octets(_ mask: SIMDMask<SIMD16<Int8>>) -> Block { unsafe unsafeBitCast(mask, to: Block.self) }

    @inline(__always)
    private static func hasHighBit(_ block: Block) -> Bool {
        let halves = unsafe unsafeBitCast(block, to: SIMD2<UInt64>.self)
        return (halves[0] | halves[1]) & 0x8080_8080_8080_8080 != 0
    }
}
