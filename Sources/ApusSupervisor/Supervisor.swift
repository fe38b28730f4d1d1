package import ApusBus
package import ApusPlatform
package import Logging

/// ApusSupervisor keeps worker processes alive and changes them without a gap. It knows no protocol: what a worker does is a function it
/// is given. The master forks them, listens to their control channels and pidfds, and looks at their heartbeats; every
/// decision is made by the module's pure half, and only carried out here: `WorkerSlot` for the life of a line of workers, `Agenda` for what
/// the master changes (reload, one more, one less, upgrade), one thing at a time.

/// How many workers, and how patient the supervisor is with them.
package struct SupervisorConfiguration: Sendable {
    package var workers: Int
    /// No more than this many, however often TTIN is sent.
    package var maxWorkers = 1024
    /// A worker whose loop has not turned for this long is replaced.
    package var heartbeatTimeout: Duration = .seconds(10)
    /// From the fork until the worker must be ready.
    package var startTimeout: Duration = .seconds(30)
    /// What a graceful end may take.
    package var drainTimeout: Duration = .seconds(30)
    /// What a fast end may take.
    package var stopTimeout: Duration = .seconds(2)
    /// What a worker may take to drain when the master has died.
    package var orphanTimeout: Duration = .seconds(5)
    /// From steering new connections away from a slot to the order to drain: what the kernel has promised them meanwhile arrives.
    package var retirementGrace: Duration = .seconds(3)
    /// How long a new program may take until all its workers accept.
    package var upgradeTimeout: Duration = .seconds(60)
    /// Failures in a row of one worker after which the server's start counts as failed.
    package var startAttempts = 5
    /// The same for a worker that a reload or TTIN has started: then the reload, or the worker, is given up.
    package var reloadAttempts = 3
    /// Whether a peer that was being served in three deaths within a minute is turned away for a minute.
    package var quarantine = false
    /// What the processes are called in `ps`.
    package var title = "apus"

    package init(workers: Int) { self.workers = workers }

    var policy: WorkerSlot.Policy {
        var policy = WorkerSlot.Policy()
        policy.heartbeatTimeout = heartbeatTimeout
        policy.startTimeout = startTimeout
        policy.drainTimeout = drainTimeout
        policy.stopTimeout = stopTimeout
        return policy
    }
}

/// What the workers of a generation are made from.
package struct Blueprint {
    package var configuration: SupervisorConfiguration
    package var addresses: [SocketAddress]
    /// Called in each child; its result is the child's exit status.
    package var runWorker: (Worker) -> Int32
    /// Called in the master when a worker process has ended and been reaped, before the next one is forked: its row and mailbox, and which of
    /// its slot's processes it was.
    package var whenEnded: (_ mailbox: Int, _ life: Int) -> Void = { _, _ in }
    /// What the worker of a row is serving, for the log when it dies; nil: nothing.
    package var serving: (Scoreboard.Row) -> Serving? = { _ in nil }
    /// What is said of an address that cannot be listened on.
    package var blame: (ListenError) -> any Error = { $0 }

    package init(configuration: SupervisorConfiguration, addresses: [SocketAddress], runWorker: @escaping (Worker) -> Int32) {
        self.configuration = configuration
        self.addresses = addresses
        self.runWorker = runWorker
    }
}

/// Why the server ended without being asked to.
package enum SupervisorError: Error, Equatable, CustomStringConvertible {
    /// A worker of the first generation cannot start.
    case neverReady(slot: Int, reason: String)
    /// The master's own event loop failed.
    case system(SystemError)

    package var description: String {
        switch self {
        case .neverReady(let slot, let reason): "worker \(slot) does not start: \(reason)"
        case .system(let error): "\(error)"
        }
    }
}

/// The master process. It has one thread, and none may exist in the process before `run` has returned: it forks.
package final class Supervisor {
    /// Whether the server is to go on.
    enum Course {
        /// Not every worker has been ready yet.
        case comingUp
        case up
        /// All workers are ending; then `run` returns, or throws the reason.
        case ending(SupervisorError?)
    }

    /// Blocked in the master and read from a descriptor.
    static let handledSignals = [
        Signal.terminate, Signal.interrupt, Signal.quit, Signal.hangUp, Signal.user1, Signal.user2, Signal.terminalInput,
        Signal.terminalOutput, Signal.windowChange, Signal.logLevel,
    ]
    /// Rows of the scoreboard that so many slots have.
    static func rows(of slots: Int) -> Int { Worker.mailbox(slot: slots, side: 0) }

    let listeners: SlotListeners
    package var logger: Logger
    package let loop: EventLoop
    let signals: OwnedDescriptor
    var deaths = DeathCounts()
    var random = SystemRandomNumberGenerator()

    /// Every line that is not over, and incumbents that are.
    var lines: [WorkerLine] = []
    /// Processes started so far, by slot.
    var lives: [Int: Int] = [:]
    /// Slots that serve: those whose listeners new connections are steered to.
    var slots: Int
    var generation: Generation
    /// The one that a reload is starting.
    var nextGeneration: Generation?
    var course = Course.comingUp
    /// The workers were asked to leave before all had come.
    var parksWhenUp = false
    var agenda: Agenda
    var agendaAlarm: Alarm?
    var adoption = Adoption()
    var adoptionAlarm: Alarm?
    var graceAlarm: Alarm?
    var progressAlarm: Alarm?
    /// The new program while it starts.
    var upgrade: UpgradeProcess?
    /// The program that started this one with its listeners.
    var predecessor: Predecessor?
    /// The new program has everything.
    package internal(set) var isHandedOver = false

    package let scoreboard: Scoreboard
    /// The service manager, if there is one.
    package let notifier: SystemdNotify
    var lastStatus = ""
    var suspects = Suspects()
    var quarantine = Quarantine()
    /// By the worker that died last, when it died.
    var lastServing: String?

    /// Called once, when every slot has been ready, with the addresses listened on and the number of workers.
    package var whenAllReady: ([SocketAddress], Int) -> Void = { _, _ in }
    /// Makes the next generation's description on HUP; what it throws is logged and changes nothing. Nil: the same again.
    package var makeBlueprint: (() throws -> Blueprint)?
    /// Called when a reload has been completed.
    package var whenReloaded: ([SocketAddress], Int) -> Void = { _, _ in }
    /// Called when another level of the log is asked for, with its number; gives its name if there is such a level.
    package var changeLogLevel: (UInt8) -> String? = { _ in nil }
    /// Called on USR1.
    package var reopenLogs: () -> Void = {}
    /// What USR2 starts; nil: it has no effect.
    package var program: [String]?
    /// What the new program gets besides the listeners, such as keys: `Inheritance.bequest` gives it there. At most 1,000 bytes.
    package var bequest: () -> [UInt8] = { [] }
    /// Why USR2 has no effect now; nil: it has.
    package var whyNotUpgrade: () -> String? = { nil }
    /// Called as an upgrade goes on.
    package var whenUpgrading: (UpgradeStage) -> Void = { _ in }

    /// Opens the addresses and takes over the process's signals.
    ///
    /// - Parameters:
    ///   - listeners: opened already, or with what was handed down.
    ///   - predecessor: the descriptor on which the program that started this one waits to hear that all is well.
    package init(
        blueprint: Blueprint, listeners: SlotListeners, logger: Logger, notifier: SystemdNotify = SystemdNotify(), predecessor: Int32? = nil
    ) throws {
        self.listeners = listeners
        self.logger = logger
        self.notifier = notifier
        loop = try EventLoop()
        scoreboard = try Scoreboard(slots: Self.rows(of: listeners.slots))
        generation = Generation(number: 0, blueprint: blueprint, listeners: try listeners.open(blueprint.addresses))
        slots = listeners.slots
        agenda = Agenda(target: blueprint.configuration.workers)
        signals = try Signal.descriptor(for: Self.handledSignals)
        if let predecessor { self.predecessor = Predecessor(descriptor: predecessor) }
        // Children are reaped here, whatever the parent process thought of SIGCHLD.
        Signal.restoreDefault(Signal.child)
        Signal.ignore(Signal.brokenPipe)
        Signal.ignore(Signal.fileSize)
        agendaAlarm = Alarm { [unowned self] _, _ in takeUpWork() }
        adoptionAlarm = Alarm { [unowned self] _, _ in lookAtWorkers() }
    }

    var configuration: SupervisorConfiguration { generation.blueprint.configuration }

    /// The lines that serve.
    var incumbents: [WorkerLine] { lines.filter { $0.role == .incumbent } }

    /// Starts the workers and keeps them running until TERM, INT (fast) or QUIT (graceful). No child is left when it returns.
    ///
    /// - Throws: When a worker of the first generation cannot be started. Once all have been ready, only signals end it.
    package func run() throws(SupervisorError) {
        defer { listeners.close() }
        do {
            Process.setTitle("\(configuration.title): master")
            let signalWatch = Watch { [unowned self] _ in
                while let signal = Signal.next(from: signals.rawValue) { handle(signal) }
            }
            try loop.add(signalWatch, descriptor: signals.rawValue, for: .readable)
            defer { loop.remove(signalWatch, descriptor: signals.rawValue) }
            for address in listeners.closeUnclaimed() {
                logger.notice("\(address) was handed down, but is not in the configuration: closed")
            }
            for slot in 0..<slots { begin(slot: slot, generation: generation, role: .incumbent) }
            startReporting()
            while !isOver { try loop.turn() }
        } catch {
            for process in lines.compactMap(\.process) { _ = Process.killAndReap(process.pid) }
            if let upgrade { _ = Process.killAndReap(upgrade.pid) }
            throw .system(error)
        }
        if case .ending(let reason?) = course { throw reason }
    }

    private var isOver: Bool { if case .ending = course { lines.isEmpty && upgrade == nil } else { false } }

    // MARK: Signals

    private func handle(_ signal: Signal.Received) {
        let name = Signal.name(of: signal.number)
        switch signal.number {
        case Signal.terminate, Signal.interrupt:
            logger.notice("\(name): stopping")
            end(because: nil)
        case Signal.quit:
            if case .ending = course { return }
            logger.notice("\(name): draining")
            leave(.drain)
        case Signal.windowChange where signal.sender == nil:
            return  // a terminal's size
        case Signal.logLevel:
            return changeLogLevel(to: signal.value)
        case Signal.user1:
            logger.notice("\(name): reopening the logs")
            reopenLogs()
        default:
            if case .ending = course { return logger.notice("\(name): the server is ending, too late") }
            change(name, signal.number)
        }
        proceed()
    }

    /// Of this process and every worker.
    private func changeLogLevel(to value: Int32) {
        guard let number = UInt8(exactly: value), let name = changeLogLevel(number) else {
            return logger.warning("there is no log level \(value)")
        }
        for line in lines { line.process?.channel.send(WorkerCommand.logLevel(number).record) }
        logger.notice("the log level is \(name) until the next reload")
    }

    private func change(_ name: String, _ signal: Int32) {
        switch signal {
        case Signal.hangUp:
            logger.notice("\(name): reloading\(agenda.isBusy ? " when the change under way is complete" : "")")
            agenda.requestReload()
        case Signal.terminalInput, Signal.terminalOutput:
            let before = agenda.target
            let target = agenda.requestWorkers(signal == Signal.terminalInput ? 1 : -1, maximum: configuration.maxWorkers)
            guard target != before else { return logger.warning("\(name): there must be 1 to \(configuration.maxWorkers) workers") }
            logger.notice("\(name): \(before) to \(target) workers")
        case Signal.windowChange:
            if case .comingUp = course {
                logger.notice("\(name): draining the workers as soon as all are ready; HUP starts new ones")
                parksWhenUp = true
                return
            }
            logger.notice("\(name): draining the workers; HUP starts new ones")
            park()
        case Signal.user2:
            guard program != nil else { return logger.warning("\(name): this server cannot start a new program") }
            logger.notice("\(name): upgrading\(agenda.isBusy ? " when the change under way is complete" : "")")
            agenda.requestUpgrade()
        default:
            logger.notice("\(name) has no effect")
        }
    }

    /// Tells every worker of the generation that serves something of the application's: `WorkerCommand.application`, at most half a megabyte
    /// without the right to larger buffers some 200 KB.
    ///
    /// - Returns: the slots of the workers that could not be told.
    package func tell(_ bytes: [UInt8]) -> [Int] {
        let record = WorkerCommand.application(bytes).record
        guard record.count <= WorkerCommand.maxRecordBytes else { return lines.map(\.slot) }
        return lines.filter { $0.generation === generation && $0.process?.channel.send(record) == false }.map(\.slot)
    }

    // MARK: Leaving

    /// Everybody leaves in peace. Nobody listens here any more: a connection is refused rather than left waiting.
    func leave(_ order: WorkerCommand) {
        course = .ending(nil)
        if !isHandedOver { notifier.stopping("draining") }
        cancelUpgrade()
        for line in lines { dismiss(line, order) }
        listeners.close()
    }

    /// Tells a line to leave; nothing follows it.
    func dismiss(_ line: WorkerLine, _ order: WorkerCommand) {
        line.role = .leaving
        carryOut(line.machine.drain(order, now: loop.now), in: line)
    }

    /// Stops every worker at once. The first reason stays the reason.
    func end(because reason: SupervisorError?) {
        switch course {
        case .comingUp, .up:
            course = .ending(reason)
            notifier.stopping("stopping")
        case .ending:
            break
        }
        cancelUpgrade()
        for line in lines {
            line.role = .leaving
            carryOut(line.machine.stop(now: loop.now), in: line)
        }
        listeners.close()
    }

    /// A process ended or could not be started: is there still a point in going on?
    ///
    /// While the server comes up, one worker that cannot start is enough to give up: the operator is watching, and half a
    /// server is no success. Once it is up, nothing ends it: each slot is tried again for ever, and the others serve on.
    func judgeCourse(after line: WorkerLine, reason: String) {
        switch (course, line.role) {
        case (.ending, _), (_, .leaving):
            return
        case (.comingUp, _):
            guard line.machine.isBroken(after: configuration.startAttempts) else { return }
            giveUp(.neverReady(slot: line.slot, reason: reason))
        case (.up, .successor):
            guard line.machine.isBroken(after: configuration.reloadAttempts) else { return }
            giveUpWork("worker \(line.slot) does not start: \(reason)")
        case (.up, .incumbent):
            return
        }
    }

    private func giveUp(_ reason: SupervisorError) {
        logger.critical("giving up: \(reason)")
        end(because: reason)
    }
}
