import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// A checked server description with its opened resources, inherited by every worker through the
/// fork.
final class Application {
    let server: Server
    let routes: Routes
    /// The TLS of new connections. Established connections keep theirs.
    private(set) var tls: ListenerTLS
    /// The TLS contexts of `Server.clientTLS`, loaded before the fork.
    let clientTLS: [ClientRuntime.Prepared]
    private let ticketKeys: TicketKeys
    /// The workers' sandbox; nil for a server in one process.
    private var sandbox: Sandbox?
    /// The bus; nil for a server in one process.
    var bus: (mailboxes: Mailboxes, interest: InterestTable)?

    /// - Parameter ticketKeys: the keys of session tickets; all generations share them, so that
    ///   sessions survive a reload.
    init(_ server: Server, ticketKeys: TicketKeys = TicketKeys()) throws(ConfigurationError) {
        if let conflict = ExtensionNegotiation.conflict(in: server.extensions) { throw .extensions(conflict) }
        self.server = server
        self.ticketKeys = ticketKeys
        if let first = server.originFaults.first { throw first.error }
        try ServerCheck(server: server).checkCertificateInterval()
        routes = try server.configuredRoutes
        tls = try ListenerTLS(server, ticketKeys: ticketKeys)
        clientTLS = try Self.prepare(server.clientTLS)
    }

    /// Reads the files of `Server.clientTLS`.
    static func prepare(_ all: [ClientTLS]) throws(ConfigurationError) -> [ClientRuntime.Prepared] {
        var prepared: [ClientRuntime.Prepared] = []
        for (place, options) in all.enumerated() {
            guard let key = options.sharingKey else {
                throw .clientTLS(place, "expected options with files only, got a function or a TLS context")
            }
            do throws(TLSSetupError) {
                prepared.append((key, try TLSContext(options)))
            } catch {
                throw .clientTLS(place, error.description)
            }
        }
        return prepared
    }

    /// Reloads the certificates from `files`, or from the files on disk.
    ///
    /// - Throws: `ConfigurationError.tls`; then the previous certificates stay.
    func replaceTLS(with files: TLSFiles = TLSFiles()) throws(ConfigurationError) {
        tls = try ListenerTLS(server, ticketKeys: ticketKeys, files: files)
    }

    /// Opens the listeners of a server in one process.
    func listeners() throws(ConfigurationError) -> SlotListeners {
        var addresses: [SocketAddress] = []
        for (address, _) in server.addresses { addresses.append(try address.socketAddress) }
        _ = Process.raiseDescriptorLimit()
        let listeners: SlotListeners
        do { listeners = try SlotListeners(addresses: addresses, slots: 1) } catch { throw .listen("\(error)") }
        try server.setSocketAccess()
        return listeners
    }

    /// Prepares the workers' sandbox before the fork.
    func prepareSandbox() throws(ConfigurationError) {
        var features: Set<SystemCalls.Feature> = [.base]
        if !routes.directories.isEmpty { features.insert(.files) }
        if tls.isSpoken { features.insert(.tls) }
        var sandbox = try server.sandbox.prepare(features: features, logger: server.logger)
        sandbox.readable = routes.directories.map { $0.root.rawValue }
        for mount in routes.directories {
            guard let identity = sandbox.identity, sandbox.mode != .off,
                (try? FileSystem.maySearch(mount.root.rawValue, user: identity.user, group: identity.group)) == false
            else { continue }
            server.logger.warning(
                "the workers' user \(identity.user) may not enter \"\(mount.directory)\": requests for its files are answered with 403"
            )
        }
        self.sandbox = sandbox
    }

    /// The descriptors that a worker keeps from before the fork.
    private func declaredDescriptors(of control: WorkerControl) -> [Int32] {
        [0, 1, 2] + control.descriptors + (bus?.mailboxes.descriptors(of: control.mailbox) ?? [])
            + routes.directories.map { $0.root.rawValue }
            + (server.logFile.map { [$0.workerDescriptor] } ?? []) + server.sandbox.keptDescriptors
    }

    /// Why no worker can be forked: Dispatch's state cannot be used in a child.
    ///
    /// - Parameter place: where Dispatch was used.
    static func dispatchFault(_ place: String) -> String {
        "expected no Task, Dispatch queue or run loop in \(place): they cannot be used before a fork; start them in onWorkerStart"
    }

    /// Runs a worker.
    ///
    /// - Returns: the exit status of its process.
    func serve(as control: WorkerControl) -> Int32 {
        if TaskQueue.isDispatchUsed {
            control.reportFailure(Self.dispatchFault("the master"))
            return WorkerControl.doNotRestart
        }
        // The keys inherited from the master may belong to an earlier period.
        ticketKeys.advance()
        do {
            if let sandbox, sandbox.mode != .off { try Confinement.closeDescriptors(except: declaredDescriptors(of: control)) }
            let worker = try Worker(
                self, identity: WorkerIdentity(slot: control.slot, count: control.count, generation: control.incarnation - 1),
                mailbox: control.mailbox, listening: control.listeners, row: control.row, owner: nil)
            try control.attach(to: worker.loop) { [self] command in
                switch command {
                // The worker stops accepting, and its successors can bind the addresses.
                case .drain: worker.drain(closing: Array(control.listeners.indices))
                case .masterDied: worker.drain(closing: Array(control.listeners.indices), within: control.orphanDrainTimeout)
                case .handOver(let closing): worker.drain(closing: closing)
                case .stop: worker.stop()
                case .application(let record): return replaceTLS(with: record, in: worker)
                case .quarantine(let peer, let end): return worker.admission.turnAway(peer, until: end)
                case .logLevel(let level):
                    LogLevelOverride.set(level)
                    return
                case .adopt, .release: return
                }
                control.closeListeners()
            }
            for (peer, end) in control.quarantined { worker.admission.turnAway(peer, until: end) }
            control.onAdopt = { slot, sockets in worker.admission.adopt(sockets, of: slot) }
            control.onRelease = { slot in worker.admission.release(slot) }
            Process.loadEnvironment()
            try TaskQueue.serveMainQueue(in: worker.loop) { begins in
                begins ? FlightRecord.noteTask(in: control.row) : worker.servingNothing()
            }
            let hasThreads = server.sandbox.allows.contains(.threads) || server.sandbox.mode == .off
            TaskQueue.serve(hasThreads ? .tasks : .everything, in: worker.loop)
            try worker.begin()
            try sandbox?.enter(
                controlChannel: control.channelDescriptor, noting: control.row, userChanged: control.guardAgainstMasterDeath)
            control.reportReady()
            try worker.run()
            return 0
        } catch let error as SandboxError {
            control.reportFailure("sandbox: \(error)")
            return WorkerControl.doNotRestart
        } catch {
            control.reportFailure("\(error)")
            return 1
        }
    }

    /// Takes over new certificates that the master has loaded and checked.
    private func replaceTLS(with record: [UInt8], in worker: Worker) {
        do {
            guard let files = TLSFiles(encoded: record) else { throw ConfigurationError.system("unknown record from the master") }
            try replaceTLS(with: files)
        } catch {
            worker.logger.error("cannot replace the certificates: \(error)")
        }
    }
}
