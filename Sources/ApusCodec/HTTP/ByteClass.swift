/// The byte classes in the grammars of RFC 9110 §5.6 and RFC 3986 §2.
enum ByteClass {
    static let tab: UInt8 = 0x09
    static let lineFeed: UInt8 = 0x0A
    static let carriageReturn: UInt8 = 0x0D
    static let space: UInt8 = 0x20

    /// Whether the byte is allowed in a token: `tchar` (RFC 9110 §5.6.2).
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        // One bit per byte value. Low word: ! # $ % & ' * + - . 0-9; high word: A-Z ^ _ ` a-z | ~.
        let low: UInt64 = 1 << 0x21 | 0x1F << 0x23 | 0x3 << 0x2A | 0x3 << 0x2D | 0x3FF << 0x30
        let high: UInt64 = 0x3FF_FFFF << 1 | 0x7 << 30 | 0x3FF_FFFF << 33 | 1 << 60 | 1 << 62
        guard byte < 0x80 else { return false }
        return ((byte < 0x40 ? low : high) &>> UInt64(byte & 0x3F)) & 1 == 1
    }

    /// Whether the byte is a control character: 0x00–0x1F or DEL.
    @inline(__always)
    static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 || byte == 0x7F }

    /// Whether one of eight bytes is a control character.
    @inline(__always)
    static func hasControl(_ word: UInt64) -> Bool {
        let (ones, tops): (UInt64, UInt64) = (0x0101_0101_0101_0101, 0x8080_8080_8080_8080)
        // A byte below n, that is below 0x80, borrows its top bit when n is subtracted.
        let below = (word &- ones &* 0x20) & ~word
        let difference = word ^ ones &* 0x7F
        let delete = (difference &- ones) & ~difference
        return (below | delete) & tops != 0
    }

    /// Whether the byte is a visible ASCII character, 0x21–0x7E.
    @inline(__always)
    static func isVisible(_ byte: UInt8) -> Bool { byte &- 0x21 <= 0x5D }

    /// Whether the byte is optional white space: SP or HTAB (RFC 9110 §5.6.3).
    @inline(__always)
    static func isBlank(_ byte: UInt8) -> Bool { byte == space || byte == tab }

    @inline(__always)
    static func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 <= 9 }

    @inline(__always)
    static func isLetter(_ byte: UInt8) -> Bool { lowercased(byte) &- 0x61 <= 25 }

    /// Converts ASCII A–Z to lower case; other bytes are unchanged.
    @inline(__always)
    static func lowercased(_ byte: UInt8) -> UInt8 { byte &- 0x41 <= 25 ? byte | 0x20 : byte }

    /// The value of a hexadecimal digit, 0–15, or nil.
    @inline(__always)
    static func hexValue(_ byte: UInt8) -> UInt8? {
        if byte &- 0x30 <= 9 { return byte &- 0x30 }
        let letter = (byte | 0x20) &- 0x61
        return letter <= 5 ? letter &+ 10 : nil
    }

    /// Whether the byte is allowed in a registered host name, besides `%xx`: unreserved characters
    /// and sub-delimiters (RFC 3986 §2).
    static func isRegisteredName(_ byte: UInt8) -> Bool {
        if isLetter(byte) || isDigit(byte) { return true }
        switch byte {
        case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"): return true
        case UInt8(ascii: "!"), UInt8(ascii: "$"), UInt8(ascii: "&"), UInt8(ascii: "'"), UInt8(ascii: "("), UInt8(ascii: ")"),
            UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: "="):
            return true
        default: return false
        }
    }
}

extension Span where Element == UInt8 {
    /// Whether the bytes in `range` equal `text`, given in lower case, without regard to ASCII
    /// case.
    func matches(_ range: Range<Int>, lowercase text: String) -> Bool {
        let utf8 = text.utf8
        guard range.count == utf8.count else { return false }
        return matches(range, utf8.span, 0..<utf8.count)
    }

    /// Whether `range` and `otherRange` of `other` have the same bytes, without regard to ASCII
    /// case.
    func matches(_ range: Range<Int>, _ other: Span<UInt8>, _ otherRange: Range<Int>) -> Bool {
        guard range.count == otherRange.count else { return false }
        for step in 0..<range.count {
            let mine = self[range.lowerBound &+ step]
            let theirs = other[otherRange.lowerBound &+ step]
            if mine != theirs, ByteClass.lowercased(mine) != ByteClass.lowercased(theirs) { return false }
        }
        return true
    }

    /// `range` without SP and HTAB at its ends (RFC 9110 §5.6.3).
    func trimmed(_ range: Range<Int>) -> Range<Int> {
        var start = range.lowerBound
        var end = range.upperBound
        while start < end, ByteClass.isBlank(self[start]) { start += 1 }
        while start < end, ByteClass.isBlank(self[end - 1]) { end -= 1 }
        return start..<end
    }

    /// Whether `range` is a token: one or more `tchar` (RFC 9110 §5.6.2).
    func isToken(_ range: Range<Int>) -> Bool {
        guard !range.isEmpty else { return false }
        for index in range where !ByteClass.isToken(self[index]) { return false }
        return true
    }

    /// The next element of a comma-separated list, trimmed and possibly empty; nil at the end of
    /// the list (RFC 9110 §5.6.1).
    ///
    /// For lists of tokens only: quoted strings are not recognised.
    ///
    /// - Parameter rest: The rest of the list; nil after the last element.
    func nextListElement(_ rest: inout Range<Int>?) -> Range<Int>? {
        guard let list = rest else { return nil }
        for index in list where self[index] == UInt8(ascii: ",") {
            rest = index + 1..<list.upperBound
            return trimmed(list.lowerBound..<index)
        }
        rest = nil
        return trimmed(list)
    }

    /// Whether the comma-separated list in `range` contains `token`, given in lower case, without
    /// regard to case.
    func listContains(_ range: Range<Int>, lowercase token: String) -> Bool {
        var rest: Range<Int>? = range
        while let element = nextListElement(&rest) {
            if matches(element, lowercase: token) { return true }
        }
        return false
    }

    /// The first index of `byte` in `range`, or nil.
    func firstIndex(of byte: UInt8, in range: Range<Int>) -> Int? {
        for index in range where self[index] == byte { return index }
        return nil
    }
}
