import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport
public import Logging

/// An event loop with its listeners and connections: a server's worker process, or a loop of your
/// own.
///
/// Everything except `remote` and `waker` belongs to the thread that runs it.
public final class Worker {
    /// Slot, generation and process ID.
    public let identity: WorkerIdentity
    public let logger: Logger
    /// The bound addresses, with the actual ports.
    public let addresses: [SocketAddress]

    let application: Application
    private let states: WorkerStates
    let loop: EventLoop
    let limits: Limits
    let requestLimits: HTTP1Limits
    let webSocketLimits: WebSocketLimits
    let routes: Routes
    /// This worker's row of the scoreboard, which the master reads; nil without a master.
    let row: Scoreboard.Row?

    /// Received bytes; shared by all connections, one event at a time.
    let receiveBuffer = ReceiveBuffer(capacity: Worker.receiveBytes)
    /// Output of the connection whose event is being served.
    let cork = OutputBuffer(capacity: 64 * 1024)
    /// Buffers for TLS; allocated for the first TLS connection.
    private(set) lazy var tlsBuffers = TLSBuffers(receiveBytes: Worker.receiveBytes, pool: memory.pool)
    let memory: MemoryAccounts
    let broker: Broker
    private let table = ConnectionTable()
    let admission: Admission
    private let deferred = DeferredWork()
    private let drainDriver: DrainDriver
    private let turnDriver: TurnDriver

    var messagesReceived = 0
    /// Masking keys for client connections (RFC 6455 §5.3).
    var maskingKeys = MaskingKeys()
    /// Nil until the first client connection.
    private var clientRuntimeIfAny: ClientRuntime?
    private var dateCache = DateCache()
    /// Owns listeners that this worker bound itself.
    private let owner: AnyObject?

    /// Most bytes per receive. More would save system calls for large messages, but it is also what
    /// one paused connection can make the worker hold.
    private static let receiveBytes = 128 * 1024

    init(
        _ application: Application, identity: WorkerIdentity, mailbox: Int, listening: [WorkerListener], row: Scoreboard.Row? = nil,
        owner: AnyObject?, poller: (any Poller)? = nil, random: any RandomNumberGenerator = SystemRandomNumberGenerator()
    ) throws(SystemError) {
        self.row = row
        self.identity = identity
        addresses = listening.reduce(into: []) { found, listener in
            if !found.contains(listener.address) { found.append(listener.address) }
        }
        self.owner = owner
        self.application = application
        let server = application.server
        logger = server.logger
        limits = server.limits
        requestLimits = server.limits.http1
        webSocketLimits = WebSocketLimits(limits)
        routes = application.routes
        states = WorkerStates(server.workerStates)
        loop = try EventLoop(poller)
        drainDriver = DrainDriver(limits: limits, loop: loop, logger: logger, table: table, random: random)
        memory = MemoryAccounts(limit: limits.maxWorkerBufferBytes, loop: loop, logger: logger)
        // The parts hold a reference to their worker before its initialisation is complete; this
        // link is set at the end.
        let link = WorkerLink()
        admission = Admission(application, slot: identity.slot, loop: loop, table: table) { link.worker }
        broker = Broker(table: table, memory: memory, limits: limits, loop: loop, logger: logger, slot: identity.slot) {
            link.worker?.deliver($1, $2, to: $0)
        }
        turnDriver = TurnDriver(loop, table, admission, broker, deferred, drainDriver, row: row)
        link.worker = self
        try admission.listen(to: listening, of: identity.slot)
        if let bus = application.bus { try broker.join(bus.mailboxes, bus.interest, at: mailbox, generation: identity.generation) }
    }

    private final class WorkerLink {
        // Not weak: that would make every reference count of the worker slow.
        unowned var worker: Worker?
    }

    /// Creates a worker with one loop in this process, listening on the server's addresses.
    ///
    /// From then on the process ignores SIGPIPE (as with libwebsockets): `sendfile(2)` to a closed
    /// connection raises it and has no flag to prevent that.
    ///
    /// - Throws: `ConfigurationError` if the configuration is invalid, an address cannot be bound,
    ///   or a worker state cannot be made.
    public convenience init(_ server: Server) throws(ConfigurationError) {
        try self.init(server, poller: nil, random: SystemRandomNumberGenerator())
    }

    /// - Parameters:
    ///   - poller: waits for events and provides the clock; nil for epoll.
    ///   - random: the source of all randomness.
    package convenience init(_ server: Server, poller: (any Poller)?, random: any RandomNumberGenerator) throws(ConfigurationError) {
        Signal.ignore(Signal.brokenPipe)
        let application = try Application(server)
        let listeners = try application.listeners()
        do {
            try self.init(
                application, identity: WorkerIdentity(slot: 0, count: 1, generation: 0), mailbox: 0,
                listening: listeners.listeners(for: 0), owner: listeners, poller: poller, random: random)
        } catch {
            throw .system("\(error)")
        }
        try begin()
    }

    /// Makes the worker's values and calls `Server.onWorkerStart`.
    ///
    /// - Throws: `ConfigurationError` that contains the error of the application's function.
    func begin() throws(ConfigurationError) {
        try states.make(for: self)
        application.server.onWorkerStart?(self)
    }

    // MARK: Running

    /// Serves until `stop` or `drain` is complete.
    ///
    /// - Throws: `ConfigurationError` if waiting for events fails.
    public func run() throws(ConfigurationError) { try turnDriver.run(self) }

    /// Runs one turn of the loop: waits for events, at most `timeout` (nil: without limit), and
    /// serves them (libwebsockets' `lws_service`). Do not call it from a handler.
    public func service(timeout: Duration? = nil) throws(ConfigurationError) { try turnDriver.service(self, timeout: timeout) }

    /// Reloads the certificates and keys of its listeners, for new handshakes; open connections
    /// stay. Only for a worker in a process of your own: under `Server.run()` the master reloads
    /// them.
    ///
    /// - Throws: `ConfigurationError` that names the file; the old certificates stay in use.
    public func reloadCertificates() throws(ConfigurationError) { try application.replaceTLS() }

    /// Makes a waiting `service` return, from any thread: call `let waker = worker.waker` on the
    /// worker's thread and `waker.wakeUp()` on the other.
    public var waker: LoopWaker { LoopWaker(loop.waker) }

    /// Publishes, signals and requests from any thread. Read this property on the worker's thread.
    public var remote: WorkerRemote { turnDriver.remote }

    /// Makes the next wait return at once; on the worker's thread only.
    public func wakeUp() { loop.waker.wakeUp() }

    /// Calls `body` once after `delay`, on this thread, unless the timer is cancelled.
    @discardableResult
    public func schedule(after delay: Duration, _ body: @escaping () -> Void) -> DeadlineTimer {
        let timer = DeadlineTimer(loop, body)
        timer.start(after: delay)
        return timer
    }

    /// Bytes of incomplete messages and queued output.
    package var heldBytes: Int { memory.pool.usedBytes }

    /// Number of open connections of this worker.
    public var connectionCount: Int { table.count }

    /// This worker's value.
    ///
    /// - Precondition: the state was declared by this worker's server, before any state whose
    ///   `make` reads it.
    public subscript<Value>(state: WorkerState<Value>) -> Value {
        get { states[state] }
        set { states[state] = newValue }
    }

    // MARK: Publish and subscribe

    /// Requests `writable` of every connection with the protocol: called when nothing is buffered,
    /// once after any number of requests (libwebsockets' `lws_callback_on_writable_all_protocol`).
    public func requestWritable(all webSocketProtocol: WebSocketProtocol, scope: Scope = .allWorkers) {
        broker.request(.writable, webSocketProtocol.id, scope)
    }

    /// Resumes every paused connection with the protocol (libwebsockets'
    /// `lws_rx_flow_allow_all_protocol`). Other workers act in their next turn; a connection that
    /// pauses after that stays paused.
    public func resumeReceiving(all webSocketProtocol: WebSocketProtocol, scope: Scope = .allWorkers) {
        broker.request(.resume, webSocketProtocol.id, scope)
    }

    /// Calls the handler's `signaled` of every connection with the protocol: on this worker before
    /// this call returns, on others in their next turn (libwebsockets'
    /// `lws_callback_all_protocol`).
    public func signal(
        all webSocketProtocol: WebSocketProtocol, _ signal: UInt32, payload: [UInt8] = [], scope: Scope = .allWorkers
    ) {
        broker.signal(all: webSocketProtocol.id, signal, payload: payload, scope: scope)
    }

    /// Sends a message to all current subscribers of `topic`, on all workers. On this worker it is
    /// queued at the end of the loop's turn, or before the next output to the same connection;
    /// until then it does not count as buffered.
    ///
    /// - Parameter topic: at most 65,535 bytes of UTF-8, compared byte by byte: two normalisations
    ///   of one character are two topics.
    /// - Parameter excluding: a connection of this worker that does not get it, such as the sender.
    public func publish(
        _ payload: borrowing RawSpan, as kind: MessageKind, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers
    ) {
        let payload = copy payload
        topic.withRawSpan { name in broker.publish(payload, kind, name, excluding, scope) }
    }

    /// Publishes a message from an array.
    public func publish(
        _ payload: [UInt8], as kind: MessageKind, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers
    ) {
        publish(payload.rawSpan, as: kind, to: topic, excluding: excluding, scope: scope)
    }

    /// Publishes a message that is being delivered.
    public func publish(_ message: Message, to topic: String, excluding: WebSocket? = nil, scope: Scope = .allWorkers) {
        publish(message.payload, as: message.kind, to: topic, excluding: excluding, scope: scope)
    }

    // MARK: Client

    /// The client side of this worker, created on first use.
    var clientRuntime: ClientRuntime {
        if let clientRuntimeIfAny { return clientRuntimeIfAny }
        let side = ClientRuntime(loop, application.clientTLS)
        clientRuntimeIfAny = side
        return side
    }

    /// The proxy of clients whose options name none. By default it is read from the environment.
    public var proxy: ProxyChoice {
        get { clientRuntime.proxy }
        set { clientRuntime.proxy = newValue }
    }

    /// Sets the proxy of clients from `[USER:PASSWORD@]HOST:PORT` or a URL (libwebsockets'
    /// `lws_set_proxy`).
    ///
    /// - Throws: `ConnectError.address`; then the proxy stays as it was.
    public func setProxy(_ text: String) throws(ConnectError) { proxy = .through(try Proxy(parsing: text)) }

    /// Opens a WebSocket to a server (libwebsockets' `lws_client_connect_extended`).
    ///
    /// Either `opened` of the handler from `makeHandler` or `failed` is called, once and never from
    /// inside this call. With `ClientOptions.reconnect`, `opened` is called for each connection,
    /// and `failed` is the last call.
    ///
    /// - Parameters:
    ///   - address: `ws://HOST[:PORT]/PATH?QUERY`, `wss://…`, or
    ///     `ws+unix:///PATH/OF/SOCKET:/PATH?QUERY`.
    ///   - subprotocols: in order of preference.
    ///   - headers: further fields of the request. `Authorization` overrides the address's user and
    ///     password.
    ///   - origin: the value of `Origin`; nil: the field is not sent.
    ///   - makeHandler: called with the server's response if it opens a WebSocket; throws to refuse
    ///     it (libwebsockets' `LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH`).
    ///   - failed: called with the error.
    @discardableResult
    public func connect(
        to address: String, subprotocols: [String] = [], headers: HTTPFields = HTTPFields(), origin: String? = nil,
        options: ClientOptions = ClientOptions(), makeHandler: @escaping (HTTPResponseHead) throws -> any WebSocketHandler,
        failed: @escaping (ConnectError) -> Void
    ) -> ClientConnection {
        let request = WebSocketRequest(
            subprotocols: subprotocols, headers: headers, origin: origin, options: options, makeHandler: makeHandler)
        return ClientConnection.start(request, to: address, on: self, failed: failed)
    }

    /// Sends an HTTP request and passes the response to a handler as it arrives. Each request uses
    /// a connection of its own, with `Connection: close`.
    ///
    /// The handler's `ended` or `failed` is called once, never from inside this call. A response of
    /// any status is delivered, except redirects that are followed (`ClientOptions.maxRedirects`).
    ///
    /// - Parameters:
    ///   - address: `http://HOST[:PORT]/PATH?QUERY`, `https://…`, or
    ///     `http+unix:///PATH/OF/SOCKET:/PATH?QUERY`.
    ///   - headers: any fields but `Host`, `Connection`, `Content-Length` and `Transfer-Encoding`.
    ///   - body: sent with `Content-Length`.
    @discardableResult
    public func request(
        _ address: String, method: HTTPMethod = .get, headers: HTTPFields = HTTPFields(), body: [UInt8] = [],
        options: ClientOptions = ClientOptions(), handler: any HTTPResponseHandler
    ) -> ClientExchange {
        ClientExchange.start(method, address, headers: headers, body: body, options: options, handler: handler, on: self)
    }

    /// Sends an HTTP request and collects the response, at most
    /// `ClientOptions.maxResponseBodyBytes` of body.
    @discardableResult
    public func request(
        _ address: String, method: HTTPMethod = .get, headers: HTTPFields = HTTPFields(), body: [UInt8] = [],
        options: ClientOptions = ClientOptions(), whenDone: @escaping (Result<HTTPResponse, ConnectError>) -> Void
    ) -> ClientExchange {
        request(address, method: method, headers: headers, body: body, options: options, handler: ResponseCollector(whenDone))
    }

    // MARK: The end of a turn

    /// Calls the stream's `endTurn` at the end of this turn.
    func endTurn(of stream: ByteStream) { deferred.add(stream) }

    /// Calls the target's `serveWritable` at the end of this turn.
    func requestedWritable(_ target: any WritableTarget) { deferred.add(target) }

    /// Calls `Server.onWorkerStop`, which may read the worker's values, then ends the values.
    func end() {
        application.server.onWorkerStop?(self)
        states.end(for: self)
    }

    // MARK: Connections

    /// The value of `Date`.
    var date: [UInt8] { dateCache.now() }

    /// Adds a new connection to the table.
    func add(_ connection: Connection) { table.add(connection) }

    func connectionEnded(_ connection: Connection) {
        table.remove(connection)
        broker.caughtUp(connection)
        admission.connectionEnded()
    }

    private func deliver(_ signal: UInt32, _ payload: [UInt8], to socket: WebSocket) {
        if let stream = socket.stream { serving(stream, .signal, route: socket.routeNumber) }
        socket.handler.signaled(signal, payload: payload, on: socket)
    }

    // MARK: Flight recorder, see `FlightRecord`

    /// Records that this connection is being served.
    @inline(__always)
    func serving(_ stream: ByteStream, _ activity: FlightRecord.Activity, route: UInt16 = 0) {
        if let row { FlightRecord.note(activity, of: stream.origin, route: route, in: row) }
    }

    /// Records another activity of the same connection.
    func serving(_ activity: FlightRecord.Activity, route: UInt16) {
        if let row { FlightRecord.note(activity, route: route, in: row) }
    }

    @inline(__always)
    func serving(_ kind: MessageKind, _ bytes: Int) { if let row { FlightRecord.note(kind, bytes, in: row) } }

    @inline(__always)
    func servingNothing() { row?.serve(what: 0) }

    // MARK: Ending

    /// No new connections are accepted.
    private(set) var isDraining = false

    /// Whether no new work may start, not even on an open connection.
    var isStopping: Bool { drainDriver.isStopping }

    /// Fast shutdown: sends every WebSocket a close frame with 1001, and closes the remaining
    /// connections after one second. `run` then returns.
    public func stop() {
        guard drainDriver.stop() else { return }
        leave(closing: [])
        drainDriver.closeAtOnce()
    }

    /// Graceful shutdown. The worker accepts no new connections and answers requests with
    /// `Connection: close`. It closes WebSockets with 1012, spread over `Limits.drainWindow` and at
    /// most `Limits.drainRate` per second, connections without a request at the end of the window,
    /// and all others after `Limits.drainTimeout`. `run` then returns.
    public func drain() { drain(closing: Array(admission.ownListeners)) }

    /// - Parameters:
    ///   - closing: indices of listeners that no process will accept from again; their queued
    ///     connections are accepted first.
    ///   - patience: the drain timeout, if shorter than `Limits.drainTimeout`.
    func drain(closing: [Int], within patience: Duration? = nil) {
        guard drainDriver.drain(within: patience) else { return }
        leave(closing: closing)
        drainDriver.closeWhatIsDue()
    }

    private func leave(closing: [Int]) {
        isDraining = true
        admission.end(closing: closing)
        clientRuntimeIfAny?.end()
        wakeUp()
    }
}
