import ApusCodec

/// What one script observed, line by line. The first character of a line (behind the label of its
/// connection) names its kind.
final class Trace {
    enum Kind: String {
        /// Bytes from the raw peer to the engine, or the end of them.
        case toEngine = ">"
        /// Bytes from the engine to the raw peer, or the end of them.
        case fromEngine = "<"
        /// A callback.
        case callback = "*"
        /// A call that the script, or a handler on its behalf, makes.
        case call = "-"
    }

    private(set) var lines: [String] = []

    func add(_ kind: Kind, _ text: String) { add(kind, "", text) }

    /// - Parameter label: of the connection.
    func add(_ kind: Kind, _ label: String, _ text: String) {
        let text = Self.normalized(text)
        lines.append(text.isEmpty ? "\(label)\(kind.rawValue)" : "\(label)\(kind.rawValue) \(text)")
    }

    /// Replaces the lines from index `start` on by one, if they are the expected ones. Otherwise
    /// they stay.
    func shorten(from start: Int, _ expected: [String], to line: String) {
        if lines[start...].elementsEqual(expected) { lines.replaceSubrange(start..., with: [line]) }
    }

    /// Replaces ports of this host and the directories of tests.
    private static func normalized(_ text: String) -> String {
        var text = replacing(in: text, after: "127.0.0.1:", by: "<port>") { $0.isASCII && $0.isNumber }
        text = replacing(in: text, after: "localhost:", by: "<port>") { $0.isASCII && $0.isNumber }
        text = replacing(in: text, after: "/tmp/apus-test-", by: "<random>") { $0.isASCII && ($0.isLetter || $0.isNumber) }
        return text
    }

    /// Replaces what follows each `prefix` for as long as `isPart` holds.
    private static func replacing(in text: String, after prefix: String, by name: String, _ isPart: (Character) -> Bool) -> String {
        var (result, rest) = ("", text[...])
        while let found = rest.firstRange(of: prefix) {
            result += rest[..<found.upperBound] + name
            rest = rest[found.upperBound...].drop(while: isPart)
        }
        return result + rest
    }
}

/// Payload as a line of a trace: text in quotes, a few bytes in hexadecimal, many bytes shortened
/// with their checksum.
enum PayloadText {
    /// Text up to this size, in bytes, stands in full.
    private static let maxTextBytes = 400
    /// Other bytes up to this count stand in full.
    private static let maxHexBytes = 32

    /// The text with a space in front; empty for no bytes.
    static func after(_ bytes: some Collection<UInt8>) -> String { bytes.isEmpty ? "" : " \(of(bytes))" }

    static func of(_ bytes: some Collection<UInt8>) -> String {
        let bytes = Array(bytes)
        guard let first = bytes.first else { return "\"\"" }
        if bytes.count > maxHexBytes, bytes.allSatisfy({ $0 == first }) {
            return "<\(bytes.count) × \(hex(first)), checksum \(checksum(bytes))>"
        }
        if bytes.count <= maxTextBytes, let text = text(bytes) { return text }
        if bytes.count <= maxHexBytes { return "[\(bytes.map(hex).joined(separator: " "))]" }
        let start = bytes.prefix(8).map(hex).joined(separator: " ")
        return "<\(bytes.count) bytes, \(start) …, checksum \(checksum(bytes))>"
    }

    /// In quotes; nil if the bytes are not UTF-8 or hold control characters other than CR, LF and
    /// tab.
    private static func text(_ bytes: [UInt8]) -> String? {
        guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\r": result += "\\r"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value): return nil
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    static func hex(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16)
        return digits.utf8.count == 1 ? "0\(digits)" : digits
    }

    /// FNV-1a with 64 bits.
    static func checksum(_ bytes: [UInt8]) -> String {
        let sum = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        let digits = String(sum, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
