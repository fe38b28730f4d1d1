import ApusBus
import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// `Server.run()`: what the master has besides its supervisor.
final class MasterProcess {
    private var server: Server
    private let listeners: SlotListeners
    /// Addresses that a service manager has opened; served when the description names none.
    private let passed: [SocketAddress]
    private let predecessor: Int32?
    /// Taken before the title overwrites it.
    private let program = CommandLine.arguments
    private var bus: Bus
    /// What the workers that are started next serve.
    private var application: Application?
    private var certificateWatch: CertificateWatch?
    private let ticketKeys: TicketKeys
    private var hasWrittenPorts = false

    struct Bus {
        let mailboxes: Mailboxes
        let interest: InterestTable
        /// Slots that it has room for.
        let slots: Int
        /// The master's end.
        let remote: ServerRemote
        /// The protocols in the order of their numbers, which records carry.
        let protocols: [String]
    }

    /// How long an address that is in use may stay so: the workers of a master that was killed need a moment to let go.
    private static let listenPatience = Duration.milliseconds(300)
    private static let listenPauseMilliseconds: Int32 = 20

    init(_ server: Server) throws(ConfigurationError) {
        self.server = server
        let workers = try server.checkedWorkers
        for file in [server.pidFile, server.portFile] {
            guard let file else { continue }
            do { try FileSystem.checkReplaceable(file) } catch { throw .file(file, error.reason) }
        }
        let inheritance = try Activation.take()
        predecessor = inheritance.predecessor
        ticketKeys = inheritance.predecessor.flatMap { Inheritance.bequest(on: $0) }.flatMap { TicketKeys(handedDown: $0) } ?? TicketKeys()
        passed = inheritance.groups.map(\.bound)
        listeners = SlotListeners(slots: workers, inherited: inheritance.groups)
        // A bus has several descriptors for each worker.
        _ = Process.raiseDescriptorLimit()
        bus = try Self.makeBus(for: server)
    }

    /// A fork has the calling thread only: locks that others hold stay locked in it for ever.
    private static func checkThreads() throws(ConfigurationError) {
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

    /// Room for half as many workers again: a slot costs every process a few descriptors.
    private static func makeBus(for server: Server) throws(ConfigurationError) -> Bus {
        let count = try server.checkedWorkers
        let slots = min(count + max(4, count / 2), Server.maxWorkers)
        do {
            let (mailboxes, interest) = (try Mailboxes(slots: slots), try InterestTable(slots: slots))
            return Bus(
                mailboxes: mailboxes, interest: interest, slots: slots, remote: ServerRemote(Outsider(mailboxes, interest)),
                protocols: server.protocolNames)
        } catch {
            throw .system("\(error)")
        }
    }

    private func blueprint() throws(ConfigurationError) -> Blueprint {
        try server.limits.check()
        let room = Context.connections(within: Process.raiseDescriptorLimit())
        if let most = server.limits.maxConnections, most > room {
            server.logger.warning(
                "maxConnections is \(most), but the limit on descriptors leaves room for \(room) connections of a worker: it takes no more")
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
        // The worker ends by itself; only if it does not, it is ended.
        configuration.drainTimeout = server.limits.drainTimeout + .seconds(2)
        let addresses = try Self.addresses(of: server, passed: passed)
        var blueprint = Blueprint(configuration: configuration, addresses: addresses) { [logFile = server.logFile] worker in
            logFile?.becomeWorker()
            return application.serve(as: worker)
        }
        blueprint.serving = { row in FlightRecord(row).map { $0.report(application, addresses) } }
        blueprint.blame = { [located = server.located] error in located?(.listen("\(error)")) ?? error }
        blueprint.whenEnded = { mailbox, life in
            BroadcastBus.ended(place: mailbox, generation: life, mailboxes: bus.mailboxes, interest: bus.interest)
        }
        return blueprint
    }

    /// The next generation's description. The records of the present one's bus carry numbers of protocols, and it has room for so many slots:
    /// a description that does not fit gets a bus of its own, as does any when a worker has shut down a mailbox of this one.
    private func reload() throws -> Blueprint {
        let before = (server, bus)
        server.logFile?.forgetMove()
        do {
            if let describe = server.reload {
                var next = try describe()
                keepFiles(of: server, in: &next)
                next.reload = next.reload ?? server.reload
                server = next
                if try next.checkedWorkers > bus.slots || next.protocolNames != bus.protocols { bus = try Self.makeBus(for: next) }
                if bus.mailboxes.isShut { bus = try Self.makeBus(for: next) }
                next.whenStarting?(bus.remote)
            } else if bus.mailboxes.isShut {
                bus = try Self.makeBus(for: server)
                server.whenStarting?(bus.remote)
            }
            let blueprint = try blueprint()
            // What the description says holds again.
            LogLevelOverride.clear()
            return blueprint
        } catch {
            (server, bus) = before
            throw error
        }
    }

    /// Another program may know the process by its pid and port file, and the log is moved by who writes it: a reload changes none.
    private func keepFiles(of present: Server, in next: inout Server) {
        for (name, old, new) in [("pid", present.pidFile, next.pidFile), ("port", present.portFile, next.portFile)] where old != new {
            present.logger.warning("the \(name) file is \(old ?? "none") until the server is started anew: a reload does not change it")
        }
        next.pidFile = present.pidFile
        next.portFile = present.portFile
        next.logFile = present.logFile
    }

    // MARK: Running

    func run() throws(ConfigurationError) {
        let blueprint = try blueprint()
        try Self.checkThreads()
        // From here on others can see it.
        try listen(on: blueprint.addresses)
        try server.setSocketAccess()
        server.sandbox.announceUser(server.logger)
        let pidFile: PidFile? = if let path = server.pidFile { try PidFile(path) } else { nil }
        // One that was killed has left its own; that of a predecessor that serves on is right.
        if predecessor == nil, let file = server.portFile { FileSystem.remove(file) }
        server.whenStarting?(bus.remote)
        do {
            let supervisor = try Supervisor(
                blueprint: blueprint, listeners: listeners, logger: server.logger, predecessor: predecessor)
            try server.logFile?.attach(to: supervisor.loop)
            supervisor.program = program
            supervisor.bequest = { [ticketKeys] in ticketKeys.handedDown }
            supervisor.makeBlueprint = { [unowned self] in try reload() }
            supervisor.changeLogLevel = { LogLevelOverride.set($0)?.rawValue }
            supervisor.reopenLogs = { [unowned self] in reopenLogs() }
            supervisor.whyNotUpgrade = { pidFile?.obstacle }
            supervisor.whenUpgrading = { pidFile?.follow($0) }
            supervisor.whenAllReady = { [unowned self] addresses, count in
                writePorts(addresses)
                announce(addresses, workers: count)
                server.whenReady?(addresses, count)
            }
            supervisor.whenReloaded = { [unowned self, unowned supervisor] addresses, _ in
                supervisor.logger = server.logger
                server.logFile?.move()
                do throws(ConfigurationError) { try server.setSocketAccess() } catch { server.logger.error("\(error)") }
                watchCertificates(for: supervisor)
                writePorts(addresses)
            }
            watchCertificates(for: supervisor)
            defer {
                pidFile?.remove()
                // A new program has written its own, and one that never served has left the first one's.
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

    /// Those of the generation that serves.
    private func watchCertificates(for supervisor: Supervisor) {
        certificateWatch = nil
        guard let application, let interval = server.certificateCheckInterval else { return }
        certificateWatch = CertificateWatch(application, every: interval, supervisor, server.logger)
    }

    private func reopenLogs() {
        do { try server.logFile?.reopen() } catch { server.logger.error("\(error)") }
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

/// What another process has opened for this one, told by environment variables.
enum Activation {
    /// Where the service manager's descriptors begin (sd_listen_fds(3)).
    private static let firstDescriptor: Int32 = 3

    /// Whether a service manager has passed listening sockets to this process, or to the program before it.
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

    /// Takes everything over, and the variables away: they are not for those that this process starts.
    static func take() throws(ConfigurationError) -> (groups: [ListenerGroup], predecessor: Int32?) {
        defer {
            for name in [Inheritance.listeners, Inheritance.channel, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
                Process.removeEnvironment(name)
            }
        }
        if let text = Process.environment(Inheritance.listeners) {
            let channel = Process.environment(Inheritance.channel).flatMap { Int32($0) }.flatMap { Process.isOpen($0) ? $0 : nil }
            if let channel { do { try Socket.adopt(channel) } catch { throw .system("\(Inheritance.channel): \(error)") } }
            return (SlotListeners.inherit(text), channel)
        }
        let count = passedCount
        let names = (Process.environment("LISTEN_FDNAMES") ?? "").split(separator: ":", omittingEmptySubsequences: false)
        for place in 0..<count where !Socket.isListening(firstDescriptor + place) {
            let name = Int(place) < names.count ? " (\(names[Int(place)]))" : ""
            throw .listen("descriptor \(firstDescriptor + place)\(name) of LISTEN_FDS is no listening stream socket")
        }
        return (SlotListeners.inherit(descriptors: firstDescriptor..<firstDescriptor + count), nil)
    }
}
