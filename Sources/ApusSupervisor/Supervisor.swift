import ApusBus
package import ApusPlatform
package import Logging

/// Why the server ended without an order.
package enum SupervisorError: Error, Equatable, CustomStringConvertible {
    /// A worker of the first generation cannot start.
    case neverReady(slot: Int, reason: String)
    /// The event loop of the master failed.
    case system(SystemError)

    package var description: String {
        switch self {
        case .neverReady(let slot, let reason): "worker \(slot) does not start: \(reason)"
        case .system(let error): "\(error)"
        }
    }
}

/// The master process: starts workers, replaces those that die or hang, and changes them without a
/// gap.
///
/// It knows no protocol: what a worker does is a function of `WorkerSpec`. The process has one
/// thread until `run` has returned, because it forks. The decisions are made by pure state machines
/// and carried out by one type each: `WorkerSlot` and `SupervisedWorker` for the life of one
/// worker, `ChangeQueue` and `ChangeDriver` for reload, growth, shrinking and upgrade, `Adoption`
/// and `AdoptionDriver` for slots that do not serve.
package final class Supervisor {
    private enum ServerState {
        /// Not every slot has had a ready worker yet.
        case starting
        case up
        /// All workers are ending. Then `run` returns, or throws the reason.
        case ending(SupervisorError?)
    }

    /// Receives the events of the server.
    let delegate: any SupervisorDelegate
    /// The new program serves.
    package private(set) var isHandedOver = false

    private let resources: MasterResources
    private let signals: OwnedDescriptor
    private let pool: WorkerPool
    private let launcher: WorkerLauncher
    private let deaths: DeathLog
    private var state = ServerState.starting
    /// WINCH came before every slot was ready.
    private var parksWhenUp = false
    /// The program that started this one with its listeners; nil once this one serves.
    private var predecessor: Predecessor?
    private lazy var upgrade = UpgradeDriver(self, resources: resources)
    private lazy var adoption = AdoptionDriver(self, resources: resources, pool: pool)
    private lazy var changes = ChangeDriver(
        self, resources: resources, pool: pool, steering: adoption, upgrade: upgrade)
    private lazy var reporter = StatusReporter(self, resources: resources, pool: pool, deaths: deaths)
    private lazy var secondTimer = ClosureTimer { [unowned self] timer, now in
        resources.loop.schedule(timer, at: now + Self.second)
        everySecond(now)
    }

    private static let second = Duration.seconds(1)

    /// Opens the addresses, and takes over the signals of the process.
    ///
    /// - Parameters:
    ///   - listeners: Those of a predecessor or of the service manager, or empty.
    ///   - predecessor: The descriptor on which the program that started this one waits until all
    ///     workers accept.
    /// - Throws: `ListenError` or `SystemError`.
    package init(
        spec: WorkerSpec, listeners: SlotListeners, delegate: any SupervisorDelegate, logger: Logger,
        notifier: SystemdNotify = SystemdNotify(), predecessor: Int32? = nil
    ) throws {
        self.delegate = delegate
        let loop = try EventLoop()
        let scoreboard = try Scoreboard(slots: WorkerPool.rows(ofSlots: listeners.slots))
        resources = MasterResources(
            loop: loop, listeners: listeners, scoreboard: scoreboard, notifier: notifier, logger: logger)
        let generation = Generation(number: 0, spec: spec, listeners: try listeners.open(spec.addresses))
        pool = WorkerPool(slots: listeners.slots, generation: generation, resources: resources)
        launcher = WorkerLauncher(resources)
        deaths = DeathLog(resources)
        signals = try MasterSignals.claim()
        if let predecessor { self.predecessor = Predecessor(descriptor: predecessor) }
    }

    /// Blocks the signals that the master reads from a descriptor. Call it before code that may
    /// start threads: these inherit the mask, and a thread that did not block a signal would take
    /// it.
    package static func blockSignals() throws(SystemError) { try Signal.block(MasterSignals.handled) }

    package var loop: EventLoop { resources.loop }

    package var logger: Logger {
        get { resources.logger }
        set { resources.logger = newValue }
    }

    /// The addresses of the generation that serves, with their actual ports.
    package var addresses: [SocketAddress] { pool.generation.listeners.map(\.bound) }
    /// The number of slots.
    package var workerCount: Int { pool.slots }

    // MARK: Used by the parts of the master

    var isUp: Bool { if case .up = state { true } else { false } }
    var isEnding: Bool { if case .ending = state { true } else { false } }
    var isParked: Bool { changes.isParked }
    var steeredSlots: Int { changes.steeredSlots }
    var configuration: SupervisorConfiguration { pool.configuration }
    var status: String { reporter.status }

    /// The master's descriptors: no child may keep them.
    var descriptors: [Int32] {
        loop.descriptors + [signals.rawValue] + pool.descriptors + upgrade.descriptors
            + (predecessor.map { [$0.descriptor] } ?? [])
    }

    func startWorker(slot: Int, of generation: Generation, as role: SupervisedWorker.Role) {
        pool.start(slot: slot, generation: generation, role: role, delegate: self)
    }

    // MARK: Running

    /// Starts the workers and supervises them until TERM or INT (stop) or QUIT (drain). All
    /// children have ended when it returns.
    ///
    /// - Throws: If a worker of the first generation cannot be started, or the loop fails. Once
    ///   every slot has been ready, deaths of workers do not end it.
    package func run() throws(SupervisorError) {
        defer { resources.listeners.close() }
        do {
            Process.setTitle("\(configuration.title): master")
            let source = ClosureSource { [unowned self] _, _ in
                while let signal = Signal.next(from: signals.rawValue) { handle(signal) }
            }
            try loop.add(source, descriptor: signals.rawValue, for: .readable)
            defer { loop.remove(source, descriptor: signals.rawValue) }
            for address in resources.listeners.closeUnclaimed() {
                logger.notice("\(address) was handed down, but is not in the configuration: closed")
            }
            for slot in 0..<pool.slots { startWorker(slot: slot, of: pool.generation, as: .incumbent) }
            loop.schedule(secondTimer, after: Self.second)
            reporter.startWatchdog()
            while !isOver { try loop.turn() }
        } catch {
            pool.killAll()
            upgrade.kill()
            throw .system(error)
        }
        if case .ending(let reason?) = state { throw reason }
    }

    private var isOver: Bool { isEnding && pool.workers.isEmpty && !upgrade.isActive }

    private func everySecond(_ now: MonotonicTime) {
        for worker in pool.workers { worker.checkDrain(now: now) }
        reporter.report()
        reapOrphans()
    }

    /// PID 1 of a container inherits processes whose parents have ended. The master's own children
    /// are reaped where their ends are noticed.
    private func reapOrphans() {
        guard Process.inheritsOrphans else { return }
        while let pid = Process.endedChild(), !upgrade.owns(pid), !pool.owns(pid) { _ = Process.reap(pid) }
    }

    /// Sends every worker of the generation that serves `WorkerCommand.application`. Up to half a
    /// megabyte, or some 200 KB without the privilege to enlarge socket buffers.
    ///
    /// - Returns: The slots of the workers that did not get it.
    package func sendToWorkers(_ bytes: [UInt8]) -> [Int] {
        let command = WorkerCommand.application(bytes)
        guard command.record.count <= WorkerCommand.maxRecordBytes else { return pool.workers.map(\.slot) }
        return pool.workers.filter {
            $0.generation === pool.generation && $0.process?.send(command) == false
        }.map(\.slot)
    }

    // MARK: Signals

    private func handle(_ signal: Signal.Received) {
        let name = Signal.name(of: signal.number)
        switch signal.number {
        case Signal.terminate, Signal.interrupt:
            logger.notice("\(name): stopping")
            stop(because: nil)
        case Signal.quit:
            if isEnding { return }
            logger.notice("\(name): draining")
            drain(.drain)
        case Signal.windowChange where signal.sender == nil:
            return  // the size of a terminal has changed
        case Signal.logLevel:
            return changeLogLevel(to: signal.value)
        case Signal.user1:
            logger.notice("\(name): reopening the logs")
            delegate.reopenLogs()
        default:
            if isEnding { return logger.notice("\(name): ignored, the server is ending") }
            requestChange(name, signal.number)
        }
        changes.schedule()
    }

    /// Changes the log level of this process and of every worker.
    private func changeLogLevel(to value: Int32) {
        guard let number = UInt8(exactly: value), let name = delegate.setLogLevel(number) else {
            return logger.warning("there is no log level \(value)")
        }
        pool.send(.logLevel(number))
        logger.notice("the log level is \(name) until the next reload")
    }

    private func requestChange(_ name: String, _ signal: Int32) {
        let when = changes.isBusy ? " when the change under way is complete" : ""
        switch signal {
        case Signal.hangUp:
            logger.notice("\(name): reloading\(when)")
            changes.requestReload()
        case Signal.terminalInput, Signal.terminalOutput:
            let target = changes.requestWorkers(signal == Signal.terminalInput ? 1 : -1)
            guard target.now != target.before else {
                return logger.warning("\(name): there must be 1 to \(configuration.maxWorkers) workers")
            }
            logger.notice("\(name): \(target.before) to \(target.now) workers")
        case Signal.windowChange:
            if case .starting = state {
                logger.notice("\(name): draining the workers as soon as all are ready; HUP starts new ones")
                parksWhenUp = true
                return
            }
            logger.notice("\(name): draining the workers; HUP starts new ones")
            changes.park()
        case Signal.user2:
            guard delegate.program != nil else {
                return logger.warning("\(name): this server cannot start a new program")
            }
            logger.notice("\(name): upgrading\(when)")
            changes.requestUpgrade()
        default:
            logger.notice("\(name) has no effect")
        }
    }

    // MARK: Start and end

    private func becameUp() {
        state = .up
        // The predecessor may have steered to fewer slots.
        if predecessor != nil { adoption.steer() }
        delegate.supervisorBecameReady(self)
        predecessor?.reportReady()
        resources.listeners.takeFiles()
        resources.notifier.ready(status: status, mainProcess: predecessor == nil ? nil : Process.id)
        predecessor = nil
        if parksWhenUp { changes.park() }
        changes.schedule()
        adoption.schedule()
    }

    /// Drains all workers, then the server ends. The listeners are closed: a new connection is
    /// refused instead of waiting.
    private func drain(_ order: WorkerCommand) {
        state = .ending(nil)
        if !isHandedOver { resources.notifier.stopping("draining") }
        upgrade.cancel()
        for worker in pool.workers { worker.drain(order) }
        resources.listeners.close()
    }

    /// Stops all workers, then the server ends.
    ///
    /// - Parameter reason: What `run` throws, unless the server is ending already.
    private func stop(because reason: SupervisorError?) {
        if !isEnding {
            state = .ending(reason)
            resources.notifier.stopping("stopping")
        }
        upgrade.cancel()
        for worker in pool.workers { worker.stop() }
        resources.listeners.close()
    }

    /// The new program serves: this one drains and ends.
    func handOver(to pid: Int32) {
        logger.notice("the new program (pid \(pid)) serves; this one drains")
        isHandedOver = true
        Process.setTitle("\(configuration.title): master (draining)")
        resources.notifier.handOver(to: pid)
        resources.listeners.giveUpFiles()
        delegate.upgradeReached(.done)
        drain(.handOver(closing: []))
    }

    func upgradeFailed(_ reason: String) { changes.giveUp(reason) }
}

extension Supervisor: SupervisedWorkerDelegate {
    func nextIncarnation(inSlot slot: Int) -> Int { pool.nextIncarnation(inSlot: slot) }

    func launch(_ worker: SupervisedWorker, now: MonotonicTime) throws(SystemError) -> WorkerProcess {
        try launcher.launch(
            worker, count: pool.slots, quarantined: deaths.quarantinedPeers(now: .now()),
            closing: descriptors, now: now)
    }

    func workerBecameReady(_ worker: SupervisedWorker) {
        switch state {
        case .starting: if pool.workers.allSatisfy(\.hasBeenReady) { becameUp() }
        case .up: changes.workerBecameReady(worker)
        case .ending: break
        }
    }

    func worker(_ worker: SupervisedWorker, died record: DeathRecord) {
        changes.workerDied(worker)
        for (peer, end) in deaths.record(record, usesQuarantine: configuration.quarantine) {
            pool.send(.quarantine(peer, until: end))
        }
    }

    /// While the server starts, one worker that cannot be started ends it: the operator is present,
    /// and half a server is a failed start. Later nothing ends it: each slot is tried again for
    /// ever, and the others serve.
    func workerFailed(_ worker: SupervisedWorker, reason: String) {
        switch (state, worker.role) {
        case (.ending, _), (_, .leaving):
            return
        case (.starting, _):
            guard worker.isBroken(after: configuration.startAttempts) else { return }
            let error = SupervisorError.neverReady(slot: worker.slot, reason: reason)
            logger.critical("giving up: \(error)")
            stop(because: error)
        case (.up, .successor):
            guard worker.isBroken(after: configuration.reloadAttempts) else { return }
            changes.giveUp("worker \(worker.slot) does not start: \(reason)")
        case (.up, .incumbent):
            return
        }
    }

    func workerChanged(_ worker: SupervisedWorker) {
        adoption.schedule()
        guard worker.isOver, worker.role == .leaving, pool.remove(worker) else { return }
        changes.schedule()
    }
}
