/// How the end of a body is found (RFC 9112 §6.3).
package enum HTTPBodyFraming: Hashable, Sendable {
    /// There is no body.
    case none
    /// A body of so many bytes.
    case counted(Int)
    /// Chunks (RFC 9112 §7.1).
    case chunked
    /// All that comes until the connection ends; responses only.
    case untilClose
}

/// The request line and the fields of a request (RFC 9112 §3, §5), checked and ready to use.
public struct HTTPRequestHead: Sendable {
    /// The method, a token of at most 32 bytes.
    public let method: HTTPMethod
    /// 1.0 or later, below 2.0.
    public let version: HTTPVersion
    /// The fields in the order they came.
    public let fields: HTTPFields
    private let targetRange: Range<Int>
    private let targetParts: RequestTarget.Parts
    private let flags: MessageFacts.Flags
    /// How the end of the request's body is found; never `untilClose`.
    package let bodyFraming: HTTPBodyFraming
    /// Whether the client lets the connection persist: in HTTP/1.1 unless it sent `Connection: close`, in HTTP/1.0 only with
    /// `Connection: keep-alive` (RFC 9112 §9.3).
    package let keepsAlive: Bool

    init(
        method: HTTPMethod, version: HTTPVersion, target: Range<Int>, parts: RequestTarget.Parts, facts: MessageFacts,
        fields: HTTPFields
    ) {
        self.method = method
        self.version = version
        self.fields = fields
        targetRange = target
        targetParts = parts
        flags = facts.flags
        keepsAlive = facts.keepsAlive(version)
        if facts.flags.contains(.chunked) {
            bodyFraming = .chunked
        } else if let length = facts.contentLength, length > 0 {
            bodyFraming = .counted(length)
        } else {
            bodyFraming = .none
        }
    }

    /// The request target as it stands in the request line.
    public var target: String { String(decoding: fields.storage[targetRange], as: UTF8.self) }

    /// The target's parts.
    package var requestTarget: RequestTarget { RequestTarget(storage: fields.storage, parts: targetParts) }

    /// The path, percent-decoded once, without dot segments; starts with `/`. `*` for `OPTIONS *`, empty for CONNECT.
    ///
    /// It never leaves the root, but may hold any character besides NUL and `\`, line ends included.
    public var path: String { requestTarget.path }

    /// What is behind the target's first `?`, as sent; nil without one.
    public var queryString: String? { requestTarget.queryString }

    /// The query's names and values in their order: `&` separates, `+` is a space, `%xx` is decoded. Empty without a query.
    public var query: [(name: String, value: String)] { requestTarget.query }

    /// Host and port that the request is for: the authority of a target in absolute form, beside which the Host field is ignored
    /// (RFC 9112 §3.2.2); else the value of Host. Nil in an HTTP/1.0 request without either.
    public var host: String? { requestTarget.form == .absolute ? requestTarget.authority : fields["host"] }

    /// Whether `Upgrade` lists `websocket`; never in HTTP/1.0, where the field is ignored (RFC 9110 §7.8). `Handshake.validate` decides whether the rest fits.
    package var wantsUpgradeToWebSocket: Bool { flags.contains(.upgradeToWebSocket) }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1); never in HTTP/1.0 or without a body.
    package var expectsContinue: Bool { flags.contains(.expectsContinue) && version >= .http11 && bodyFraming != .none }
}
