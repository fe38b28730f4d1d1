import ApusCodec
import ApusPlatform
import ApusTransport

/// A client's WebSocket over all its connections: opening, open, or waiting to reconnect. Keep it
/// to cancel it.
public final class ClientConnection {
    fileprivate var task: ClientTask?
    /// The WebSocket while it is open.
    public fileprivate(set) var socket: WebSocket?
    fileprivate var opened = MonotonicTime.distantPast

    fileprivate init() {}

    /// The WebSocket has ended.
    ///
    /// - Parameter code: if the peer ended an open connection; nil if this side closed it.
    func didEnd(_ code: CloseCode?, at now: MonotonicTime) {
        socket = nil
        task?.ended(code, wasOpenFor: .milliseconds(now.millisecondsSince(opened)))
    }

    /// Whether no event will follow.
    public var isOver: Bool { socket == nil && (task?.isOver ?? true) }

    /// Stops it. A pending attempt fails with `ConnectError.cancelled`, an open WebSocket is closed
    /// with 1000 and not opened again.
    public func cancel() {
        task?.cancel()
        socket?.close()
    }

    /// Starts the first attempt; see `Worker.connect`.
    static func start(
        _ request: WebSocketRequest, to address: String, on worker: Worker, failed: @escaping (ConnectError) -> Void
    ) -> ClientConnection {
        let connection = ClientConnection()
        let task = ClientTask(
            worker, to: ClientAddress.forWebSocket(address), options: request.options,
            makeDialogue: { (address, isCrossOrigin) throws(ConnectError) in
                try WebSocketDialogue(request, to: address, isCrossOrigin: isCrossOrigin, for: connection)
            }, failed: failed)
        connection.task = task
        task.start()
        return connection
    }
}

extension ClientAddress {
    fileprivate static func forWebSocket(_ text: String) -> Result<ClientAddress, ConnectError> {
        do {
            let address = try ClientAddress(parsing: text)
            guard address.scheme.isWebSocket else {
                return .failure(.address(text, "scheme \(address.scheme.rawValue): expected ws, wss or ws+unix"))
            }
            return .success(address)
        } catch {
            return .failure(error)
        }
    }
}

/// The application's parameters for the opening handshake.
struct WebSocketRequest {
    let subprotocols: [String]
    let headers: HTTPFields
    let origin: String?
    let options: ClientOptions
    let makeHandler: (HTTPResponseHead) throws -> any WebSocketHandler
}

extension HTTPFields {
    /// The request's own fields, those of `additionalFields`, and the address's credentials.
    static func ofClient(
        _ headers: HTTPFields, _ options: ClientOptions, to address: ClientAddress, isCrossOrigin: Bool
    ) throws(ConnectError) -> HTTPFields {
        var fields = headers
        // These fields were set for another origin.
        if isCrossOrigin { for name in ["authorization", "proxy-authorization", "cookie"] { fields.remove(name) } }
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

    init(_ request: WebSocketRequest, to address: ClientAddress, isCrossOrigin: Bool, for connection: ClientConnection) throws(ConnectError)
    {
        self.request = request
        self.address = address
        self.connection = connection
        let key = Handshake.makeKey(nonce: SystemRandom.bytes(16).span)
        self.key = key
        let extensions = request.options.extensions
        if let conflict = ExtensionNegotiation.conflict(in: extensions) { throw .extensions(conflict, nil) }
        let fields = try HTTPFields.ofClient(request.headers, request.options, to: address, isCrossOrigin: isCrossOrigin)
        var bytes: [UInt8] = []
        do {
            try Handshake.appendRequest(
                host: request.options.host(for: address, isCrossOrigin: isCrossOrigin), target: address.target, key: key.span,
                subprotocols: request.subprotocols,
                extensions: ExtensionNegotiation.offers(of: extensions), origin: isCrossOrigin ? nil : request.origin, fields: fields,
                to: &bytes)
        } catch {
            throw .request("\(error)")
        }
        requestBytes = bytes
    }

    func take(_ head: HTTPResponseHead, _ opening: OpeningSession, on stream: ByteStream) throws(ConnectError) {
        let (subprotocol, chain) = try agree(head)
        let handler: any WebSocketHandler
        do {
            handler = try request.makeHandler(head)
        } catch {
            throw .refused(error, head)
        }
        // The application may have cancelled the attempt in `makeHandler`.
        guard stream.session === opening else { return }
        opening.succeeded()
        let spoken = WebSocketProtocol(name: subprotocol ?? "", path: address.target, id: .init(client: subprotocol ?? "")) { _ in
            throw Rejection(.notImplemented)
        }
        let socket = WebSocket(
            spoken, role: .client, hasSubprotocol: subprotocol != nil, extensions: chain, handler: handler, request: nil,
            stream: stream)
        socket.client = connection
        connection.socket = socket
        connection.opened = stream.worker.loop.now
        stream.become(socket)
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
