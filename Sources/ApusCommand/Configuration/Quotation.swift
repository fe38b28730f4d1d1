/// A text of a file's or a person's within an error of one line.
enum Quotation {
    /// Characters; what is longer is cut.
    private static let maxLength = 80

    /// The text in double quotes, without control characters, cut where it is long.
    static func of(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(maxLength) {
            let isControl = scalar.properties.generalCategory == .control || scalar == "\u{2028}" || scalar == "\u{2029}"
            shown += isControl ? "\\u{\(String(scalar.value, radix: 16, uppercase: true))}" : String(scalar)
        }
        return "\"\(shown)\"" + (text.unicodeScalars.count > maxLength ? " …" : "")
    }
}
