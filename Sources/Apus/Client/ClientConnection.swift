import ApusCodec
import ApusPlatform
import ApusTransport

/// A WebSocket that a client asked for: it is being opened, is open, or waits to be opened again. Keep it to cancel it.
public final class ClientConnection {
    fileprivate var task: ClientTask?
    /// The WebSocket while it is open.
    public fileprivate(set) var socket: WebSocket?

    fileprivate init() {}

    /// Whether nothing more will come of it.
    public var isOver: Bool { socket == nil && (task?.isOver ?? true) }

    /// Gives up: what is being opened fails with `ConnectError.cancelled`; what is open is closed with 1000; nothing is opened again.
    public func cancel() {
        task?.cancel()
        socket?.close()
    }
}

extension Context {
    /// Opens a WebSocket to a server (libwebsockets' `lws_client_connect_extended`).
    ///
    /// Either the handler that `makeHandler` gives is told `opened`, or `failed` is called, once and never from inside this call. With
    /// `ClientOptions.reconnect` that is so for each time it is opened, and `failed` ends it.
    ///
    /// - Parameters:
    ///   - address: `ws://host[:port]/path?query`, `wss://…`, or `ws+unix:///path/of/socket:/path?query`.
    ///   - subprotocols: in order of preference.
    ///   - headers: further fields of the request. `Authorization` overrides what the address says of user and password.
    ///   - origin: the value of `Origin`, for servers that want one.
    ///   - makeHandler: called with the server's answer when that opens a WebSocket; throws to refuse it (libwebsockets'
    ///     `LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH`).
    ///   - failed: what went wrong.
    @discardableResult
    public func connect(
        to address: String, subprotocols: [String] = [], headers: HTTPFields = HTTPFields(), origin: String? = nil,
        options: ClientOptions = ClientOptions(), makeHandler: @escaping (HTTPResponseHead) throws -> any WebSocketHandler,
        failed: @escaping (ConnectError) -> Void
    ) -> ClientConnection {
        let connection = ClientConnection()
        let request = WebSocketRequest(
            subprotocols: subprotocols, headers: headers, origin: origin, options: options, makeHandler: makeHandler)
        let task = ClientTask(
            self, to: ClientAddress.forWebSocket(address), options: options,
            makeDialogue: { (address, isElsewhere) throws(ConnectError) in
                try WebSocketDialogue(request, to: address, isElsewhere: isElsewhere, for: connection)
            }, failed: failed)
        connection.task = task
        task.start()
        return connection
    }
}

extension ClientAddress {
    /// The address of a WebSocket.
    fileprivate static func forWebSocket(_ text: String) -> Result<ClientAddress, ConnectError> {
        do {
            let address = try ClientAddress(parsing: text)
            guard address.scheme.isWebSocket else {
                return .failure(.address(text, "scheme \(address.scheme.rawValue): a WebSocket wants ws, wss or ws+unix"))
            }
            return .success(address)
        } catch {
            return .failure(error)
        }
    }
}

/// What a client asks for.
struct WebSocketRequest {
    let subprotocols: [String]
    let headers: HTTPFields
    let origin: String?
    let options: ClientOptions
    let makeHandler: (HTTPResponseHead) throws -> any WebSocketHandler
}

extension HTTPFields {
    /// The request's own fields, those of the application's closure, and the address's credentials.
    static func ofClient(
        _ headers: HTTPFields, _ options: ClientOptions, to address: ClientAddress, isElsewhere: Bool
    ) throws(ConnectError) -> HTTPFields {
        var fields = headers
        // They were meant for another server.
        if isElsewhere { for name in ["authorization", "proxy-authorization", "cookie"] { fields.remove(name) } }
        do {
            if let additional = try options.additionalFields?(address) {
                for (name, value) in additional { try fields.append(name, value) }
            }
            if let credentials = address.credentials, !fields.contains("authorization") {
                try fields.append("Authorization", credentials.fieldValue)
            }
        } catch {
            throw .request("\(error)")
        }
        return fields
    }
}

/// The opening handshake of one attempt.
private final class WebSocketDialogue: ClientDialogue {
    private let request: WebSocketRequest
    private let address: ClientAddress
    private let key: [UInt8]
    let requestBytes: [UInt8]
    private let connection: ClientConnection

    init(_ request: WebSocketRequest, to address: ClientAddress, isElsewhere: Bool, for connection: ClientConnection) throws(ConnectError) {
        self.request = request
        self.address = address
        self.connection = connection
        let key = Handshake.makeKey(nonce: SystemRandom.bytes(16).span)
        self.key = key
        let extensions = request.options.extensions
        if let conflict = ExtensionNegotiation.conflict(in: extensions) { throw .extensions(conflict, nil) }
        let fields = try HTTPFields.ofClient(request.headers, request.options, to: address, isElsewhere: isElsewhere)
        var bytes: [UInt8] = []
        do {
            try Handshake.appendRequest(
                host: request.options.host(for: address, isElsewhere: isElsewhere), target: address.target, key: key.span,
                subprotocols: request.subprotocols,
                extensions: ExtensionNegotiation.offers(of: extensions), origin: isElsewhere ? nil : request.origin, fields: fields,
                to: &bytes)
        } catch {
            throw .request("\(error)")
        }
        requestBytes = bytes
    }

    func take(_ head: HTTPResponseHead, on transport: Connection) throws(ConnectError) {
        let (subprotocol, chain) = try agree(head)
        let handler: any WebSocketHandler
        do {
            handler = try request.makeHandler(head)
        } catch {
            throw .refused(error, head)
        }
        // The application may have cancelled it meanwhile.
        guard case .opening(let session) = transport.phase else { return }
        session.succeeded()
        let spoken = WebSocketProtocol(name: subprotocol ?? "", path: address.target, id: .init(client: subprotocol ?? "")) { _ in
            throw Rejection(.notImplemented)
        }
        let socket = WebSocket(
            spoken, role: .client, hasSubprotocol: subprotocol != nil, extensions: chain, handler: handler, request: nil,
            connection: transport)
        let opened = transport.context.loop.now
        socket.rareState.whenEnded = { [connection, loop = transport.context.loop] code in
            connection.socket = nil
            connection.task?.ended(code, wasOpenFor: .milliseconds(loop.now.millisecondsSince(opened)))
        }
        connection.socket = socket
        transport.becomeWebSocket(socket)
        socket.begin()
        connection.task?.succeeded()
        handler.opened(socket)
    }

    private func agree(_ head: HTTPResponseHead) throws(ConnectError) -> (subprotocol: String?, chain: ExtensionChain?) {
        let agreed: (subprotocol: String?, extensions: String?)
        do {
            let key = key
            agreed = try Handshake.validateResponse(head, key: key.span, offeredSubprotocols: request.subprotocols)
        } catch {
            throw .handshake(error, head)
        }
        do {
            return (
                agreed.subprotocol,
                try agreed.extensions.flatMap { try ExtensionNegotiation.agree(to: $0, with: request.options.extensions) }
            )
        } catch {
            throw .extensions("\(error)", head)
        }
    }
}
