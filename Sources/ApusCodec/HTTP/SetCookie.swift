/// A cookie for the client, as the value of a `Set-Cookie` field (RFC 6265bis §4.1).
///
/// By default, scripts cannot read it, it is sent over TLS only (and to `localhost`), not with
/// requests of other sites except links, to all paths of this host, until the client is closed.
public struct SetCookie: Hashable, Sendable {
    /// With which requests of other sites the cookie is sent (§5.6.7).
    public enum SameSite: String, Hashable, Sendable {
        /// With none.
        case strict = "Strict"
        /// When a link is followed, but not with images, frames, scripts and forms.
        case lax = "Lax"
        /// With all, which requires `isSecure`.
        case none = "None"
    }

    /// A token (RFC 9110 §5.6.2). `__Host-` and `__Secure-` before a name let clients enforce
    /// attributes, which are checked.
    public var name: String
    /// Visible ASCII without `"`, `,`, `;` and `\`, possibly in quotes, which become a part of the
    /// value. Encode anything else, for example in base 64.
    public var value: String
    /// Begins with a slash. Nil means the directory of the request's path.
    public var path: String?
    /// A host name: the cookie is sent also to the hosts below it. Nil means this host only.
    public var domain: String?
    /// How long the client keeps the cookie, in whole seconds, rounded up. Zero or less removes it;
    /// nil means until the client is closed. Clients keep none longer than 400 days.
    public var maxAge: Duration?
    /// When the client removes the cookie, in seconds since 1970-01-01 00:00:00 UTC. `maxAge` takes
    /// precedence.
    public var expiresSecondsSince1970: Int?
    /// Whether the cookie is sent over TLS only.
    public var isSecure: Bool
    /// Whether the cookie is hidden from scripts.
    public var isHTTPOnly: Bool
    /// Nil leaves out the attribute; most clients then assume `lax`.
    public var sameSite: SameSite?
    /// Whether the cookie is kept apart for each site that embeds this one; requires `isSecure`.
    public var isPartitioned: Bool

    /// A cookie with safe attributes. `fieldValue()` checks them.
    public init(
        _ name: String, _ value: String, path: String? = "/", domain: String? = nil, maxAge: Duration? = nil,
        expiresSecondsSince1970: Int? = nil, isSecure: Bool = true, isHTTPOnly: Bool = true, sameSite: SameSite? = .lax,
        isPartitioned: Bool = false
    ) {
        self.name = name
        self.value = value
        self.path = path
        self.domain = domain
        self.maxAge = maxAge
        self.expiresSecondsSince1970 = expiresSecondsSince1970
        self.isSecure = isSecure
        self.isHTTPOnly = isHTTPOnly
        self.sameSite = sameSite
        self.isPartitioned = isPartitioned
    }

    /// Makes the client remove a cookie. Path, domain and partition must be those with which it was
    /// set.
    public static func removing(
        _ name: String, path: String? = "/", domain: String? = nil, isPartitioned: Bool = false
    ) -> SetCookie {
        SetCookie(
            name, "", path: path, domain: domain, maxAge: .zero, expiresSecondsSince1970: 0, isPartitioned: isPartitioned)
    }

    /// Bytes of the name and the value together, and of an attribute: clients ignore longer ones
    /// (§5.7).
    static var maxPairBytes: Int { 4096 }
    static var maxAttributeBytes: Int { 1024 }

    /// The value of the field, such as `id=7; Path=/; Secure; HttpOnly; SameSite=Lax`. It contains
    /// nothing but the cookie and its attributes, whatever their texts are.
    ///
    /// - Throws: `SetCookieFault` for a text that is not allowed, and for attributes with which
    ///   clients ignore the cookie.
    public func fieldValue() throws(SetCookieFault) -> String {
        try checkTexts()
        try checkAttributes()
        var text = "\(name)=\(value)"
        if let path { text += "; Path=\(path)" }
        if let domain { text += "; Domain=\(domain)" }
        if let maxAge { text += "; Max-Age=\(Self.seconds(maxAge))" }
        if let expiresSecondsSince1970 {
            text += "; Expires=" + String(decoding: HTTPDate.format(secondsSince1970: expiresSecondsSince1970), as: UTF8.self)
        }
        if isSecure { text += "; Secure" }
        if isHTTPOnly { text += "; HttpOnly" }
        if let sameSite { text += "; SameSite=\(sameSite.rawValue)" }
        if isPartitioned { text += "; Partitioned" }
        return text
    }

    private static func seconds(_ duration: Duration) -> Int64 {
        let (seconds, attoseconds) = duration.components
        // A part of a second would become 0, which removes the cookie.
        return attoseconds > 0 && seconds < .max ? seconds + 1 : seconds
    }

    private func checkTexts() throws(SetCookieFault) {
        guard !name.isEmpty, name.utf8.allSatisfy(ByteClass.isToken) else { throw .invalidName(name) }
        var content = value.utf8[...]
        if content.count >= 2, content.first == UInt8(ascii: "\""), content.last == UInt8(ascii: "\"") {
            content = content.dropFirst().dropLast()
        }
        for byte in content where !Self.isValueByte(byte) { throw .invalidValue(name: name, byte: byte) }
        guard name.utf8.count + value.utf8.count <= Self.maxPairBytes else { throw .tooLong(name: name, limit: Self.maxPairBytes) }
        for attribute in [path, domain] where attribute.map({ $0.utf8.count > Self.maxAttributeBytes }) == true {
            throw .tooLong(name: name, limit: Self.maxAttributeBytes)
        }
        if let path {
            guard path.utf8.first == UInt8(ascii: "/"), path.utf8.allSatisfy(Self.isAttributeByte) else { throw .invalidPath(path) }
        }
        if let domain {
            guard Self.isHostName(domain) else { throw .invalidDomain(domain) }
        }
    }

    /// §5.7 and §4.1.3: what makes a client ignore the cookie.
    private func checkAttributes() throws(SetCookieFault) {
        if sameSite == SameSite.none, !isSecure { throw .secureRequired(name: name, by: "SameSite=None") }
        if isPartitioned, !isSecure { throw .secureRequired(name: name, by: "Partitioned") }
        let lowercase = name.lowercased()
        for prefix in ["__secure-", "__host-"] where lowercase.hasPrefix(prefix) {
            guard isSecure else { throw .secureRequired(name: name, by: String(name.prefix(prefix.count))) }
        }
        if lowercase.hasPrefix("__host-"), path != "/" || domain != nil { throw .hostPrefix(name: name) }
    }

    /// cookie-octet (§4.1.1).
    private static func isValueByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: "\\"): false
        default: ByteClass.isVisible(byte)
        }
    }

    /// av-octet (§4.1.1).
    private static func isAttributeByte(_ byte: UInt8) -> Bool {
        byte == ByteClass.space || ByteClass.isVisible(byte) && byte != UInt8(ascii: ";")
    }

    private static func isHostName(_ name: String) -> Bool {
        let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        return labels.allSatisfy { label in
            !label.isEmpty && label.allSatisfy { ByteClass.isLetter($0) || ByteClass.isDigit($0) || $0 == UInt8(ascii: "-") }
        }
    }
}

/// Why a `SetCookie` is not sent.
public enum SetCookieFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// The name is empty or not a token.
    case invalidName(String)
    /// The value of the named cookie contains this byte.
    case invalidValue(name: String, byte: UInt8)
    /// The path does not begin with a slash, or contains `;`, a control character or a byte outside
    /// ASCII.
    case invalidPath(String)
    /// The domain is not a host name; an international one must be in its ASCII form.
    case invalidDomain(String)
    /// The cookie or an attribute has more bytes than clients accept.
    case tooLong(name: String, limit: Int)
    /// `isSecure` is false, and this part of the cookie requires it.
    case secureRequired(name: String, by: String)
    /// A name that begins with `__Host-` requires the path `/` and no domain.
    case hostPrefix(name: String)

    /// What is expected and what was given; the application's text is quoted, control characters
    /// are escaped.
    public var description: String {
        switch self {
        case .invalidName(let name): "cookie: expected a token as the name, got \(name.debugDescription)"
        case .invalidValue(let name, let byte):
            "cookie \(name.debugDescription): expected a value of visible ASCII without \" , ; \\, got byte 0x\(hexadecimal(byte))"
        case .invalidPath(let path):
            "cookie: expected a path of ASCII that begins with \"/\" and has no \";\", got \(path.debugDescription)"
        case .invalidDomain(let domain): "cookie: expected a host name as the domain, got \(domain.debugDescription)"
        case .tooLong(let name, let limit): "cookie \(name.debugDescription): expected at most \(limit) bytes, got more"
        case .secureRequired(let name, let part): "cookie \(name.debugDescription): expected Secure with \(part), got none"
        case .hostPrefix(let name): "cookie \(name.debugDescription): expected the path \"/\" and no domain with __Host-, got others"
        }
    }
}
