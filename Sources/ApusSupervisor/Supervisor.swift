package import ApusBus
package import ApusPlatform
package import Logging

/// ApusSupervisor keeps a fixed number of worker processes alive. It knows no protocol: what a worker does is a function it
/// is given. The master forks them, listens to their control channels and pidfds, and looks at their heartbeats; every
/// decision is made by `WorkerSlot`, this module's pure half, and only carried out here.

/// How many workers, and how patient the supervisor is with them.
package struct SupervisorConfiguration: Sendable {
    package var workers: Int
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
    /// Failures in a row of one worker after which the server's start counts as failed.
    package var startAttempts = 5
    /// Failures in a row after which a slot counts as broken once the server has been up (ten take some 50 s).
    package var restartAttempts = 10

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

/// Why the server ended without being asked to.
package enum SupervisorError: Error, Equatable, CustomStringConvertible {
    /// A worker of the first generation cannot start.
    case neverReady(slot: Int, reason: String)
    /// No slot is left that can be filled.
    case everySlotBroken(reason: String)
    /// The master's own event loop failed.
    case system(SystemError)

    package var description: String {
        switch self {
        case .neverReady(let slot, let reason): "worker \(slot) does not start: \(reason)"
        case .everySlotBroken(let reason): "no worker can be kept running: \(reason)"
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
        /// All slots are ending; then `run` returns, or throws the reason.
        case ending(SupervisorError?)
    }

    /// Blocked in the master and read from a descriptor. WINCH is left alone: terminals send it with every resize.
    static let handledSignals = [
        Signal.terminate, Signal.interrupt, Signal.quit, Signal.hangUp, Signal.user1, Signal.user2, Signal.terminalInput,
        Signal.terminalOutput,
    ]

    let configuration: SupervisorConfiguration
    let listeners: SlotListeners
    let logger: Logger
    let runWorker: (Worker) -> Int32
    let loop: EventLoop
    let signals: OwnedDescriptor
    let slots: [SupervisedSlot]
    var course = Course.comingUp
    var random = SystemRandomNumberGenerator()

    package let scoreboard: Scoreboard

    /// Called once, when every slot has been ready, with the addresses listened on.
    package var whenAllReady: ([SocketAddress]) -> Void = { _ in }
    /// Called when a worker process has ended and been reaped, before the slot's next one is forked.
    package var whenEnded: (_ slot: Int, _ generation: Int) -> Void = { _, _ in }

    /// Takes over the process's signals. `runWorker` is called in each child, and its result is the child's exit status.
    package init(
        configuration: SupervisorConfiguration, listeners: SlotListeners, logger: Logger,
        runWorker: @escaping (Worker) -> Int32
    ) throws(SystemError) {
        precondition(configuration.workers == listeners.slots, "one set of listeners per worker")
        self.configuration = configuration
        self.listeners = listeners
        self.logger = logger
        self.runWorker = runWorker
        loop = try EventLoop()
        scoreboard = try Scoreboard(slots: configuration.workers)
        slots = (0..<configuration.workers).map { SupervisedSlot(index: $0, policy: configuration.policy) }
        signals = try Signal.descriptor(for: Self.handledSignals)
        // Children are reaped here, whatever the parent process thought of SIGCHLD.
        Signal.restoreDefault(Signal.child)
        Signal.ignore(Signal.brokenPipe)
    }

    /// Starts the workers and keeps them running until TERM, INT (fast) or QUIT (graceful). No child is left when it returns.
    ///
    /// - Throws: When a worker of the first generation cannot be started, or later when no slot can be filled any more.
    package func run() throws(SupervisorError) {
        defer { listeners.close() }
        do {
            let signalWatch = Watch { [unowned self] _ in
                while let signal = Signal.next(from: signals.rawValue) { handle(signal) }
            }
            try loop.add(signalWatch, descriptor: signals.rawValue, for: .readable)
            defer { loop.remove(signalWatch, descriptor: signals.rawValue) }
            for slot in slots { begin(slot) }
            while !slots.allSatisfy(\.machine.isOver) { try loop.turn() }
        } catch {
            for process in slots.compactMap(\.process) { _ = Process.killAndReap(process.pid) }
            throw .system(error)
        }
        if case .ending(let reason?) = course { throw reason }
    }

    // MARK: The course

    private func handle(_ signal: Int32) {
        let name = Signal.name(of: signal)
        switch signal {
        case Signal.terminate, Signal.interrupt:
            logger.notice("\(name): stopping")
            end(because: nil)
        case Signal.quit:
            if case .ending = course { return }
            logger.notice("\(name): draining")
            course = .ending(nil)
            for slot in slots { carryOut(slot.machine.drain(now: loop.now), in: slot) }
        default:
            logger.notice("\(name) has no effect in this version")
        }
    }

    /// Stops every worker at once. The first reason stays the reason.
    private func end(because reason: SupervisorError?) {
        switch course {
        case .comingUp, .up: course = .ending(reason)
        case .ending: break
        }
        for slot in slots { carryOut(slot.machine.stop(now: loop.now), in: slot) }
    }

    /// A worker became ready.
    func announceIfUp() {
        guard case .comingUp = course, slots.allSatisfy(\.machine.hasBeenReady) else { return }
        course = .up
        whenAllReady(listeners.boundAddresses)
    }

    /// A process ended or could not be started: is there still a point in going on?
    ///
    /// While the server comes up, one worker that cannot start is enough to give up: the operator is watching, and half a
    /// server is no success. Later the others serve on, until every slot is broken.
    func judgeCourse(after slot: SupervisedSlot, reason: String) {
        switch course {
        case .comingUp:
            guard slot.machine.isBroken(after: configuration.startAttempts) else { return }
            giveUp(.neverReady(slot: slot.index, reason: reason))
        case .up:
            guard slots.allSatisfy({ $0.machine.isBroken(after: configuration.restartAttempts) }) else { return }
            giveUp(.everySlotBroken(reason: reason))
        case .ending:
            return
        }
    }

    private func giveUp(_ reason: SupervisorError) {
        logger.critical("giving up: \(reason)")
        end(because: reason)
    }
}
