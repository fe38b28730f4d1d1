/// The state of a decoder inside chunk extensions (RFC 9112 §7.1.1), which are validated and
/// ignored:
///
///     chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
///     chunk-ext-val = token / quoted-string
enum ChunkExtension {
    /// In white space after the size: a semicolon must follow.
    case afterSize
    /// After a semicolon.
    case beforeName
    case name
    /// In white space after a name: an equals sign or a semicolon must follow.
    case afterName
    /// After an equals sign.
    case beforeValue
    /// In a token.
    case value
    case quotedString
    /// After a backslash in a quoted string.
    case quotedPair
    /// After the quotation mark that ends a quoted string.
    case quotedEnd
    /// In white space after a value: a semicolon must follow.
    case afterValue

    /// Whether the line may end here.
    var mayEnd: Bool {
        switch self {
        case .name, .value, .quotedEnd: true
        case .afterSize, .beforeName, .afterName, .beforeValue, .quotedString, .quotedPair, .afterValue: false
        }
    }

    /// The state after `byte`.
    ///
    /// - Parameter byte: Not a control character, except HTAB.
    /// - Returns: Nil if the byte is not allowed here.
    func next(_ byte: UInt8) -> ChunkExtension? {
        let isBlank = ByteClass.isBlank(byte)
        switch self {
        case .afterSize: return isBlank ? .afterSize : byte == UInt8(ascii: ";") ? .beforeName : nil
        case .beforeName: return isBlank ? .beforeName : ByteClass.isToken(byte) ? .name : nil
        case .name, .afterName:
            switch byte {
            case UInt8(ascii: "="): return .beforeValue
            case UInt8(ascii: ";"): return .beforeName
            default: return isBlank ? .afterName : self == .name && ByteClass.isToken(byte) ? .name : nil
            }
        case .beforeValue:
            return isBlank ? .beforeValue : byte == UInt8(ascii: "\"") ? .quotedString : ByteClass.isToken(byte) ? .value : nil
        case .value, .quotedEnd, .afterValue:
            if byte == UInt8(ascii: ";") { return .beforeName }
            return isBlank ? .afterValue : self == .value && ByteClass.isToken(byte) ? .value : nil
        case .quotedString:
            switch byte {
            case UInt8(ascii: "\""): return .quotedEnd
            case UInt8(ascii: "\\"): return .quotedPair
            default: return .quotedString
            }
        case .quotedPair: return .quotedString
        }
    }
}
