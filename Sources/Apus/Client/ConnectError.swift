import ApusCodec
package import ApusTransport

/// Why a connection attempt did not become a WebSocket: the stage that failed, and how.
package enum ConnectError: Error, CustomStringConvertible {
    /// The transport could not be connected, or broke before the handshake was done.
    case connect(String)
    /// The TLS handshake failed.
    case tls(TLSError)
    /// The peer closed the connection before the handshake was done.
    case closed
    /// The handshake was not done in time.
    case timeout
    /// The answer is not HTTP.
    case malformedAnswer(String)
    /// The answer does not open a WebSocket; the head says what the server answered.
    case handshake(ClientHandshakeError, HTTPResponseHead)

    /// The server's answer to the offered extensions is not acceptable.
    case extensions(String)

    package var description: String {
        switch self {
        case .connect(let reason), .extensions(let reason): reason
        case .tls(let error): error.description
        case .closed: "the peer closed the connection before it answered the handshake"
        case .timeout: "the handshake was not done in time"
        case .malformedAnswer(let reason): "the answer to the handshake is not HTTP: \(reason)"
        case .handshake(let error, _): "\(error)"
        }
    }
}
