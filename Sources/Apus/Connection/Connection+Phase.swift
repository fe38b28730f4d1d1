extension Connection {
    enum Phase {
        /// The TLS handshake, and what comes after it.
        case securing(Secured)
        /// A client's connection that is not a WebSocket yet.
        case opening(OpeningSession)
        case http(HTTPSession)
        /// A client's connection on which an answer's body comes in.
        case exchange(ClientExchange)
        case webSocket(WebSocket)
        /// All that will be sent is written or queued; what comes in is discarded. Then it lingers or closes.
        case finishing(Ending)
        /// Our side is shut; the peer has a moment to read what we sent and to close. Closing with bytes unread would reset it instead.
        case lingering
        case closed
    }

    enum Ending { case linger, close }

    enum Secured {
        case http(HTTPSession)
        case opening(OpeningSession)
    }
}
