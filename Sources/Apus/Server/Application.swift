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
    let tls: [TLSContext?]
    /// What workers give up; nil in a process of its own.
    private var sandbox: Sandbox?
    /// The bus of a server with several processes.
    private(set) var bus: (mailboxes: Mailboxes, interest: InterestTable)?

    init(_ server: Server) throws(ConfigurationError) {
        if let conflict = ExtensionNegotiation.conflict(in: server.extensions) { throw .extensions(conflict) }
        self.server = server
        routes = try server.configuredRoutes
        let ticketKeys = TicketKeys()
        var tls: [TLSContext?] = []
        for (address, options) in server.addresses {
            do {
                tls.append(try options.map { options throws(TLSSetupError) in try TLSContext(options, ticketKeys: ticketKeys) })
            } catch {
                throw .tls("\(address)", error.description)
            }
        }
        self.tls = tls
    }

    func listeners(slots: Int) throws(ConfigurationError) -> SlotListeners {
        var addresses: [SocketAddress] = []
        for (address, _) in server.addresses { addresses.append(try address.socketAddress) }
        _ = Process.raiseDescriptorLimit()
        do {
            return try SlotListeners(addresses: addresses, slots: slots)
        } catch {
            throw .listen("\(error)")
        }
    }

    /// Makes the bus, before the fork. Gives the master's end of it.
    func makeBus(slots: Int) throws(ConfigurationError) -> ServerRemote {
        do {
            let (mailboxes, interest) = (try Mailboxes(slots: slots), try InterestTable(slots: slots))
            bus = (mailboxes, interest)
            return ServerRemote(Outsider(mailboxes, interest))
        } catch {
            throw .system("\(error)")
        }
    }

    /// Checks what workers will give up, before the fork.
    func prepareSandbox() throws(ConfigurationError) {
        var features: Set<SystemCalls.Feature> = [.base]
        if !routes.mounts.isEmpty { features.insert(.files) }
        if tls.contains(where: { $0 != nil }) { features.insert(.tls) }
        if server.sandbox.allowsConnect { features.insert(.clients) }
        var sandbox = try server.sandbox.prepare(features: features, logger: server.logger)
        sandbox.readable = routes.mounts.map { $0.root.rawValue }
        self.sandbox = sandbox
    }

    /// What a worker may hold of what was open before the fork.
    private func declaredDescriptors(of worker: Worker) -> [Int32] {
        [0, 1, 2] + worker.descriptors + (bus?.mailboxes.descriptors ?? []) + routes.mounts.map { $0.root.rawValue }
            + server.sandbox.keptDescriptors
    }

    /// In the master: a worker has ended, whether or not there will be another.
    func workerEnded(slot: Int, generation: Int) {
        guard let bus else { return }
        BroadcastBus.ended(slot: slot, generation: generation, mailboxes: bus.mailboxes, interest: bus.interest)
    }

    /// A worker's life; its result is the exit status.
    func serve(as worker: Worker) -> Int32 {
        do {
            if let sandbox, sandbox.mode != .off { try Confinement.closeDescriptors(except: declaredDescriptors(of: worker)) }
            let context = try Context(
                self, worker: WorkerIdentity(slot: worker.slot, count: worker.count, generation: worker.generation),
                listening: worker.listeners, addresses: worker.addresses, owner: nil)
            try worker.attach(to: context.loop) { command in
                switch command {
                case .drain: context.drain()
                case .masterDied:
                    context.drain()
                    // Nobody accepts here any more, and a new master finds the addresses free.
                    for listener in worker.listeners { OwnedDescriptor.close(listener) }
                case .stop: context.stop()
                }
            }
            try context.makeWorkerStates()
            server.whenWorkerStarts?(context)
            try sandbox?.enter(noting: worker.row)
            worker.reportReady()
            context.row = worker.row
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
