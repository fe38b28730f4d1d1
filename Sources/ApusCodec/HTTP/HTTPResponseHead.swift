/// The status line and the fields of a response (RFC 9112 §4, §5).
public struct HTTPResponseHead: Sendable {
    /// The status; 1xx ones are interim.
    public let status: HTTPStatus
    /// 1.0 or later, below 2.0.
    public let version: HTTPVersion
    /// The fields in the order of arrival.
    public let fields: HTTPFields
    private let reasonRange: Range<Int>
    private let framing: FramingFields

    init(status: HTTPStatus, version: HTTPVersion, reason: Range<Int>, framing: FramingFields, fields: HTTPFields) {
        self.status = status
        self.version = version
        self.fields = fields
        self.framing = framing
        reasonRange = reason
    }

    /// The reason phrase of the response; may be empty.
    public var reason: String { String(decoding: fields.storage[reasonRange], as: UTF8.self) }

    /// Whether the server allows the connection to persist (RFC 9112 §9.3). A body framed
    /// `untilClose` ends it in any case.
    package var keepsAlive: Bool { framing.keepsAlive(version) }

    /// How the length of the body is determined, given the method of the request (RFC 9112 §6.3).
    ///
    /// A 2xx response to CONNECT has no body: the following bytes belong to the tunnel, and
    /// Content-Length and Transfer-Encoding are ignored (RFC 9110 §9.3.6).
    package func bodyFraming(for method: HTTPMethod) -> HTTPBodyFraming {
        if method == .connect, status.isSuccessful { return .none }
        if method == .head || status.forbidsContent { return .none }
        if framing.flags.contains(.chunked) { return .chunked }
        guard let length = framing.contentLength else { return .untilClose }
        return length == 0 ? .none : .counted(length)
    }
}
