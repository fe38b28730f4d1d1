import ApusCodec
import ApusPlatform
import ApusTransport
import Logging

/// HTTP/1.1 on a stream: `HTTP1Cycle` with the application's exchanges. A request is decoded when
/// the response to the one before it is complete.
final class HTTPSession: Session {
    private unowned let stream: ByteStream
    // Held, because the way to it by the stream would cost two references in each access.
    private let worker: Worker
    private let responder: HTTPResponder
    /// The route of a request that is being received.
    private var route: Route?
    private var body = CollectedBody()
    /// The stream has another session.
    private var isUpgraded = false
    let peer: SocketAddress
    /// Whether plain HTTP on a TLS port is served instead of refused.
    let allowsPlainHTTP: Bool
    private var security = Security.plain
    /// The link in the worker's list of clients without a request; changed by that list.
    var pending = PendingLink.no
    /// When the connection was accepted.
    let since: MonotonicTime

    init(stream: ByteStream, peer: SocketAddress, allowsPlainHTTP: Bool = false) {
        self.stream = stream
        worker = stream.worker
        self.peer = peer
        self.allowsPlainHTTP = allowsPlainHTTP
        since = stream.worker.loop.now
        responder = HTTPResponder(stream: stream, peer: peer)
    }

    var isIdle: Bool { responder.cycle.isIdle && responder.request == nil }

    // MARK: Eviction

    /// Evicted to make room: no request has arrived, so no response is sent.
    func evict() { stream.close() }

    /// Leaves the list of clients without a request.
    private func leavePending() { if case .waiting = pending { worker.admission.remove(self) } }

    // MARK: TLS

    func secured() {
        security = stream.security
        responder.cycle = HTTP1Cycle(role: .server, now: responder.now)
        stream.deadlineChanged()
    }

    func handshakeFailed(_ error: TLSError?) {
        guard let error else {
            return worker.logger.debug("a TLS handshake with \(peer) took longer than \(worker.limits.tlsHandshakeTimeout)")
        }
        worker.logger.debug("a TLS handshake with \(peer) failed: \(error)")
    }

    func acceptsPlain(_ bytes: [UInt8]) -> Bool {
        responder.cycle = HTTP1Cycle(role: .server, now: responder.now)
        if !allowsPlainHTTP {
            responder.cycle.refuse(bytes.starts(with: "HEAD ".utf8) ? .head : .get)
            responder.refuse(.badRequest, "this port speaks TLS: use https or wss")
        }
        return true
    }

    // MARK: Deadlines

    var deadline: MonotonicTime? {
        let due = responder.cycle.deadline(worker.requestLimits, waitingBytes: stream.bufferedBytes, pauses: stream.pauses)
        // The clock rounds down, so a deadline is reached one millisecond later.
        let next = due.map { MonotonicTime($0) + .milliseconds(1) }
        guard let own = responder.exchange?.due else { return next }
        return next.map { min($0, own) } ?? own
    }

    func deadlineReached(at now: MonotonicTime) -> Next {
        defer { stream.deadlineChanged() }
        if let exchange = responder.exchange, let due = exchange.due, due <= now {
            if exchange.dueReached(now) { timedOut(exchange) }
            return .more
        }
        switch responder.cycle.deadlineReached(
            now: TimePoint(now), output: responder.output, pauses: stream.pauses, limits: worker.requestLimits)
        {
        case .none: break
        case .answer(.gatewayTimeout):
            guard let request = responder.request else { break }
            worker.logger.error("\(request.logName) was not answered within answerTimeout, \(worker.limits.answerTimeout)")
            responder.respond(.page(.gatewayTimeout, "the answer was not ready in time"), to: request)
        case .answer(let status): responder.refuse(status, "the request did not arrive in time")
        case .close, .giveUp: return .close("it took no output in time")
        }
        return .more
    }

    private func timedOut(_ exchange: HTTPExchange) {
        worker.logger.debug("\(exchange.request.logName) exceeded its own deadline")
        if responder.expectsAnswer(to: exchange.request) {
            responder.respond(.page(.gatewayTimeout, "the answer was not ready in time"), to: exchange.request)
        } else {
            responder.abort("the deadline of the exchange has passed")
        }
    }

    // MARK: Receiving

    func received(_ bytes: ReceiveBuffer, _ position: inout Int, until end: Int) -> Next {
        worker.serving(stream, .head)
        responder.isReceiving = true
        defer {
            responder.isReceiving = false
            stream.deadlineChanged()
        }
        let now = responder.now
        while true {
            if stream.pauses.contains(.application) { return .more }
            if responder.request == nil, position < end, !isUpgraded {
                if stream.isBackedUp {
                    stream.pauseReading(.output)
                    return .more
                }
                if worker.isStopping, responder.cycle.isIdle {
                    responder.cycle.close()
                    return .finish(.linger)
                }
            }
            let event: HTTP1Event?
            do throws(HTTPViolation) {
                event = try responder.cycle.event(
                    bytes.bytes.extracting(..<end).octets, from: &position, now: now, limits: worker.requestLimits)
            } catch {
                responder.refuse(error.status, error.description)
                return .finish(.linger)
            }
            switch event {
            case .request(let head): begin(head)
            case .data(let range): receive(bytes.bytes.extracting(range))
            case .end: requestEnded()
            case .paused:
                stream.pauseReading(.exchange)
                return .more
            case .over: return isUpgraded ? .more : .finish(.linger)
            case .informational, .response: preconditionFailure("a server receives requests")
            case nil: return .more
            }
        }
    }

    private func begin(_ head: HTTPRequestHead) {
        leavePending()
        // That of a request that was answered before its end.
        route = nil
        let request = HTTPRequest(head: head, peer: peer, security: security, worker: worker)
        responder.begin(request)
        do {
            switch try worker.routes.resolve(request) {
            case .route(let route): try accept(request, for: route)
            case .webSocket(let offered): try upgrade(request, offered)
            case .response(let response):
                guard request.head.bodyFraming != .none, !responder.cycle.awaitsContinue else {
                    return responder.respond(response, to: request)
                }
                // The body is checked all the same, and the connection goes on behind it.
                try accept(request, for: Route(answering: request.method, with: response))
            }
        } catch {
            responder.fail(error, request)
        }
    }

    /// Agrees to the body of a request, or refuses it.
    private func accept(_ request: HTTPRequest, for route: Route) throws {
        self.route = route
        let framing = request.head.bodyFraming
        if framing != .none {
            let maxBytes = route.maxBodyBytes ?? worker.limits.maxRequestBodyBytes
            if case .counted(let count) = framing, count > maxBytes { return refuseBody(of: request, .bodyTooLarge(limit: maxBytes)) }
            responder.cycle.limitBody(to: maxBytes)
        }
        if case .handler(let make) = route.action {
            let exchange = responder.keep(request)
            worker.serving(.request, route: route.number)
            exchange.handler = try make(request)
        }
        guard responder.cycle.awaitsContinue, responder.expectsAnswer(to: request) else { return }
        responder.cycle.sendInformational(.continue, now: responder.now)
        stream.write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8))
    }

    /// Refuses a body that is too large, and with it the connection: the rest is not read.
    private func refuseBody(of request: HTTPRequest, _ violation: HTTPViolation) {
        responder.cycle.refuse(request.method)
        responder.refuse(violation.status, violation.description)
    }

    private func receive(_ piece: RawSpan) {
        guard let request = responder.request else { return }
        if let exchange = responder.keptExchange, let handler = exchange.handler {
            worker.serving(.request, route: route?.number ?? 0)
            do { try handler.received(piece, on: exchange) } catch { responder.fail(error, request) }
        } else if !body.append(piece, worker.memory) {
            worker.memory.noteShortage()
            responder.cycle.refuse(request.method)
            responder.refuse(.serviceUnavailable, "this server has no memory for more")
        }
    }

    private func requestEnded() {
        guard let request = responder.request, let route else { return }
        self.route = nil
        request.body = body.take(worker.memory)
        worker.serving(.request, route: route.number)
        do {
            switch route.action {
            case .response(let handle): responder.respond(try handle(request), to: request)
            case .exchange(let handle): serve(request, handle)
            case .handler: if let exchange = responder.keptExchange { try exchange.handler?.ended(exchange) }
            }
        } catch {
            responder.fail(error, request)
        }
    }

    private func serve(_ request: HTTPRequest, _ handle: (HTTPExchange) throws -> Void) {
        let exchange = responder.lend(request)
        do {
            try handle(exchange)
        } catch {
            // While the exchange is held: what was thrown is answered, not the exchange's release.
            withExtendedLifetime(exchange) { responder.fail(error, request) }
        }
    }

    func inputEnded() -> Next {
        switch responder.cycle.endOfInput() {
        case .clean, .endOfBody: return stream.hasBufferedOutput ? .finish(.close) : .close("")
        case .truncated: return .close("the request was cut off")
        case .responseOwed:
            // A client may shut down its sending side after its last request and still read the
            // response.
            stream.peerHasEnded = true
            stream.pauseReading(.exchange)
            return responder.keptExchange?.isEventStream == true ? .close("") : .more
        }
    }

    func peerEndedWhilePaused(hasUnread: Bool) -> Next { hasUnread ? .more : inputEnded() }

    func resumed() {
        responder.cycle.resumed(now: responder.now)
        stream.deadlineChanged()
    }

    // MARK: Output

    func outputDrained() { responder.outputDrained() }

    var readsAfterFailedWrite: Bool { false }

    func ended(_ end: StreamEnd) {
        _ = body.take(worker.memory)
        leavePending()
        responder.cycle.close()
        responder.endExchanges(end.reason.isEmpty ? "the connection has ended" : end.reason)
    }

    // MARK: Upgrade

    private func upgrade(_ request: HTTPRequest, _ offered: [WebSocketProtocol]) throws {
        let upgrade: WebSocketUpgrade
        do {
            upgrade = try WebSocketUpgrade(request, offered, worker)
        } catch let violation as HandshakeViolation {
            return responder.respond(
                .page(violation.status, violation.description, fields: violation.fields), to: request, keepsAlive: false)
        } catch let rejection as Rejection {
            return responder.respond(.page(rejection.status, rejection.reason, fields: rejection.fields), to: request, keepsAlive: false)
        } catch {
            worker.logger.error("the handler factory of \(request.path) failed: \(error)")
            return responder.respond(.page(.internalServerError), to: request, keepsAlive: false)
        }
        _ = responder.cycle.acceptSwitch()
        isUpgraded = true
        responder.upgraded()
        stream.write(upgrade.response)
        upgrade.open(on: stream)
    }
}

extension MonotonicTime {
    init(_ time: TimePoint) { self.init(milliseconds: time.milliseconds) }
}
