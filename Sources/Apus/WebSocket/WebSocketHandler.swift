/// What an application does with one WebSocket: one object per connection, called on its worker's thread.
///
/// Order: `opened`, then any of the middle ones, then `closed` exactly once. Sending, closing and terminating are safe in each.
public protocol WebSocketHandler: AnyObject {
    /// Whether messages come whole (the default) or as they arrive. Asked once, before `opened`.
    var delivery: Delivery { get }

    /// The opening handshake is done. `socket.request` is there for the last time.
    func opened(_ socket: WebSocket)

    /// A message came.
    func received(_ message: Message, on socket: WebSocket)

    /// A part of a message came; only with `delivery` `.fragments`.
    func received(_ fragment: Fragment, on socket: WebSocket)

    /// Asked for by `requestWritable`: nothing is buffered, the socket takes more. Once for any number of requests before it.
    func writable(_ socket: WebSocket)

    /// The peer sent a pong, asked for or not. The library answers pings itself.
    func pong(_ payload: RawSpan, on socket: WebSocket)

    /// The application signalled all connections of the protocol (`Context.signal(all:)`).
    func signaled(_ signal: UInt32, payload: [UInt8], on socket: WebSocket)

    /// So many publications, or signals, were dropped before the next one: this worker did not read in time, or this peer did not. In the first
    /// case nobody knows for whom they were: every connection of the worker that is not a client's is told of all.
    func missed(_ count: Int, on socket: WebSocket)

    /// It is over. `code` is the peer's; 1005 if its close frame had none; 1006 if it left without a close frame; or, if the peer broke
    /// the protocol, the code that we closed with. `reason` goes with the code; with 1006 it says so if the peer was silent for too long.
    func closed(_ socket: WebSocket, code: CloseCode, reason: String)
}

/// How a handler gets messages.
public enum Delivery: Sendable {
    /// Whole, up to `Limits.maxMessageBytes`.
    case messages
    /// As they arrive, without assembling.
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
    /// The status the client gets, such as 401 or 403.
    public let status: HTTPStatus
    /// A line of text for the client.
    public let reason: String
    /// Fields of the answer, such as `WWW-Authenticate`.
    public let fields: HTTPFields

    public init(_ status: HTTPStatus, _ reason: String = "", fields: HTTPFields = HTTPFields()) {
        self.status = status
        self.reason = reason
        self.fields = fields
    }
}

/// A kind of conversation that a server offers (libwebsockets' `lws_protocols` entry). Compared by identity.
public final class WebSocketProtocol: @unchecked Sendable {
    /// The subprotocol's name, as in `Sec-WebSocket-Protocol`.
    public let name: String
    /// The path it is offered at.
    public let path: String
    /// Which one it is among the server's, the same in every worker; or, of a client's connection, which subprotocol was agreed on.
    public let id: ID
    /// The number and one, for the flight recorder; 0 for a client's.
    let number: UInt16
    /// Called by the thread of a worker, which has its own copy of this.
    let makeHandler: (HTTPRequest) throws -> any WebSocketHandler

    /// A protocol's identity, to be handed to other threads.
    public struct ID: Hashable, Sendable {
        /// Its number among the server's protocols; below zero for a client's.
        let index: Int
        /// The subprotocol of a client's connections, empty for none: they are the server's of none, and their worker's alone.
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
