import ApusCodec

/// What handles the requests of one method at one path.
final class Route {
    enum Action {
        /// Called when the request is complete.
        case response((HTTPRequest) throws -> Response)
        /// The same; responds at once or later.
        case exchange((HTTPExchange) throws -> Void)
        /// Called when the head is complete; the handler receives the body in pieces.
        case handler((HTTPRequest) throws -> any HTTPHandler)
    }

    let method: HTTPMethod
    /// For log lines, such as `GET /items`.
    let name: String
    /// The index + 1 among the server's routes, for the flight recorder.
    let number: UInt16
    /// The most bytes of a request's body; nil: `Limits.maxRequestBodyBytes`.
    let maxBodyBytes: Int?
    let action: Action

    /// What answers one request whose response is known before its body.
    init(answering method: HTTPMethod, with response: Response) {
        self.method = method
        name = ""
        number = 0
        maxBodyBytes = nil
        action = .response { _ in response }
    }

    init(_ method: HTTPMethod, _ path: String, number: Int, maxBodyBytes: Int?, _ action: Action) {
        self.method = method
        self.name = "\(method) \(path)"
        self.number = UInt16(truncatingIfNeeded: number + 1)
        self.maxBodyBytes = maxBodyBytes
        self.action = action
    }
}

/// How a request's body reaches an `HTTPHandler`.
public struct StreamedBody: Sendable, Hashable {
    let maxBytes: Int

    /// In pieces, as it arrives, at most `maxBytes` in all; a larger one is answered with 413.
    public static func streamed(maxBytes: Int) -> StreamedBody { StreamedBody(maxBytes: maxBytes) }
}
