/// Numbers with units, as in a configuration file.
package enum Quantity {
    private static let sizes = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    private static let times: [(String, Int64)] = [("h", 3_600_000), ("min", 60_000), ("ms", 1), ("s", 1000)]

    /// Parses `65536`, `64 KiB`, `64KiB`; nil for anything else, and for 0.
    package static func bytes(_ text: String) -> Int? {
        for (unit, factor) in sizes where text.hasSuffix(unit) {
            return number(text.dropLast(unit.count)).flatMap { product(Int($0), factor) }
        }
        return number(text[...]).flatMap { Int($0) }.flatMap { $0 > 0 ? $0 : nil }
    }

    /// Parses `10 s`, `500ms`, `2 min`, `1 h`; nil for anything else, and for 0.
    package static func duration(_ text: String) -> Duration? {
        for (unit, factor) in times where text.hasSuffix(unit) {
            return number(text.dropLast(unit.count)).flatMap { product($0, factor) }
                .map { .milliseconds($0) }
        }
        return nil
    }

    /// The product; nil if it is not positive or overflows.
    private static func product<Number: FixedWidthInteger>(_ number: Number, _ factor: Number) -> Number? {
        let (result, overflow) = number.multipliedReportingOverflow(by: factor)
        return overflow || result <= 0 ? nil : result
    }

    /// Parses digits with optional spaces around them.
    private static func number(_ text: Substring) -> Int64? {
        let digits = text.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed()
        guard !digits.isEmpty, digits.allSatisfy({ ("0"..."9").contains($0) }) else { return nil }
        return Int64(String(digits))
    }

    /// `64 KiB`, or the plain number if no unit divides it.
    package static func text(bytes: Int) -> String {
        for (unit, factor) in sizes where bytes % factor == 0 && bytes != 0 { return "\(bytes / factor) \(unit)" }
        return "\(bytes)"
    }

    /// `10 s`, `500 ms`, `2 min`; fractions of a millisecond are cut.
    package static func text(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1000)
        let (milliseconds, carry) = product.addingReportingOverflow(attoseconds / 1_000_000_000_000_000)
        if overflow || carry { return "\(seconds) s" }
        for (unit, factor) in [times[0], times[1], times[3]] where milliseconds % factor == 0 && milliseconds != 0 {
            return "\(milliseconds / factor) \(unit)"
        }
        return "\(milliseconds) ms"
    }
}
