import Apus
import ApusCodec
import ApusPlatform
import Glibc

/// Whole connections: a real worker of one loop and its peers in the same thread, over Unix sockets. The input is a script that says what
/// the peers do, when the loop turns, and what handlers do when they are called.
enum ConnectionTarget {
    static func run(_ bytes: [UInt8]) {
        do {
            let stage = try Stage(bytes)
            try stage.play()
            try stage.end()
            let handlers = stage.handlers.map { WeakHandler(handler: $0) }
            weak let worker = stage.worker
            stage.strike()
            require(worker == nil, "a worker without connections is released")
            require(handlers.allSatisfy { $0.handler == nil }, "a connection that has ended is released with its handler")
        } catch {
            fatalError("the machine refuses: \(error)")
        }
    }

    private struct WeakHandler { weak var handler: ScriptedHandler? }
}

/// The input as it is used up, by peers and handlers in the order in which they are asked.
final class Script {
    private var input: FuzzInput
    /// Bytes that may still be sent with generous sizes: no script moves gigabytes.
    private var budget = 2 << 20

    init(_ bytes: [UInt8]) { input = FuzzInput(bytes) }

    var isOver: Bool { input.isEmpty }
    func byte() -> UInt8 { input.byte() }
    func bytes(_ count: Int) -> [UInt8] { input.bytes(count) }

    private static let sizes = [0, 1, 5, 10, 64, 125, 126, 127, 1000, 4096, 20_000, 65_535, 65_536, 70_000, 130_000, 300_000]

    /// A size from the edges, by four bits.
    func size(_ choice: UInt8) -> Int {
        let size = Self.sizes[Int(choice & 15)]
        guard size <= budget else { return min(size, 7) }
        budget -= size
        return size
    }
}

final class Stage {
    let script: Script
    private(set) var handlers: [ScriptedHandler] = []
    private(set) var worker: Worker?
    private var exchanges: [HTTPExchange] = []
    private var peers: [OwnedPeer] = []
    private var current = 0
    /// A server of our own for the worker's clients, which says what the script says.
    private let rawServer: OwnedPeer
    /// Whether a client of the worker's own would be accepted: else it waits in the listener's queue until its time is over.
    private var acceptsOwnClients = true
    private var options = ClientOptions()
    private static let maxPeers = 6

    private static let directory = "/tmp/apus-fuzz-\(getpid())"
    private static let ownAddress = SocketAddress.unix(path: directory + "/own")
    private static let rawAddress = SocketAddress.unix(path: directory + "/raw")
    private static let prepared: Void = {
        mkdir(directory, 0o700)
        mkdir(directory + "/files", 0o700)
        for (name, count) in [("small", 100), ("large", 200_000)] {
            guard let file = fopen("\(directory)/files/\(name)", "w") else { fatalError("cannot write below \(directory)") }
            fputs(String(repeating: "x", count: count), file)
            fclose(file)
        }
        atexit {
            for name in ["own", "raw", "files/small", "files/large"] { unlink(Stage.directory + "/" + name) }
            rmdir(Stage.directory + "/files")
            rmdir(Stage.directory)
        }
    }()

    init(_ bytes: [UInt8]) throws {
        _ = Self.prepared
        script = Script(bytes)
        unlink(Self.directory + "/raw")
        let listener = try Socket.stream(for: Self.rawAddress)
        try Socket.bind(listener.rawValue, to: Self.rawAddress)
        try Socket.listen(listener.rawValue, backlog: 16)
        rawServer = OwnedPeer(listener.release())
        let option = script.byte()
        var server = Server()
        server.logger = .silent
        server.limits.maxMessageBytes = 100_000
        server.limits.maxBufferedBytes = option & 1 == 0 ? 1 << 20 : 8192
        server.limits.maxRequestBodyBytes = 1000
        server.echoesSubprotocolList = option & 4 != 0
        if option & 8 != 0 {
            server.limits.maxConnections = 2
            acceptsOwnClients = false
        }
        if option & 2 != 0 {
            Self.hasten(&server.limits)
            options.timeouts.connect = .milliseconds(1)
            options.timeouts.answer = .milliseconds(1)
        }
        server.listen(on: .unix(path: Self.directory + "/own"))
        server.webSocket("chat", at: "/") { [unowned self] _ in try makeHandler() }
        server.webSocket("other", at: "/") { [unowned self] _ in try makeHandler() }
        server.http(.get, at: "/x") { [unowned self] exchange in answer(exchange) }
        server.http(.post, at: "/x") { [unowned self] exchange in answer(exchange) }
        server.files(at: "/files", in: Self.directory + "/files")
        worker = try Worker(server)
    }

    /// Every deadline is about to pass.
    private static func hasten(_ limits: inout Limits) {
        limits.requestHeadTimeout = .milliseconds(1)
        limits.bodyTimeout = .milliseconds(1)
        limits.keepAliveTimeout = .milliseconds(1)
        limits.pingInterval = .milliseconds(1)
        limits.silenceTimeout = .milliseconds(3)
        limits.closingTimeout = .milliseconds(1)
        limits.drainTimeout = .milliseconds(3)
        limits.drainWindow = .milliseconds(1)
    }

    // MARK: The worker's side

    private func makeHandler() throws -> ScriptedHandler {
        let choice = script.byte()
        if choice == 0xFF { throw Rejection(.forbidden, "not today") }
        return addHandler(choice, isClient: false)
    }

    private func addHandler(_ choice: UInt8, isClient: Bool) -> ScriptedHandler {
        let handler = ScriptedHandler(self, delivery: choice & 1 == 0 ? .messages : .fragments, isClient: isClient)
        handlers.append(handler)
        return handler
    }

    private func answer(_ exchange: HTTPExchange) {
        let choice = script.byte()
        switch choice & 7 {
        case 0...3: exchange.respond(text: String(repeating: "y", count: script.size(choice >> 4)))
        case 4: exchange.respond(page: .notFound, "<&>")
        default: exchanges.append(exchange)
        }
    }

    private func turn(_ timeout: Duration = .zero) throws { try worker?.service(timeout: timeout) }

    /// Connects a client of the worker's, to the worker itself or to the raw server.
    private func connectClient(_ choice: UInt8) {
        guard let worker, handlers.count < 64 else { return }
        let handler = addHandler(choice >> 1, isClient: true)
        let address = choice & 1 == 0 && acceptsOwnClients ? Self.ownAddress : Self.rawAddress
        worker.connect(to: "ws+unix://\(address.host):/", subprotocols: choice & 4 == 0 ? [] : ["chat"], options: options) { _ in
            handler
        } failed: { [unowned self] error in
            require(!error.description.isEmpty)
            handler.failed()
            handler.perform(script.byte())
        }
    }

    // MARK: Playing

    func play() throws {
        try addPeer()
        while !script.isOver { try step(script.byte()) }
    }

    private func addPeer() throws {
        guard peers.count < Self.maxPeers else { return }
        let socket = try Socket.stream(for: Self.ownAddress)
        do {
            _ = try Socket.connect(socket.rawValue, to: Self.ownAddress)
        } catch {
            // A worker that drains does not listen.
            return
        }
        peers.append(OwnedPeer(socket.release()))
        current = peers.count - 1
    }

    private static let handshake = Array(
        """
        GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: other, chat\r\n\r\n
        """.utf8)

    private static let requests = [
        "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /files/small HTTP/1.1\r\nHost: a\r\n\r\n", "GET /files/large HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /files HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /files/none HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n", "GET /",
    ].map { Array($0.utf8) }

    private func step(_ byte: UInt8) throws {
        let choice = byte >> 4
        switch byte & 15 {
        case 0: try turn()
        case 1: peer?.send(script.bytes(Int(choice) * 4 + 1))
        case 2: peer?.send(choice == 0 ? Self.handshake : Array(Self.handshake.prefix(Int(choice) * 13)))
        case 3: sendFrame(choice)
        case 4: peer?.send(Self.requests[Int(choice)])
        case 5: peer?.receive(choice == 0 ? 1 : Int(choice) * 20_000)
        case 6: if choice & 1 == 0 { peer?.shutdownWrite() } else { peer?.close() }
        case 7: try addPeer()
        case 8: if !peers.isEmpty { current = Int(choice) % peers.count }
        case 9: pick(choice)?.perform(script.byte())
        case 10: respondLater(choice)
        case 11: connectClient(choice)
        case 12: try acceptRaw(choice)
        case 13: try turn(.milliseconds(choice == 0 ? 2 : 0))
        case 14: try turn()
        default: if choice == 15 { endContext() } else { peer?.receive(1 << 20) }
        }
    }

    private func endContext() {
        acceptsOwnClients = false
        if script.byte() & 1 == 0 { worker?.drain() } else { worker?.stop() }
    }

    private var peer: OwnedPeer? { current < peers.count ? peers[current] : nil }

    /// A handler whose socket has been opened, for calls from outside a callback.
    func pick(_ choice: UInt8) -> ScriptedHandler? { handlers.isEmpty ? nil : handlers[Int(choice) % handlers.count] }

    /// A frame as it should be, masked unless the peer is a server.
    private func sendFrame(_ choice: UInt8) {
        guard let peer else { return }
        let first = script.byte()
        let opcodes: [Opcode] = [.text, .binary, .continuation, .ping, .pong, .close, .text, .binary]
        let opcode = opcodes[Int(first & 7)]
        var payload = [UInt8](repeating: UInt8(ascii: "m"), count: script.size(choice))
        if opcode.isControl { payload = Array(payload.prefix(125)) }
        if opcode == .close { payload = [[], [0x03, 0xE8], [0x03, 0xE9, 0x6F], [0x0B, 0xB8]][Int(first >> 5 & 3)] }
        var frame: [UInt8] = []
        FrameEncoder.append(
            opcode, payload.rawSpan, isFinal: opcode.isControl || first & 8 == 0, maskingKey: peer.isServer ? nil : 0x3D21_FA37,
            to: &frame)
        peer.send(frame)
    }

    private func respondLater(_ choice: UInt8) {
        guard let exchange = exchanges.popLast() else { return }
        require(!exchange.request.path.isEmpty)
        exchange.respond(text: String(repeating: "z", count: script.size(choice)))
        require(!exchange.isOpen, "one answer")
        // A second answer goes nowhere.
        exchange.respond(.ok)
    }

    /// Takes a connection of the worker's client; answers it rightly unless told not to.
    private func acceptRaw(_ choice: UInt8) throws {
        guard peers.count < Self.maxPeers, case .done(let (descriptor, _)) = try Socket.accept(rawServer.descriptor) else {
            return
        }
        let accepted = OwnedPeer(descriptor, isServer: true)
        peers.append(accepted)
        current = peers.count - 1
        try turn()
        let request = String(decoding: accepted.receive(4096), as: UTF8.self)
        guard choice & 1 == 0, let line = request.split(separator: "\r\n").first(where: { $0.hasPrefix("Sec-WebSocket-Key: ") })
        else { return }
        var answer: [UInt8] = []
        Handshake.appendResponse(
            key: Array(line.dropFirst(19).utf8).span, subprotocol: choice & 2 == 0 ? nil : "chat", extensions: nil,
            fields: HTTPFields(),
            to: &answer)
        accepted.send(answer)
    }

    // MARK: The end

    /// All peers go: then no connection may be left, and every handler has heard of it once.
    func end() throws {
        for peer in peers { peer.close() }
        while case .done(let (descriptor, _)) = try Socket.accept(rawServer.descriptor) { close(descriptor) }
        let hasClients = handlers.contains { $0.isClient }
        // Quiet for some turns: what one turn puts off, or leaves in the listener's queue, is the next one's.
        // A deadline, not a count: a process that is being started elsewhere holds a copy of a peer's socket for a moment.
        let deadline = ContinuousClock.now + .seconds(5)
        var quietTurns = 0
        while quietTurns < 4, ContinuousClock.now < deadline {
            try turn()
            while case .done(let (descriptor, _)) = try Socket.accept(rawServer.descriptor) { close(descriptor) }
            // The worker's own clients have no peer that would go, and may be connected to the worker itself.
            for handler in handlers where hasClients { handler.socket?.terminate() }
            quietTurns = worker?.connectionCount == 0 && handlers.allSatisfy(\.hasOutcome) ? quietTurns + 1 : 0
        }
        require(worker?.connectionCount == 0, "no connection is left when its peer is gone: \(worker?.connectionCount ?? 0)")
        for handler in handlers { handler.checkEnd() }
    }

    /// Lets go of everything, so that what is still alive leaks.
    func strike() {
        exchanges = []
        handlers = []
        worker = nil
    }
}

/// A socket of the peers'.
final class OwnedPeer {
    private(set) var descriptor: Int32
    let isServer: Bool

    init(_ descriptor: Int32, isServer: Bool = false) {
        self.descriptor = descriptor
        self.isServer = isServer
    }

    deinit { close() }

    func close() {
        guard descriptor >= 0 else { return }
        Glibc.close(descriptor)
        descriptor = -1
    }

    func send(_ bytes: [UInt8]) {
        guard descriptor >= 0 else { return }
        _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
    }

    @discardableResult
    func receive(_ count: Int) -> [UInt8] {
        guard descriptor >= 0 else { return [] }
        var buffer = [UInt8](repeating: 0, count: count)
        let received = recv(descriptor, &buffer, count, Int32(MSG_DONTWAIT))
        return Array(buffer.prefix(max(0, received)))
    }

    func shutdownWrite() {
        if descriptor >= 0 { _ = shutdown(descriptor, Int32(SHUT_WR)) }
    }
}
