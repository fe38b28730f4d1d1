import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// A server's description, checked and opened: what every worker gets by the fork.
final class Application {
    let server: Server
    let routes: Routes
    /// What new connections are secured with; those there are keep theirs.
    private(set) var tls: ListenerTLS
    /// What handlers that are clients speak, read already.
    let clientTLS: [ClientSide.Prepared]
    private let ticketKeys: TicketKeys
    /// What workers give up; nil in a process of its own.
    private var sandbox: Sandbox?
    /// The bus of a server with several processes.
    var bus: (mailboxes: Mailboxes, interest: InterestTable)?

    /// - Parameter ticketKeys: what session tickets are sealed with; the same for all generations, so that sessions outlive a reload.
    init(_ server: Server, ticketKeys: TicketKeys = TicketKeys()) throws(ConfigurationError) {
        if let conflict = ExtensionNegotiation.conflict(in: server.extensions) { throw .extensions(conflict) }
        self.server = server
        self.ticketKeys = ticketKeys
        if let first = server.originFaults.first { throw first.error }
        routes = try server.configuredRoutes
        tls = try ListenerTLS(server, ticketKeys: ticketKeys)
        clientTLS = try Self.prepare(server.clientTLS)
    }

    private static func prepare(_ all: [ClientTLS]) throws(ConfigurationError) -> [ClientSide.Prepared] {
        var prepared: [ClientSide.Prepared] = []
        for (place, options) in all.enumerated() {
            guard let key = options.sharingKey else {
                throw .clientTLS(place, "expected files, got a function or a context of your own, which reads what it wants itself")
            }
            do throws(TLSSetupError) {
                prepared.append((key, try TLSContext(options)))
            } catch {
                throw .clientTLS(place, error.description)
            }
        }
        return prepared
    }

    /// Goes over to the certificates in `files`, or in the files as they are now.
    func replaceTLS(with files: TLSFiles = TLSFiles()) throws(ConfigurationError) {
        tls = try ListenerTLS(server, ticketKeys: ticketKeys, files: files)
    }

    /// For a loop in this process.
    func listeners() throws(ConfigurationError) -> SlotListeners {
        var addresses: [SocketAddress] = []
        for (address, _) in server.addresses { addresses.append(try address.socketAddress) }
        _ = Process.raiseDescriptorLimit()
        let listeners: SlotListeners
        do { listeners = try SlotListeners(addresses: addresses, slots: 1) } catch { throw .listen("\(error)") }
        try server.setSocketAccess()
        return listeners
    }

    /// Checks what workers will give up, before the fork.
    func prepareSandbox() throws(ConfigurationError) {
        var features: Set<SystemCalls.Feature> = [.base]
        if !routes.mounts.isEmpty { features.insert(.files) }
        if tls.isSpoken { features.insert(.tls) }
        var sandbox = try server.sandbox.prepare(features: features, logger: server.logger)
        sandbox.readable = routes.mounts.map { $0.root.rawValue }
        for mount in routes.mounts {
            guard let identity = sandbox.identity, sandbox.mode != .off,
                (try? FileSystem.maySearch(mount.root.rawValue, user: identity.user, group: identity.group)) == false
            else { continue }
            server.logger.warning(
                "the workers, user \(identity.user), may not enter \"\(mount.directory)\": whatever is asked for there is answered with 403"
            )
        }
        self.sandbox = sandbox
    }

    /// What a worker may hold of what was open before the fork.
    private func declaredDescriptors(of worker: Worker) -> [Int32] {
        [0, 1, 2] + worker.descriptors + (bus?.mailboxes.descriptors(of: worker.mailbox) ?? []) + routes.mounts.map { $0.root.rawValue }
            + (server.logFile.map { [$0.workerDescriptor] } ?? []) + server.sandbox.keptDescriptors
    }

    /// A worker's life; its result is the exit status.
    func serve(as worker: Worker) -> Int32 {
        // The master's may be of a period that is over.
        ticketKeys.advance()
        do {
            if let sandbox, sandbox.mode != .off { try Confinement.closeDescriptors(except: declaredDescriptors(of: worker)) }
            let context = try Context(
                self, worker: WorkerIdentity(slot: worker.slot, count: worker.count, generation: worker.generation - 1),
                mailbox: worker.mailbox, listening: worker.listeners, row: worker.row, owner: nil)
            try worker.attach(to: context.loop) { [self] command in
                switch command {
                // Nobody accepts here any more: whoever comes next finds the addresses free.
                case .drain: context.drain(closing: Array(worker.listeners.indices))
                case .masterDied: context.drain(closing: Array(worker.listeners.indices), within: worker.orphanPatience)
                case .handOver(let closing): context.drain(closing: closing)
                case .stop: context.stop()
                case .application(let record): return replaceTLS(with: record, in: context)
                case .turnAway(let peer, let end): return context.turnAway(peer, until: end)
                case .logLevel(let level):
                    LogLevelOverride.set(level)
                    return
                case .adopt, .release: return
                }
                worker.closeListeners()
            }
            for (peer, end) in worker.turnedAway { context.turnAway(peer, until: end) }
            worker.whenAdopting = { slot, sockets in context.adopt(sockets, of: slot) }
            worker.whenReleasing = { slot in context.release(slot) }
            Process.loadEnvironment()
            try TaskQueue.serveMainQueue(in: context.loop) { begins in begins ? context.servingTask() : context.servingNothing() }
            if !server.sandbox.allows.contains(.threads), server.sandbox.mode != .off { TaskQueue.serve(in: context.loop) }
            try context.begin()
            try sandbox?.enter(hearing: worker.channelDescriptor, noting: worker.row, changedUser: worker.guardAgainstMasterDeath)
            worker.reportReady()
            try context.run()
            return 0
        } catch let error as SandboxError {
            worker.reportFailure("sandbox: \(error)")
            return Worker.doNotRestart
        } catch {
            worker.reportFailure("\(error)")
            return 1
        }
    }

    /// The master has new certificates, and has tried them.
    private func replaceTLS(with record: [UInt8], in context: Context) {
        do {
            guard let files = TLSFiles(encoded: record) else { throw ConfigurationError.system("an unknown record of the master's") }
            try replaceTLS(with: files)
        } catch {
            context.logger.error("certificates cannot be replaced: \(error)")
        }
    }
}
