import ApusCodec
import ApusPlatform

/// Why a client's attempt did not become what was asked for: the stage that failed, and how.
public enum ConnectError: Error, Sendable, CustomStringConvertible {
    /// What was done when it failed, in the order in which it is done.
    public enum Stage: String, Sendable, Hashable {
        /// The address, the fields and the rest of what was asked for are looked at.
        case request
        /// The host's name is resolved.
        case name
        /// A connection is made, to the server or to the proxy.
        case connect
        /// The proxy is asked for a tunnel.
        case proxy
        /// TLS shakes hands.
        case tls = "TLS"
        /// The request was sent, the head of the answer is awaited.
        case answer
        /// The body of an answer comes in.
        case body
    }

    /// This address cannot be connected to, and why.
    case address(String, String)
    /// Something that was asked for cannot stand in a request.
    case request(String)
    /// The name has no address, and why.
    case name(String, String)
    /// No address could be connected to: each that was tried, and why it failed.
    case connect([(address: SocketAddress, reason: String)])
    /// The proxy gives no tunnel, and why; its answer, if it speaks HTTP.
    case proxy(String, HTTPResponseHead?)
    /// TLS could not be set up, or its handshake failed: a file's name or OpenSSL's words.
    case tls(String)
    /// The server's certificate is not acceptable, and why.
    case certificate(String)
    /// The peer closed the connection, or the network broke it.
    case closed(Stage)
    /// The stage took too long.
    case timeout(Stage)
    /// The answer is not HTTP.
    case malformedAnswer(String)
    /// The answer does not open a WebSocket; the head says what the server answered.
    case handshake(ClientHandshakeError, HTTPResponseHead)
    /// The server's answer to the offered extensions is not acceptable; or what was offered cannot be, without an answer.
    case extensions(String, HTTPResponseHead?)
    /// The answer leads elsewhere, where it is not followed, and why.
    case redirect(String, HTTPResponseHead)
    /// The application refused the answer.
    case refused(any Error, HTTPResponseHead)
    /// The answer's body could not be read to its end.
    case body(String)
    /// The application has cancelled it.
    case cancelled
    /// The context stops or drains.
    case contextEnding

    /// The stage that failed; nil when it was ended from this side.
    public var stage: Stage? {
        switch self {
        case .address, .request: .request
        case .name: .name
        case .connect: .connect
        case .proxy: .proxy
        case .tls, .certificate: .tls
        case .closed(let stage), .timeout(let stage): stage
        case .malformedAnswer, .handshake, .redirect, .refused: .answer
        case .extensions(_, let head): head == nil ? .request : .answer
        case .body: .body
        case .cancelled, .contextEnding: nil
        }
    }

    /// The head of the answer that failed it, the server's or the proxy's, if there was one.
    public var response: HTTPResponseHead? {
        switch self {
        case .handshake(_, let head), .redirect(_, let head), .refused(_, let head): head
        case .proxy(_, let head), .extensions(_, let head): head
        case .address, .request, .name, .connect, .tls, .certificate, .closed, .timeout, .malformedAnswer, .body, .cancelled,
            .contextEnding:
            nil
        }
    }

    public var description: String {
        switch self {
        case .address(let text, let reason): "invalid address \(Self.quoted(text)): \(reason)"
        case .request(let reason): reason
        case .name(let host, let reason): "cannot resolve \(host): \(reason)"
        case .connect(let failures):
            failures.isEmpty ? "there is no address to connect to" : failures.map { "\($0.address): \($0.reason)" }.joined(separator: "; ")
        case .proxy(let reason, _): "the proxy gives no tunnel: \(reason)"
        case .tls(let reason): "TLS: \(reason)"
        case .certificate(let reason): "the server's certificate is not acceptable: \(reason)"
        case .closed(.body): "the connection ended inside the answer's body"
        case .closed(.proxy): "the proxy closed the connection before it answered"
        case .closed(.tls): "the peer closed the connection during the TLS handshake"
        case .closed: "the peer closed the connection before it answered"
        case .timeout(let stage): "timed out: \(Self.words(stage))"
        case .malformedAnswer(let reason): "the answer is not HTTP: \(reason)"
        case .handshake(let error, _): "\(error)"
        case .extensions(let reason, _): reason
        case .redirect(let reason, let head): "\(head.status): \(reason)"
        case .refused(let error, _): "the answer was refused: \(error)"
        case .body(let reason): "the answer's body: \(reason)"
        case .cancelled: "it was cancelled"
        case .contextEnding: "this worker is about to end"
        }
    }

    /// A URL in quotes, with what stands before its last `@` left out: it may be a password.
    private static func quoted(_ text: String) -> String {
        guard let at = text.lastIndex(of: "@") else { return text.debugDescription }
        let start = text.firstRange(of: "://").map { $0.upperBound < at ? text[..<$0.upperBound] : "" } ?? ""
        return (start + "…" + text[at...]).debugDescription
    }

    private static func words(_ stage: Stage) -> String {
        switch stage {
        case .request: "nothing was sent"
        case .name: "the name was not resolved"
        case .connect: "nobody took the connection"
        case .proxy: "the proxy did not open a tunnel"
        case .tls: "the TLS handshake was not done"
        case .answer: "the server did not answer"
        case .body: "the answer's body made no progress"
        }
    }
}
