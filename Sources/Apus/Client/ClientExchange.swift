import ApusCodec
import ApusPlatform
import ApusTransport

/// What an application does with the answer to an HTTP request of its own. Order: `received(head)`, then its content as it arrives, then
/// `ended`; or `failed` at any point. Called on the context's thread.
public protocol HTTPResponseHandler: AnyObject {
    /// The final answer's head has come.
    func received(_ head: HTTPResponseHead, in exchange: ClientExchange)

    /// A part of the answer's content, decoded from chunks where it came in chunks.
    func received(_ content: RawSpan, in exchange: ClientExchange)

    /// The answer is complete.
    func ended(_ exchange: ClientExchange)

    /// There will be no answer, or no more of it. Nothing is told after this.
    func failed(_ error: ConnectError, in exchange: ClientExchange)
}

extension HTTPResponseHandler {
    public func received(_ head: HTTPResponseHead, in exchange: ClientExchange) {}
    public func received(_ content: RawSpan, in exchange: ClientExchange) {}
}

/// An answer with all of its content.
public struct HTTPResponse: Sendable {
    public let head: HTTPResponseHead
    public let body: [UInt8]

    public var status: HTTPStatus { head.status }
}

/// A request of this side's on its way, and its answer.
public final class ClientExchange {
    private enum State {
        /// No final answer has come.
        case waiting
        case receiving(Connection, HTTPBodyDecoder)
        case over
    }

    private var state = State.waiting
    fileprivate var task: ClientTask?
    private var handler: (any HTTPResponseHandler)?
    private var isPaused = false
    fileprivate let options: ClientOptions
    fileprivate let headers: HTTPFields
    fileprivate var method: HTTPMethod
    fileprivate var body: [UInt8]
    /// The head of the answer, once it has come.
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

    /// Whether nothing more comes.
    public var isOver: Bool {
        if case .over = state { true } else { false }
    }

    /// Gives up: the handler's `failed` is told `ConnectError.cancelled`, unless it is over already.
    public func cancel() {
        switch state {
        case .waiting: task?.cancel()
        case .receiving: fail(.cancelled)
        case .over: break
        }
    }

    /// Stops to take content: soon the server can send no more. No deadline runs meanwhile.
    public func pauseReceiving() { setPaused(true) }

    /// Goes on.
    public func resumeReceiving() { setPaused(false) }

    private func setPaused(_ paused: Bool) {
        guard paused != isPaused else { return }
        isPaused = paused
        guard case .receiving(let connection, _) = state else { return }
        if paused {
            connection.pauseReading(.application)
            connection.context.loop.cancel(connection)
        } else {
            connection.resumeReading(.application)
            expectContent(connection)
        }
    }

    private func expectContent(_ connection: Connection) {
        connection.context.loop.schedule(connection, after: options.timeouts.body)
    }

    // MARK: What the connection tells

    /// Answers that lead elsewhere are followed as RFC 9110 §15.4 says: with GET after 303, and after 301 and 302 to POST.
    fileprivate func isFollowed(_ head: HTTPResponseHead) -> Bool {
        guard options.maxRedirects > 0, head.status.leadsElsewhere, head.fields.contains("location") else { return false }
        let becomesGet = head.status.code == 303 ? method != .head : head.status.code <= 302 && method == .post
        if becomesGet { (method, body) = (.get, []) }
        return true
    }

    fileprivate func begin(_ head: HTTPResponseHead, _ framing: HTTPBodyFraming, on connection: Connection) {
        task?.succeeded()
        response = head
        state = .receiving(connection, HTTPBodyDecoder(framing: framing, maxBytes: options.maxResponseBodyBytes, toleratesPadding: true))
        connection.becomeExchange(self)
        expectContent(connection)
        if isPaused {
            isPaused = false
            setPaused(true)
        }
        handler?.received(head, in: self)
        // A body without content is complete without another byte.
        if !isPaused, case .receiving(_, let decoder) = state { read(decoder, connection, upTo: 0) }
    }

    /// Reads content from the context's receive buffer.
    func process(_ position: inout Int, until end: Int) {
        guard case .receiving(let connection, let decoder) = state, !isPaused else { return }
        expectContent(connection)
        read(decoder, connection, from: &position, upTo: end)
    }

    private func read(_ decoder: HTTPBodyDecoder, _ connection: Connection, upTo end: Int) {
        var none = end
        read(decoder, connection, from: &none, upTo: end)
    }

    private func read(_ decoder: HTTPBodyDecoder, _ connection: Connection, from position: inout Int, upTo end: Int) {
        var decoder = decoder
        let buffer = connection.context.receiveBuffer
        do throws(HTTPViolation) {
            while let event = try decoder.next(buffer.bytes.extracting(..<end).octets, from: &position) {
                state = .receiving(connection, decoder)
                switch event {
                case .data(let range): handler?.received(buffer.bytes.extracting(range), in: self)
                case .end: return finish(connection)
                }
                guard case .receiving = state, !isPaused else { return }
            }
            state = .receiving(connection, decoder)
        } catch {
            position = end
            fail(.body(error.description))
        }
    }

    /// The peer will send no more: the end of a body that is not framed otherwise.
    func peerEnded() {
        guard case .receiving(let connection, var decoder) = state else { return }
        // A body whose end only the connection's end tells is complete only if the server said so in TLS.
        if connection.transport.inputWasCut { return fail(.closed(.body)) }
        do {
            try decoder.finish()
            finish(connection)
        } catch {
            fail(.closed(.body))
        }
    }

    func connectionLost() { fail(.closed(.body)) }

    func deadlinePassed() {
        guard case .receiving(let connection, _) = state else { return }
        if connection.hasBufferedOutput, connection.outputHasProgressed() { return expectContent(connection) }
        fail(.timeout(.body))
    }

    // MARK: The end

    private func finish(_ connection: Connection) {
        state = .over
        connection.close()
        let handler = handler
        self.handler = nil
        handler?.ended(self)
    }

    fileprivate func fail(_ error: ConnectError) {
        if case .over = state { return }
        if case .receiving(let connection, _) = state {
            state = .over
            connection.close()
        }
        state = .over
        let handler = handler
        self.handler = nil
        handler?.failed(error, in: self)
    }
}

extension Context {
    /// Sends an HTTP request and gives the answer to a handler as it arrives. One connection for each; `Connection: close` is sent.
    ///
    /// The handler is told `ended` or `failed`, once and never from inside this call. Answers of any status are answers, except those that
    /// lead elsewhere and are followed (`ClientOptions.maxRedirects`).
    ///
    /// - Parameters:
    ///   - address: `http://host[:port]/path?query`, `https://…`, or `http+unix:///path/of/socket:/path?query`.
    ///   - headers: any fields but `Host`, `Connection`, `Content-Length` and `Transfer-Encoding`.
    ///   - body: sent with `Content-Length`.
    @discardableResult
    public func request(
        _ address: String, method: HTTPMethod = .get, headers: HTTPFields = HTTPFields(), body: [UInt8] = [],
        options: ClientOptions = ClientOptions(), handler: any HTTPResponseHandler
    ) -> ClientExchange {
        var options = options
        // Whether a request may be repeated only the application knows.
        options.reconnect = nil
        let exchange = ClientExchange(method, headers: headers, body: body, options: options, handler: handler)
        let task = ClientTask(
            self, to: ClientAddress.forHTTP(address), options: options,
            makeDialogue: { (address, isElsewhere) throws(ConnectError) in
                try HTTPDialogue(exchange, to: address, isElsewhere: isElsewhere)
            }, failed: { exchange.fail($0) })
        exchange.task = task
        task.start()
        return exchange
    }

    /// The same, with the whole answer at once; its body has at most `ClientOptions.maxResponseBodyBytes`.
    @discardableResult
    public func request(
        _ address: String, method: HTTPMethod = .get, headers: HTTPFields = HTTPFields(), body: [UInt8] = [],
        options: ClientOptions = ClientOptions(), whenDone: @escaping (Result<HTTPResponse, ConnectError>) -> Void
    ) -> ClientExchange {
        request(address, method: method, headers: headers, body: body, options: options, handler: Collector(whenDone))
    }
}

extension ClientAddress {
    fileprivate static func forHTTP(_ text: String) -> Result<ClientAddress, ConnectError> {
        do {
            let address = try ClientAddress(parsing: text)
            guard !address.scheme.isWebSocket else {
                return .failure(.address(text, "scheme \(address.scheme.rawValue): a request wants http, https or http+unix"))
            }
            return .success(address)
        } catch {
            return .failure(error)
        }
    }
}

/// Keeps content until all of it is there.
private final class Collector: HTTPResponseHandler {
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

/// One request and the head of its answer.
private final class HTTPDialogue: ClientDialogue {
    private let exchange: ClientExchange
    private let method: HTTPMethod
    let requestBytes: [UInt8]

    init(_ exchange: ClientExchange, to address: ClientAddress, isElsewhere: Bool) throws(ConnectError) {
        self.exchange = exchange
        method = exchange.method
        let fields = try HTTPFields.ofClient(exchange.headers, exchange.options, to: address, isElsewhere: isElsewhere)
        let hasBody = !exchange.body.isEmpty || [.post, .put, .patch].contains(method)
        var bytes: [UInt8] = []
        do {
            guard method != .connect else { throw HTTPFieldError.invalidMethod("CONNECT") }
            try HTTPEncoder.appendRequestHead(
                method: method, target: address.target, host: exchange.options.host(for: address, isElsewhere: isElsewhere), fields: fields,
                framing: hasBody ? .counted(exchange.body.count) : .none, persistence: .close, to: &bytes)
        } catch {
            throw .request("\(error)")
        }
        requestBytes = bytes + exchange.body
    }

    func take(_ head: HTTPResponseHead, on connection: Connection) throws(ConnectError) {
        guard head.status != .switchingProtocols else { throw .malformedAnswer("101 without having been asked to switch") }
        if exchange.isFollowed(head) { throw .redirect("not followed", head) }
        let framing = head.bodyFraming(for: method)
        guard case .opening(let session) = connection.phase else { return }
        session.succeeded()
        exchange.begin(head, framing, on: connection)
    }
}
