/// One element of `Sec-WebSocket-Extensions`: a name and its parameters, of an offer or of a
/// response (RFC 6455 §9.1).
public struct ExtensionParameters: Hashable, Sendable, CustomStringConvertible {
    /// One parameter; `value` is nil if it has none.
    public struct Parameter: Hashable, Sendable {
        public let name: String
        public let value: String?

        public init(_ name: String, _ value: String? = nil) {
            self.name = name
            self.value = value
        }
    }

    /// The extension's name, a token.
    public let name: String
    /// In the order of the field; a name may occur more than once.
    public var parameters: [Parameter]

    public init(_ name: String, _ parameters: [Parameter] = []) {
        self.name = name
        self.parameters = parameters
    }

    /// As written in the field: `permessage-deflate; server_max_window_bits=10`.
    public var description: String {
        parameters.reduce(name) { text, parameter in text + "; " + parameter.name + (parameter.value.map { "=" + $0 } ?? "") }
    }

    /// Elements that a field may have. Clients offer a few, and each one is compared with every
    /// extension.
    static let maxElements = 32

    /// Parses the value of the field, several fields joined by a comma. A quoted value counts as
    /// the token that it must contain ("the value after quoted-string unescaping MUST conform to
    /// the 'token' ABNF").
    ///
    /// - Returns: nil if the value does not follow the grammar of §9.1.
    package static func parse(_ text: String) -> [ExtensionParameters]? {
        var scanner = ExtensionScanner(Array(text.utf8))
        var elements: [ExtensionParameters] = []
        repeat {
            // RFC 9110 §5.6.1.2: empty list elements are ignored.
            if scanner.isAtElementEnd { continue }
            guard elements.count < maxElements, let name = scanner.token() else { return nil }
            var element = ExtensionParameters(name)
            while scanner.skip(UInt8(ascii: ";")) {
                guard let parameter = scanner.token() else { return nil }
                var value: String?
                if scanner.skip(UInt8(ascii: "=")) {
                    guard let found = scanner.tokenOrQuoted() else { return nil }
                    value = found
                }
                element.parameters.append(Parameter(parameter, value))
            }
            guard scanner.isAtElementEnd else { return nil }
            elements.append(element)
        } while scanner.skip(UInt8(ascii: ","))
        return elements
    }
}

/// Reads tokens and separators and skips the white space between them.
private struct ExtensionScanner {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    private mutating func skipBlanks() {
        while position < bytes.count, bytes[position] == ByteClass.space || bytes[position] == ByteClass.tab { position += 1 }
    }

    /// Whether a comma or the end of the field is next.
    var isAtElementEnd: Bool {
        mutating get {
            skipBlanks()
            return position == bytes.count || bytes[position] == UInt8(ascii: ",")
        }
    }

    mutating func skip(_ byte: UInt8) -> Bool {
        skipBlanks()
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    mutating func token() -> String? {
        skipBlanks()
        let start = position
        while position < bytes.count, ByteClass.isToken(bytes[position]) { position += 1 }
        return position > start ? String(decoding: bytes[start..<position], as: UTF8.self) : nil
    }

    mutating func tokenOrQuoted() -> String? {
        guard skip(UInt8(ascii: "\"")) else { return token() }
        var content: [UInt8] = []
        while position < bytes.count {
            var byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "\"") { return content.isEmpty ? nil : String(decoding: content, as: UTF8.self) }
            if byte == UInt8(ascii: "\\") {
                guard position < bytes.count else { return nil }
                byte = bytes[position]
                position += 1
            }
            guard ByteClass.isToken(byte) else { return nil }
            content.append(byte)
        }
        return nil
    }
}
