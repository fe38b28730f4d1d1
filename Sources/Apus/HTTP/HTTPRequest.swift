import ApusCodec
import ApusPlatform
import ApusTransport

/// A request with its complete body, unless its route receives that in pieces. It may be kept, on
/// the worker's thread.
public final class HTTPRequest {
    /// Method, target, version and fields.
    public let head: HTTPRequestHead
    /// The address of the peer; behind a proxy that of the proxy, and `client` is the client.
    public let peer: SocketAddress
    /// The connection's TLS, or none.
    public let security: Security
    /// The worker of the connection.
    public let worker: Worker
    /// The body, at most `Limits.maxRequestBodyBytes` or the route's own limit.
    public internal(set) var body: [UInt8] = []
    /// The values of the route's parameters: `request.parameters["id"]` for `/items/:id`.
    public internal(set) var parameters = RouteParameters()
    /// Fields of a WebSocket's 101 response, such as `Set-Cookie`: the handler factory may add to
    /// them. Those of the handshake itself are left out.
    public var upgradeFields = HTTPFields()

    init(head: HTTPRequestHead, peer: SocketAddress, security: Security, worker: Worker) {
        self.head = head
        self.peer = peer
        self.security = security
        self.worker = worker
    }

    public var method: HTTPMethod { head.method }
    /// The path, percent-decoded, without dot segments.
    public var path: String { head.path }
    /// The parameters of the query, decoded, in order.
    public var query: [(name: String, value: String)] { head.query }
    public var fields: HTTPFields { head.fields }

    /// Method and path for log lines, the path quoted and escaped.
    var logName: String { "\(method) \(path.debugDescription)" }

    // MARK: Typed access

    /// The value of a route parameter.
    ///
    /// - Throws: `Rejection` with 400 if it does not have the type; another error, answered with
    ///   500 and logged, if the route has no such parameter.
    public func parameter<Value: LosslessStringConvertible>(_ name: String, as type: Value.Type = String.self) throws -> Value {
        guard let text = parameters[name] else { throw UnknownParameter(name: name) }
        return try Self.value(text, of: "parameter", name)
    }

    /// The first value of a name in the query; nil without one.
    ///
    /// - Throws: `Rejection` with 400 if it does not have the type.
    public func query<Value: LosslessStringConvertible>(_ name: String, as type: Value.Type = String.self) throws -> Value? {
        try query.first { $0.name == name }.map { try Self.value($0.value, of: "query parameter", name) }
    }

    private static func value<Value: LosslessStringConvertible>(_ text: String, of kind: String, _ name: String) throws -> Value {
        guard let value = Value(text) else {
            throw Rejection(.badRequest, "expected \(Value.self) as \(kind) \(name.debugDescription), got \(text.debugDescription)")
        }
        return value
    }

    /// The body as text; invalid UTF-8 is replaced by U+FFFD.
    public var text: String { String(decoding: body, as: UTF8.self) }

    /// The cookies of the client.
    public var cookies: Cookies { Cookies(fields) }

    /// The names and values of a form in the body, in order: `application/x-www-form-urlencoded`,
    /// or `multipart/form-data`, whose files are in `MultipartReader` only.
    ///
    /// - Throws: `Rejection` with 415 for another type, with 400 for a form that is not valid.
    public func form() throws -> [(name: String, value: String)] {
        let type = fields["content-type"]?.prefix { $0 != ";" }.lowercased()
        guard type?.hasPrefix("application/x-www-form-urlencoded") == true else { return try multipartForm() }
        do throws(FormViolation) {
            let body = body
            return try FormDecoder.decode(body.span)
        } catch {
            throw Rejection(error.status, error.description)
        }
    }

    private func multipartForm() throws -> [(name: String, value: String)] {
        var values: [(name: String, value: String)] = []
        var value: [UInt8] = []
        var current: MultipartPart?
        var reader = try MultipartReader(
            self, part: { current = $0 }, received: { value.append($0) },
            partEnded: {
                if let current, current.filename == nil { values.append((current.name, String(decoding: value, as: UTF8.self))) }
                (current, value) = (nil, [])
            })
        let body = body
        try reader.receive(body.rawSpan)
        try reader.finish()
        return values
    }

    /// User and password of `Authorization: Basic` (RFC 7617); nil without them.
    public var basicCredentials: (user: String, password: String)? {
        guard let value = fields["authorization"], let credentials = BasicCredentials(fieldValue: value) else { return nil }
        return (credentials.user, credentials.password)
    }

    /// The token of `Authorization: Bearer` (RFC 6750 §2.1); nil without one.
    public var bearerToken: String? {
        guard let value = fields["authorization"] else { return nil }
        let scheme = "bearer "
        guard value.utf8.count > scheme.utf8.count, value.prefix(scheme.count).lowercased() == scheme else { return nil }
        return String(value.dropFirst(scheme.count).drop { $0 == " " })
    }
}

/// The route has no parameter with this name.
private struct UnknownParameter: Error, CustomStringConvertible {
    let name: String
    var description: String { "expected a parameter of the route, got \(name.debugDescription)" }
}
