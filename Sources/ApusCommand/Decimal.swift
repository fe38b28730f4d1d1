/// Formats numbers without the C library's `printf`.
enum Decimal {
    /// The number, rounded to exactly `places` digits after the point.
    static func text(_ value: Double, places: Int) -> String {
        let factor = (0..<places).reduce(1) { product, _ in product * 10 }
        guard let scaled = Int(exactly: (value * Double(factor)).rounded()) else { return "\(value)" }
        let (whole, fraction) = scaled.magnitude.quotientAndRemainder(dividingBy: UInt(factor))
        let digits = places == 0 ? "" : "." + "\(UInt(factor) + fraction)".dropFirst()
        return (scaled < 0 ? "-" : "") + "\(whole)\(digits)"
    }

    /// The number with at most `places` digits after the point, without trailing zeros.
    static func shortest(_ value: Double, places: Int) -> String {
        var text = text(value, places: places)
        guard text.contains(".") else { return text }
        while text.last == "0" { text.removeLast() }
        if text.last == "." { text.removeLast() }
        return text
    }

    /// Two hexadecimal digits.
    static func hexadecimal(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }
}
