/// The state of a WebSocket connection in its closing handshake (RFC 6455 §7.1).
package enum SessionState: Equatable, Sendable {
    /// Both sides may send.
    case open
    /// A close frame was sent; data before the peer's close frame are discarded.
    case closeSent
    /// The handler's connection has ended.
    case closed

    /// What to do next.
    package enum Action: Equatable, Sendable {
        case none
        /// Send a close frame with this code, then wait for the peer's.
        case sendClose(CloseCode?, reason: String)
        /// Respond to the peer's close frame with the same code, then end: neither side sends any
        /// more.
        case answerCloseAndEnd(CloseCode?)
        /// Send a close frame, then end, although the peer may still send.
        case failAndEnd(CloseCode, reason: String)
        /// End: both close frames were exchanged.
        case end
    }

    /// The application or a draining worker closes the connection.
    package mutating func close(_ code: CloseCode?, reason: String) -> Action {
        switch self {
        case .open:
            self = .closeSent
            return .sendClose(code, reason: reason)
        case .closeSent, .closed: return .none
        }
    }

    /// The peer's close frame arrived. "If an endpoint receives a Close frame and did not
    /// previously send a Close frame, the endpoint MUST send a Close frame in response" (§5.5.1).
    /// The response has the same code and no reason.
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

    /// The peer violated the protocol: "_Fail the WebSocket Connection_" (§7.1.7).
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
