import Apus
import ApusPlatform
import Glibc

/// Standard output and standard error, coloured if they are terminals.
struct Terminal {
    enum Colour: Int {
        case red = 31
        case green = 32
        case blue = 34
    }

    /// Whether standard output is a terminal.
    let isTerminal = isatty(1) == 1
    private let coloursOutput: Bool
    private let coloursNotes: Bool

    init() {
        let isAllowed = Process.environment("NO_COLOR").map(\.isEmpty) ?? true
        coloursOutput = isAllowed && isatty(1) == 1
        coloursNotes = isAllowed && isatty(2) == 1
    }

    /// Writes bytes unchanged to standard output.
    func write(_ bytes: [UInt8]) -> StandardStreams.Outcome { StandardStreams.write(bytes) }

    /// Writes a line to standard output. Control characters of the peer are escaped on a terminal.
    func write(line: String, _ colour: Colour? = nil) -> StandardStreams.Outcome {
        let text = isTerminal ? Self.escaped(line) : line
        return write(Array((paint(text, colour, coloursOutput) + "\n").utf8))
    }

    /// Writes a message to standard error.
    func note(_ text: String, _ colour: Colour? = nil) {
        StandardStreams.note(paint("apus: " + Self.escaped(text), colour, coloursNotes) + "\n")
    }

    private func paint(_ text: String, _ colour: Colour?, _ paints: Bool) -> String {
        guard paints, let colour else { return text }
        return "\u{1B}[\(colour.rawValue)m\(text)\u{1B}[0m"
    }

    /// The text with control characters other than tab and line feed written as `\u{1B}`.
    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            let isControl = scalar.properties.generalCategory == .control && scalar != "\t" && scalar != "\n"
            result += isControl ? "\\u{\(String(scalar.value, radix: 16, uppercase: true))}" : String(scalar)
        }
        return result
    }
}
