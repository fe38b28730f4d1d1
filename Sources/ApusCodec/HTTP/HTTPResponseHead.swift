/// The status line and the fields of a response (RFC 9112 §4, §5).
public struct HTTPResponseHead: Sendable {
    /// The status; 1xx ones are interim.
    public let status: HTTPStatus
    /// 1.0 or later, below 2.0.
    public let version: HTTPVersion
    /// The fields in the order they came.
    public let fields: HTTPFields
    private let reasonRange: Range<Int>
    private let facts: MessageFacts

    init(status: HTTPStatus, version: HTTPVersion, reason: Range<Int>, facts: MessageFacts, fields: HTTPFields) {
        self.status = status
        self.version = version
        self.fields = fields
        self.facts = facts
        reasonRange = reason
    }

    /// The reason phrase that the server sent; possibly empty.
    public var reason: String { String(decoding: fields.storage[reasonRange], as: UTF8.self) }

    /// Whether the server lets the connection persist (RFC 9112 §9.3). A body framed `untilClose` ends it all the same.
    package var keepsAlive: Bool { facts.keepsAlive(version) }

    /// How the end of the body is found, given the request's method (RFC 9112 §6.3).
    ///
    /// After a 2xx response to CONNECT there is none: what follows belongs to the tunnel, and Content-Length and Transfer-Encoding are ignored
    /// (RFC 9110 §9.3.6).
    package func bodyFraming(for method: HTTPMethod) -> HTTPBodyFraming {
        if method == .connect, status.isSuccessful { return .none }
        if method == .head || status.forbidsContent { return .none }
        if facts.flags.contains(.chunked) { return .chunked }
        guard let length = facts.contentLength else { return .untilClose }
        return length == 0 ? .none : .counted(length)
    }
}
