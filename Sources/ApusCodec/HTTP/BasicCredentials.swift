/// User and password for `Authorization` or `Proxy-Authorization` (RFC 7617).
package struct BasicCredentials: Hashable, Sendable {
    package let user: String
    package let password: String

    /// Nil if the user contains a colon, or either contains a control character (RFC 7617 §2).
    package init?(user: String, password: String) {
        guard !user.utf8.contains(UInt8(ascii: ":")) else { return nil }
        for byte in user.utf8 where ByteClass.isControl(byte) { return nil }
        for byte in password.utf8 where ByteClass.isControl(byte) { return nil }
        self.user = user
        self.password = password
    }

    /// The credentials in a field; nil if they are not Basic credentials in UTF-8 (RFC 7617 §2.1).
    package init?(fieldValue: String) {
        let bytes = Array(fieldValue.utf8)
        let scheme = bytes.prefix { $0 != ByteClass.space }
        guard scheme.count == 5, bytes.span.matches(0..<5, lowercase: "basic") else { return nil }
        let encoded = bytes.dropFirst(5).drop { $0 == ByteClass.space }
        guard let decoded = Base64.decode(Array(encoded).span), let text = String(validating: decoded, as: UTF8.self),
            let colon = text.utf8.firstIndex(of: UInt8(ascii: ":"))
        else { return nil }
        self.init(user: String(text[..<colon]), password: String(text[text.utf8.index(after: colon)...]))
    }

    /// The value of the field: `Basic` and the base 64 of `user:password` in UTF-8.
    package var fieldValue: String {
        var bytes = Array("Basic ".utf8)
        Base64.append(Array("\(user):\(password)".utf8).span, to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}
