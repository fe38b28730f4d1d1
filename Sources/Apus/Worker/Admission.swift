import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// Accepts a worker's connections: limits their number, rests when descriptors run out, refuses
/// peers that were turned away.
final class Admission {
    private struct Entry {
        let listener: Listener
        /// The index of its address in `Worker.addresses`.
        let place: Int
        /// The slot that owns the listener.
        let slot: Int
    }

    private let slot: Int
    private let maxConnections: Int
    private let loop: EventLoop
    private let logger: Logger
    private let table: ConnectionTable
    private let application: Application
    private let tlsHandshakeTimeout: Duration
    /// The worker, once its initialisation is complete.
    private let worker: () -> Worker?
    private var entries: [Entry] = []
    private var pending = PendingClients()
    /// Refused peers, each until its time.
    private var turnedAway: [SocketAddress: MonotonicTime] = [:]
    /// Whether `turnedAway` has any: a separate flag, because every accept reads it.
    private var turnsSomeAway = false
    /// Whether the connection limit is reached.
    private var isFull = false
    private var isOver = false
    private let evictionTimer = ClosureTimer()
    private var exhaustion = RateLimitedLog(every: .seconds(10))
    private(set) var acceptedCount = 0

    /// How long a client may take to send its first request once the worker is full: a few round
    /// trips of TLS.
    private static let pendingPatience = Duration.milliseconds(500)

    /// Descriptors reserved for the worker itself: event loop, listeners, channels, files being
    /// served. At least a quarter of the process's limit remains for connections.
    private static let reservedDescriptors = 64

    /// Most connections of a worker whose process may open `descriptors` descriptors.
    static func connections(within descriptors: Int) -> Int { max(1, descriptors / 4, descriptors - reservedDescriptors) }

    init(_ application: Application, slot: Int, loop: EventLoop, table: ConnectionTable, worker: @escaping () -> Worker?) {
        self.application = application
        self.slot = slot
        self.loop = loop
        self.table = table
        self.worker = worker
        logger = application.server.logger
        let limits = application.server.limits
        tlsHandshakeTimeout = limits.tlsHandshakeTimeout
        maxConnections = min(limits.maxConnections ?? .max, Self.connections(within: Process.raiseDescriptorLimit()))
        evictionTimer.body = { [unowned self] _, _ in evictionIsDue() }
    }

    deinit {
        for entry in entries { entry.listener.stop() }
        loop.cancel(evictionTimer)
    }

    // MARK: Listeners

    /// Accepts connections from a slot's listeners.
    func listen(to sockets: [WorkerListener], of slot: Int) throws(SystemError) {
        for socket in sockets {
            let listener = Listener(
                descriptor: socket.descriptor, isShared: socket.isShared, loop: loop,
                accepted: { [unowned self] descriptor, peer in accept(descriptor, peer, socket.place) },
                refused: { [unowned self] error in
                    noteExhaustion(error)
                    makeRoom()
                })
            entries.append(Entry(listener: listener, place: socket.place, slot: slot))
            try listener.start()
        }
    }

    /// Also accepts connections from another slot's listeners.
    func adopt(_ sockets: [WorkerListener], of slot: Int) {
        guard !isOver else { return }
        do {
            try listen(to: sockets, of: slot)
            if table.count >= maxConnections { hold() }
        } catch {
            logger.error("worker \(self.slot) cannot accept for slot \(slot): \(error)")
            release(slot)
        }
    }

    /// Stops accepting for another slot, whose own worker accepts again.
    func release(_ slot: Int) {
        for entry in entries where entry.slot == slot { entry.listener.stop() }
        entries.removeAll { $0.slot == slot }
    }

    /// Indices of the slot's own listeners.
    var ownListeners: Range<Int> { 0..<entries.count { $0.slot == slot } }

    /// Stops accepting.
    ///
    /// - Parameter closing: indices of own listeners that no process will accept from again. Their
    ///   queued connections are accepted first: the kernel has completed their handshakes.
    func end(closing: [Int]) {
        guard !isOver else { return }
        let own = entries.filter { $0.slot == slot }
        // When an address is removed, the other slots' sockets of it are closed too.
        let places = closing.filter { $0 < own.count }.map { own[$0].place }
        for (index, entry) in own.enumerated() where closing.contains(index) { entry.listener.acceptWaiting() }
        for entry in entries {
            if entry.slot != slot, places.contains(entry.place) { entry.listener.acceptWaiting() }
            entry.listener.stop()
        }
        isOver = true
    }

    private func hold() {
        for entry in entries { entry.listener.hold() }
    }

    // MARK: Connections

    private func accept(_ descriptor: consuming OwnedDescriptor, _ peer: SocketAddress, _ place: Int) {
        if turnsSomeAway, isTurnedAway(peer) { return }
        acceptedCount &+= 1
        let origin = PeerOrigin(peer, at: UInt16(truncatingIfNeeded: place))
        if let worker = worker() { start(Connection(descriptor, worker: worker, from: origin), peer, place) }
        if table.count >= maxConnections {
            hold()
            makeRoom()
        }
    }

    /// Starts an accepted connection, whose client has not sent a request yet.
    private func start(_ connection: Connection, _ peer: SocketAddress, _ place: Int) {
        let tls = application.tls.at(place)
        table.add(connection)
        do {
            let session = HTTPSession(stream: connection, peer: peer, allowsPlainHTTP: tls?.allowsPlainHTTP ?? false)
            if let tls {
                try connection.start(session, tls: (TLSSession(server: tls, buffers: connection.worker.tlsBuffers), tlsHandshakeTimeout))
            } else {
                try connection.start(session)
            }
            if connection.isOpen { pending.append(session) }
        } catch {
            logger.warning("a connection was turned away: \(error)")
        }
    }

    /// Called when the client has sent a request, or its connection has ended.
    func remove(_ session: HTTPSession) { pending.remove(session) }

    /// Called when a connection has ended.
    func connectionEnded() {
        isFull = false
        if !isOver { for entry in entries { entry.listener.resume() } }
    }

    /// Closes this peer's connections, and refuses new ones until `end`.
    func turnAway(_ peer: SocketAddress, until end: MonotonicTime) {
        guard let host = peer.hostAlone else { return }
        turnedAway[host] = end
        turnsSomeAway = true
        for connection in table.all where connection.origin.isOf(host) { connection.close() }
    }

    private func isTurnedAway(_ peer: SocketAddress) -> Bool {
        guard let host = peer.hostAlone, let end = turnedAway[host] else { return false }
        if loop.now < end { return true }
        turnedAway[host] = nil
        turnsSomeAway = !turnedAway.isEmpty
        return false
    }

    // MARK: Room

    /// Evicts the oldest client without a request, once its time has passed.
    private func makeRoom() {
        isFull = true
        guard let oldest = pending.oldest else { return }
        // Evict by timer, never at once: the client may have been accepted in this turn, its
        // request unread.
        let time = (oldest.since + Self.pendingPatience).millisecondsSince(loop.now)
        loop.schedule(evictionTimer, after: .milliseconds(time))
    }

    private func evictionIsDue() {
        guard isFull, let oldest = pending.oldest else { return }
        if oldest.since + Self.pendingPatience <= loop.now { oldest.evict() } else { makeRoom() }
    }

    private func noteExhaustion(_ error: SystemError) {
        guard let again = exhaustion.lineEnd(at: loop.now) else { return }
        logger.warning("no room for new connections: they wait, and a few are turned away (\(error)\(again))")
    }
}
