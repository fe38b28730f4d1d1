/// Quotes a text from a file or the command line in an error message of one line.
enum Quotation {
    /// Unicode scalars; longer texts are cut.
    private static let maxLength = 80

    /// The text in double quotes, control characters escaped, cut if it is long.
    static func of(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(maxLength) {
            let isControl = scalar.properties.generalCategory == .control || scalar == "\u{2028}" || scalar == "\u{2029}"
            shown += isControl ? "\\u{\(String(scalar.value, radix: 16, uppercase: true))}" : String(scalar)
        }
        return "\"\(shown)\"" + (text.unicodeScalars.count > maxLength ? " …" : "")
    }
}
