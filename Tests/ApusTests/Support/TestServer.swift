import Apus
import ApusPlatform
import Glibc
import Logging
import Testing

/// What a test waited for did not come in time.
struct TimedOut: Error, CustomStringConvertible {
    let description: String
}

/// A server in a worker on the test's own thread, and the clients that talk to it.
///
/// Server and clients take turns on one thread: a client looks at its socket, then the worker serves for a moment, until what the
/// test waits for has come or a deadline has passed. So nothing sleeps, and nothing depends on how threads are scheduled.
final class TestServer {
    let worker: Worker
    private var clients: [Client] = []

    /// Far more than anything takes on a busy machine.
    static let patience = Duration.seconds(10)

    init(limits: (inout Limits) -> Void = { _ in }, listen: Bool = true, _ configure: (inout Server) throws -> Void) throws {
        var server = Server()
        server.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        limits(&server.limits)
        if listen { server.listen(on: .tcp("127.0.0.1", port: 0)) }
        try configure(&server)
        worker = try Worker(server)
    }

    /// A server of one WebSocket protocol, `chat` at `/`, whose connections all have the same handler.
    convenience init(_ script: RecordingHandler, limits: (inout Limits) -> Void = { _ in }) throws {
        try self.init(limits: limits) { $0.webSocket("chat", at: "/") { _ in script } }
    }

    deinit {
        for client in clients { client.close() }
        worker.stop()
        for _ in 0..<500 where worker.connectionCount > 0 { try? worker.service(timeout: .milliseconds(2)) }
    }

    /// Serves what is ready, or waits two milliseconds for it.
    func turn() throws { try worker.service(timeout: .milliseconds(2)) }

    /// Serves until the condition holds.
    func until(_ what: String, within limit: Duration = patience, _ condition: () throws -> Bool) throws {
        let deadline = ContinuousClock.now + limit
        while try !condition() {
            guard ContinuousClock.now < deadline else { throw TimedOut(description: what) }
            try turn()
        }
    }

    /// Serves for so long, for what must not happen meanwhile.
    func serve(for duration: Duration) throws {
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end { try turn() }
    }

    /// Serves until nothing is left to do: several turns without waiting.
    func settle() throws { for _ in 0..<5 { try turn() } }

    /// A connected client.
    ///
    /// - Parameter receiveBufferBytes: what the kernel takes for it while it does not read.
    func client(receiveBufferBytes: Int32? = nil, to address: SocketAddress? = nil) throws -> Client {
        let client = try Client(to: address ?? worker.addresses[0], receiveBufferBytes: receiveBufferBytes, stage: self)
        clients.append(client)
        return client
    }

    /// Waits for a connection to a listener of the test's own.
    func accept(from listener: Int32) throws -> Client {
        var accepted: Int32?
        try until("a connection") {
            if case .done(let (descriptor, _)) = try Socket.accept(listener) { accepted = descriptor }
            return accepted != nil
        }
        return Client(accepted: try #require(accepted), stage: self)
    }

    /// A client whose WebSocket is open.
    func webSocket(_ path: String = "/", fields: String = "", receiveBufferBytes: Int32? = nil) throws -> Client {
        let client = try client(receiveBufferBytes: receiveBufferBytes)
        client.send(Client.handshake(path, fields: fields))
        let response = try client.response()
        try #require(response.status == 101)
        #expect(response["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        return client
    }
}
