import ApusCodec
import ApusPlatform
import ApusTransport
import Logging

/// The HTTP phase of a connection: requests one after the other, each answered before the next is looked at.
final class HTTPSession {
    private enum State {
        /// Between requests, or inside a head.
        case head
        /// A body is being collected.
        case body(HTTPRequestHead, HTTPBodyDecoder, [UInt8])
        /// The application has the exchange of this request, which is not held here: when nobody holds it, it is released and reports
        /// that. What comes meanwhile waits.
        case answering(HTTPRequest)
        /// The last answer has been given, or the connection has become something else.
        case over
    }

    private unowned let connection: Connection
    private var context: Context { connection.context }
    private var decoder: HTTPRequestDecoder
    private var state = State.head
    let peer: SocketAddress
    /// A client that does not speak TLS, where it is spoken, is served all the same.
    let allowsPlainHTTP: Bool
    private var security = Security.plain
    private var hasServedRequest = false
    /// Bytes of the body when its deadline was set last.
    private var bodyBytesAtDeadline = 0
    /// Bytes of the body that the worker's memory was told of.
    private var bodyBytesNoted = 0
    /// Its place among those that have not made a request yet; theirs to change.
    var newcomer = Newcomer.no
    /// When the connection was accepted.
    let since: MonotonicTime

    init(connection: Connection, peer: SocketAddress, allowsPlainHTTP: Bool = false) {
        self.connection = connection
        self.peer = peer
        self.allowsPlainHTTP = allowsPlainHTTP
        since = connection.context.loop.now
        decoder = HTTPRequestDecoder(limits: connection.context.limits.head)
    }

    /// Whether it waits for the first byte of a request, with nothing left to send.
    var isIdle: Bool {
        if case .head = state, decoder.isIdle { true } else { false }
    }

    // MARK: Room for others

    /// There is no room for others and no request yet: it goes without a word.
    func makeRoom() { connection.close() }

    /// It has made a request, or never will.
    private func leaveNewcomers() { if case .waiting = newcomer { context.newcomers.remove(self) } }

    // MARK: Deadlines

    /// The head must be complete in time, counted from now; bytes that trickle do not prolong it.
    func expectHead() { context.loop.schedule(connection, after: context.limits.requestHeadTimeout) }

    /// The TLS handshake is done.
    func secured(_ security: Security) {
        self.security = security
        expectHead()
    }

    func deadlinePassed() {
        switch state {
        case .head where connection.hasBufferedOutput: closeUnlessProgressing()
        case .head where decoder.isIdle: connection.close()
        case .head: refuse(.requestTimeout, "the request did not arrive in time", isHead: decoder.isHeadMethod)
        case .body(let head, _, _): refuse(.requestTimeout, "the request did not arrive in time", isHead: head.method == .head)
        case .answering(let request):
            context.logger.error("\(request.logName) was not answered within answerTimeout, \(context.limits.answerTimeout)")
            respond(page: .gatewayTimeout, "the answer was not ready in time", fields: HTTPFields(), to: request)
        case .over: break
        }
    }

    /// An answer is on its way: slow peers have time as long as they take enough.
    private func closeUnlessProgressing() {
        if connection.outputHasProgressed() {
            context.loop.schedule(connection, after: context.limits.bodyTimeout)
        } else {
            connection.close()
        }
    }

    // MARK: Receiving

    /// Serves requests from the context's receive buffer, from `position` on, which moves behind what was used.
    func process(_ position: inout Int, until end: Int) {
        while true {
            switch state {
            case .head:
                guard position < end else { return }
                if connection.isBackedUp { return connection.pauseReading(.output) }
                if context.isStopping, decoder.isIdle { return endConnection(&position, end) }
                guard let head = readHead(&position, until: end) else { return }
                begin(head)
            case .body(let head, var body, var content):
                guard readBody(head, &body, &content, &position, until: end) else { return }
            case .answering:
                // Not answered at once: stop reading until it is.
                connection.pauseReading(.exchange)
                return
            case .over:
                return
            }
        }
    }

    private func endConnection(_ position: inout Int, _ end: Int) {
        position = end
        state = .over
        connection.finish(.linger)
    }

    private func readHead(_ position: inout Int, until end: Int) -> HTTPRequestHead? {
        let wasIdle = decoder.isIdle
        var consumed = 0
        defer { position += consumed }
        do throws(HTTPViolation) {
            let buffer = context.receiveBuffer
            let bytes = buffer.bytes.extracting(position..<end).octets
            if let head = try decoder.decode(bytes, consumed: &consumed) { return head }
            // The head's time begins with its first byte.
            if wasIdle, !decoder.isIdle, hasServedRequest { expectHead() }
        } catch {
            consumed = end - position
            refuse(error.status, error.description, isHead: decoder.isHeadMethod)
        }
        return nil
    }

    private func begin(_ head: HTTPRequestHead) {
        leaveNewcomers()
        if head.wantsUpgradeToWebSocket, context.routes.knows(head.method), let offered = context.routes.webSockets[head.path] {
            return upgrade(head, offered)
        }
        guard head.bodyFraming != .none else { return dispatch(head, body: []) }
        if case .counted(let count) = head.bodyFraming, count > context.limits.maxRequestBodyBytes {
            let violation = HTTPViolation.bodyTooLarge(limit: context.limits.maxRequestBodyBytes)
            return refuse(violation.status, violation.description, isHead: head.method == .head)
        }
        if head.expectsContinue { connection.write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)) }
        bodyBytesAtDeadline = 0
        context.loop.schedule(connection, after: context.limits.bodyTimeout)
        state = .body(head, HTTPBodyDecoder(framing: head.bodyFraming, maxBytes: context.limits.maxRequestBodyBytes), [])
    }

    /// Collects a body; gives whether there is something else to do now.
    private func readBody(
        _ head: HTTPRequestHead, _ body: inout HTTPBodyDecoder, _ content: inout [UInt8], _ position: inout Int, until end: Int
    ) -> Bool {
        // Taken out of the state while it changes, so that the array is not copied.
        state = .over
        let buffer = context.receiveBuffer
        let bytes = buffer.bytes.extracting(..<end)
        do throws(HTTPViolation) {
            while let event = try body.next(bytes.octets, from: &position) {
                switch event {
                case .data(let range):
                    guard context.hasRoom(for: range.count) else {
                        position = end
                        context.noteShortage()
                        refuse(.serviceUnavailable, "this server has no memory for more", isHead: head.method == .head)
                        return false
                    }
                    content.append(bytes.extracting(range))
                    noteBody(range.count)
                    // Bytes that trickle do not prolong it.
                    if content.count - bodyBytesAtDeadline >= context.limits.minBodyProgressBytes {
                        bodyBytesAtDeadline = content.count
                        context.loop.schedule(connection, after: context.limits.bodyTimeout)
                    }
                case .end:
                    dispatch(head, body: content)
                    return true
                }
            }
        } catch {
            position = end
            refuse(error.status, error.description, isHead: head.method == .head)
            return false
        }
        state = .body(head, body, content)
        return false
    }

    private func noteBody(_ change: Int) {
        bodyBytesNoted += change
        context.buffers.note(change)
    }

    private func dispatch(_ head: HTTPRequestHead, body: [UInt8]) {
        noteBody(-bodyBytesNoted)
        context.loop.cancel(connection)
        let request = request(head, body: body)
        state = .answering(request)
        context.routes.serve(HTTPExchange(request: request, context: context, session: self))
        // Most exchanges are answered by now and need no timer.
        if expectsAnswer(to: request) { context.loop.schedule(connection, after: context.limits.answerTimeout) }
    }

    private func request(_ head: HTTPRequestHead, body: [UInt8] = []) -> HTTPRequest {
        HTTPRequest(head: head, peer: peer, security: security, body: body)
    }

    // MARK: Answering

    /// Whether `request` is the one that is being answered.
    func expectsAnswer(to request: HTTPRequest) -> Bool {
        if case .answering(let current) = state { current === request } else { false }
    }

    /// The exchange of `request` is gone, and with it the only way to answer it.
    func released(_ request: HTTPRequest) {
        guard expectsAnswer(to: request) else { return }
        context.logger.error("the exchange of \(request.logName) was released without an answer")
        respond(page: .internalServerError, "", fields: HTTPFields(), to: request)
    }

    /// Writes an answer to `request` and goes on with the next one.
    func respond(_ status: HTTPStatus, fields: HTTPFields, body: ResponseBody, to request: HTTPRequest) {
        guard connection.isOpen else { return }
        guard !status.isInformational else {
            context.logger.error("\(request.logName) was answered with \(status): expected a final status")
            return respond(page: .internalServerError, "", fields: HTTPFields(), to: request)
        }
        let keepsAlive =
            request.head.keepsAlive && !context.isDraining
            && !(fields.contains("connection") && fields.containsToken("close", in: "connection"))
        // How long the content of a 304 would be is not known here: then nothing is said (RFC 9110 §8.6).
        writeHead(status, fields, count: status.forbidsContent ? nil : body.count, keepsAlive: keepsAlive, version: request.head.version)
        if request.method != .head, !status.forbidsContent {
            switch body {
            case .bytes(let bytes): connection.write(bytes)
            case .file(let file, let range): connection.write(file, offset: range.lowerBound, count: range.count)
            }
        }
        next(keepsAlive: keepsAlive)
    }

    func respond(page status: HTTPStatus, _ detail: String, fields: HTTPFields, to request: HTTPRequest) {
        let page = StatusPage(status, detail)
        respond(status, fields: page.fields(fields), body: .bytes(page.bytes), to: request)
    }

    /// Answers what is no acceptable request, and closes: where the next one would begin is unknown.
    ///
    /// - Parameter isHead: The request's method is HEAD: the answer has no body, whatever its status (RFC 9110 §9.3.2).
    private func refuse(_ status: HTTPStatus, _ detail: String, fields: HTTPFields = HTTPFields(), isHead: Bool) {
        noteBody(-bodyBytesNoted)
        context.logger.debug("\(peer) was answered \(status)\(detail.isEmpty ? "" : ": ")\(detail)")
        let page = StatusPage(status, detail)
        let hasContent = !status.forbidsContent
        writeHead(status, page.fields(fields), count: hasContent ? page.bytes.count : nil, keepsAlive: false, version: .http11)
        if hasContent, !isHead { connection.write(page.bytes) }
        next(keepsAlive: false)
    }

    /// Answers a client that speaks HTTP where TLS is expected.
    ///
    /// - Parameter bytes: What it has sent.
    func refusePlainHTTP(_ bytes: [UInt8]) {
        refuse(.badRequest, "this port speaks TLS: use https or wss", isHead: bytes.starts(with: "HEAD ".utf8))
    }

    private func writeHead(_ status: HTTPStatus, _ fields: HTTPFields, count: Int?, keepsAlive: Bool, version: HTTPVersion) {
        var head: [UInt8] = []
        head.reserveCapacity(256)
        HTTPEncoder.appendResponseHead(
            status: status, fields: fields, framing: count.map { .counted($0) } ?? .none,
            persistence: keepsAlive ? (version < .http11 ? .keepAlive : .implied) : .close, date: context.date.span, to: &head)
        connection.write(head)
    }

    private func next(keepsAlive: Bool) {
        guard keepsAlive else {
            state = .over
            return connection.finish(.linger)
        }
        state = .head
        hasServedRequest = true
        connection.watchOutput()
        context.loop.schedule(
            connection, after: connection.hasBufferedOutput ? context.limits.bodyTimeout : context.limits.keepAliveTimeout)
        connection.resumeReading(.exchange)
    }

    /// Output has been taken by the peer.
    func outputDrained() {
        // A head that has begun keeps its own deadline.
        if case .head = state, decoder.isIdle { context.loop.schedule(connection, after: context.limits.keepAliveTimeout) }
    }

    func connectionLost() {
        noteBody(-bodyBytesNoted)
        leaveNewcomers()
        state = .over
    }

    // MARK: Upgrade

    private func upgrade(_ head: HTTPRequestHead, _ offered: [WebSocketProtocol]) {
        do {
            let asked = try Handshake.validate(head)
            guard Handshake.originIsAllowed(origin: asked.origin, host: head.host ?? "", allowed: context.origins) else {
                throw HandshakeViolation.originNotAllowed(asked.origin ?? "")
            }
            guard let chosen = choose(asked.subprotocols, offered) else {
                throw Rejection(
                    .badRequest, "none of these subprotocols is offered here; offered: \(offered.map(\.name).joined(separator: ", "))")
            }
            if context.isStopping { throw Rejection(.serviceUnavailable, "this server is about to restart") }
            let request = request(head)
            let agreement = try ExtensionNegotiation.answer(asked.extensions ?? "", with: context.extensions) { offered in
                context.allowsExtension?(offered, request) ?? true
            }
            context.serving(.upgrade, route: chosen.number)
            open(chosen, request, asked, agreement, try chosen.makeHandler(request))
        } catch let violation as HandshakeViolation {
            refuse(violation.status, violation.description, fields: violation.fields, isHead: head.method == .head)
        } catch let rejection as Rejection {
            let status = rejection.status.isInformational ? .internalServerError : rejection.status
            refuse(status, rejection.reason, fields: rejection.fields, isHead: head.method == .head)
        } catch {
            context.logger.error("the handler factory of \(head.path) failed: \(error)")
            refuse(.internalServerError, "", isHead: head.method == .head)
        }
    }

    /// The first that the client lists and the path offers; without a list, the path's first.
    private func choose(_ asked: [String], _ offered: [WebSocketProtocol]) -> WebSocketProtocol? {
        guard !asked.isEmpty else { return offered.first }
        return Handshake.chooseSubprotocol(client: asked, server: offered.map(\.name)).flatMap { name in
            offered.first { $0.name == name }
        }
    }

    private func open(
        _ chosen: WebSocketProtocol, _ request: HTTPRequest, _ asked: ClientHandshake, _ agreement: ExtensionNegotiation.Agreement?,
        _ handler: any WebSocketHandler
    ) {
        let subprotocol =
            asked.subprotocols.isEmpty ? nil : context.echoesSubprotocolList ? request.fields["sec-websocket-protocol"] : chosen.name
        var response: [UInt8] = []
        response.reserveCapacity(192)
        Handshake.appendResponse(
            key: asked.key.span, subprotocol: subprotocol, extensions: agreement?.answer, fields: HTTPFields(), to: &response)
        connection.write(response)
        let socket = WebSocket(
            chosen, role: .server, hasSubprotocol: !asked.subprotocols.isEmpty, extensions: agreement?.chain, handler: handler,
            request: request, connection: connection)
        state = .over
        connection.becomeWebSocket(socket)
        socket.begin()
        context.serving(.opened, route: chosen.number)
        handler.opened(socket)
        socket.request = nil
    }
}
