import ApusPlatform
import ApusTransport

/// A request, complete with its body. Keep it as long as you like.
public final class HTTPRequest: Sendable {
    /// Method, target, version and fields.
    public let head: HTTPRequestHead
    /// Where it came from.
    public let peer: SocketAddress
    /// What protected it on its way.
    public let security: Security
    /// The content, at most `Limits.maxRequestBodyBytes`.
    public let body: [UInt8]

    init(head: HTTPRequestHead, peer: SocketAddress, security: Security, body: [UInt8] = []) {
        self.head = head
        self.peer = peer
        self.security = security
        self.body = body
    }

    public var method: HTTPMethod { head.method }
    /// The path, decoded and without dot segments; never leaves `/`.
    public var path: String { head.path }
    /// The query's parameters, decoded, in order.
    public var query: [(name: String, value: String)] { head.query }
    public var fields: HTTPFields { head.fields }

    /// The method and the path for a log line, the path quoted and escaped.
    var logName: String { "\(method) \(path.debugDescription)" }
}
