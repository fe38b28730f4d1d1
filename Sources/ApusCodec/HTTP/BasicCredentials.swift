/// A user's name and password for `Authorization` or `Proxy-Authorization` (RFC 7617).
package struct BasicCredentials: Hashable, Sendable {
    package let user: String
    package let password: String

    /// Nil if the name holds a colon, or either a control character (RFC 7617 §2).
    package init?(user: String, password: String) {
        guard !user.utf8.contains(UInt8(ascii: ":")) else { return nil }
        for byte in user.utf8 where ByteClass.isControl(byte) { return nil }
        for byte in password.utf8 where ByteClass.isControl(byte) { return nil }
        self.user = user
        self.password = password
    }

    /// The field's value: `Basic` and the base 64 of `user:password` in UTF-8.
    package var fieldValue: String {
        var bytes = Array("Basic ".utf8)
        Base64.append(Array("\(user):\(password)".utf8).span, to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}
