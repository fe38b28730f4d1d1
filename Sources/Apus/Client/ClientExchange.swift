import ApusCodec
import ApusPlatform
import ApusTransport

/// Receives the response to a client's HTTP request. Order: `received(head)`, the content in parts,
/// then `ended`; or `failed` at any point. Called on the worker's thread.
public protocol HTTPResponseHandler: AnyObject {
    /// Called with the head of the final response.
    func received(_ head: HTTPResponseHead, in exchange: ClientExchange)

    /// Called with a part of the content, without chunk framing.
    func received(_ content: RawSpan, in exchange: ClientExchange)

    /// The response is complete.
    func ended(_ exchange: ClientExchange)

    /// The response will not arrive or not be completed. No call follows.
    func failed(_ error: ConnectError, in exchange: ClientExchange)
}

extension HTTPResponseHandler {
    public func received(_ head: HTTPResponseHead, in exchange: ClientExchange) {}
    public func received(_ content: RawSpan, in exchange: ClientExchange) {}
}

/// A response with all of its content.
public struct HTTPResponse: Sendable {
    public let head: HTTPResponseHead
    public let body: [UInt8]

    public var status: HTTPStatus { head.status }
}

/// A client's HTTP request and its response.
public final class ClientExchange {
    private enum State {
        /// No final response has arrived.
        case waiting
        case receiving(ByteStream, HTTPBodyDecoder)
        case over
    }

    private var state = State.waiting
    fileprivate var task: ClientTask?
    private var handler: (any HTTPResponseHandler)?
    private var isPaused = false
    /// When the wait for content times out; nil while nothing is awaited.
    private(set) var deadline: MonotonicTime?
    fileprivate let options: ClientOptions
    fileprivate let headers: HTTPFields
    fileprivate var method: HTTPMethod
    fileprivate var body: [UInt8]
    /// The head of the response, once received.
    public private(set) var response: HTTPResponseHead?

    fileprivate init(
        _ method: HTTPMethod, headers: HTTPFields, body: [UInt8], options: ClientOptions, handler: any HTTPResponseHandler
    ) {
        self.method = method
        self.headers = headers
        self.body = body
        self.options = options
        self.handler = handler
    }

    /// Whether no event will follow.
    public var isOver: Bool {
        if case .over = state { true } else { false }
    }

    /// Stops it: the handler's `failed` is called with `ConnectError.cancelled` unless the exchange
    /// has ended.
    public func cancel() {
        switch state {
        case .waiting: task?.cancel()
        case .receiving: fail(.cancelled)
        case .over: break
        }
    }

    /// Stops reading content, so that flow control stops the server. No timeout runs meanwhile.
    public func pauseReceiving() { setPaused(true) }

    /// Resumes after `pauseReceiving`.
    public func resumeReceiving() { setPaused(false) }

    private func setPaused(_ paused: Bool) {
        guard paused != isPaused else { return }
        isPaused = paused
        guard case .receiving(let stream, _) = state else { return }
        if paused {
            stream.pauseReading(.application)
            deadline = nil
            stream.deadlineChanged()
        } else {
            stream.resumeReading(.application)
            expectContent(on: stream)
        }
    }

    private func expectContent(on stream: ByteStream) {
        deadline = stream.time(after: options.timeouts.body)
        stream.deadlineChanged()
    }

    // MARK: Events

    /// Follows a redirect if allowed. RFC 9110 §15.4: a 303, and a 301 or 302 to POST, are followed
    /// with GET.
    ///
    /// - Returns: whether it is followed.
    fileprivate func isFollowed(_ head: HTTPResponseHead) -> Bool {
        guard options.maxRedirects > 0, head.status.leadsElsewhere, head.fields.contains("location") else { return false }
        let becomesGet = head.status.code == 303 ? method != .head : head.status.code <= 302 && method == .post
        if becomesGet { (method, body) = (.get, []) }
        return true
    }

    fileprivate func begin(_ head: HTTPResponseHead, _ framing: HTTPBodyFraming, on stream: ByteStream) {
        task?.succeeded()
        response = head
        state = .receiving(stream, HTTPBodyDecoder(framing: framing, maxBytes: options.maxResponseBodyBytes, toleratesPadding: true))
        stream.become(ExchangeSession(self))
        expectContent(on: stream)
        if isPaused {
            isPaused = false
            setPaused(true)
        }
        handler?.received(head, in: self)
        // An empty body is complete without another byte.
        guard !isPaused, case .receiving(_, let decoder) = state else { return }
        var position = 0
        stream.follow(read(decoder, stream, stream.worker.receiveBuffer, from: &position, until: 0))
    }

    fileprivate func received(_ bytes: ReceiveBuffer, _ position: inout Int, until end: Int) -> Next {
        guard case .receiving(let stream, let decoder) = state, !isPaused else { return .more }
        expectContent(on: stream)
        return read(decoder, stream, bytes, from: &position, until: end)
    }

    private func read(
        _ decoder: HTTPBodyDecoder, _ stream: ByteStream, _ bytes: ReceiveBuffer, from position: inout Int, until end: Int
    ) -> Next {
        var decoder = decoder
        do throws(HTTPViolation) {
            while let event = try decoder.next(bytes.bytes.extracting(..<end).octets, from: &position) {
                state = .receiving(stream, decoder)
                switch event {
                case .data(let range): handler?.received(bytes.bytes.extracting(range), in: self)
                case .end: return complete()
                }
                guard case .receiving = state, !isPaused else { return .more }
            }
            state = .receiving(stream, decoder)
        } catch {
            position = end
            fail(.body(error.description))
        }
        return .more
    }

    /// The peer has shut down its sending side, which ends a body without framing.
    fileprivate func inputEnded() -> Next {
        guard case .receiving(let stream, var decoder) = state else { return .more }
        // A close-delimited body is complete only after a proper TLS closure (RFC 9112 §9.8).
        guard !stream.inputWasCut, (try? decoder.finish()) != nil else {
            fail(.closed(.body))
            return .more
        }
        return complete()
    }

    fileprivate func deadlineReached() {
        guard case .receiving(let stream, _) = state else { return }
        if stream.hasBufferedOutput, stream.outputHasProgressed() { return expectContent(on: stream) }
        fail(.timeout(.body))
    }

    /// Starts the first attempt; see `Worker.request`.
    static func start(
        _ method: HTTPMethod, _ address: String, headers: HTTPFields, body: [UInt8], options: ClientOptions,
        handler: any HTTPResponseHandler, on worker: Worker
    ) -> ClientExchange {
        var options = options
        // Only the application knows whether its request is safe to repeat.
        options.reconnect = nil
        let exchange = ClientExchange(method, headers: headers, body: body, options: options, handler: handler)
        let task = ClientTask(
            worker, to: ClientAddress.forHTTP(address), options: options,
            makeDialogue: { (address, isCrossOrigin) throws(ConnectError) in
                try HTTPDialogue(exchange, to: address, isCrossOrigin: isCrossOrigin)
            }, failed: { exchange.fail($0) })
        exchange.task = task
        task.start()
        return exchange
    }

    // MARK: The end

    private func complete() -> Next {
        guard case .receiving(let stream, _) = state else { return .more }
        state = .over
        // Close first: the handler may send another request to the same server.
        stream.close()
        let handler = handler
        self.handler = nil
        handler?.ended(self)
        return .more
    }

    fileprivate func fail(_ error: ConnectError) {
        if case .over = state { return }
        if case .receiving(let stream, _) = state {
            state = .over
            stream.close()
        }
        state = .over
        let handler = handler
        self.handler = nil
        handler?.failed(error, in: self)
    }
}

extension ClientAddress {
    fileprivate static func forHTTP(_ text: String) -> Result<ClientAddress, ConnectError> {
        do {
            let address = try ClientAddress(parsing: text)
            guard !address.scheme.isWebSocket else {
                return .failure(.address(text, "scheme \(address.scheme.rawValue): expected http, https or http+unix"))
            }
            return .success(address)
        } catch {
            return .failure(error)
        }
    }
}

/// Collects content until the response is complete.
final class ResponseCollector: HTTPResponseHandler {
    private let whenDone: (Result<HTTPResponse, ConnectError>) -> Void
    private var body: [UInt8] = []

    init(_ whenDone: @escaping (Result<HTTPResponse, ConnectError>) -> Void) { self.whenDone = whenDone }

    func received(_ content: RawSpan, in exchange: ClientExchange) { body.append(content) }

    func ended(_ exchange: ClientExchange) {
        guard let head = exchange.response else { return }
        whenDone(.success(HTTPResponse(head: head, body: body)))
    }

    func failed(_ error: ConnectError, in exchange: ClientExchange) { whenDone(.failure(error)) }
}

/// The phase that receives the content of a response.
private final class ExchangeSession: Session {
    private let exchange: ClientExchange

    init(_ exchange: ClientExchange) { self.exchange = exchange }

    func received(_ bytes: ReceiveBuffer, _ position: inout Int, until end: Int) -> Next {
        exchange.received(bytes, &position, until: end)
    }

    func inputEnded() -> Next { exchange.inputEnded() }

    func peerEndedWhilePaused(hasUnread: Bool) -> Next { hasUnread ? .more : exchange.inputEnded() }

    var deadline: MonotonicTime? { exchange.deadline }

    func deadlineReached(at now: MonotonicTime) -> Next {
        exchange.deadlineReached()
        return .more
    }

    func ended(_ end: StreamEnd) { exchange.fail(.closed(.body)) }
}

/// One request and the head of its response.
private final class HTTPDialogue: ClientDialogue {
    private let exchange: ClientExchange
    private let method: HTTPMethod
    let requestBytes: [UInt8]

    init(_ exchange: ClientExchange, to address: ClientAddress, isCrossOrigin: Bool) throws(ConnectError) {
        self.exchange = exchange
        method = exchange.method
        let fields = try HTTPFields.ofClient(exchange.headers, exchange.options, to: address, isCrossOrigin: isCrossOrigin)
        let hasBody = !exchange.body.isEmpty || [.post, .put, .patch].contains(method)
        var bytes: [UInt8] = []
        do {
            guard method != .connect else { throw HTTPFieldError.invalidMethod("CONNECT") }
            try HTTPEncoder.appendRequestHead(
                method: method, target: address.target, host: exchange.options.host(for: address, isCrossOrigin: isCrossOrigin),
                fields: fields,
                framing: hasBody ? .counted(exchange.body.count) : .none, persistence: .close, to: &bytes)
        } catch {
            throw .request("\(error)")
        }
        requestBytes = bytes + exchange.body
    }

    func take(_ head: HTTPResponseHead, _ opening: OpeningSession, on stream: ByteStream) throws(ConnectError) {
        guard head.status != .switchingProtocols else { throw .malformedAnswer("101 without having been asked to switch") }
        if exchange.isFollowed(head) { throw .redirect("not followed", head) }
        let framing = head.bodyFraming(for: method)
        opening.succeeded()
        exchange.begin(head, framing, on: stream)
    }
}
