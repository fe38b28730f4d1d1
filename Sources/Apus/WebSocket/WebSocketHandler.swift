/// An application's handler of one WebSocket: one object per connection, called on its worker's
/// thread.
///
/// Order: `opened`, then any of the others, then `closed` exactly once. Each may send, close and
/// terminate.
///
/// Every method has a default that does nothing. So a method whose signature differs (`async`,
/// other types, another label) compiles and is never called: let the editor complete the names, or
/// write the handler against a test that expects a reply.
public protocol WebSocketHandler: AnyObject {
    /// Whether messages are delivered complete (the default) or as they arrive. Read once, before
    /// `opened`.
    var delivery: Delivery { get }

    /// The opening handshake is done. `socket.request` is available for the last time.
    func opened(_ socket: WebSocket)

    /// A message was received.
    func received(_ message: Message, on socket: WebSocket)

    /// A part of a message was received; only with `delivery` `.fragments`.
    func received(_ fragment: Fragment, on socket: WebSocket)

    /// Nothing is buffered any more. Called once after any number of `requestWritable` calls.
    func writable(_ socket: WebSocket)

    /// A pong was received, solicited or not. The library answers pings itself.
    func pong(_ payload: RawSpan, on socket: WebSocket)

    /// The application sent a signal to all connections of the protocol (`Worker.signal(all:)`).
    func signaled(_ signal: UInt32, payload: [UInt8], on socket: WebSocket)

    /// `count` publications or signals were dropped before the next one, because this worker or
    /// this peer read too slowly. If the worker did, their receivers are unknown, and every server
    /// connection of the worker gets the full count.
    func missed(_ count: Int, on socket: WebSocket)

    /// The connection has ended. `code` is the peer's: 1005 if its close frame had none, 1006 if no
    /// close frame was received; after a protocol violation it is the code that was sent. `reason`
    /// belongs to the code; with 1006 it describes a silence timeout, if that was the cause.
    func closed(_ socket: WebSocket, code: CloseCode, reason: String)
}

/// How a handler receives messages.
public enum Delivery: Sendable {
    /// Complete, up to `Limits.maxMessageBytes`.
    case messages
    /// As they arrive, without assembly.
    case fragments
}

extension WebSocketHandler {
    public var delivery: Delivery { .messages }
    public func opened(_ socket: WebSocket) {}
    public func received(_ message: Message, on socket: WebSocket) {}
    public func received(_ fragment: Fragment, on socket: WebSocket) {}
    public func writable(_ socket: WebSocket) {}
    public func pong(_ payload: RawSpan, on socket: WebSocket) {}
    public func signaled(_ signal: UInt32, payload: [UInt8], on socket: WebSocket) {}
    public func missed(_ count: Int, on socket: WebSocket) {}
    public func closed(_ socket: WebSocket, code: CloseCode, reason: String) {}
}

/// Thrown by a handler factory to refuse a WebSocket before it opens.
public struct Rejection: Error, Sendable {
    /// The response's status, such as 401 or 403.
    public let status: HTTPStatus
    /// A line of text for the response.
    public let reason: String
    /// Additional response fields, such as `WWW-Authenticate`.
    public let fields: HTTPFields

    public init(_ status: HTTPStatus, _ reason: String = "", fields: HTTPFields = HTTPFields()) {
        self.status = status
        self.reason = reason
        self.fields = fields
    }
}

/// A WebSocket protocol that a server offers (an entry of libwebsockets' `lws_protocols`). Compared
/// by identity.
public final class WebSocketProtocol: @unchecked Sendable {
    /// The subprotocol's name, as in `Sec-WebSocket-Protocol`.
    public let name: String
    /// The path at which it is offered.
    public let path: String
    /// Identifies the protocol among the server's, equal in every worker; for a client connection,
    /// the negotiated subprotocol.
    public let id: ID
    /// `id.index` + 1, for the flight recorder; 0 for a client's.
    let number: UInt16
    /// Called on a worker's thread; each worker has its own copy.
    let makeHandler: (HTTPRequest) throws -> any WebSocketHandler

    /// A protocol's identity, which may be passed to other threads.
    public struct ID: Hashable, Sendable {
        /// The index among the server's protocols; negative for a client's.
        let index: Int
        /// The subprotocol of client connections, empty for none. Client protocols are separate
        /// from the server's, and local to their worker.
        let client: String?

        init(index: Int) {
            self.index = index
            client = nil
        }

        init(client name: String) {
            index = -1
            client = name
        }
    }

    init(name: String, path: String, id: ID, makeHandler: @escaping (HTTPRequest) throws -> any WebSocketHandler) {
        self.name = name
        self.path = path
        self.id = id
        number = UInt16(truncatingIfNeeded: id.index + 1)
        self.makeHandler = makeHandler
    }
}
