import ApusPlatform
import ApusTransport
import Logging

/// One request and its answer. Answer now or later, once, on the worker's thread. A second answer is not sent and is one warning in the log;
/// an answer that comes too late for its peer is dropped silently (see `isOpen`).
///
/// An exchange that is released without an answer is answered with 500, and one that is kept for longer than `Limits.answerTimeout`
/// with 504; each is one error in the log. Release it on the worker's thread, too.
public final class HTTPExchange {
    public let request: HTTPRequest
    /// The worker this runs in.
    public let context: Context
    /// Nil once the answer has begun. The session does not refer back: only the application keeps an exchange alive.
    private var session: HTTPSession?

    init(request: HTTPRequest, context: Context, session: HTTPSession) {
        self.request = request
        self.context = context
        self.session = session
    }

    deinit { session?.released(request) }

    /// Whether an answer can still be given: none was, the connection is open, and `Limits.answerTimeout` has not passed.
    public var isOpen: Bool { session?.expectsAnswer(to: request) ?? false }

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

    /// Answers with what a handler has thrown: the status of a `Rejection`, else 500. What is no `Rejection` is logged.
    func fail(_ error: any Error) {
        if let rejection = error as? Rejection, session != nil {
            return respond(page: rejection.status, rejection.reason, fields: rejection.fields)
        }
        context.logger.error("the handler of \(request.logName) failed: \(error)")
        guard session != nil else { return }
        respond(page: .internalServerError)
    }

    /// The session that expects the answer, once; nil if it is too late for one.
    private func take() -> HTTPSession? {
        guard let session else {
            context.logger.warning("\(request.logName) was answered twice: the second answer was not sent")
            return nil
        }
        self.session = nil
        return session.expectsAnswer(to: request) ? session : nil
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
