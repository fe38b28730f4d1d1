/// How a WebSocket connection has ended, as its handler's `closed` reports it.
package struct WebSocketEnding: Hashable, Sendable {
    package let code: CloseCode
    package let reason: String

    package init(_ code: CloseCode, _ reason: String = "") {
        self.code = code
        self.reason = reason
    }

    /// Without a close frame.
    package static let abnormal = WebSocketEnding(.abnormal)
}

/// What to do with a ping; see `WebSocketState.receivedPing`.
package enum PingAnswer: Hashable, Sendable {
    /// Send a pong: no output is queued.
    case send
    /// Send a pong behind the queued output, then call `pongQueued`.
    case queue
    /// Send nothing now: another pong is queued, and `outputSent` or `outputDrained` will return
    /// this one's payload.
    case wait
}

/// What to do when a deadline has passed; see `WebSocketState.deadlineReached`.
package enum WebSocketTimeoutAction: Hashable, Sendable {
    case none
    case sendPing
    /// Close the connection at once; `closed` reports 1006 and this reason.
    case giveUp(reason: String)
    /// Begin the closing handshake.
    case close(CloseCode, reason: String)
}
