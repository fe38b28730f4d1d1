import Apus
import ApusPlatform
import Glibc
import Testing
import TestSupport

/// An engine and its raw peers on the test's own thread, all of which write into one trace.
///
/// Connections are Unix sockets unless the script needs TCP: what one side has sent, the other side
/// can read at once, so that the trace does not depend on when the kernel delivers packets.
final class TracedServer {
    enum Transport {
        case unix, tcp
        /// Only clients: nothing listens.
        case none
    }

    let stage: TestServer
    let trace: Trace
    private let directory: TemporaryDirectory
    private let path: String
    private let transport: Transport
    private var peers: [TracedPeer] = []
    private var listeners: [TracedListener] = []

    /// Turns without an event after which nothing more is expected.
    private static let quietTurns = 12

    init(
        _ trace: Trace, on transport: Transport = .unix, tls: ServerTLS? = nil, limits: (inout Limits) -> Void = { _ in },
        _ configure: (inout Server) throws -> Void
    ) throws {
        self.trace = trace
        self.transport = transport
        directory = try TemporaryDirectory()
        let path = directory.path + "/socket"
        self.path = path
        stage = try TestServer(limits: limits, listen: false) { server in
            switch transport {
            case .unix: server.listen(on: .unix(path: path), tls: tls)
            case .tcp: server.listen(on: .tcp("127.0.0.1", port: 0), tls: tls)
            case .none: break
            }
            try configure(&server)
        }
    }

    /// A server with the WebSocket protocol `chat` at `/`. The query of the request becomes the
    /// label of its handler.
    static func chat(
        _ trace: Trace, on transport: Transport = .unix, delivery: Delivery = .messages, limits: (inout Limits) -> Void = { _ in },
        prepare: @escaping (TracedHandler) -> Void
    ) throws -> TracedServer {
        try TracedServer(trace, on: transport, limits: limits) { server in
            server.webSocket("chat", at: "/") { request in
                let handler = TracedHandler(trace, label: request.head.queryString ?? "", delivery: delivery)
                prepare(handler)
                return handler
            }
        }
    }

    deinit {
        unlink(path)
        for listener in listeners { unlink(listener.path) }
    }

    var worker: Worker { stage.worker }

    // MARK: Peers

    /// A connected peer.
    func peer(_ label: String = "", tls: TLSLayer? = nil) throws -> TracedPeer {
        let client = try stage.client()
        let peer = TracedPeer(client, label: label, trace: trace, server: self, tls: tls)
        peers.append(peer)
        return peer
    }

    /// A peer whose WebSocket is open.
    func webSocket(_ label: String = "", fields: String = "") throws -> TracedPeer {
        let peer = try peer(label)
        let path = label.isEmpty ? "/" : "/?\(label)"
        if fields.isEmpty {
            try peer.open(path)
        } else {
            peer.sendHandshake(path, fields: fields)
            try settle()
        }
        return peer
    }

    /// A listener to which the engine's clients connect.
    func listener() throws -> TracedListener {
        let listener = try TracedListener("\(directory.path)/listener\(listeners.count)", stage: stage)
        listeners.append(listener)
        return listener
    }

    /// Waits for a connection of the engine's.
    func accept(_ listener: TracedListener, _ label: String = "") throws -> TracedPeer {
        peer(accepted: try listener.accept(), label)
    }

    /// The raw side of a connection that the engine has opened.
    func peer(accepted client: Client, _ label: String) -> TracedPeer {
        let peer = TracedPeer(client, label: label, trace: trace, server: self)
        peers.append(peer)
        return peer
    }

    // MARK: Time

    /// Serves until nothing more happens, then traces what the peers have received.
    func settle() throws {
        var quiet = 0
        while quiet < Self.quietTurns {
            let lines = trace.lines.count
            try stage.worker.service(timeout: .zero)
            // Every peer reads, without a short circuit.
            let received = peers.map { $0.collect() }
            quiet = received.contains(true) || trace.lines.count != lines ? 0 : quiet + 1
        }
        for peer in peers { peer.flush() }
    }

    /// Serves until `condition` holds, with a deadline, and then until nothing more happens.
    func wait(_ what: String, _ condition: () -> Bool) throws {
        try stage.until(what) {
            for peer in peers { _ = peer.collect() }
            return condition()
        }
        try settle()
    }

    /// Waits for a line in the trace that contains `text`.
    func wait(for text: String) throws { try wait(text) { trace.lines.contains { $0.contains(text) } } }

    // MARK: Calls

    /// Traces a call and makes it.
    func call(_ text: String, _ label: String = "", _ body: () throws -> Void) rethrows {
        trace.add(.call, label, text)
        try body()
    }

    /// Traces a call, makes it and traces its outcome.
    func send(_ text: String, _ label: String = "", _ body: () -> WebSocket.SendOutcome) {
        trace.add(.call, label, text)
        trace.add(.call, label, "  \(body().traceText)")
    }

    /// Closes all peers and waits for the end of all connections. How many there were before shows
    /// whether the engine has closed a connection or lingers until its peer closes.
    func finish() throws {
        trace.add(.call, "connections: \(stage.worker.connectionCount)")
        for peer in peers {
            peer.close()
            try settle()
        }
        try wait("the end of all connections") { stage.worker.connectionCount == 0 }
        trace.add(.call, "connections: 0")
    }
}

/// A Unix socket to which the engine's clients connect.
final class TracedListener {
    let path: String
    private let socket: OwnedDescriptor
    private unowned let stage: TestServer

    init(_ path: String, stage: TestServer) throws {
        self.path = path
        self.stage = stage
        let address = SocketAddress.unix(path: path)
        socket = try Socket.stream(for: address)
        try Socket.bind(socket.rawValue, to: address)
        try Socket.listen(socket.rawValue, backlog: 16)
    }

    /// For a WebSocket.
    func url(_ target: String = "/") -> String { "ws+unix://\(path):\(target)" }
    /// For a request.
    func httpURL(_ target: String = "/") -> String { "http+unix://\(path):\(target)" }

    func accept() throws -> Client { try stage.accept(from: socket.rawValue) }
}
