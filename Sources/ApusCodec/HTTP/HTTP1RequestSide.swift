/// The request's side of an HTTP/1.1 connection (h11's table of clients). A server receives here, a
/// client sends.
package enum HTTP1RequestSide: Equatable, Sendable {
    /// Between requests: no byte of a next head has come, or been sent.
    case idle(Wait)
    /// A server is inside a head, or behind the empty line that may precede one.
    case receivingHead(HTTPRequestDecoder, Wait)
    /// A server receives the body.
    case receivingBody(Boxed<HTTP1Body>)
    /// A server has received all of a request without a body; its end has not been given out.
    case received
    /// A client sends the body.
    case sendingBody
    /// The request is complete.
    case done
    /// The request is complete, and the response decides whether another protocol begins.
    case mightSwitch
    /// The connection speaks another protocol now.
    case switched
    /// No further request is accepted; the connection ends with the current response.
    case mustClose
    /// The peer, or this side, has ended the connection.
    case closed
    /// The peer has broken the protocol or let a deadline pass: nothing more is decoded.
    case failed
    /// The payload of another case is being changed.
    case modifying

    /// Which period runs until a head is complete.
    package enum Wait: Equatable, Sendable {
        /// The first request of a connection.
        case first
        /// A further request, of which nothing has come.
        case next
        /// A further request, whose first byte has come.
        case begun
        /// Prolonged because the peer still took output.
        case prolonged
    }

    /// What came of reading a head.
    enum HeadProgress {
        case complete(HTTPRequestHead)
        /// The first byte of a further request has come.
        case begun
        case incomplete
    }

    /// Reads a request's head. When it is complete, or refused, the caller sets the next state.
    mutating func readHead(
        _ bytes: Span<UInt8>, from position: inout Int, limits: HTTPHeadLimits
    ) throws(HTTPViolation) -> HeadProgress {
        var decoder: HTTPRequestDecoder
        var wait: Wait
        switch self {
        case .idle(let idle): (decoder, wait) = (HTTPRequestDecoder(limits: limits), idle)
        case .receivingHead(let begun, let begunWait): (decoder, wait) = (begun, begunWait)
        case .receivingBody, .received, .sendingBody, .done, .mightSwitch, .switched, .mustClose, .closed, .failed, .modifying:
            preconditionFailure("expected to be in or before a head")
        }
        guard position < bytes.count else { return .incomplete }
        // Let go of here, so that the head in the making is changed in place.
        self = .modifying
        defer { self = .receivingHead(decoder, wait) }
        let wasIdle = decoder.isIdle
        var consumed = 0
        let head = try decoder.decode(bytes.extracting(position...), consumed: &consumed)
        position += consumed
        if let head { return .complete(head) }
        guard wasIdle, !decoder.isIdle, wait == .next else { return .incomplete }
        wait = .begun
        return .begun
    }

    /// Reads the body.
    mutating func readBody(_ bytes: Span<UInt8>, from position: inout Int) throws(HTTPViolation) -> HTTPBodyDecoder.BodyEvent? {
        guard case .receivingBody(var body) = self else { preconditionFailure("expected to be in a body") }
        self = .modifying
        defer { self = .receivingBody(body) }
        return try body.value.next(bytes, from: &position)
    }

    /// Changes what is known of the body; no effect outside a body.
    mutating func withBody<Result>(_ change: (inout HTTP1Body) -> Result) -> Result? {
        guard case .receivingBody(var body) = self else { return nil }
        self = .modifying
        defer { self = .receivingBody(body) }
        return change(&body.value)
    }
}
