/// Base 64 with padding (RFC 4648 §4), for opening handshakes and Basic credentials.
enum Base64 {
    /// Appends the encoding of `bytes`: 4 bytes for each group of up to 3.
    static func append(_ bytes: Span<UInt8>, to output: inout [UInt8]) {
        var index = 0
        while index < bytes.count {
            let left = bytes.count - index
            let second = left > 1 ? bytes[index + 1] : 0
            let third = left > 2 ? bytes[index + 2] : 0
            let group = UInt32(bytes[index]) << 16 | UInt32(second) << 8 | UInt32(third)
            output.append(digit(group >> 18))
            output.append(digit(group >> 12))
            output.append(left > 1 ? digit(group >> 6) : UInt8(ascii: "="))
            output.append(left > 2 ? digit(group) : UInt8(ascii: "="))
            index += 3
        }
    }

    /// The number of bytes that `text` encodes; nil if it is not base 64 with padding.
    ///
    /// Unused bits of the last digit need not be zero; RFC 4648 §3.5 leaves the choice to the
    /// decoder.
    static func decodedCount(_ text: Span<UInt8>) -> Int? {
        guard text.count % 4 == 0 else { return nil }
        var end = text.count
        if end > 0, text[end - 1] == UInt8(ascii: "=") { end -= 1 }
        if end > 0, end < text.count, text[end - 1] == UInt8(ascii: "=") { end -= 1 }
        for index in 0..<end where !isDigit(text[index]) { return nil }
        return text.count / 4 * 3 - (text.count - end)
    }

    /// The bytes that `text` encodes; nil if it is not base 64 with padding.
    static func decode(_ text: Span<UInt8>) -> [UInt8]? {
        guard let count = decodedCount(text) else { return nil }
        var output: [UInt8] = []
        output.reserveCapacity(count)
        var group: UInt32 = 0
        for index in 0..<text.count {
            group = group << 6 | value(text[index])
            guard index % 4 == 3 else { continue }
            for shift in [16, 8, 0] where output.count < count { output.append(UInt8(truncatingIfNeeded: group >> UInt32(shift))) }
            group = 0
        }
        return output
    }

    /// The value of a digit; 0 for padding.
    private static func value(_ digit: UInt8) -> UInt32 {
        switch digit {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(digit - UInt8(ascii: "A"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(digit - UInt8(ascii: "a")) + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(digit - UInt8(ascii: "0")) + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: 0
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        ByteClass.isLetter(byte) || ByteClass.isDigit(byte) || byte == UInt8(ascii: "+") || byte == UInt8(ascii: "/")
    }

    /// The digit for the six low bits.
    private static func digit(_ group: UInt32) -> UInt8 {
        let value = UInt8(truncatingIfNeeded: group & 0x3F)
        return switch value {
        case 0..<26: value + UInt8(ascii: "A")
        case 26..<52: value - 26 + UInt8(ascii: "a")
        case 52..<62: value - 52 + UInt8(ascii: "0")
        case 62: UInt8(ascii: "+")
        default: UInt8(ascii: "/")
        }
    }
}
