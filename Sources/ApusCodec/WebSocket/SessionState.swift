/// Where a WebSocket connection stands in its closing handshake (RFC 6455 §7.1). One enum, so that "closing, but still open"
/// cannot be written down.
package enum SessionState: Equatable, Sendable {
    /// Both may send.
    case open
    /// We sent a close frame and wait for the peer's; what comes before it is discarded.
    case closeSent
    /// The connection is over for the handler.
    case closed

    /// What to do next.
    package enum Action: Equatable, Sendable {
        case none
        /// Send a close frame with this code, then wait for the peer's.
        case sendClose(CloseCode?, reason: String)
        /// Answer the peer's close frame with the same code, then end: both have said that they send no more.
        case answerCloseAndEnd(CloseCode?)
        /// Send a close frame, then end, although the peer may still be sending.
        case failAndEnd(CloseCode, reason: String)
        /// Both close frames have passed: end.
        case end
    }

    /// The application, or a draining worker, wants to close.
    package mutating func close(_ code: CloseCode?, reason: String) -> Action {
        switch self {
        case .open:
            self = .closeSent
            return .sendClose(code, reason: reason)
        case .closeSent, .closed: return .none
        }
    }

    /// The peer's close frame came. "If an endpoint receives a Close frame and did not previously send a Close frame, the
    /// endpoint MUST send a Close frame in response" (§5.5.1): the code is echoed, the reason is not.
    package mutating func receivedClose(_ code: CloseCode?) -> Action {
        switch self {
        case .open:
            self = .closed
            return .answerCloseAndEnd(code)
        case .closeSent:
            self = .closed
            return .end
        case .closed: return .none
        }
    }

    /// The peer broke the protocol: "_Fail the WebSocket Connection_" (§7.1.7).
    package mutating func fail(_ violation: FrameViolation) -> Action {
        switch self {
        case .open:
            self = .closed
            return .failAndEnd(violation.closeCode, reason: violation.reason)
        case .closeSent:
            self = .closed
            return .end
        case .closed: return .none
        }
    }
}
