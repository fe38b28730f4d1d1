import ApusCodec
import ApusPlatform

/// An opening handshake that a server has accepted.
struct WebSocketUpgrade {
    /// The 101 response.
    let response: [UInt8]
    private let request: HTTPRequest
    private let chosen: WebSocketProtocol
    private let handler: any WebSocketHandler
    private let extensions: ExtensionChain?
    private let hasSubprotocol: Bool

    /// Checks the request and makes the handler.
    ///
    /// - Throws: `HandshakeViolation`, `Rejection`, or what the handler factory throws.
    init(_ request: HTTPRequest, _ offered: [WebSocketProtocol], _ worker: Worker) throws {
        let head = request.head
        let server = worker.application.server
        let asked = try Handshake.validate(head)
        guard Handshake.originIsAllowed(origin: asked.origin, host: head.host ?? "", allowed: server.origins) else {
            throw HandshakeViolation.originNotAllowed(asked.origin ?? "")
        }
        guard let chosen = Self.choose(asked.subprotocols, offered) else {
            throw Rejection(
                .badRequest, "none of these subprotocols is offered here; offered: \(offered.map(\.name).joined(separator: ", "))")
        }
        if worker.isStopping { throw Rejection(.serviceUnavailable, "this server is about to restart") }
        let agreement = try ExtensionNegotiation.answer(asked.extensions ?? "", with: server.extensions) { offered in
            server.allowsExtension?(offered, request) ?? true
        }
        worker.serving(.upgrade, route: chosen.number)
        handler = try chosen.makeHandler(request)
        self.request = request
        self.chosen = chosen
        extensions = agreement?.chain
        hasSubprotocol = !asked.subprotocols.isEmpty
        let subprotocol =
            asked.subprotocols.isEmpty ? nil : server.echoesSubprotocolList ? request.fields["sec-websocket-protocol"] : chosen.name
        var response: [UInt8] = []
        response.reserveCapacity(192)
        Handshake.appendResponse(
            key: asked.key.span, subprotocol: subprotocol, extensions: agreement?.answer, fields: request.upgradeFields, to: &response)
        self.response = response
    }

    /// The first subprotocol in the client's list that the path offers; without a list, the path's
    /// first.
    private static func choose(_ asked: [String], _ offered: [WebSocketProtocol]) -> WebSocketProtocol? {
        guard !asked.isEmpty else { return offered.first }
        return Handshake.chooseSubprotocol(client: asked, server: offered.map(\.name)).flatMap { name in
            offered.first { $0.name == name }
        }
    }

    /// Replaces the stream's session by a WebSocket.
    func open(on stream: ByteStream) {
        let socket = WebSocket(
            chosen, role: .server, hasSubprotocol: hasSubprotocol, extensions: extensions, handler: handler, request: request,
            stream: stream)
        stream.become(socket)
        socket.begin()
        stream.worker.serving(.opened, route: chosen.number)
        handler.opened(socket)
        socket.request = nil
    }
}
