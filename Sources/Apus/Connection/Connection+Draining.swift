// What a draining context asks for.
extension Connection {
    var openWebSocket: WebSocket? {
        if case .webSocket(let socket) = phase, socket.isOpen { socket } else { nil }
    }

    /// Ends an HTTP connection that waits for a request.
    func endIfIdle() {
        if case .http(let session) = phase, session.isIdle { finish(.linger) }
    }
}
