/// Base 64 with padding (RFC 4648 §4), for the handshake's key and its answer.
enum Base64 {
    /// Appends the encoding of `bytes`: 4 bytes for each 3 begun.
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

    /// How many bytes `text` encodes; nil if it is not base 64 with its padding.
    ///
    /// Bits that padding leaves over need not be zero, as RFC 4648 §3.5 lets a decoder choose.
    static func decodedCount(_ text: Span<UInt8>) -> Int? {
        guard text.count % 4 == 0 else { return nil }
        var end = text.count
        if end > 0, text[end - 1] == UInt8(ascii: "=") { end -= 1 }
        if end > 0, end < text.count, text[end - 1] == UInt8(ascii: "=") { end -= 1 }
        for index in 0..<end where !isDigit(text[index]) { return nil }
        return text.count / 4 * 3 - (text.count - end)
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        ByteClass.isLetter(byte) || ByteClass.isDigit(byte) || byte == UInt8(ascii: "+") || byte == UInt8(ascii: "/")
    }

    /// The digit of the six low bits.
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
