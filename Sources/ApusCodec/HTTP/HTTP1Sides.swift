/// The two sides of an HTTP/1.1 connection and how they move together: what `HTTP1Cycle` is without
/// the time.
package struct HTTP1Sides: Equatable, Sendable {
    let role: Role
    var request: HTTP1RequestSide
    var response = HTTP1ResponseSide.idle

    init(_ role: Role) {
        self.role = role
        request = .idle(role == .server ? .first : .next)
    }

    /// See `HTTP1Cycle.isIdle`.
    var isIdle: Bool {
        switch (request, response) {
        case (.idle, .idle): true
        case (.receivingHead(let decoder, _), _): decoder.isIdle
        case (.idle, _), (.receivingBody, _), (.received, _), (.sendingBody, _), (.done, _), (.mightSwitch, _), (.switched, _),
            (.mustClose, _), (.closed, _), (.failed, _), (.modifying, _):
            false
        }
    }

    /// See `HTTP1Cycle.permits`.
    func permits(_ call: HTTP1Call) -> Bool {
        switch (call, request, response) {
        case (.startRequest, .idle, .idle): role == .client
        case (.endRequest, .sendingBody, _): true
        case (.sendInformational, _, .awaited(let exchange)):
            role == .server && request != .failed && exchange.version >= .http11
        case (.startResponse, _, .awaited): role == .server
        case (.endResponse, _, .sendingBody): true
        case (.acceptSwitch, .mightSwitch, .awaited(let exchange)), (.acceptSwitch, .received, .awaited(let exchange)):
            role == .server && exchange.proposesSwitch
        case (.sendContent, .sendingBody, _), (.sendContent, _, .sendingBody): true
        case (.startRequest, _, _), (.endRequest, _, _), (.sendInformational, _, _), (.startResponse, _, _), (.endResponse, _, _),
            (.acceptSwitch, _, _), (.sendContent, _, _):
            false
        }
    }

    // MARK: Received messages

    /// The head of a request has come.
    mutating func begin(_ head: HTTPRequestHead, maxBodyBytes: Int) {
        response = .awaited(HTTP1Exchange(head))
        request =
            head.bodyFraming == .none
            ? .received : .receivingBody(Boxed(HTTP1Body(head.bodyFraming, maxBytes: maxBodyBytes, receiver: role)))
    }

    /// The end of a request has come; false if it has been answered before, and the next one is
    /// due.
    mutating func completeRequest() -> Bool {
        switch response {
        case .done:
            startNext()
            return false
        case .awaited(let exchange): request = exchange.proposesSwitch ? .mightSwitch : .done
        case .idle, .receivingHead, .receivingBody, .received, .sendingBody, .switched, .mustClose, .closed, .failed, .modifying:
            request = .done
        }
        return true
    }

    /// The head of a response has come.
    ///
    /// - Throws: `HTTPViolation` for 101 without an `Upgrade`, and for too many interim responses.
    mutating func begin(_ head: HTTPResponseHead, maxBodyBytes: Int) throws(HTTPViolation) -> HTTP1Event {
        guard var exchange = response.exchange else { preconditionFailure("a head belongs to an exchange") }
        if head.status.isInformational, head.status != .switchingProtocols {
            guard Int(exchange.interimResponses) < HTTP1Limits.maxInterimResponses else {
                throw .tooManyInterimResponses(limit: HTTP1Limits.maxInterimResponses)
            }
            exchange.interimResponses += 1
            response = .awaited(exchange)
            return .informational(head)
        }
        if exchange.switches(head.status) {
            guard exchange.offersUpgrade || head.status != .switchingProtocols else { throw .switchNotRequested }
            response = .switched
            // A request that is not complete is completed first.
            if case .mightSwitch = request { request = .switched }
            return .response(head)
        }
        if case .mightSwitch = request { request = .done }
        let framing = exchange.framing(of: head)
        exchange.keepsAlive = exchange.keepsAlive && head.keepsAlive && framing != .untilClose
        response =
            framing == .none
            ? .received(exchange) : .receivingBody(Boxed(HTTP1Body(framing, maxBytes: maxBodyBytes, receiver: role)), exchange)
        return .response(head)
    }

    /// The end of a response has come.
    mutating func completeResponse() {
        guard response.exchange?.keepsAlive == true else { return endConnection() }
        response = .done
        if case .done = request { startNext() }
    }

    // MARK: Ends

    /// Both messages are complete, and the connection persists.
    mutating func startNext() { (request, response) = (.idle(.next), .idle) }

    /// The response is complete, and the connection does not persist.
    mutating func endConnection() {
        response = .mustClose
        switch request {
        case .idle, .receivingHead, .receivingBody, .received, .done, .mightSwitch: request = .mustClose
        // A client may not have noticed, and goes on sending.
        case .sendingBody, .switched, .mustClose, .closed, .failed, .modifying: break
        }
    }

    mutating func close() { (request, response) = (.closed, .closed) }

    /// The peer is at fault: nothing more is decoded. A server may answer, unless its response has
    /// begun.
    mutating func fail() {
        switch (role, response) {
        case (.client, _): response = .failed
        case (.server, .idle):
            var method = HTTP1Exchange.Method.other
            if case .receivingHead(let decoder, _) = request, decoder.isHeadMethod { method = .head }
            response = .awaited(HTTP1Exchange(refusing: method))
        case (.server, _): response.stopKeepingAlive()
        }
        request = .failed
    }

    /// No more requests come.
    mutating func endOfRequests() -> HTTP1EndOfInput {
        switch request {
        case .idle, .receivingHead:
            if isIdle {
                close()
                return .clean
            }
            fail()
            return .truncated
        case .receivingBody:
            fail()
            return .truncated
        case .received, .mightSwitch:
            response.stopKeepingAlive()
            return .responseOwed
        case .done:
            request = .closed
            response.stopKeepingAlive()
            return .responseOwed
        case .closed, .failed: return response.exchange == nil ? .clean : .responseOwed
        case .switched, .mustClose: return .clean
        case .sendingBody, .modifying: preconditionFailure("a server receives requests")
        }
    }

    /// No more responses come.
    mutating func endOfResponses(_ end: HTTP1InputEnd) -> HTTP1EndOfInput {
        switch response {
        case .idle, .mustClose:
            close()
            return .clean
        case .awaited, .receivingHead:
            fail()
            return .truncated
        case .receivingBody:
            // A body that is framed by the end of the connection is whole only if that was no cut.
            guard end == .complete, response.withBody({ (try? $0.finish()) != nil }) == true else {
                fail()
                return .truncated
            }
            close()
            return .endOfBody
        case .received:
            response.stopKeepingAlive()
            return .clean
        case .done:
            response = .closed
            return .clean
        case .switched, .closed, .failed: return .clean
        case .sendingBody, .modifying: preconditionFailure("a client receives responses")
        }
    }
}
