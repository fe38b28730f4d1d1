import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport

/// A server's description, checked and opened: what every worker gets by the fork.
final class Application {
    let server: Server
    let routes: Routes
    /// For each address that is listened on, in order; nil where TLS is not spoken.
    private let tls: [TLSContext?]
    /// For those that a service manager has passed.
    private let passedTLS: TLSContext?
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
        routes = try server.configuredRoutes
        func context(_ options: ServerTLS?, _ place: String) throws(ConfigurationError) -> TLSContext? {
            do {
                return try options.map { options throws(TLSSetupError) in try TLSContext(options, ticketKeys: ticketKeys) }
            } catch {
                throw .tls(place, error.description)
            }
        }
        passedTLS = try context(server.passedTLS, "the service manager's sockets")
        var tls: [TLSContext?] = []
        for (address, options) in server.addresses { tls.append(try context(options, "\(address)")) }
        self.tls = tls
    }

    /// The TLS of a listener, by its address's place among those listened on.
    func tls(at place: Int) -> TLSContext? { tls.isEmpty ? passedTLS : tls[place] }

    /// For a loop in this process.
    func listeners() throws(ConfigurationError) -> SlotListeners {
        var addresses: [SocketAddress] = []
        for (address, _) in server.addresses { addresses.append(try address.socketAddress) }
        _ = Process.raiseDescriptorLimit()
        do {
            return try SlotListeners(addresses: addresses, slots: 1)
        } catch {
            throw .listen("\(error)")
        }
    }

    /// Checks what workers will give up, before the fork.
    func prepareSandbox() throws(ConfigurationError) {
        var features: Set<SystemCalls.Feature> = [.base]
        if !routes.mounts.isEmpty { features.insert(.files) }
        if passedTLS != nil || tls.contains(where: { $0 != nil }) { features.insert(.tls) }
        if server.sandbox.allowsConnect { features.insert(.clients) }
        var sandbox = try server.sandbox.prepare(features: features, logger: server.logger)
        sandbox.readable = routes.mounts.map { $0.root.rawValue }
        if server.sandbox.allowsConnect { sandbox.readablePaths = SandboxOptions.clientFiles + OpenSSLFiles.authorities }
        self.sandbox = sandbox
    }

    /// What a worker may hold of what was open before the fork.
    private func declaredDescriptors(of worker: Worker) -> [Int32] {
        [0, 1, 2] + worker.descriptors + (bus?.mailboxes.descriptors ?? []) + routes.mounts.map { $0.root.rawValue }
            + (server.logFile.map { [$0.workerDescriptor] } ?? []) + server.sandbox.keptDescriptors
    }

    /// A worker's life; its result is the exit status.
    func serve(as worker: Worker) -> Int32 {
        // The master's may be of a period that is over.
        ticketKeys.advance()
        do {
            if let sandbox, sandbox.mode != .off { try Confinement.closeDescriptors(except: declaredDescriptors(of: worker)) }
            let context = try Context(
                self, worker: WorkerIdentity(slot: worker.slot, count: worker.count, generation: worker.generation),
                mailbox: worker.mailbox, listening: worker.listeners, owner: nil)
            context.row = worker.row
            try worker.attach(to: context.loop) { command in
                switch command {
                // Nobody accepts here any more: whoever comes next finds the addresses free.
                case .drain: context.drain(closing: Array(worker.listeners.indices))
                case .masterDied: context.drain(closing: Array(worker.listeners.indices), within: worker.orphanPatience)
                case .handOver(let closing): context.drain(closing: closing)
                case .stop: context.stop()
                }
                worker.closeListeners()
            }
            try context.makeWorkerStates()
            server.whenWorkerStarts?(context)
            try sandbox?.enter(noting: worker.row, changedUser: worker.guardAgainstMasterDeath)
            worker.reportReady()
            try context.run()
            server.whenWorkerStops?(context)
            return 0
        } catch let error as SandboxError {
            worker.reportFailure("sandbox: \(error)")
            return Worker.doNotRestart
        } catch {
            worker.reportFailure("\(error)")
            return 1
        }
    }
}
