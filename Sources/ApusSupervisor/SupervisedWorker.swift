import ApusBus
import ApusPlatform
import Logging

/// Starts the processes of a `SupervisedWorker`, and receives its events.
protocol SupervisedWorkerDelegate: AnyObject {
    /// - Returns: The number of the next process in this slot, counted from 1.
    func nextIncarnation(inSlot slot: Int) -> Int
    /// Forks a process.
    func launch(_ worker: SupervisedWorker, now: MonotonicTime) throws(SystemError) -> WorkerProcess
    func workerBecameReady(_ worker: SupervisedWorker)
    /// The worker's process has died.
    func worker(_ worker: SupervisedWorker, died record: DeathRecord)
    /// A process died, or could not be started; called after `workerChanged`.
    func workerFailed(_ worker: SupervisedWorker, reason: String)
    /// The state of the worker may have changed.
    func workerChanged(_ worker: SupervisedWorker)
}

/// The processes of one generation in one slot, one after the other: carries out what the state
/// machine `WorkerSlot` decides.
final class SupervisedWorker {
    enum Role {
        /// Started by a change; it will serve when the change is complete.
        case successor
        /// It serves the slot.
        case incumbent
        /// It drains or stops, and has no successor of its generation.
        case leaving
    }

    let slot: Int
    /// Which of the slot's two rows and mailboxes the worker uses, 0 or 1.
    let side: Int
    let generation: Generation
    private(set) var role: Role
    private(set) var process: WorkerProcess?
    /// The number of the slot's present process, counted from 1.
    private(set) var incarnation = 0

    private var machine: WorkerSlot
    private var random = SystemRandomNumberGenerator()
    private let resources: MasterResources
    private unowned let delegate: any SupervisedWorkerDelegate
    private lazy var timer = ClosureTimer { [unowned self] _, now in
        perform(machine.deadlineReached(now: now, lastBeat: row.lastBeat))
    }

    init(
        slot: Int, side: Int, generation: Generation, role: Role, resources: MasterResources,
        delegate: any SupervisedWorkerDelegate
    ) {
        self.slot = slot
        self.side = side
        self.generation = generation
        self.role = role
        self.resources = resources
        self.delegate = delegate
        machine = WorkerSlot(policy: generation.spec.configuration.policy)
    }

    /// The index of the worker's row in the scoreboard, and of its mailbox.
    var mailbox: Int { WorkerControl.mailbox(slot: slot, side: side) }
    var row: Scoreboard.Row { resources.scoreboard[mailbox] }

    var isReady: Bool { machine.isReady }
    var hasBeenReady: Bool { machine.hasBeenReady }
    var isOver: Bool { machine.isOver }
    func isBroken(after attempts: Int) -> Bool { machine.isBroken(after: attempts) }

    // MARK: Orders

    func start() { perform(machine.start()) }

    /// The change that started this worker is complete.
    func becomeIncumbent() { role = .incumbent }

    /// Ends the worker gracefully, without a successor.
    ///
    /// - Parameter order: `drain` or `handOver`.
    func drain(_ order: WorkerCommand) {
        role = .leaving
        perform(machine.drain(order, now: resources.loop.now))
    }

    /// Ends the worker now, without a successor.
    func stop() {
        role = .leaving
        perform(machine.stop(now: resources.loop.now))
    }

    /// Aborts the worker if it hangs while it drains.
    func checkDrain(now: MonotonicTime) {
        guard role == .leaving, process != nil else { return }
        perform(machine.checkDrain(now: now, lastBeat: row.lastBeat))
    }

    private func perform(_ action: WorkerSlot.Action) {
        switch action {
        case .none:
            break
        case .fork:
            fork()
        case .signal(let signal, let pid):
            log(signal, to: pid)
            Process.signal(pid, signal)
            // A stopped process would not receive SIGABRT until it continues.
            if signal == Signal.abort { Process.signal(pid, Signal.resume) }
        case .send(let command):
            // If the channel does not take it, the deadline of the machine ends the process.
            process?.send(command)
        }
        stateChanged()
    }

    /// Publishes the state in the scoreboard and arms the timer.
    private func stateChanged() {
        row.setState(machine.scoreboardState)
        if let deadline = machine.deadline {
            resources.loop.schedule(timer, at: deadline)
        } else {
            resources.loop.cancel(timer)
        }
        delegate.workerChanged(self)
    }

    // MARK: Start

    private func fork() {
        let now = MonotonicTime.now()
        do {
            incarnation = delegate.nextIncarnation(inSlot: slot)
            row.begin(generation: incarnation, at: now)
            let process = try delegate.launch(self, now: now)
            do {
                try process.watch(self)
            } catch {
                // Its end would not be noticed.
                process.unwatch()
                _ = Process.killAndReap(process.pid)
                throw error
            }
            self.process = process
            machine.forked(pid: process.pid, now: now)
            row.setProcess(process.pid)
            resources.logger.debug("worker \(slot) (pid \(process.pid)) started")
        } catch {
            let decision = machine.forkFailed(now: now, random: &random)
            resources.logger.error("worker \(slot) cannot be started: \(error); \(decision)")
            delegate.workerFailed(self, reason: "\(error)")
        }
    }

    // MARK: End

    private func recordDeath(of process: WorkerProcess, _ end: ProcessEnd) -> DeathRecord {
        let now = MonotonicTime.now()
        let death = WorkerDeath(
            end, violation: row.violation, wasAborted: machine.isAborted, reason: process.failureReason,
            crashMessage: process.crashMessage.text(at: now))
        let decision = machine.ended(end, now: now, random: &random)
        return DeathRecord(
            slot: slot, pid: process.pid, death: death, decision: decision,
            wasOrdered: decision == .end && end == .exited(0),
            uptimeMilliseconds: now.millisecondsSince(process.startedAt), serving: serving,
            connections: row[.connections])
    }

    /// What the worker is serving; nil: nothing, it waits for events.
    private var serving: Serving? { row.phase == .handler ? generation.spec.serving(row) : nil }

    private func log(_ signal: Int32, to pid: Int32) {
        let logger = resources.logger
        let name = Signal.name(of: signal)
        let worker = "worker \(slot) (pid \(pid))"
        guard signal == Signal.abort else {
            let left = row[.connections]
            let connections = "\(left) \(left == 1 ? "connection" : "connections")"
            logger.warning(
                "\(worker) did not end in time, phase \(row.phase), \(connections) left: sending \(name)")
            return
        }
        let now = resources.loop.now
        guard row.state != .starting else {
            let waited = Uptime.text(now.millisecondsSince(process?.startedAt ?? now))
            logger.error("\(worker) is not ready after \(waited), phase \(row.phase): sending \(name)")
            return
        }
        let stuck = Uptime.text(now.millisecondsSince(row.lastBeat))
        let what = serving.map { ", serving \($0)" } ?? ""
        logger.error(
            "\(worker) hangs: no heartbeat for \(stuck), phase \(row.phase)\(what): sending \(name)")
    }
}

extension SupervisedWorker: WorkerProcessDelegate {
    func processReportedReady() {
        guard machine.reportedReady(now: resources.loop.now) else { return }
        stateChanged()
        if let process, !process.hasEnded { delegate.workerBecameReady(self) }
    }

    func processNoted(_ text: String) {
        guard let process else { return }
        resources.logger.warning("worker \(slot) (pid \(process.pid)): \(text)")
    }

    func processMisbehaved(_ reason: String) { killMisbehaving(reason: reason) }

    /// Kills a process that does what no worker of ours does. Its successor takes its place.
    private func killMisbehaving(reason: String) {
        guard let process, !process.hasEnded else { return }
        resources.logger.error("worker \(slot) (pid \(process.pid)) \(reason): sending SIGKILL")
        Process.signal(process.pid, Signal.kill)
    }

    func processEnded() {
        guard let process, let end = Process.reap(process.pid) else { return }
        process.didEnd()
        self.process = nil
        generation.spec.onWorkerEnd(mailbox, incarnation)
        row.setProcess(0)
        let record = recordDeath(of: process, end)
        delegate.worker(self, died: record)
        stateChanged()
        delegate.workerFailed(self, reason: "\(record.death)")
    }
}
