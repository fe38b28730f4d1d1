import ApusPlatform
import ApusTransport
import Logging

/// One request and its answer. Answer now or later, once, on the worker's thread.
public final class HTTPExchange {
    public let request: HTTPRequest
    /// The worker this runs in.
    public let context: Context
    /// Nil once the answer has begun or the connection has gone.
    private var session: HTTPSession?

    init(request: HTTPRequest, context: Context, session: HTTPSession) {
        self.request = request
        self.context = context
        self.session = session
    }

    /// Whether an answer can still be given.
    public var isOpen: Bool { session != nil }

    /// Answers with a body in memory. `Content-Length`, `Date` and `Connection` are added; HEAD gets no body.
    public func respond(_ status: HTTPStatus = .ok, fields: HTTPFields = HTTPFields(), body: [UInt8] = []) {
        take()?.respond(status, fields: fields, body: .bytes(body), to: request)
    }

    /// Answers with text of the given media type; with 500 if that cannot stand in a field.
    public func respond(_ status: HTTPStatus = .ok, text: String, type: String = "text/plain; charset=utf-8") {
        var fields = HTTPFields()
        do {
            try fields.append("Content-Type", type)
        } catch {
            context.logger.error("\(request.path) was not answered: \(error)")
            return respond(page: .internalServerError)
        }
        respond(status, fields: fields, body: Array(text.utf8))
    }

    /// Answers with a small page that says what the status means (libwebsockets' `lws_return_http_status`).
    public func respond(page status: HTTPStatus, _ detail: String = "", fields: HTTPFields = HTTPFields()) {
        take()?.respond(page: status, detail, fields: fields, to: request)
    }

    func respond(_ status: HTTPStatus, fields: HTTPFields, file: SharedFile, range: Range<Int>) {
        take()?.respond(status, fields: fields, body: .file(file, range), to: request)
    }

    /// The connection has gone before an answer was given.
    func abandon() { session = nil }

    private func take() -> HTTPSession? {
        defer { session = nil }
        return session
    }
}

/// What an answer carries.
enum ResponseBody {
    case bytes([UInt8])
    case file(SharedFile, Range<Int>)

    var count: Int {
        switch self {
        case .bytes(let bytes): bytes.count
        case .file(_, let range): range.count
        }
    }
}
