/// How the length of a body is determined (RFC 9112 §6.3).
package enum HTTPBodyFraming: Hashable, Sendable {
    /// There is no body.
    case none
    /// A body of this many bytes.
    case counted(Int)
    /// Chunks (RFC 9112 §7.1).
    case chunked
    /// All bytes until the connection ends; responses only.
    case untilClose
}

/// The validated request line and fields of a request (RFC 9112 §3, §5).
public struct HTTPRequestHead: Sendable {
    /// The method, a token of at most 32 bytes.
    public let method: HTTPMethod
    /// 1.0 or later, below 2.0.
    public let version: HTTPVersion
    /// The fields in the order of arrival.
    public let fields: HTTPFields
    private let targetRange: Range<Int>
    private let targetParts: RequestTarget.Parts
    private let flags: FramingFields.Flags
    /// How the length of the request's body is determined; never `untilClose`.
    package let bodyFraming: HTTPBodyFraming
    /// Whether the client allows the connection to persist: in HTTP/1.1 unless it sent `Connection:
    /// close`, in HTTP/1.0 only with `Connection: keep-alive` (RFC 9112 §9.3).
    package let keepsAlive: Bool

    init(
        method: HTTPMethod, version: HTTPVersion, target: Range<Int>, parts: RequestTarget.Parts, framing: FramingFields,
        fields: HTTPFields
    ) {
        self.method = method
        self.version = version
        self.fields = fields
        targetRange = target
        targetParts = parts
        flags = framing.flags
        keepsAlive = framing.keepsAlive(version)
        if framing.flags.contains(.chunked) {
            bodyFraming = .chunked
        } else if let length = framing.contentLength, length > 0 {
            bodyFraming = .counted(length)
        } else {
            bodyFraming = .none
        }
    }

    /// The request target as written in the request line.
    public var target: String { String(decoding: fields.storage[targetRange], as: UTF8.self) }

    /// The parsed request target.
    package var requestTarget: RequestTarget { RequestTarget(storage: fields.storage, parts: targetParts) }

    /// The path, percent-decoded once, without dot segments; starts with `/`. `*` for `OPTIONS *`,
    /// empty for CONNECT.
    ///
    /// It never leaves the root, but may contain any character except NUL and `\`, including line
    /// ends.
    public var path: String { requestTarget.path }

    /// The part after the target's first `?`, as sent; nil without one.
    public var queryString: String? { requestTarget.queryString }

    /// The query's names and values in their order: `&` separates, `+` is a space, `%xx` is
    /// decoded.
    public var query: [(name: String, value: String)] { requestTarget.query }

    /// Host and port of the request: the authority of a target in absolute form, which overrides
    /// the Host field (RFC 9112 §3.2.2); otherwise the value of Host. Nil in an HTTP/1.0 request
    /// without either.
    public var host: String? { requestTarget.form == .absolute ? requestTarget.authority : fields["host"] }

    /// Whether `Upgrade` lists `websocket`; never in HTTP/1.0, where the field is ignored (RFC 9110
    /// §7.8). `Handshake.validate` checks the rest.
    package var wantsUpgradeToWebSocket: Bool { flags.contains(.upgradeToWebSocket) }

    /// Whether the client waits for `100 Continue` before sending the body (RFC 9110 §10.1.1);
    /// never in HTTP/1.0 or without a body.
    package var expectsContinue: Bool { flags.contains(.expectsContinue) && version >= .http11 && bodyFraming != .none }
}
