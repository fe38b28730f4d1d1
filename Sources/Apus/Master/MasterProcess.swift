import ApusBus
import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// The master of `Server.run()`, except its supervisor.
final class MasterProcess {
    private var server: Server
    private let listeners: SlotListeners
    /// Addresses that a service manager has opened; served if the description has none.
    private let passed: [SocketAddress]
    private let predecessor: Int32?
    /// The command line, read before the process title overwrites it.
    let program: [String]? = CommandLine.arguments
    private var bus: Bus
    /// The application of the next workers.
    private var application: Application?
    private var certificateWatch: CertificateWatch?
    private var pidFile: PidFile?
    private let ticketKeys: TicketKeys
    private var hasWrittenPorts = false

    struct Bus {
        let mailboxes: Mailboxes
        let interest: InterestTable
        /// Capacity, in slots.
        let slots: Int
        /// The master's handle to all workers.
        let remote: ServerRemote
        /// Protocols by number; records carry the numbers.
        let protocols: [String]
    }

    /// How long binding is retried while an address is in use: workers of a killed master take a
    /// moment to exit.
    private static let listenPatience = Duration.milliseconds(300)
    private static let listenPauseMilliseconds: Int32 = 20

    init(_ server: Server) throws(ConfigurationError) {
        self.server = server
        let workers = try server.checkedWorkers
        try ServerCheck(server: server).checkFiles()
        for file in [server.pidFile, server.portFile] {
            guard let file else { continue }
            do { try FileSystem.checkReplaceable(file) } catch { throw .file(file, error.reason) }
        }
        let inheritance = try Activation.take()
        predecessor = inheritance.predecessor
        ticketKeys =
            inheritance.predecessor.flatMap { Inheritance.upgradePayload(on: $0) }.flatMap { TicketKeys(handedDown: $0) } ?? TicketKeys()
        passed = inheritance.groups.map(\.bound)
        listeners = SlotListeners(slots: workers, inherited: inheritance.groups)
        // A bus needs several descriptors per worker.
        _ = Process.raiseDescriptorLimit()
        bus = try Self.makeBus(for: server)
    }

    /// A fork copies the calling thread only: locks that other threads hold stay locked in the
    /// child. Dispatch has descriptors that a child cannot use.
    private static func checkThreads() throws(ConfigurationError) {
        if TaskQueue.isDispatchUsed { throw .workers(Application.dispatchFault("a process that calls run()")) }
        let threads = Process.threadCount
        guard threads > 1 else { return }
        throw .workers(
            "run() needs a process with one thread; this one has \(threads): call it before any Task, Dispatch queue or thread, and not below"
                + " `async main`")
    }

    private func listen(on addresses: [SocketAddress]) throws(ConfigurationError) {
        let deadline = MonotonicTime.now() + Self.listenPatience
        while true {
            do throws(ListenError) {
                _ = try listeners.open(addresses)
                return
            } catch {
                guard error.isAddressInUse, MonotonicTime.now() < deadline else { throw .listen("\(error)") }
                Process.pause(milliseconds: Self.listenPauseMilliseconds)
            }
        }
    }

    private static func addresses(of server: Server, passed: [SocketAddress]) throws(ConfigurationError) -> [SocketAddress] {
        if server.addresses.isEmpty {
            if passed.isEmpty { throw .nothingToListenOn }
            return passed
        }
        var addresses: [SocketAddress] = []
        for (address, _) in server.addresses { addresses.append(try address.socketAddress) }
        return addresses
    }

    // MARK: Generations

    /// Capacity for half as many workers again: each slot costs every process a few descriptors.
    private static func makeBus(for server: Server) throws(ConfigurationError) -> Bus {
        let count = try server.checkedWorkers
        let slots = min(count + max(4, count / 2), Server.maxWorkers)
        do {
            let (mailboxes, interest) = (try Mailboxes(slots: slots), try InterestTable(slots: slots))
            return Bus(
                mailboxes: mailboxes, interest: interest, slots: slots, remote: ServerRemote(ExternalSender(mailboxes, interest)),
                protocols: server.protocolNames)
        } catch {
            throw .system("\(error)")
        }
    }

    private func spec() throws(ConfigurationError) -> WorkerSpec {
        try server.limits.check()
        let room = Admission.connections(within: Process.raiseDescriptorLimit())
        if let most = server.limits.maxConnections, most > room {
            server.logger.warning(
                "maxConnections is \(most), but the limit on descriptors leaves room for \(room) connections per worker")
        }
        let application = try Application(server, ticketKeys: ticketKeys)
        try application.prepareSandbox()
        self.application = application
        let bus = bus
        application.bus = (bus.mailboxes, bus.interest)
        var configuration = SupervisorConfiguration(workers: try server.checkedWorkers)
        configuration.maxWorkers = bus.slots
        configuration.heartbeatTimeout = server.limits.heartbeatTimeout
        configuration.quarantine = server.quarantine
        // Workers end by themselves; the supervisor kills them only if they do not.
        configuration.drainTimeout = server.limits.drainTimeout + .seconds(2)
        let addresses = try Self.addresses(of: server, passed: passed)
        var spec = WorkerSpec(configuration: configuration, addresses: addresses) { [logFile = server.logFile] worker in
            logFile?.becomeWorker()
            return application.serve(as: worker)
        }
        spec.serving = { row in FlightRecord(row).map { $0.report(application, addresses) } }
        spec.locate = { [located = server.located] error in located?(.listen("\(error)")) ?? error }
        spec.onWorkerEnd = { mailbox, incarnation in
            BroadcastBus.ended(place: mailbox, generation: incarnation, mailboxes: bus.mailboxes, interest: bus.interest)
        }
        return spec
    }

    /// Makes the next generation's specification. A new bus is made if the description changes the
    /// protocols' numbers or exceeds the bus's capacity, or if a worker has shut down a mailbox.
    private func reload() throws -> WorkerSpec {
        let before = (server, bus)
        // The present workers serve on; new ones would not start.
        if TaskQueue.isDispatchUsed { throw ConfigurationError.workers(Application.dispatchFault("the master")) }
        server.logFile?.forgetMove()
        do {
            if let describe = server.reload {
                var next = try describe()
                keepFiles(of: server, in: &next)
                next.reload = next.reload ?? server.reload
                server = next
                if try next.checkedWorkers > bus.slots || next.protocolNames != bus.protocols { bus = try Self.makeBus(for: next) }
                if bus.mailboxes.isShut { bus = try Self.makeBus(for: next) }
                next.onStart?(bus.remote)
            } else if bus.mailboxes.isShut {
                bus = try Self.makeBus(for: server)
                server.onStart?(bus.remote)
            }
            let spec = try spec()
            // The level of the description applies again.
            LogLevelOverride.clear()
            return spec
        } catch {
            (server, bus) = before
            throw error
        }
    }

    /// Keeps the pid file, the port file and the log: other programs rely on their paths, and
    /// `LogFile` moves by itself.
    private func keepFiles(of present: Server, in next: inout Server) {
        for (name, old, new) in [("pid", present.pidFile, next.pidFile), ("port", present.portFile, next.portFile)] where old != new {
            present.logger.warning("the \(name) file is \(old ?? "none") until the server is restarted: a reload does not change it")
        }
        next.pidFile = present.pidFile
        next.portFile = present.portFile
        next.logFile = present.logFile
    }

    // MARK: Running

    func run() throws(ConfigurationError) {
        let spec = try spec()
        try Self.checkThreads()
        // Threads that the application starts in the master inherit this.
        do { try Supervisor.blockSignals() } catch { throw .system("\(error)") }
        TaskQueue.refuse { [logger = server.logger] in
            logger.error(
                "expected no Task in the master (onStart, onReady, reload), got one: it does not run; start it in onWorkerStart")
        }
        defer { TaskQueue.allow() }
        // From here on the server is visible to other processes.
        try listen(on: spec.addresses)
        try server.setSocketAccess()
        server.sandbox.announceUser(server.logger)
        if let path = server.pidFile { pidFile = try PidFile(path) }
        defer { pidFile?.remove() }
        // A killed master has left its port file. The file of a predecessor that still serves is
        // right.
        if predecessor == nil, let file = server.portFile { FileSystem.remove(file) }
        server.onStart?(bus.remote)
        do {
            let supervisor = try Supervisor(
                spec: spec, listeners: listeners, delegate: self, logger: server.logger, predecessor: predecessor)
            try server.logFile?.attach(to: supervisor.loop)
            watchCertificates(for: supervisor)
            defer {
                // After an upgrade the file is the new program's; without a written one it is the
                // predecessor's.
                if !supervisor.isHandedOver, hasWrittenPorts, let file = server.portFile { FileSystem.remove(file) }
            }
            try supervisor.run()
        } catch {
            throw .workers("\(error)")
        }
    }

    private func announce(_ bound: [SocketAddress], workers: Int) {
        let places = bound.enumerated().map { index, address in
            guard address.port != nil else { return "\(address)" }
            let tls = server.addresses.isEmpty ? server.passedTLS : server.addresses[index].tls
            return "\(tls == nil ? "http" : "https")://\(address)"
        }
        server.logger.notice("listening on \(places.joined(separator: ", ")) with \(workers) \(workers == 1 ? "worker" : "workers")")
    }

    /// Watches the certificates of the serving generation.
    private func watchCertificates(for supervisor: Supervisor) {
        certificateWatch = nil
        guard let application, let interval = server.certificateCheckInterval else { return }
        certificateWatch = CertificateWatch(application, every: interval, supervisor, server.logger)
    }

    private func writePorts(_ addresses: [SocketAddress]) {
        guard let file = server.portFile else { return }
        do {
            try FileSystem.replace(file, with: addresses.map { "\($0)\n" }.joined())
            hasWrittenPorts = true
        } catch {
            server.logger.error("cannot write \(file): \(error)")
        }
    }
}

extension MasterProcess: SupervisorDelegate {
    var upgradePayload: [UInt8] { ticketKeys.handedDown }
    var upgradeObstacle: String? { pidFile?.obstacle }

    func supervisorBecameReady(_ supervisor: Supervisor) {
        writePorts(supervisor.addresses)
        announce(supervisor.addresses, workers: supervisor.workerCount)
        server.onReady?(supervisor.addresses, supervisor.workerCount)
    }

    func makeWorkerSpec() throws -> WorkerSpec { try reload() }

    func supervisorReloaded(_ supervisor: Supervisor) {
        supervisor.logger = server.logger
        server.logFile?.move()
        do throws(ConfigurationError) { try server.setSocketAccess() } catch { server.logger.error("\(error)") }
        watchCertificates(for: supervisor)
        writePorts(supervisor.addresses)
    }

    func setLogLevel(_ number: UInt8) -> String? { LogLevelOverride.set(number)?.rawValue }

    func reopenLogs() {
        do { try server.logFile?.reopen() } catch { server.logger.error("\(error)") }
    }

    func upgradeReached(_ stage: UpgradeStage) { pidFile?.follow(stage) }
}

/// Sockets that another process has opened for this one, passed in environment variables.
enum Activation {
    /// The first descriptor of the service manager (sd_listen_fds(3)).
    private static let firstDescriptor: Int32 = 3

    /// Whether a service manager has passed listening sockets to this process or its predecessor.
    static var isPassed: Bool {
        if let text = Process.environment(Inheritance.listeners) { return text.contains("=shared:") }
        return passedCount > 0
    }

    private static var passedCount: Int32 {
        guard Process.environment("LISTEN_PID").flatMap({ Int32($0) }) == Process.id,
            let count = Process.environment("LISTEN_FDS").flatMap({ Int32($0) }), count > 0, count < 10_000
        else { return 0 }
        return count
    }

    /// Takes over the sockets and removes the variables, so that child processes do not inherit
    /// them.
    static func take() throws(ConfigurationError) -> (groups: [ListenerGroup], predecessor: Int32?) {
        defer {
            for name in [Inheritance.listeners, Inheritance.channel, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
                Process.removeEnvironment(name)
            }
        }
        if let text = Process.environment(Inheritance.listeners) {
            let channel = Process.environment(Inheritance.channel).flatMap { Int32($0) }.flatMap { Process.isOpen($0) ? $0 : nil }
            if let channel { do { try Socket.adopt(channel) } catch { throw .system("\(Inheritance.channel): \(error)") } }
            return (Inheritance.groups(in: text), channel)
        }
        let count = passedCount
        let names = (Process.environment("LISTEN_FDNAMES") ?? "").split(separator: ":", omittingEmptySubsequences: false)
        for place in 0..<count where !Socket.isListening(firstDescriptor + place) {
            let name = Int(place) < names.count ? " (\(names[Int(place)]))" : ""
            throw .listen("descriptor \(firstDescriptor + place)\(name) of LISTEN_FDS is not a listening stream socket")
        }
        return (Inheritance.groups(descriptors: firstDescriptor..<firstDescriptor + count), nil)
    }
}
