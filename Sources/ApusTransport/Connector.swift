package import ApusPlatform

/// Socket options for client connections.
package struct ConnectorSettings: Sendable {
    /// The local address; only destinations of its family are tried.
    package var bindAddress: SocketAddress?
    /// The network interface (`SO_BINDTODEVICE`).
    package var interface: String?
    /// TCP keep-alive; nil for none.
    package var keepAlive: (idleSeconds: Int32, intervalSeconds: Int32, probes: Int32)?
    /// Time between the starts of two attempts (RFC 8305 §5).
    package var attemptDelay = Duration.milliseconds(250)

    package init() {}
}

/// Connects to the first of several addresses that accepts (Happy Eyeballs, RFC 8305). Attempts
/// start 250 ms apart, or at once after a failure, alternating families with IPv6 first. The first
/// to succeed is used; the others are closed.
package final class Connector {
    /// An attempt that failed.
    package struct Failure: Error {
        package let address: SocketAddress
        package let error: SystemError
    }

    /// The result of all attempts.
    package enum Outcome: ~Copyable {
        case connected(OwnedDescriptor, SocketAddress)
        /// All attempts failed, in this order; empty if there was no address.
        case failed([Failure])
    }

    private let loop: EventLoop
    private let settings: ConnectorSettings
    private let pause = ClosureTimer()
    private var tell: ((consuming Outcome) -> Void)?
    private var waiting: (six: [SocketAddress], other: [SocketAddress]) = ([], [])
    private var lastWasSix = false
    private var attempts: [Attempt] = []
    private var failures: [Failure] = []
    private var isComplete = false

    /// - Parameter tell: called once with the outcome, never inside a call of this class, and not
    ///   after `cancel`.
    package init(_ loop: EventLoop, _ settings: ConnectorSettings, _ tell: @escaping (consuming Outcome) -> Void) {
        self.loop = loop
        self.settings = settings
        self.tell = tell
        pause.body = { [weak self] _, _ in self?.paused() }
    }

    deinit { cancel() }

    /// Adds addresses to try, with their ports.
    package func add(_ addresses: [SocketAddress]) {
        for address in addresses {
            switch address {
            case .ipv6: waiting.six.append(address)
            case .ipv4, .unix: waiting.other.append(address)
            }
        }
        if attempts.isEmpty { again() }
    }

    /// Declares that no more addresses will be added.
    package func complete() {
        isComplete = true
        if attempts.isEmpty { again() }
    }

    /// Closes all sockets; the outcome is not reported.
    package func cancel() {
        tell = nil
        loop.cancel(pause)
        for attempt in attempts { attempt.close() }
        attempts = []
    }

    /// Continues in the loop's next turn.
    private func again() { loop.schedule(pause, at: loop.now) }

    private func paused() {
        guard tell != nil else { return }
        while let address = next() {
            start(address)
            if !attempts.isEmpty { break }
        }
        if hasMore { return loop.schedule(pause, after: settings.attemptDelay) }
        if attempts.isEmpty, isComplete { finish(.failed(failures)) }
    }

    private var hasMore: Bool { !(waiting.six.isEmpty && waiting.other.isEmpty) }

    /// The next address, alternating families with IPv6 first (RFC 8305 §4).
    private func next() -> SocketAddress? {
        let takesSix = !waiting.six.isEmpty && (!lastWasSix || waiting.other.isEmpty)
        lastWasSix = takesSix
        if takesSix { return waiting.six.removeFirst() }
        return waiting.other.isEmpty ? nil : waiting.other.removeFirst()
    }

    private func start(_ address: SocketAddress) {
        var attempt: Attempt?
        do throws(SystemError) {
            let socket = try Socket.stream(for: address)
            try prepare(socket.rawValue, for: address)
            let started = Attempt(socket.release(), address, self, loop)
            attempt = started
            attempts.append(started)
            try started.connect()
        } catch {
            failed(attempt, address, error)
        }
    }

    private func prepare(_ socket: Int32, for address: SocketAddress) throws(SystemError) {
        guard address.port != nil else { return }
        try Socket.set(.noDelay, on: socket)
        if let keepAlive = settings.keepAlive {
            try Socket.set(.keepAlive, on: socket)
            try Socket.set(.keepAliveIdle(keepAlive.idleSeconds), on: socket)
            try Socket.set(.keepAliveInterval(keepAlive.intervalSeconds), on: socket)
            try Socket.set(.keepAliveProbes(keepAlive.probes), on: socket)
        }
        if let interface = settings.interface { try Socket.bind(socket, toInterface: interface) }
        if let bindAddress = settings.bindAddress {
            if bindAddress.port == 0 { try Socket.set(.bindWithoutPort, on: socket) }
            try Socket.bind(socket, to: bindAddress)
        }
    }

    fileprivate func failed(_ attempt: Attempt?, _ address: SocketAddress, _ error: SystemError) {
        failures.append(Failure(address: address, error: error))
        if let attempt {
            attempt.close()
            attempts.removeAll { $0 === attempt }
        }
        // The next attempt starts at once.
        if hasMore || attempts.isEmpty { again() }
    }

    fileprivate func succeeded(_ attempt: Attempt) {
        attempts.removeAll { $0 === attempt }
        let socket = attempt.take()
        finish(.connected(OwnedDescriptor(rawValue: socket), attempt.address))
    }

    private func finish(_ outcome: consuming Outcome) {
        let tell = tell
        cancel()
        tell?(outcome)
    }
}

/// One connection attempt.
private final class Attempt: EventSource {
    let address: SocketAddress
    private var descriptor: Int32
    private unowned let connector: Connector
    private let loop: EventLoop

    /// Time between attempts on a Unix socket whose listen queue is full: such a connect does not
    /// wait by itself.
    private static let retryDelay = Duration.milliseconds(5)

    init(_ descriptor: Int32, _ address: SocketAddress, _ connector: Connector, _ loop: EventLoop) {
        self.descriptor = descriptor
        self.address = address
        self.connector = connector
        self.loop = loop
    }

    func connect() throws(SystemError) {
        switch try Socket.connect(descriptor, to: address) {
        case .wouldBlock where address.port == nil: loop.schedule(self, after: Self.retryDelay)
        // A socket that is connected already is reported writable in the next turn, so the outcome
        // is never reported from here.
        case .done, .wouldBlock: try loop.add(self, descriptor: descriptor, for: .writable)
        }
    }

    override func timerFired(at now: MonotonicTime) {
        do throws(SystemError) { try connect() } catch { connector.failed(self, address, error) }
    }

    override func ready(_ readiness: Readiness, in loop: EventLoop) {
        do throws(SystemError) {
            if let error = try Socket.pendingError(of: descriptor) { throw error }
            connector.succeeded(self)
        } catch {
            connector.failed(self, address, error)
        }
    }

    /// Releases the socket without closing it.
    func take() -> Int32 {
        defer { descriptor = -1 }
        loop.remove(self, descriptor: descriptor)
        return descriptor
    }

    func close() {
        if descriptor >= 0 { OwnedDescriptor.close(take()) }
    }
}
