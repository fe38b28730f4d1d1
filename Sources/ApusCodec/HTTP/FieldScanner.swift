/// Reads the pieces of a field's value in order: tokens, quoted strings and separators (RFC 9110
/// §5.6).
struct FieldScanner {
    /// What a backslash in a quoted string means.
    enum Escapes {
        /// The next character is literal (RFC 9110 §5.6.4).
        case quotedPair
        /// As in forms: browsers send a backslash as it is and encode quotes as `%22`, other
        /// clients put a backslash before a quote or a backslash.
        case form
    }

    let bytes: [UInt8]
    private(set) var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    init(_ text: some StringProtocol) { bytes = Array(text.utf8) }

    var isAtEnd: Bool { position == bytes.count }

    /// The next byte; nil at the end.
    var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func skipBlanks() {
        while position < bytes.count, ByteClass.isBlank(bytes[position]) { position += 1 }
    }

    /// Skips the byte if it is next.
    ///
    /// - Returns: Whether it was.
    mutating func skip(_ byte: UInt8) -> Bool {
        guard peek == byte else { return false }
        position += 1
        return true
    }

    /// The bytes up to the next one that is not accepted; possibly none.
    mutating func take(while accepts: (UInt8) -> Bool) -> ArraySlice<UInt8> {
        let start = position
        while position < bytes.count, accepts(bytes[position]) { position += 1 }
        return bytes[start..<position]
    }

    /// A token (§5.6.2); nil if none is next.
    mutating func token() -> String? {
        let token = take(while: ByteClass.isToken)
        return token.isEmpty ? nil : String(decoding: token, as: UTF8.self)
    }

    /// The content of a quoted string (§5.6.4) without its escapes; nil if none is next, or if it
    /// has no end or contains a control character other than HTAB.
    mutating func quoted(_ escapes: Escapes = .quotedPair) -> [UInt8]? {
        guard skip(UInt8(ascii: "\"")) else { return nil }
        var content: [UInt8] = []
        while let byte = peek {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return content
            case UInt8(ascii: "\\") where isEscape(escapes):
                guard let escaped = peek, Self.isText(escaped) else { return nil }
                position += 1
                content.append(escaped)
            default:
                guard Self.isText(byte) else { return nil }
                content.append(byte)
            }
        }
        return nil
    }

    private func isEscape(_ escapes: Escapes) -> Bool {
        switch escapes {
        case .quotedPair: true
        case .form: peek == UInt8(ascii: "\"") || peek == UInt8(ascii: "\\")
        }
    }

    private static func isText(_ byte: UInt8) -> Bool { !ByteClass.isControl(byte) || byte == ByteClass.tab }

    /// A token or the content of a quoted string; nil if neither is next.
    mutating func tokenOrQuoted(_ escapes: Escapes = .quotedPair) -> [UInt8]? {
        if peek == UInt8(ascii: "\"") { return quoted(escapes) }
        let token = take(while: ByteClass.isToken)
        return token.isEmpty ? nil : Array(token)
    }

    /// The parameters in the rest of the field, each after a semicolon (§5.6.6): names in lower
    /// case, values without quotes.
    ///
    /// - Returns: nil if the rest does not follow the grammar.
    mutating func parameters(_ escapes: Escapes = .quotedPair) -> [(name: String, value: [UInt8])]? {
        var parameters: [(name: String, value: [UInt8])] = []
        while true {
            skipBlanks()
            if isAtEnd { return parameters }
            guard skip(UInt8(ascii: ";")) else { return nil }
            skipBlanks()
            // Empty parameters are allowed.
            if isAtEnd || peek == UInt8(ascii: ";") { continue }
            guard let name = token(), skip(UInt8(ascii: "=")), let value = tokenOrQuoted(escapes) else { return nil }
            parameters.append((name.lowercased(), value))
        }
    }
}
