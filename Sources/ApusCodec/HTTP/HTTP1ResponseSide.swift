/// The response's side of an HTTP/1.1 connection (h11's table of servers). A server sends here, a
/// client receives.
package enum HTTP1ResponseSide: Equatable, Sendable {
    /// No request has been received.
    case idle
    /// The response has not begun, but for interim ones.
    case awaited(HTTP1Exchange)
    /// A client is inside a head.
    case receivingHead(HTTPResponseDecoder, HTTP1Exchange)
    /// A client receives the body.
    case receivingBody(Boxed<HTTP1Body>, HTTP1Exchange)
    /// A client has received all of a response without a body; its end has not been given out.
    case received(HTTP1Exchange)
    /// A server sends the body, possibly an empty one.
    case sendingBody(HTTP1Exchange)
    /// The response is complete and the connection persists, but the request is not complete.
    case done
    /// The connection speaks another protocol now.
    case switched
    /// The response is complete, and the connection ends with it.
    case mustClose
    /// The peer, or this side, has ended the connection.
    case closed
    /// A client's server has broken the protocol or let a deadline pass.
    case failed
    /// The payload of another case is being changed.
    case modifying

    /// The exchange, while its response is not complete.
    var exchange: HTTP1Exchange? {
        switch self {
        case .awaited(let exchange), .receivingHead(_, let exchange), .receivingBody(_, let exchange), .received(let exchange),
            .sendingBody(let exchange):
            exchange
        case .idle, .done, .switched, .mustClose, .closed, .failed, .modifying: nil
        }
    }

    /// Changes what is known of the exchange; no effect when there is none.
    mutating func withExchange(_ change: (inout HTTP1Exchange) -> Void) {
        guard var exchange else { return }
        change(&exchange)
        switch self {
        case .awaited: self = .awaited(exchange)
        case .receivingHead(let decoder, _): self = .receivingHead(decoder, exchange)
        case .receivingBody(let body, _): self = .receivingBody(body, exchange)
        case .received: self = .received(exchange)
        case .sendingBody: self = .sendingBody(exchange)
        case .idle, .done, .switched, .mustClose, .closed, .failed, .modifying: break
        }
    }

    /// The connection will not persist behind this response.
    mutating func stopKeepingAlive() {
        if case .done = self { self = .mustClose } else { withExchange { $0.keepsAlive = false } }
    }

    /// Reads a response's head. When it is complete, or refused, the caller sets the next state.
    mutating func readHead(
        _ bytes: Span<UInt8>, from position: inout Int, limits: HTTPHeadLimits
    ) throws(HTTPViolation) -> HTTPResponseHead? {
        guard position < bytes.count else { return nil }
        var decoder: HTTPResponseDecoder
        let exchange: HTTP1Exchange
        switch self {
        case .awaited(let awaited): (decoder, exchange) = (HTTPResponseDecoder(limits: limits), awaited)
        case .receivingHead(let begun, let begunExchange): (decoder, exchange) = (begun, begunExchange)
        case .idle, .receivingBody, .received, .sendingBody, .done, .switched, .mustClose, .closed, .failed, .modifying:
            preconditionFailure("expected to be in or before a head")
        }
        // Let go of here, so that the head in the making is changed in place.
        self = .modifying
        defer { self = .receivingHead(decoder, exchange) }
        var consumed = 0
        let head = try decoder.decode(bytes.extracting(position...), consumed: &consumed)
        position += consumed
        return head
    }

    /// Reads the body.
    mutating func readBody(_ bytes: Span<UInt8>, from position: inout Int) throws(HTTPViolation) -> HTTPBodyDecoder.BodyEvent? {
        guard case .receivingBody(var body, let exchange) = self else { preconditionFailure("expected to be in a body") }
        self = .modifying
        defer { self = .receivingBody(body, exchange) }
        return try body.value.next(bytes, from: &position)
    }

    /// Changes what is known of the body; no effect outside a body.
    mutating func withBody<Result>(_ change: (inout HTTP1Body) -> Result) -> Result? {
        guard case .receivingBody(var body, let exchange) = self else { return nil }
        self = .modifying
        defer { self = .receivingBody(body, exchange) }
        return change(&body.value)
    }
}
