import ApusCodec
import ApusPlatform
import ApusTransport

/// The phase of a client's connection before it is a WebSocket: connect, ask, read the answer.
final class OpeningSession {
    private enum State {
        /// The kernel has not reported the outcome of connect.
        case connecting
        /// The request is on its way.
        case asking(HTTPResponseDecoder)
        case over
    }

    private unowned let connection: Connection
    private let request: OpeningRequest
    private let key: [UInt8]
    private var state = State.connecting

    init(connection: Connection, request: OpeningRequest) {
        self.connection = connection
        self.request = request
        key = Handshake.makeKey(nonce: SystemRandom.bytes(16).span)
    }

    /// The socket is writable: connected, or failed.
    func connected() {
        guard case .connecting = state else { return }
        do {
            if let error = try Socket.pendingError(of: connection.transport.descriptor) { return fail(.connect(error.description)) }
            let key = key
            var bytes: [UInt8] = []
            try Handshake.appendRequest(
                host: request.host, target: request.target, key: key.span, subprotocols: request.subprotocols,
                extensions: ExtensionNegotiation.offers(of: request.extensions),
                origin: request.origin, fields: request.fields, to: &bytes)
            state = .asking(HTTPResponseDecoder(limits: connection.context.limits.head))
            connection.write(bytes)
        } catch {
            fail(.connect("\(error)"))
        }
    }

    /// The TLS handshake is done.
    func secured(_ security: Security) { connected() }

    /// Reads the answer from the context's receive buffer.
    func process(_ position: inout Int, until end: Int) {
        guard case .asking(var decoder) = state else { return }
        let buffer = connection.context.receiveBuffer
        var consumed = 0
        do throws(HTTPViolation) {
            let head = try decoder.decode(buffer.bytes.extracting(position..<end).octets, consumed: &consumed)
            position += consumed
            state = .asking(decoder)
            if let head { answered(head) }
        } catch {
            position = end
            fail(.malformedAnswer(error.description))
        }
    }

    private func answered(_ head: HTTPResponseHead) {
        do {
            let key = key
            let agreed = try Handshake.validateResponse(head, key: key.span, offeredSubprotocols: request.subprotocols)
            let chain = try agreed.extensions.flatMap { try ExtensionNegotiation.agree(to: $0, with: request.extensions) }
            let offered = WebSocketProtocol(name: agreed.subprotocol ?? "", path: request.target, id: .init(index: 0)) { _ in
                throw Rejection(.notImplemented)
            }
            let socket = WebSocket(
                offered, role: .client, hasSubprotocol: agreed.subprotocol != nil, extensions: chain, handler: request.handler,
                request: nil,
                connection: connection)
            state = .over
            connection.becomeWebSocket(socket)
            socket.begin()
            request.handler.opened(socket)
        } catch let error as ClientHandshakeError {
            fail(.handshake(error, head))
        } catch {
            fail(.extensions("\(error)"))
        }
    }

    /// Tells the one terminal event of an attempt that failed.
    func fail(_ error: ConnectError) {
        if case .over = state { return }
        state = .over
        connection.close()
        request.failed(error)
    }
}

/// What a client asks for.
struct OpeningRequest {
    let host: String
    let target: String
    let subprotocols: [String]
    let origin: String?
    let fields: HTTPFields
    let extensions: [any WebSocketExtension]
    let handler: any WebSocketHandler
    let failed: (ConnectError) -> Void
}

extension Context {
    /// Connects to a WebSocket server. Either the handler's `opened` is called, or `failed`, never both.
    ///
    /// - Parameters:
    ///   - host: the value of `Host`.
    ///   - target: path and query.
    package func connect(
        to address: SocketAddress, host: String, target: String, subprotocols: [String] = [], origin: String? = nil,
        fields: HTTPFields = HTTPFields(), extensions: [any WebSocketExtension] = [], handler: any WebSocketHandler,
        failed: @escaping (ConnectError) -> Void
    ) {
        if let conflict = ExtensionNegotiation.conflict(in: extensions) { return failed(.extensions(conflict)) }
        let request = OpeningRequest(
            host: host, target: target, subprotocols: subprotocols, origin: origin, fields: fields,
            extensions: extensions, handler: handler, failed: failed)
        do {
            let socket = try Socket.stream(for: address)
            if address.port != nil { try Socket.set(.noDelay, on: socket.rawValue) }
            _ = try Socket.connect(socket.rawValue, to: address)
            let connection = Connection(socket, context: self)
            adopt(connection)
            try connection.open(OpeningSession(connection: connection, request: request))
        } catch {
            failed(.connect("\(address): \(error)"))
        }
    }
}
