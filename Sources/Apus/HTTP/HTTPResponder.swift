import ApusCodec
import ApusPlatform
import ApusTransport
import Logging

/// The responses of an `HTTPSession`, and the exchanges that they belong to.
final class HTTPResponder: WritableTarget {
    private unowned let stream: ByteStream
    // Held, because the way to it by the stream would cost two references in each access.
    private let worker: Worker
    private let peer: SocketAddress
    /// The state of the connection, which the session shares.
    var cycle: HTTP1Cycle
    /// The request whose response is not complete.
    private(set) var request: HTTPRequest?
    private var current = CurrentExchange()
    private var writer = ResponseWriter()
    /// The session receives: what it returns carries the next step.
    var isReceiving = false
    /// The session has ended: `stream` may not exist any more.
    private var hasEnded = false

    init(stream: ByteStream, peer: SocketAddress) {
        self.stream = stream
        worker = stream.worker
        self.peer = peer
        cycle = HTTP1Cycle(role: .server, now: TimePoint(stream.worker.loop.now))
    }

    var now: TimePoint { TimePoint(worker.loop.now) }

    var output: OutputState {
        // Counting what the peer has taken costs a system call, which most responses can do
        // without.
        OutputState(waitingBytes: stream.bufferedBytes, takenBytes: stream.hasBufferedOutput ? stream.takenBytes : 0)
    }

    // MARK: Exchanges

    /// A request begins, whose response follows.
    func begin(_ request: HTTPRequest) { self.request = request }

    /// The exchange under way, if the application or its handler has one.
    var exchange: HTTPExchange? { current.exchange }

    /// The exchange under way, if the session keeps it: it has a handler, or its response has
    /// begun.
    var keptExchange: HTTPExchange? { current.held }

    /// Gives the application the exchange of a request.
    func lend(_ request: HTTPRequest) -> HTTPExchange {
        let exchange = HTTPExchange(request: request, responder: self)
        current.lend(exchange)
        return exchange
    }

    /// Keeps the exchange of a request that has a handler.
    func keep(_ request: HTTPRequest) -> HTTPExchange {
        let exchange = HTTPExchange(request: request, responder: self)
        current.hold(exchange)
        return exchange
    }

    /// The request has been answered with 101.
    func upgraded() {
        request = nil
        hasEnded = true
    }

    // MARK: Responses

    /// Whether the response to `request` is not complete.
    func isUnderWay(_ request: HTTPRequest) -> Bool { self.request === request }

    /// Whether `request` awaits its response.
    func expectsAnswer(to request: HTTPRequest) -> Bool { self.request === request && cycle.permits(.startResponse) && stream.isOpen }

    /// Whether more of the response to `request` may be sent.
    func isSending(to request: HTTPRequest) -> Bool { self.request === request && cycle.permits(.endResponse) && stream.isOpen }

    /// The exchange of `request` was released. Without a response so far, 500 is sent.
    func released(_ request: HTTPRequest) {
        guard self.request === request else { return }
        current.released()
        guard expectsAnswer(to: request) else { return }
        worker.logger.error("the exchange of \(request.logName) was released without an answer")
        respond(.page(.internalServerError), to: request)
    }

    /// Responds to an error that a handler has thrown: with the status of a `Rejection`; any other
    /// error is logged and answered with 500. A response that has begun is aborted.
    func fail(_ error: any Error, _ request: HTTPRequest) {
        let rejection = error as? Rejection
        if rejection == nil { worker.logger.error("the handler of \(request.logName) failed: \(error)") }
        guard expectsAnswer(to: request) else {
            if self.request === request { abort("its handler failed") }
            return
        }
        respond(rejection.map { .page($0.status, $0.reason, fields: $0.fields) } ?? .page(.internalServerError), to: request)
    }

    /// Refuses an invalid request and closes: the start of the next request is unknown.
    func refuse(_ status: HTTPStatus, _ detail: String) {
        worker.logger.debug("\(peer) was answered \(status)\(detail.isEmpty ? "" : ": ")\(detail)")
        guard cycle.permits(.startResponse) else { return abort(detail) }
        write(.page(status, detail), keepsAlive: false)
    }

    /// Writes the response to `request` and continues with the next request.
    func respond(_ response: Response, to request: HTTPRequest, keepsAlive: Bool = true) {
        guard expectsAnswer(to: request) else { return }
        var response = response
        if case .named(let name) = response.body { response = worker.routes.file(name, for: response, to: request) }
        worker.routes.amend(&response, request)
        if let fault = response.fault {
            worker.logger.error("\(request.logName): \(fault)")
            response = .page(.internalServerError)
        }
        write(response, keepsAlive: keepsAlive && !response.closesConnection && !worker.isDraining)
    }

    private func write(_ response: Response, keepsAlive: Bool) {
        switch response.body {
        case .bytes(let bytes):
            if begin(response, .counted(bytes.count), keepsAlive) { stream.write(bytes) }
            finish()
        case .segments(let segments):
            if begin(response, .counted(segments.reduce(0) { $0 + $1.count }), keepsAlive) {
                for segment in segments {
                    switch segment {
                    case .bytes(let bytes): stream.write(bytes)
                    case .file(let file, let range): stream.write(file, offset: range.lowerBound, count: range.count)
                    }
                }
            }
            finish()
        case .named: preconditionFailure("the file was opened above")
        case .stream(let length, let open): stream(response, length, keepsAlive, open)
        }
    }

    private func begin(_ response: Response, _ framing: HTTPBodyFraming, _ keepsAlive: Bool) -> Bool {
        // RFC 9110 §8.6: the Content-Length of a 304 is that of the 200, which is unknown here.
        let framing = response.status.forbidsContent ? .none : framing
        let start = cycle.startResponse(response.status, framing: framing, keepsAlive: keepsAlive)
        return writer.begin(response, start, on: stream)
    }

    /// Begins a response that the exchange sends in pieces.
    private func stream(_ response: Response, _ length: Int?, _ keepsAlive: Bool, _ open: (HTTPExchange) throws -> Void) {
        guard let request else { return }
        let exchange = current.exchange ?? HTTPExchange(request: request, responder: self)
        current.hold(exchange)
        exchange.began(response)
        _ = begin(response, length.map { .counted($0) } ?? .chunked, keepsAlive)
        do { try open(exchange) } catch { fail(error, request) }
    }

    /// Writes an interim response.
    func inform(_ status: HTTPStatus, _ fields: HTTPFields, _ request: HTTPRequest) {
        guard expectsAnswer(to: request), cycle.permits(.sendInformational) else { return }
        cycle.sendInformational(status, now: now)
        writer.inform(status, fields, on: stream)
        stream.deadlineChanged()
    }

    /// Writes a part of a response's content.
    @discardableResult
    func send(_ content: borrowing RawSpan) -> WebSocket.SendOutcome {
        guard content.byteCount > 0 else { return outcome }
        guard admits(content.byteCount) else { return .closed }
        guard writer.append(content, to: stream) else {
            abort("expected at most the announced content, got more")
            return .closed
        }
        return outcome
    }

    /// Writes server-sent events that other exchanges send too, as one chunk.
    ///
    /// - Returns: false if the response is not sent in chunks.
    func send(_ events: ByteChunk) -> Bool {
        guard writer.isChunked else { return false }
        if admits(events.count) { stream.write(events) }
        return true
    }

    /// Whether so much content may be buffered; if not, the connection is aborted.
    private func admits(_ count: Int) -> Bool {
        let buffered = stream.bufferedBytes
        if buffered > 0, buffered + count > worker.limits.maxBufferedBytes || !worker.memory.hasRoom(for: count) {
            abort("its client reads too slowly")
            return false
        }
        cycle.sendContent(output, now: now)
        stream.deadlineChanged()
        return true
    }

    private var outcome: WebSocket.SendOutcome { stream.bufferedBytes == 0 ? .accepted : .buffered(stream.bufferedBytes) }

    /// Ends the content of a response.
    func end(_ trailers: HTTPFields) {
        guard writer.end(trailers, on: stream) else { return abort("expected as much content as was announced, got less") }
        finish()
    }

    /// The response is complete: continues with the next request.
    private func finish() {
        if current.finish() { worker.requestedWritable(self) }
        request = nil
        stream.resumeReading(.application)
        switch cycle.endResponse(output, now: now) {
        case .nextMessage, .awaitPeer: stream.resumeReading(.exchange)
        case .closeAfterOutput: if !isReceiving { stream.follow(.finish(.linger)) }
        case .switchProtocol: preconditionFailure("the response was no switch")
        }
        stream.deadlineChanged()
    }

    /// Ends the connection without the rest of the response, so that its client notices.
    func abort(_ reason: String) {
        if hasEnded { return }
        if let request { worker.logger.debug("the response to \(request.logName) was aborted: \(reason)") }
        cycle.close()
        endExchanges(reason)
        stream.abort()
    }

    func endExchanges(_ reason: String) {
        request = nil
        hasEnded = true
        let (written, current) = current.takeAll()
        for exchange in written { exchange.finished(nil) }
        current?.finished(reason)
    }

    // MARK: Output

    /// `writable` is to be called when nothing is buffered.
    func requestWritable() {
        guard request != nil else { return }
        current.requestWritable()
        if !stream.hasBufferedOutput { worker.requestedWritable(self) }
    }

    func outputDrained() {
        cycle.outputDrained(now: now)
        stream.deadlineChanged()
        if current.awaitsOutput { worker.requestedWritable(self) }
    }

    func serveWritable() {
        guard !hasEnded, !stream.hasBufferedOutput else { return }
        let (complete, writable) = current.takeDue()
        for exchange in complete { exchange.finished(nil) }
        writable?.becameWritable()
    }

    // MARK: Flow

    /// An exchange pauses or resumes the reading of its request's body.
    func setReceiving(_ isOn: Bool) {
        guard request != nil else { return }
        if isOn {
            stream.resumeReading(.application)
            cycle.resumed(now: now)
        } else {
            stream.pauseReading(.application)
        }
        stream.deadlineChanged()
    }

    func deadlineChanged() { if !hasEnded { stream.deadlineChanged() } }

    var bufferedBytes: Int { hasEnded ? 0 : stream.bufferedBytes }
}
