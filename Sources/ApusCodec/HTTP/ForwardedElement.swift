/// What one proxy added to `Forwarded`: `for=192.0.2.43;proto=https` (RFC 7239 §4).
struct ForwardedElement {
    /// `for`; unknown without it.
    private(set) var client = ForwardedFields.Client.unknown
    /// `proto`, in lower case.
    private(set) var scheme: String?
    private(set) var host: String?

    /// - Returns: nil if the element is malformed or has a parameter twice.
    init?(_ bytes: ArraySlice<UInt8>) {
        var scanner = FieldScanner(Array(bytes))
        var names: Set<String> = []
        repeat {
            scanner.skipBlanks()
            if scanner.isAtEnd || scanner.peek == UInt8(ascii: ";") { continue }
            guard let name = scanner.token()?.lowercased(), scanner.skip(UInt8(ascii: "=")), let value = scanner.tokenOrQuoted(),
                names.insert(name).inserted, read(name, value[...])
            else { return nil }
            scanner.skipBlanks()
        } while scanner.skip(UInt8(ascii: ";"))
        guard scanner.isAtEnd else { return nil }
    }

    private mutating func read(_ name: String, _ value: ArraySlice<UInt8>) -> Bool {
        switch name {
        case "for":
            guard let found = Self.client(value, acceptsBareIPv6: false) else { return false }
            client = found
        case "proto":
            guard let found = Self.scheme(value) else { return false }
            scheme = found
        case "host":
            guard let found = Self.host(value) else { return false }
            host = found
        default: break
        }
        return true
    }

    /// A scheme in lower case; nil for what is none (RFC 3986 §3.1).
    static func scheme(_ bytes: ArraySlice<UInt8>) -> String? {
        guard let first = bytes.first, ByteClass.isLetter(first), bytes.count <= 32 else { return nil }
        for byte in bytes where !ByteClass.isLetter(byte) && !ByteClass.isDigit(byte) && ![0x2B, 0x2D, 0x2E].contains(byte) { return nil }
        return String(decoding: bytes.map(ByteClass.lowercased), as: UTF8.self)
    }

    /// `host[:port]`; nil for what is not.
    static func host(_ bytes: ArraySlice<UInt8>) -> String? {
        let copy = Array(bytes)
        return Authority(copy.span, 0..<copy.count) == nil ? nil : String(decoding: copy, as: UTF8.self)
    }

    /// A node: an IPv4 address, an IPv6 address in brackets, `unknown` or an obfuscated identifier,
    /// each possibly with a port (RFC 7239 §6).
    ///
    /// - Parameter acceptsBareIPv6: Whether an IPv6 address may also be without brackets, as in
    ///   X-Forwarded-For.
    /// - Returns: nil for any other text.
    static func client(_ bytes: ArraySlice<UInt8>, acceptsBareIPv6: Bool) -> ForwardedFields.Client? {
        if acceptsBareIPv6, bytes.count(where: { $0 == UInt8(ascii: ":") }) > 1, let address = IPAddress(parsing: Array(bytes).span) {
            return .address(address, port: nil)
        }
        if bytes.first == UInt8(ascii: "[") {
            guard let end = bytes.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            let text = bytes[(bytes.startIndex + 1)..<end]
            guard text.contains(UInt8(ascii: ":")), let address = IPAddress(parsing: Array(text).span) else { return nil }
            return client(address, port: bytes[(end + 1)...])
        }
        let end = bytes.firstIndex(of: UInt8(ascii: ":")) ?? bytes.endIndex
        let name = bytes[..<end]
        if name.first == UInt8(ascii: "_") {
            guard name.count > 1, name.allSatisfy(isObfuscated), parse(port: bytes[end...]) != nil else { return nil }
            return .obfuscated(String(decoding: name, as: UTF8.self))
        }
        if name.map(ByteClass.lowercased) == Array("unknown".utf8) { return parse(port: bytes[end...]) == nil ? nil : .unknown }
        guard let address = IPAddress(parsing: Array(name).span) else { return nil }
        return client(address, port: bytes[end...])
    }

    private static func client(_ address: IPAddress, port bytes: ArraySlice<UInt8>) -> ForwardedFields.Client? {
        switch parse(port: bytes) {
        case .number(let port): .address(address, port: port)
        case .missing, .obfuscated: .address(address, port: nil)
        case nil: nil
        }
    }

    private enum Port {
        case missing
        case number(UInt16)
        case obfuscated
    }

    /// Nothing, or a colon and a port; nil for any other text.
    private static func parse(port bytes: ArraySlice<UInt8>) -> Port? {
        guard let colon = bytes.first else { return .missing }
        let text = bytes.dropFirst()
        guard colon == UInt8(ascii: ":"), let first = text.first else { return nil }
        if first == UInt8(ascii: "_") { return text.count > 1 && text.allSatisfy(isObfuscated) ? .obfuscated : nil }
        guard text.count <= 5, text.allSatisfy(ByteClass.isDigit) else { return nil }
        return UInt16(exactly: text.reduce(0) { $0 * 10 + Int($1 - 0x30) }).map { .number($0) }
    }

    private static func isObfuscated(_ byte: UInt8) -> Bool {
        ByteClass.isLetter(byte) || ByteClass.isDigit(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_")
            || byte == UInt8(ascii: "-")
    }
}
