/// The exchanges of an HTTP/1.1 connection, one after the other: the request's side × the
/// response's side (RFC 9112 §9), in either role.
///
/// Received bytes go into `event`, which gives out one event at a time. Before this side sends a
/// message, or a part of one, it calls `startRequest`, `startResponse`, …, which give what follows.
/// It holds no clock, socket or closure: events and the time are parameters, and `deadline` is
/// computed from the state.
///
/// A call that `permits` does not allow is a fault of the caller and stops the process; a fault of
/// the peer is an `HTTPViolation`.
package struct HTTP1Cycle: Equatable, Sendable {
    private var sides: HTTP1Sides
    /// When the present period began.
    private var since: TimePoint
    private var output = OutputProgress()

    /// A connection on which nothing has been received or sent. A server that receives TLS makes it
    /// when the handshake is done.
    package init(role: Role, now: TimePoint) {
        sides = HTTP1Sides(role)
        since = now
    }

    package var role: Role { sides.role }
    package var request: HTTP1RequestSide { sides.request }
    package var response: HTTP1ResponseSide { sides.response }

    /// Whether no exchange is under way, nor a byte of a next one taken. The empty line that may
    /// precede a head does not count.
    package var isIdle: Bool { sides.isIdle }

    /// Whether the client waits for `100 Continue`: for `sendInformational`, or a final response
    /// instead.
    package var awaitsContinue: Bool { sides.response.exchange?.expectsContinue ?? false }

    /// Whether this side may make the call now.
    package func permits(_ call: HTTP1Call) -> Bool { sides.permits(call) }

    // MARK: Receiving

    /// The next event in `bytes` from `position` on, which moves behind what was used; nil: more
    /// must arrive.
    ///
    /// Every message ends with `end`, one without a body at once and without another byte: call it
    /// until it gives nil, `paused` or `over`.
    ///
    /// - Throws: `HTTPViolation`; nothing more is decoded. A server that may still answer
    ///   (`permits(.startResponse)`) does so with the violation's status, and closes. `position` is
    ///   at the end of `bytes`.
    package mutating func event(
        _ bytes: Span<UInt8>, from position: inout Int, now: TimePoint, limits: borrowing HTTP1Limits
    ) throws(HTTPViolation) -> HTTP1Event? {
        do throws(HTTPViolation) {
            switch role {
            case .server: return try requestEvent(bytes, &position, now, limits)
            case .client: return try responseEvent(bytes, &position, now, limits)
            }
        } catch {
            position = bytes.count
            sides.fail()
            throw error
        }
    }

    private mutating func requestEvent(
        _ bytes: Span<UInt8>, _ position: inout Int, _ now: TimePoint, _ limits: borrowing HTTP1Limits
    ) throws(HTTPViolation) -> HTTP1Event? {
        while true {
            switch sides.request {
            case .idle, .receivingHead:
                switch try sides.request.readHead(bytes, from: &position, limits: limits.head) {
                case .complete(let head):
                    sides.begin(head, maxBodyBytes: limits.maxBodyBytes)
                    since = now
                    return .request(head)
                case .begun:
                    since = now
                    return nil
                case .incomplete: return nil
                }
            case .receivingBody:
                switch try sides.request.readBody(bytes, from: &position) {
                case .data(let range):
                    noteRequestBody(now, limits)
                    // The rest of a request that has been answered is dropped.
                    if case .done = sides.response { continue }
                    return .data(range)
                case .end: if completeRequest(now) { return .end }
                case nil: return nil
                }
            case .received: if completeRequest(now) { return .end }
            case .done, .mightSwitch: return .paused
            case .switched, .mustClose, .closed, .failed: return .over
            case .sendingBody, .modifying: preconditionFailure("a server receives requests")
            }
        }
    }

    private mutating func noteRequestBody(_ now: TimePoint, _ limits: borrowing HTTP1Limits) {
        let minBytes = limits.minBodyProgressBytes
        var restarts = sides.request.withBody { $0.hasProgressed(minBytes: minBytes) } ?? false
        if awaitsContinue {
            // RFC 9110 §10.1.1: the client has not waited, so there is nothing to agree to.
            sides.response.withExchange { $0.expectsContinue = false }
            restarts = true
        }
        if restarts { since = now }
    }

    private mutating func completeRequest(_ now: TimePoint) -> Bool {
        since = now
        return sides.completeRequest()
    }

    private mutating func responseEvent(
        _ bytes: Span<UInt8>, _ position: inout Int, _ now: TimePoint, _ limits: borrowing HTTP1Limits
    ) throws(HTTPViolation) -> HTTP1Event? {
        switch sides.response {
        case .idle:
            guard position < bytes.count else { return nil }
            throw .responseWithoutRequest
        case .awaited, .receivingHead:
            guard let head = try sides.response.readHead(bytes, from: &position, limits: limits.head) else { return nil }
            let event = try sides.begin(head, maxBodyBytes: limits.maxBodyBytes)
            // Interim responses prolong nothing.
            if case .response = event { since = now }
            return event
        case .receivingBody:
            // Any byte prolongs it.
            if position < bytes.count { since = now }
            switch try sides.response.readBody(bytes, from: &position) {
            case .data(let range): return .data(range)
            case .end:
                since = now
                sides.completeResponse()
                return .end
            case nil: return nil
            }
        case .received:
            since = now
            sides.completeResponse()
            return .end
        case .done: return .paused
        case .switched, .mustClose, .closed, .failed: return .over
        case .sendingBody, .modifying: preconditionFailure("a client receives responses")
        }
    }

    /// Sets the limit of the body whose head has just been given out, in bytes, in place of
    /// `HTTP1Limits.maxBodyBytes`.
    package mutating func limitBody(to maxBytes: Int) {
        _ = sides.request.withBody { $0.limit(to: maxBytes) }
        _ = sides.response.withBody { $0.limit(to: maxBytes) }
    }

    /// Notes that no more bytes come.
    package mutating func endOfInput(_ end: HTTP1InputEnd = .complete) -> HTTP1EndOfInput {
        switch role {
        case .server: sides.endOfRequests()
        case .client: sides.endOfResponses(end)
        }
    }

    /// Takes no more requests: what has come is refused unread, and can be answered if no response
    /// has begun. For a fault that is found outside of this machine.
    ///
    /// - Parameter method: The method of the request, if it is known: a response to HEAD has no
    ///   content.
    package mutating func refuse(_ method: HTTPMethod? = nil) {
        precondition(role == .server, "a client gives up by closing")
        if let method, case .idle = sides.response { sides.response = .awaited(HTTP1Exchange(refusing: HTTP1Exchange.Method(method))) }
        sides.fail()
    }

    // MARK: Sending

    /// A client is about to send a request.
    ///
    /// - Parameter framing: Of its body. With a body, `endRequest` follows when it has been sent.
    /// - Returns: What the head announces about the connection (RFC 9112 §9.3).
    @discardableResult
    package mutating func startRequest(
        _ method: HTTPMethod, framing: HTTPBodyFraming, wish: HTTP1RequestWish, now: TimePoint
    ) -> HTTPEncoder.Persistence {
        precondition(permits(.startRequest), "a request is started when the exchange before it is complete")
        precondition(framing != .untilClose, "the end of a request is not the end of the connection (RFC 9112 §6.3)")
        let exchange = HTTP1Exchange(method, keepsAlive: wish != .close, offersUpgrade: wish == .upgrade)
        sides.response = .awaited(exchange)
        output = OutputProgress()
        since = now
        let hasBody = framing != .none && framing != .counted(0)
        sides.request = hasBody ? .sendingBody : exchange.proposesSwitch ? .mightSwitch : .done
        return wish == .close ? .close : .implied
    }

    /// A client has sent the body of its request.
    package mutating func endRequest(now: TimePoint) -> HTTP1Next {
        precondition(permits(.endRequest), "a request ends once")
        switch sides.response {
        case .awaited(let exchange), .receivingHead(_, let exchange):
            sides.request = exchange.proposesSwitch ? .mightSwitch : .done
            since = now
            return .awaitPeer
        case .receivingBody, .received:
            sides.request = .done
            return .awaitPeer
        case .done:
            since = now
            sides.startNext()
            return .nextMessage
        case .switched:
            sides.request = .switched
            return .switchProtocol
        case .mustClose, .closed, .failed:
            sides.request = .mustClose
            return .closeAfterOutput
        case .idle, .sendingBody, .modifying: preconditionFailure("a client receives responses")
        }
    }

    /// A server is about to send an interim response. `100 Continue` agrees to a body that is
    /// announced: its time begins.
    package mutating func sendInformational(_ status: HTTPStatus, now: TimePoint) {
        precondition(permits(.sendInformational), "an interim response precedes the final one, and HTTP/1.0 has none")
        precondition(status.isInformational && status != .switchingProtocols, "expected an interim status, got \(status)")
        guard status == .continue, awaitsContinue else { return }
        sides.response.withExchange { $0.expectsContinue = false }
        since = now
    }

    /// A server is about to send the head of a final response.
    ///
    /// - Parameters:
    ///   - framing: Of the body; for HEAD, 204 and 304 that of GET.
    ///   - keepsAlive: Whether the connection may persist as far as this side is concerned.
    package mutating func startResponse(_ status: HTTPStatus, framing: HTTPBodyFraming, keepsAlive: Bool) -> HTTP1ResponseStart {
        guard permits(.startResponse), case .awaited(var exchange) = sides.response else {
            preconditionFailure("one response for each request")
        }
        precondition(!status.isInformational, "expected a final status, got \(status)")
        precondition(!exchange.switches(status), "2xx to CONNECT switches the protocol")
        let hasContent = exchange.method != .head && !status.forbidsContent
        let framing = framing == .chunked && exchange.version < .http11 ? .untilClose : framing
        let isDelimited = !hasContent || framing != .untilClose
        // A client that waits for 100 Continue may send the body or not: where the next request
        // begins is unknown.
        exchange.keepsAlive = exchange.keepsAlive && keepsAlive && isDelimited && !exchange.expectsContinue
        exchange.expectsContinue = false
        sides.response = .sendingBody(exchange)
        if case .mightSwitch = sides.request { sides.request = .done }
        let persistence: HTTPEncoder.Persistence =
            exchange.keepsAlive ? (exchange.version < .http11 ? .keepAlive : .implied) : .close
        return HTTP1ResponseStart(persistence: persistence, framing: framing, hasContent: hasContent)
    }

    /// This side is about to send content. If nothing waits, the time that the peer has to take it
    /// begins.
    package mutating func sendContent(_ state: OutputState, now: TimePoint) {
        precondition(permits(.sendContent), "content follows a head")
        guard !state.isWaiting else { return }
        output.watch(state)
        // The request's body keeps its own time.
        if case .receivingBody = sides.request { return }
        since = now
    }

    /// A server has sent all of a response, or queued it behind other output.
    ///
    /// - Parameter state: `takenBytes` is looked at only while output waits.
    package mutating func endResponse(_ state: OutputState, now: TimePoint) -> HTTP1Next {
        guard permits(.endResponse), case .sendingBody(let exchange) = sides.response else { preconditionFailure("a response ends once") }
        guard exchange.keepsAlive else {
            sides.endConnection()
            return .closeAfterOutput
        }
        output.watch(state)
        sides.response = .done
        if case .receivingBody = sides.request { return .awaitPeer }
        since = now
        sides.startNext()
        return .nextMessage
    }

    /// A server has sent 101, or 2xx to CONNECT.
    package mutating func acceptSwitch() -> HTTP1Next {
        precondition(permits(.acceptSwitch), "the client has proposed a switch, and its request is complete")
        (sides.request, sides.response) = (.switched, .switched)
        return .switchProtocol
    }

    /// This side ends the connection: nothing is decoded or due any more.
    package mutating func close() { sides.close() }

    // MARK: Deadlines

    /// When the present period ends; nil: nothing is due.
    ///
    /// - Parameters:
    ///   - waitingBytes: Bytes of output that wait for the peer.
    ///   - pauses: Why the stream is not read.
    package func deadline(_ limits: borrowing HTTP1Limits, waitingBytes: Int, pauses: PauseReasons) -> TimePoint? {
        guard let period = HTTP1Period(request, response, isWaiting: waitingBytes > 0, pauses: pauses) else { return nil }
        return since + period.length(limits)
    }

    /// Looks whether the deadline has passed. It may be called too early.
    package mutating func deadlineReached(
        now: TimePoint, output state: OutputState, pauses: PauseReasons, limits: borrowing HTTP1Limits
    ) -> HTTP1TimeoutAction {
        guard let due = deadline(limits, waitingBytes: state.waitingBytes, pauses: pauses), now >= due else { return .none }
        if state.isWaiting, outputCounts, output.hasProgressed(state, minBytes: limits.minBodyProgressBytes) {
            prolong(now)
            return .none
        }
        switch (role, request, response) {
        case (.server, .receivingHead, _) where !state.isWaiting && !isIdle, (.server, .receivingBody, .awaited) where !awaitsContinue:
            sides.fail()
            return .answer(.requestTimeout)
        case (.server, _, .awaited): return .answer(.gatewayTimeout)
        case (.client, _, _) where !isIdle:
            sides.fail()
            return .giveUp
        case (.server, _, _), (.client, _, _):
            close()
            return .close
        }
    }

    /// Whether output that is taken prolongs the present period: it does unless only a request is
    /// due.
    private var outputCounts: Bool {
        switch (role, response) {
        case (.client, _), (.server, .idle), (.server, .sendingBody): true
        case (.server, _): false
        }
    }

    private mutating func prolong(_ now: TimePoint) {
        since = now
        switch sides.request {
        case .idle(let wait) where wait != .next: sides.request = .idle(.prolonged)
        case .receivingHead(let decoder, let wait) where wait != .next: sides.request = .receivingHead(decoder, .prolonged)
        case .idle, .receivingHead, .receivingBody, .received, .sendingBody, .done, .mightSwitch, .switched, .mustClose, .closed, .failed,
            .modifying:
            sides.response.withExchange { $0.isProlonged = true }
        }
    }

    /// Nothing waits for the peer any more.
    package mutating func outputDrained(now: TimePoint) {
        switch (request, response) {
        // A head that has begun keeps its own deadline, and so does a first request.
        case (.idle(let wait), .idle) where wait != .first:
            sides.request = .idle(.next)
            since = now
        case (.receivingHead(let decoder, let wait), _) where decoder.isIdle && wait != .first:
            sides.request = .receivingHead(decoder, .next)
            since = now
        case (.receivingBody, _): break
        case (_, .sendingBody), (.sendingBody, _): since = now
        case (.idle, _), (.receivingHead, _), (.received, _), (.done, _), (.mightSwitch, _), (.switched, _), (.mustClose, _), (.closed, _),
            (.failed, _), (.modifying, _):
            break
        }
    }

    /// Reading goes on: the time that has passed does not count against the sender of a body.
    package mutating func resumed(now: TimePoint) {
        let request: Void? = sides.request.withBody { $0.restartPeriod() }
        let response: Void? = sides.response.withBody { $0.restartPeriod() }
        if request != nil || response != nil { since = now }
    }
}
