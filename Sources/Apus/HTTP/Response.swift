import ApusCodec
import ApusTransport

/// A response that a handler returns. `Content-Length`, `Date` and `Connection` are added; HEAD,
/// 204 and 304 get no content.
public struct Response {
    public var status: HTTPStatus
    public var fields: HTTPFields
    var body: Body

    enum Body {
        case bytes([UInt8])
        /// Parts of files, and bytes between them.
        case segments([Segment])
        /// A file below `Server.fileDirectory`.
        case named(String)
        /// Sent by the exchange that the closure gets, in `length` bytes, or in chunks.
        case stream(length: Int?, (HTTPExchange) throws -> Void)
    }

    enum Segment {
        case bytes([UInt8])
        case file(SharedFile, Range<Int>)

        var count: Int {
            switch self {
            case .bytes(let bytes): bytes.count
            case .file(_, let range): range.count
            }
        }
    }

    init(_ status: HTTPStatus, fields: HTTPFields, _ body: Body) {
        self.status = status
        self.fields = fields
        self.body = body
    }

    /// A response with a body in memory.
    public init(_ status: HTTPStatus = .ok, fields: HTTPFields = HTTPFields(), body: [UInt8] = []) {
        self.init(status, fields: fields, .bytes(body))
    }

    /// Why it cannot be sent; nil if it can.
    var fault: String? {
        if !(200...999).contains(status.code) { return "expected a final status, 200 to 999, got \(status)" }
        return fields.literalFault.map { "a response field was not sent: \($0)" }
    }

    /// Whether a handler has set `Connection: close`.
    var closesConnection: Bool { fields.contains("connection") && fields.containsToken("close", in: "connection") }

    // MARK: Content

    /// A response with text of the given media type, a field value.
    public static func text(
        _ text: String, _ status: HTTPStatus = .ok, fields: HTTPFields = [:], type: String = "text/plain; charset=utf-8"
    ) -> Response {
        bytes(Array(text.utf8), status, fields: fields, type: type)
    }

    /// A response with an HTML document in UTF-8.
    public static func html(_ document: String, _ status: HTTPStatus = .ok, fields: HTTPFields = [:]) -> Response {
        bytes(Array(document.utf8), status, fields: fields, type: "text/html; charset=utf-8")
    }

    /// A response with bytes of the given media type, a field value.
    public static func bytes(
        _ bytes: [UInt8], _ status: HTTPStatus = .ok, fields: HTTPFields = [:], type: String = "application/octet-stream"
    ) -> Response {
        Response(status, fields: Self.fields(fields, type), .bytes(bytes))
    }

    /// The fields with a media type, unless they contain one.
    private static func fields(_ fields: HTTPFields, _ type: String) -> HTTPFields {
        if fields.isEmpty, type == plainTextType { return plainTextFields }
        if fields.contains("content-type") { return fields }
        var fields = fields
        fields.append(contentsOf: ["Content-Type": type])
        return fields
    }

    private static let plainTextType = "text/plain; charset=utf-8"
    private static let plainTextFields: HTTPFields = ["Content-Type": plainTextType]

    /// A response with a file, as `Server.files` serves it: with its media type, and with status
    /// 200 also conditionally and in ranges. 404 if there is none.
    ///
    /// - Parameter name: a path below `Server.fileDirectory`, such as `reports/june.pdf`.
    public static func file(_ name: String, _ status: HTTPStatus = .ok, fields: HTTPFields = [:]) -> Response {
        Response(status, fields: fields, .named(name))
    }

    /// A response without content, such as 204.
    public static func empty(_ status: HTTPStatus = .noContent, fields: HTTPFields = [:]) -> Response { Response(status, fields: fields) }

    /// A small HTML page that names the status.
    public static func page(_ status: HTTPStatus, _ detail: String = "", fields: HTTPFields = [:]) -> Response {
        let page = StatusPage(status, detail)
        return Response(status, fields: page.fields(fields), .bytes(page.bytes))
    }

    /// A redirect that keeps the method: 307, or 308 (RFC 9110 §15.4).
    ///
    /// - Parameter location: a URI reference, percent-encoded.
    public static func redirect(_ location: String, permanent isPermanent: Bool = false) -> Response {
        Response(isPermanent ? .permanentRedirect : .temporaryRedirect, fields: ["Location": location])
    }

    /// A redirect to a page that is to be requested with GET, as after a form was posted: 303.
    public static func seeOther(_ location: String) -> Response { Response(.seeOther, fields: ["Location": location]) }

    /// A response that is sent in pieces by the exchange: with `send` and `end`, at once or later.
    ///
    /// - Parameters:
    ///   - type: the media type, a field value.
    ///   - length: the number of bytes that will be sent; nil: sent in chunks.
    ///   - open: called once the head is written, also for HEAD, whose content is discarded.
    public static func stream(
        type: String, _ status: HTTPStatus = .ok, fields: HTTPFields = [:], length: Int? = nil,
        _ open: @escaping (HTTPExchange) throws -> Void
    ) -> Response {
        Response(status, fields: Self.fields(fields, type), .stream(length: length, open))
    }
}
