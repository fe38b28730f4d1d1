import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport
public import Logging

/// One loop with its listeners and connections: a worker's, or one that you run in a process of your own.
///
/// Everything but `wakeUp` of its `waker` belongs to the thread that runs it.
public final class Context {
    /// Which worker this is.
    public let worker: WorkerIdentity
    public let logger: Logger
    /// Where it listens, ports filled in.
    public let addresses: [SocketAddress]

    private let application: Application
    let loop: EventLoop
    let limits: Limits
    let origins: OriginPolicy
    let routes: Routes
    let echoesSubprotocolList: Bool
    let extensions: [any WebSocketExtension]
    let allowsExtension: ((any WebSocketExtension, HTTPRequest) -> Bool)?

    /// What was received last lies here. Shared by all connections, one at a time.
    let receiveBuffer = ReceiveBuffer(capacity: Context.receiveBytes)
    /// What one call receives at most. Larger saves calls for large messages; it is also what a peer can make us keep while it does not read.
    private static let receiveBytes = 128 * 1024

    /// Where TLS meets the sockets; made when the first connection wants it.
    private(set) lazy var tlsBuffers = TLSBuffers(receiveBytes: Context.receiveBytes, pool: buffers)

    /// Output of the connection whose event is being served.
    let cork = OutputBuffer(capacity: 64 * 1024)

    /// Memory of messages that are not whole yet, and of output that waits.
    let buffers = BufferPool()
    /// The message that a handler is being given, if it came in pieces: what is sent of it need not be copied.
    var delivering: ByteChunk?
    private var trimTimer: DeadlineTimer?

    var messagesReceived = 0
    /// Keys for the frames of client connections.
    var maskingKeys = MaskingKeys()
    /// Nil until this context is a client.
    private var clientSideIfAny: ClientSide?
    private(set) var connectionsAccepted = 0
    private var connections: [Connection] = []
    private var listeners: [AcceptedFrom] = []
    // Whether there are any is asked in each turn; to look at the arrays would cost a check of the access each time.
    private var unsettledConnections: [Connection] = []
    private var hasUnsettled = false
    private var writableRequests: [WebSocket] = []
    private var hasWritableRequests = false
    private var state = State.running
    private var isServing = false
    private let maxConnections: Int
    /// Peers whose connections are closed, and until when.
    private var turnedAway: [SocketAddress: MonotonicTime] = [:]
    /// Clients that have not made a request yet.
    var newcomers = Newcomers()
    /// No more fit; until one ends.
    private var isFull = false
    private var roomTimer: DeadlineTimer?
    private var cachedDate: (second: Int, bytes: [UInt8]) = (0, [])
    private var scratch: [[UInt8]] = []
    /// Nil until somebody asks, so that a turn without other threads takes no lock.
    private(set) var remoteIfAsked: ContextRemote?
    private var reported = (accepted: 0, connections: 0, messages: 0)
    private var drainTimer: DeadlineTimer?
    private var endTimer: DeadlineTimer?
    /// Keeps listeners that this context bound itself.
    private let owner: AnyObject?
    /// The other workers; nil in a process of its own.
    private(set) var bus: BroadcastBus?
    var topics = TopicTable()
    /// What was published in this turn and has not been delivered.
    var publications: Publications
    /// Whether there are any: asked with each send, where to look at them would cost more.
    var hasPublications = false
    var isDelivering = false
    /// Connections with so much waiting for them that they may hold other workers' mail back for a while, and since when they have.
    var behind: (connections: [Connection], since: MonotonicTime?) = ([], nil)
    /// Bits of protocols whose connections are to be asked to write, or to go on reading.
    var pendingRequests: (writable: UInt64, resume: UInt64) = (0, 0)
    /// The same for client connections.
    var pendingClientRequests: Set<ClientRequest> = []
    /// This worker's values, in the order of the recipes; fewer before they are made and after they have ended.
    var workerStates: [AnyObject] = []
    let workerStateRecipes: [WorkerStateRecipe]
    let whenWorkerStarts: ((Context) -> Void)?
    let whenWorkerStops: ((Context) -> Void)?
    /// The application has been told that this worker ends.
    private var hasEnded = false
    /// Where the master looks at what this worker does.
    let row: Scoreboard.Row?

    private struct AcceptedFrom {
        let listener: Listener
        /// Its address's place.
        let place: Int
        /// Whose it is.
        let slot: Int
    }

    private enum State {
        case running
        /// No new connections; those there are end when they have done what they are about.
        case draining
        /// They end now.
        case stopping
        case finished
    }

    /// Where this worker's mail is.
    let mailbox: Int

    /// Buffers that nobody needed for this long return to the kernel.
    private static let trimInterval = Duration.seconds(1)

    /// Larger buffers than this are freed after use, in bytes.
    private static let maxScratchBytes = 256 * 1024

    /// Descriptors set aside for the worker itself: epoll, listeners, channels, files being served. Where few are allowed it is less, but a
    /// quarter is for connections.
    private static let reservedDescriptors = 64

    /// How long a client may take to make its first request when there is no room for others: the few round trips of TLS.
    private static let newcomerPatience = Duration.milliseconds(500)

    /// Connections of a worker that may have so many descriptors.
    static func connections(within descriptors: Int) -> Int { max(1, descriptors / 4, descriptors - reservedDescriptors) }

    /// How often the log says that there is no room.
    private var exhaustion = RareNote(every: .seconds(10))
    /// How often that connections hold too much.
    private var shortage = RareNote(every: .seconds(10))

    init(
        _ application: Application, worker: WorkerIdentity, mailbox: Int, listening: [WorkerListener], row: Scoreboard.Row? = nil,
        owner: AnyObject?
    ) throws(SystemError) {
        self.row = row
        self.worker = worker
        self.mailbox = mailbox
        addresses = listening.reduce(into: []) { found, listener in
            if !found.contains(listener.address) { found.append(listener.address) }
        }
        self.owner = owner
        self.application = application
        let server = application.server
        logger = server.logger
        limits = server.limits
        origins = server.origins
        echoesSubprotocolList = server.echoesSubprotocolList
        extensions = server.extensions
        allowsExtension = server.allowsExtension
        routes = application.routes
        workerStateRecipes = server.workerStates
        whenWorkerStarts = server.whenWorkerStarts
        whenWorkerStops = server.whenWorkerStops
        publications = Publications(in: buffers)
        loop = try EventLoop()
        maxConnections = min(limits.maxConnections ?? .max, Self.connections(within: Process.raiseDescriptorLimit()))
        buffers.whenKeeping = { [unowned self] in trimBuffersLater() }
        try listen(to: listening, of: worker.slot)
        if let bus = application.bus { self.bus = try makeBus(bus.mailboxes, bus.interest) }
    }

    /// A context of one loop in this process, listening where `server` says.
    ///
    /// From here on the process ignores SIGPIPE (as with libwebsockets): `sendfile(2)` to a peer that has gone raises it, and has no
    /// flag against that.
    ///
    /// - Throws: `ConfigurationError`.
    public convenience init(_ server: Server) throws(ConfigurationError) {
        Signal.ignore(Signal.brokenPipe)
        let application = try Application(server)
        let listeners = try application.listeners()
        do {
            try self.init(
                application, worker: WorkerIdentity(slot: 0, count: 1, generation: 0), mailbox: 0, listening: listeners.listeners(for: 0),
                owner: listeners)
        } catch {
            throw .system("\(error)")
        }
        try begin()
    }

    deinit {
        for entry in listeners { entry.listener.stop() }
        // A chunk may outlive its context.
        buffers.whenKeeping = nil
    }

    // MARK: Running

    /// Serves until `stop` or `drain` has done its work.
    public func run() throws(ConfigurationError) {
        while state != .finished { try service() }
    }

    /// Waits for events, at most `timeout` (nil: until there is one), and serves them (libwebsockets' `lws_service`).
    /// Not to be called from a handler.
    public func service(timeout: Duration? = nil) throws(ConfigurationError) {
        precondition(!isServing, "service(timeout:) was called from a handler")
        isServing = true
        defer { isServing = false }
        settle()
        do {
            row?.enter(isDraining ? .draining : .waiting)
            try loop.turn(timeout: hasWork ? .zero : timeout) { row?.enter(.handler) }
        } catch {
            throw .system("\(error)")
        }
        settle()
    }

    /// Reads the certificates and keys of its listeners anew: handshakes from now on show the new ones, and connections stay. For a context in
    /// a process of its own; what runs under `Server.run()` is given new ones by its master.
    ///
    /// - Throws: `ConfigurationError` that names the file; the old ones are shown on.
    public func reloadCertificates() throws(ConfigurationError) { try application.replaceTLS() }

    /// Makes a waiting `service` return, from any thread: `let waker = context.waker` there, `waker.wakeUp()` here.
    public var waker: LoopWaker { LoopWaker(loop.waker) }

    /// Publish, signal and request from any thread: take it here, use it there.
    public var remote: ContextRemote {
        if let remoteIfAsked { return remoteIfAsked }
        let remote = ContextRemote(loop.waker)
        remoteIfAsked = remote
        return remote
    }

    /// The same on this thread.
    public func wakeUp() { loop.waker.wakeUp() }

    /// Calls `body` once, `delay` from now, on this thread, unless the timer is cancelled.
    @discardableResult
    public func schedule(after delay: Duration, _ body: @escaping () -> Void) -> DeadlineTimer {
        let timer = DeadlineTimer(loop, body)
        timer.start(after: delay)
        return timer
    }

    /// Open connections of this worker.
    public var connectionCount: Int { connections.count }

    /// What this context is as a client.
    var clientSide: ClientSide {
        if let clientSideIfAny { return clientSideIfAny }
        let side = ClientSide(loop, application.clientTLS)
        clientSideIfAny = side
        return side
    }

    // MARK: Settling

    func unsettled(_ connection: Connection) {
        guard !connection.isUnsettled else { return }
        connection.isUnsettled = true
        unsettledConnections.append(connection)
        hasUnsettled = true
    }

    func requestedWritable(_ socket: WebSocket) {
        writableRequests.append(socket)
        hasWritableRequests = true
    }

    /// Does what was put off to the end of the turn: sends what is queued, tells who waits for room. What that asks for in turn waits for
    /// the next one, so that no handler can hold the loop.
    private func settle() {
        serveRemote()
        if pendingRequests != (0, 0) { serveRequests() }
        if hasWritableRequests {
            hasWritableRequests = false
            let requests = writableRequests
            writableRequests = []
            for socket in requests { socket.serveWritable() }
        }
        if hasPublications { deliverPublications(isLast: true) }
        if hasUnsettled {
            hasUnsettled = false
            let unsettled = unsettledConnections
            unsettledConnections = []
            for connection in unsettled {
                connection.isUnsettled = false
                connection.settle()
            }
        }
        bus?.flush()
        report()
        if isDraining, connections.isEmpty { state = .finished }
        if state == .finished, !hasEnded {
            hasEnded = true
            end()
        }
    }

    /// Whether something waits for the next turn.
    private var hasWork: Bool { hasWritableRequests || hasUnsettled || hasPublications || pendingRequests != (0, 0) }

    /// Tells the scoreboard what has changed since the last turn.
    private func report() {
        guard let row else { return }
        row.add(.accepted, connectionsAccepted - reported.accepted)
        row.add(.connections, connections.count - reported.connections)
        row.add(.messages, messagesReceived - reported.messages)
        reported = (connectionsAccepted, connections.count, messagesReceived)
    }

    /// The open WebSockets of clients, as they are now: handlers may change the list while it is walked.
    func openWebSockets() -> [WebSocket] {
        connections.compactMap(\.openWebSocket).filter { $0.role == .server }
    }

    /// Those that use a protocol, a client's too.
    func openWebSockets(of id: WebSocketProtocol.ID) -> [WebSocket] {
        connections.compactMap(\.openWebSocket).filter { $0.webSocketProtocol.id == id }
    }

    // MARK: Listeners

    private func listen(to sockets: [WorkerListener], of slot: Int) throws(SystemError) {
        for socket in sockets {
            let listener = Listener(
                descriptor: socket.descriptor, isShared: socket.isShared, loop: loop,
                accepted: { [unowned self] descriptor, peer in
                    accept(descriptor, peer, socket.place)
                },
                refused: { [unowned self] error in
                    noteExhaustion(error)
                    makeRoom()
                })
            listeners.append(AcceptedFrom(listener: listener, place: socket.place, slot: slot))
            try listener.start()
        }
    }

    /// Accepts for another slot, too.
    func adopt(_ sockets: [WorkerListener], of slot: Int) {
        guard state == .running else { return }
        do {
            try listen(to: sockets, of: slot)
            if connections.count >= maxConnections { hold() }
        } catch {
            logger.error("worker \(worker.slot) cannot accept for slot \(slot): \(error)")
            release(slot)
        }
    }

    /// The slot's own worker accepts again.
    func release(_ slot: Int) {
        for entry in listeners where entry.slot == slot { entry.listener.stop() }
        listeners.removeAll { $0.slot == slot }
    }

    private func hold() {
        for entry in listeners { entry.listener.hold() }
    }

    // MARK: Connections

    private func accept(_ descriptor: consuming OwnedDescriptor, _ peer: SocketAddress, _ place: Int) {
        if !turnedAway.isEmpty, isTurnedAway(peer) { return }
        let tls = application.tls.at(place)
        let connection = Connection(descriptor, context: self, from: Connection.Origin(peer, at: UInt16(truncatingIfNeeded: place)))
        adopt(connection)
        connectionsAccepted &+= 1
        do {
            let session = HTTPSession(connection: connection, peer: peer, allowsPlainHTTP: tls?.allowsPlainHTTP ?? false)
            newcomers.append(session)
            try connection.start(session, tls: tls)
        } catch {
            logger.warning("a connection was turned away: \(error)")
        }
        if connections.count >= maxConnections {
            hold()
            makeRoom()
        }
    }

    /// Closes this peer's connections, and those that come from it until then.
    func turnAway(_ peer: SocketAddress, until end: MonotonicTime) {
        guard let host = peer.hostAlone else { return }
        turnedAway[host] = end
        for connection in connections where connection.origin.isOf(host) { connection.lost() }
    }

    private func isTurnedAway(_ peer: SocketAddress) -> Bool {
        guard let host = peer.hostAlone, let end = turnedAway[host] else { return false }
        if loop.now < end { return true }
        turnedAway[host] = nil
        return false
    }

    /// The client that has been here longest without a request goes, once it has had its time: then its place is another's.
    private func makeRoom() {
        isFull = true
        guard let oldest = newcomers.oldest else { return }
        let timer = roomTimer ?? DeadlineTimer(loop) { [unowned self] in timeForRoom() }
        roomTimer = timer
        // By the timer, never at once: it may have been accepted in this very turn, its request yet unread.
        timer.start(after: .milliseconds((oldest.since + Self.newcomerPatience).millisecondsSince(loop.now)))
    }

    private func timeForRoom() {
        guard isFull, let oldest = newcomers.oldest else { return }
        if oldest.since + Self.newcomerPatience <= loop.now { oldest.makeRoom() } else { makeRoom() }
    }

    /// Whether this worker may hold `bytes` more for its connections.
    func hasRoom(for bytes: Int = 0) -> Bool { buffers.usedBytes <= limits.maxWorkerBufferBytes - bytes }

    /// Somebody was refused because there is no such room.
    func noteShortage() {
        guard let times = shortage.note(at: loop.now) else { return }
        let again = times > 1 ? "; \(times) times since this was last said" : ""
        logger.warning(
            "unfinished messages and waiting output hold \(buffers.usedBytes) bytes, maxWorkerBufferBytes is \(limits.maxWorkerBufferBytes): who wants more is turned away\(again)"
        )
    }

    private func noteExhaustion(_ error: SystemError) {
        guard let times = exhaustion.note(at: loop.now) else { return }
        let again = times > 1 ? "; \(times) times since this was last said" : ""
        logger.warning("no room for new connections: they wait, and a few are turned away (\(error)\(again))")
    }

    /// Counts a new connection among this worker's.
    func adopt(_ connection: Connection) {
        connection.index = connections.count
        connections.append(connection)
    }

    func connectionEnded(_ connection: Connection) {
        let index = connection.index
        let last = connections.removeLast()
        if last !== connection {
            connections[index] = last
            last.index = index
        }
        caughtUp(connection)
        isFull = false
        if state == .running { for entry in listeners { entry.listener.resume() } }
    }

    /// A buffer for what extensions make of a message, to be given back. Several may be taken at a time: handlers send while they receive.
    func takeScratch() -> [UInt8] { scratch.popLast() ?? [] }

    func giveBack(_ buffer: consuming [UInt8]) {
        guard scratch.count < 2, buffer.capacity <= Self.maxScratchBytes else { return }
        buffer.removeAll(keepingCapacity: true)
        scratch.append(buffer)
    }

    private func trimBuffersLater() {
        let timer =
            trimTimer
            ?? DeadlineTimer(loop) { [unowned self] in
                if buffers.trim() { trimBuffersLater() }
            }
        trimTimer = timer
        timer.start(after: Self.trimInterval)
    }

    /// `Date`, formatted once a second.
    var date: [UInt8] {
        let second = WallClock.seconds()
        if second != cachedDate.second { cachedDate = (second, HTTPDate.format(secondsSince1970: second)) }
        return cachedDate.bytes
    }

    // MARK: Ending

    var isDraining: Bool { state != .running }

    /// Whether nothing new is to be begun, not even on a connection that is open.
    var isStopping: Bool {
        switch state {
        case .running, .draining: false
        case .stopping, .finished: true
        }
    }

    /// Ends quickly: every WebSocket gets a close frame with 1001, and what is left after a second is cut. `run` returns then.
    public func stop() {
        guard leave(.stopping, closing: []) else { return }
        for connection in connections { connection.endIfIdle() }
        close(connections.compactMap(\.openWebSocket)[...], .goingAway)
        cut(after: .seconds(1))
    }

    /// Ends gracefully: no new connections; requests are answered with `Connection: close`; WebSockets are closed with 1012, spread
    /// over `Limits.drainWindow` and no faster than `Limits.drainRate`; connections without a request end with the window; what is left after
    /// `Limits.drainTimeout` is cut. `run` returns then.
    public func drain() { drain(closing: Array(listeners.indices)) }

    /// - Parameters:
    ///   - closing: places of listeners that nobody will accept from any more: what waits there was promised a connection.
    ///   - patience: less time than `Limits.drainTimeout`.
    func drain(closing: [Int], within patience: Duration? = nil) {
        let limit = min(limits.drainTimeout, patience ?? limits.drainTimeout)
        guard leave(.draining, closing: closing) else { return }
        let window = min(limits.drainWindow, limit / 2)
        closeWebSockets(until: loop.now + window)
        schedule(after: window) { [unowned self] in
            for connection in connections { connection.endIfIdle() }
        }
        cut(after: limit)
    }

    /// Whether that is news.
    private func leave(_ next: State, closing: [Int]) -> Bool {
        switch (state, next) {
        case (.running, _), (.draining, .stopping): break
        default: return false
        }
        if state == .running {
            let own = listeners.filter { $0.slot == worker.slot }
            // Of an address that goes, another slot's sockets go, too.
            let places = closing.filter { $0 < own.count }.map { own[$0].place }
            for (index, entry) in own.enumerated() where closing.contains(index) { entry.listener.acceptWaiting() }
            for entry in listeners {
                if entry.slot != worker.slot, places.contains(entry.place) { entry.listener.acceptWaiting() }
                entry.listener.stop()
            }
        }
        clientSideIfAny?.end()
        state = next
        drainTimer?.cancel()
        wakeUp()
        return true
    }

    private func cut(after timeout: Duration) {
        endTimer?.cancel()
        // The loop, and with it what it is to call, belongs to this context alone.
        endTimer = schedule(after: timeout) { [unowned self] in
            if !connections.isEmpty { logger.notice("\(connections.count) connections were cut when the time to drain had passed") }
            for connection in connections.reversed() { connection.lost() }
            state = .finished
        }
    }

    private static let drainStep = Duration.milliseconds(50)

    /// Closes a share of the open WebSockets, chosen at random, and the others in the steps that remain until `end`, and later if the rate
    /// does not allow so many.
    private func closeWebSockets(until end: MonotonicTime) {
        var open = connections.compactMap(\.openWebSocket)
        open.shuffle()
        let step = Self.drainStep.wholeMilliseconds
        let steps = Int(clamping: end.millisecondsSince(loop.now) / step) + 1
        let (product, isTooLarge) = limits.drainRate.multipliedReportingOverflow(by: Int(step))
        let most = isTooLarge ? .max : max(1, product / 1000)
        let share = min((open.count + steps - 1) / steps, most)
        close(open.prefix(share), .serviceRestart)
        // Connections that are open now may become WebSockets later.
        guard !connections.isEmpty else { return }
        drainTimer = schedule(after: Self.drainStep + .milliseconds(Int64.random(in: -10...10))) { [unowned self] in
            closeWebSockets(until: end)
        }
    }

    private func close(_ sockets: ArraySlice<WebSocket>, _ code: CloseCode) {
        for socket in sockets { socket.close(code: code, reason: code == .goingAway ? "the server stops" : "the service restarts") }
    }
}
