/// What the peer's bytes are; see `HTTP1Cycle.event`.
package enum HTTP1Event: Sendable {
    /// The head of a request, at a server. Its body or `end` follows.
    case request(HTTPRequestHead)
    /// An interim response (1xx) other than 101, at a client. The final one follows.
    case informational(HTTPResponseHead)
    /// The head of the final response, at a client. Its body or `end` follows, unless it has
    /// switched the protocol.
    case response(HTTPResponseHead)
    /// Content, as a non-empty range of the input.
    case data(Range<Int>)
    /// The message is complete.
    case end
    /// No further message is decoded before the present exchange is complete.
    case paused
    /// No further message comes: what is left of the input belongs to the protocol that was
    /// switched to, or to nobody.
    case over
}

/// What follows a message that this side has sent.
package enum HTTP1Next: Hashable, Sendable {
    /// The next exchange: a server calls `event`, a client may start a request.
    case nextMessage
    /// The peer has not completed its message: call `event` for it. A server is given no more
    /// content of a request that it has answered.
    case awaitPeer
    /// The connection ends when the output has left.
    case closeAfterOutput
    /// The bytes that follow, in both directions, belong to another protocol.
    case switchProtocol
}

/// How a server begins a response; see `HTTP1Cycle.startResponse`.
package struct HTTP1ResponseStart: Hashable, Sendable {
    /// What the head announces about the connection (RFC 9112 §9.3).
    package let persistence: HTTPEncoder.Persistence
    /// What the head announces about the body: the framing that was passed in, except that a client
    /// of HTTP/1.0 understands no chunks.
    package let framing: HTTPBodyFraming
    /// Whether content follows the head: not after HEAD, nor with status 204 or 304.
    package let hasContent: Bool
}

/// What a client does with the connection in a request; see `HTTP1Cycle.startRequest`.
package enum HTTP1RequestWish: Hashable, Sendable {
    /// To use it for one exchange.
    case close
    /// To keep it for others.
    case keepAlive
    /// To switch to the protocol that the field `Upgrade` names.
    case upgrade
}

/// How the input of a stream has ended.
package enum HTTP1InputEnd: Hashable, Sendable {
    /// The peer has ended it: FIN, and in TLS a close_notify before it.
    case complete
    /// It was cut off: FIN in the middle of TLS.
    case cut
}

/// What the end of the input means; see `HTTP1Cycle.endOfInput`.
package enum HTTP1EndOfInput: Hashable, Sendable {
    /// Between messages: close.
    case clean
    /// Behind a complete request whose response is owed still: the connection ends behind that.
    case responseOwed
    /// Inside a message: it will never be complete.
    case truncated
    /// The body ends here, being framed by the end of the connection, and with it the message.
    case endOfBody
}

/// What to do when a deadline has passed; see `HTTP1Cycle.deadlineReached`.
package enum HTTP1TimeoutAction: Hashable, Sendable {
    case none
    /// A server sends a response of this status now.
    case answer(HTTPStatus)
    /// Close the connection; there is nothing to answer.
    case close
    /// A client gives the exchange up and closes the connection.
    case giveUp
}

/// What this side sends.
package enum HTTP1Call: CaseIterable, Sendable {
    /// A client's.
    case startRequest, endRequest
    /// A server's.
    case sendInformational, startResponse, endResponse, acceptSwitch
    /// Either's, behind a head.
    case sendContent
}
