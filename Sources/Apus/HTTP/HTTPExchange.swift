import ApusPlatform
import ApusTransport
import Logging

/// One request and its response. Respond once, at once or later, on the worker's thread: with
/// `respond`, or in pieces with `begin`, `send` and `end`. A second response is not sent and is
/// logged as a warning; a response after the connection has closed is dropped (see `isOpen`).
///
/// An exchange that is released without a response is answered with 500, one that is kept longer
/// than `Limits.answerTimeout` with 504; each is logged as an error. Release it on the worker's
/// thread. A response that has begun keeps its exchange until it ends.
public final class HTTPExchange {
    public let request: HTTPRequest
    /// The worker of this connection.
    public var worker: Worker { request.worker }
    /// Called once, when nothing is buffered, after any number of `requestWritable` calls.
    public var onWritable: (() -> Void)?
    /// Called once, last: with nil when the whole response was handed to the kernel or is queued on
    /// a connection that closes behind it; otherwise with the reason why it was not.
    public var onEnd: ((String?) -> Void)?

    /// Nil once the response is complete or the connection has ended. Without a handler the
    /// responder has no reference back before the response begins: only the application keeps the
    /// exchange alive.
    private var responder: HTTPResponder?
    private var phase = Phase.awaitingResponse
    /// Receives the events; nil for a closure.
    var handler: (any HTTPHandler)?
    /// The end of `setDeadline`'s time.
    private var end: MonotonicTime?
    /// Whether the response is an event stream. Its client has gone when it has shut down its
    /// sending side: browsers do not send and wait.
    private(set) var isEventStream = false
    /// When a comment is due in an event stream.
    private var commentDue: MonotonicTime?
    var membership: TopicMembership?
    /// Publications that were not sent because the client reads too slowly
    /// (`Limits.slowSubscribers` `.skip`).
    public private(set) var missedCount = 0

    private enum Phase {
        case awaitingResponse
        /// The response has begun.
        case sending
        case over
    }

    init(request: HTTPRequest, responder: HTTPResponder) {
        self.request = request
        self.responder = responder
    }

    deinit { responder?.released(request) }

    /// Whether a response can still be sent: none has begun, the connection is open, and
    /// `Limits.answerTimeout` has not passed.
    public var isOpen: Bool { responder?.expectsAnswer(to: request) ?? false }

    // MARK: A response at once

    /// Sends a response.
    public func respond(_ response: Response) {
        guard let responder = responderForResponse() else { return }
        switch response.body {
        case .bytes, .segments, .named: leave()
        case .stream: break
        }
        responder.respond(response, to: request)
    }

    /// Responds with a body in memory. `Content-Length`, `Date` and `Connection` are added; HEAD
    /// gets no body.
    public func respond(_ status: HTTPStatus = .ok, fields: HTTPFields = HTTPFields(), body: [UInt8] = []) {
        respond(Response(status, fields: fields, body: body))
    }

    /// Responds with text of the given media type; with 500 if `type` is not a valid field value.
    public func respond(_ status: HTTPStatus = .ok, text: String, type: String = "text/plain; charset=utf-8") {
        respond(.text(text, status, type: type))
    }

    /// Responds with a small HTML page that names the status (libwebsockets'
    /// `lws_return_http_status`).
    public func respond(page status: HTTPStatus, _ detail: String = "", fields: HTTPFields = HTTPFields()) {
        respond(.page(status, detail, fields: fields))
    }

    /// The responder if it still expects this response; else nil, and a second response is logged.
    private func responderForResponse() -> HTTPResponder? {
        guard case .awaitingResponse = phase else {
            worker.logger.warning("\(request.logName) was answered twice: the second answer was not sent")
            return nil
        }
        guard let responder, responder.expectsAnswer(to: request) else {
            phase = .over
            return nil
        }
        return responder
    }

    private func leave() {
        phase = .over
        responder = nil
    }

    // MARK: A response in pieces

    /// Sends an interim response before the final one, such as 103 with `Link` fields (RFC 8297);
    /// not to a client of HTTP/1.0, which knows none.
    public func inform(_ status: HTTPStatus, fields: HTTPFields) {
        guard status.isInformational, status != .switchingProtocols else {
            return worker.logger.error("\(request.logName): expected an interim status, got \(status)")
        }
        responder?.inform(status, fields, request)
    }

    /// Sends the head of a response; `send` and `end` follow.
    ///
    /// - Parameter length: the number of bytes that will be sent; nil: sent in chunks, or to a
    ///   client of HTTP/1.0 until the connection ends.
    public func begin(_ status: HTTPStatus = .ok, fields: HTTPFields = HTTPFields(), length: Int? = nil) {
        respond(Response(status, fields: fields, .stream(length: length) { _ in }))
    }

    /// Sends a part of the response. More than `Limits.maxBufferedBytes` of buffered output aborts
    /// the exchange: send the next part in `writable`.
    ///
    /// - Returns: `.closed` if no response has begun, or it has ended or was aborted.
    @discardableResult
    public func send(_ content: borrowing RawSpan) -> WebSocket.SendOutcome {
        guard case .sending = phase, let responder, responder.isSending(to: request) else { return .closed }
        if worker.broker.hasPublications { worker.broker.deliverPublications(before: self) }
        return responder.send(content)
    }

    /// Sends a part of the response from an array.
    @discardableResult
    public func send(_ content: [UInt8]) -> WebSocket.SendOutcome { send(content.rawSpan) }

    /// Sends a part of the response as UTF-8.
    @discardableResult
    public func send(text: String) -> WebSocket.SendOutcome { text.withRawSpan { send($0) } }

    /// Ends a response that has begun. With less content than announced, the connection is aborted.
    ///
    /// - Parameter trailers: fields behind the content; sent with chunks only.
    public func end(trailers: HTTPFields = HTTPFields()) {
        guard case .sending = phase, let responder, responder.isSending(to: request) else { return }
        worker.broker.unsubscribe(self)
        leave()
        responder.end(trailers)
    }

    /// Ends the connection at once, so that the client notices that the response is not complete.
    public func abort() {
        guard let responder, responder.isUnderWay(request) else { return }
        responder.abort("the application aborted it")
    }

    /// Bytes of output that the connection has buffered.
    public var bufferedBytes: Int { responder?.bufferedBytes ?? 0 }

    /// Requests `writable`, or `onWritable`, when nothing is buffered (libwebsockets'
    /// `lws_callback_on_writable`).
    public func requestWritable() { responder?.requestWritable() }

    // MARK: Flow and time

    /// Stops reading the request's body; time that passes does not count against the client.
    public func pauseReceiving() { responder?.setReceiving(false) }

    /// Continues reading the request's body.
    public func resumeReceiving() { responder?.setReceiving(true) }

    /// Answers with 504, or aborts a response that has begun, when so much time has passed; nil
    /// removes the deadline. `Limits.answerTimeout` applies besides (libwebsockets'
    /// `lws_set_timeout`).
    public func setDeadline(after time: Duration?) {
        guard let responder else { return }
        end = time.map { worker.loop.time(after: $0) }
        responder.deadlineChanged()
    }

    // MARK: Events

    /// Sends an event of an event stream, a response of the type `text/event-stream`.
    @discardableResult
    public func send(_ event: ServerSentEvent) -> WebSocket.SendOutcome {
        var bytes: [UInt8] = []
        event.append(to: &bytes)
        return send(bytes)
    }

    /// Sends the publications of a topic or pattern, as in `WebSocket.subscribe(to:)`, until the
    /// response ends: in an event stream each as an event, in others its payload as it is. A client
    /// that reads too slowly is handled as `Limits.slowSubscribers` says.
    ///
    /// - Returns: false if no response has begun or it has ended, or if the topic or the number of
    ///   subscriptions is over its limit.
    @discardableResult
    public func subscribe(to topic: String) -> Bool {
        guard case .sending = phase, membership?.subscriptions.count ?? 0 < worker.limits.maxSubscriptions,
            topic.utf8.count <= Topic.maxNameBytes
        else { return false }
        worker.broker.subscribe(self, to: topic)
        return true
    }

    /// Removes a subscription; no effect if there is none.
    public func unsubscribe(from topic: String) { worker.broker.unsubscribe(self, from: topic) }

    func deliver(_ run: PublicationRun) {
        guard case .sending = phase, let responder, responder.isSending(to: request) else { return }
        if worker.limits.slowSubscribers == .skip, responder.bufferedBytes > worker.limits.maxBufferedBytes / 2 {
            missedCount += run.count
        } else if !isEventStream {
            for index in 0..<run.count { responder.send(run.payload(index).rawSpan) }
        } else if !responder.send(run.eventChunk()) {
            for index in 0..<run.count { send(ServerSentEvent(run.payload(index))) }
        }
    }

    /// The response has begun.
    func began(_ response: Response) {
        phase = .sending
        guard response.fields["content-type"]?.lowercased().hasPrefix("text/event-stream") == true else { return }
        isEventStream = true
        commentDue = worker.loop.time(after: Self.commentInterval)
    }

    /// Between comments in an event stream: proxies close connections that are idle for a minute.
    private static let commentInterval = Duration.seconds(15)

    /// When `dueReached` is to be called.
    var due: MonotonicTime? { commentDue.map { min($0, end ?? $0) } ?? end }

    /// - Returns: whether the exchange's time is over.
    func dueReached(_ now: MonotonicTime) -> Bool {
        if let end, end <= now { return true }
        if let commentDue, commentDue <= now {
            self.commentDue = worker.loop.time(after: Self.commentInterval)
            if bufferedBytes == 0 { send(ServerSentEvent.comment) }
        }
        return false
    }

    func becameWritable() {
        handler?.writable(self)
        onWritable?()
    }

    /// - Parameter reason: why the response is not complete; nil: it is.
    func finished(_ reason: String?) {
        leave()
        worker.broker.unsubscribe(self)
        let (handler, end) = (handler, onEnd)
        (self.handler, onWritable, onEnd) = (nil, nil, nil)
        if let reason { handler?.aborted(self, reason: reason) } else { handler?.completed(self) }
        end?(reason)
    }
}
