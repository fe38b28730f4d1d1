import ApusCodec
import ApusPlatform

/// Why a connect or a request failed: the stage and the reason.
public enum ConnectError: Error, Sendable, CustomStringConvertible {
    /// The stages of an attempt, in order.
    public enum Stage: String, Sendable, Hashable {
        /// Checking the address, the fields and the options.
        case request
        /// Resolving the host's name.
        case name
        /// Connecting to the server or the proxy.
        case connect
        /// Opening the proxy's tunnel.
        case proxy
        /// The TLS handshake.
        case tls = "TLS"
        /// From the request to the end of the response's head.
        case answer
        /// Receiving the response's body.
        case body
    }

    /// An invalid address: its text and the reason.
    case address(String, String)
    /// Invalid parameters: the reason.
    case request(String)
    /// A name that cannot be resolved: the name and the reason.
    case name(String, String)
    /// No address accepted a connection: each address with its reason.
    case connect([(address: SocketAddress, reason: String)])
    /// The proxy did not open a tunnel: the reason, and an HTTP proxy's response.
    case proxy(String, HTTPResponseHead?)
    /// TLS could not be set up, or its handshake failed: names the file or has OpenSSL's reason.
    case tls(String)
    /// The server's certificate was not accepted: the reason.
    case certificate(String)
    /// The peer or the network closed the connection during the stage.
    case closed(Stage)
    /// The stage timed out.
    case timeout(Stage)
    /// The response is not HTTP: the reason.
    case malformedAnswer(String)
    /// The response does not open a WebSocket: the reason and its head.
    case handshake(ClientHandshakeError, HTTPResponseHead)
    /// Invalid extensions: the reason, and the response's head; nil if the offer itself is invalid.
    case extensions(String, HTTPResponseHead?)
    /// A redirect that was not followed: the reason and its head.
    case redirect(String, HTTPResponseHead)
    /// The application refused the response: its error and the head.
    case refused(any Error, HTTPResponseHead)
    /// The response's body is invalid or too large: the reason.
    case body(String)
    /// Cancelled by the application.
    case cancelled
    /// The worker stops or drains.
    case workerEnding

    /// The stage that failed; nil if this side ended it.
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
        case .cancelled, .workerEnding: nil
        }
    }

    /// The head of the server's or the proxy's response that caused the failure.
    public var response: HTTPResponseHead? {
        switch self {
        case .handshake(_, let head), .redirect(_, let head), .refused(_, let head): head
        case .proxy(_, let head), .extensions(_, let head): head
        case .address, .request, .name, .connect, .tls, .certificate, .closed, .timeout, .malformedAnswer, .body, .cancelled,
            .workerEnding:
            nil
        }
    }

    public var description: String {
        switch self {
        case .address(let text, let reason): "invalid address \(Self.quoted(text)): \(reason)"
        case .request(let reason): reason
        case .name(let host, let reason): "cannot resolve \(host): \(reason)\(Self.missingPermission)"
        case .connect(let failures):
            failures.isEmpty
                ? "there is no address to connect to"
                : failures.map { "\($0.address): \($0.reason)" }.joined(separator: "; ") + Self.missingPermission
        case .proxy(let reason, _): "the proxy did not open a tunnel: \(reason)"
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
        case .workerEnding: "this worker is about to end"
        }
    }

    /// Why nothing can be resolved or connected in a sandboxed worker without the permission; else
    /// empty.
    private static var missingPermission: String {
        guard case .confined(mayConnect: false) = Confinement.extent else { return "" }
        return " (the worker lacks the permission .connecting: server.sandbox.allows, or `allow: [connecting]` in the file)"
    }

    /// Why the files of TLS options cannot be read in a sandboxed worker; else empty.
    static var unreadableFiles: String {
        guard case .confined = Confinement.extent else { return "" }
        return " (a sandboxed worker reads no files: add the same options to server.clientTLS, whose files are read before)"
    }

    /// A URL in quotes. Everything before its last `@` is left out: it may contain a password.
    private static func quoted(_ text: String) -> String {
        guard let at = text.lastIndex(of: "@") else { return text.debugDescription }
        let start = text.firstRange(of: "://").map { $0.upperBound < at ? text[..<$0.upperBound] : "" } ?? ""
        return (start + "…" + text[at...]).debugDescription
    }

    private static func words(_ stage: Stage) -> String {
        switch stage {
        case .request: "nothing was sent"
        case .name: "the name was not resolved"
        case .connect: "no address accepted the connection"
        case .proxy: "the proxy did not open a tunnel"
        case .tls: "the TLS handshake was not done"
        case .answer: "the server did not answer"
        case .body: "the answer's body made no progress"
        }
    }
}
