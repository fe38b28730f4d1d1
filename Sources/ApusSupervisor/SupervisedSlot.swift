import ApusBus
import ApusPlatform
import Logging

/// What the master holds for one slot: its state machine, and its process when there is one.
final class SupervisedSlot {
    let index: Int
    var machine: WorkerSlot
    var process: WorkerProcess?
    /// Wakes the machine at its deadline.
    var alarm: Alarm?
    /// Processes started so far.
    var generation = 0

    init(index: Int, policy: WorkerSlot.Policy) {
        self.index = index
        machine = WorkerSlot(policy: policy)
    }
}

/// A child process, from fork to reaping, with the descriptors that tell of it.
final class WorkerProcess {
    private let child: ChildProcess
    let channel: ControlChannel
    let startedAt: MonotonicTime
    /// What the worker said of its own failure.
    var reason: String?
    var watches: [(watch: Watch, descriptor: Int32)] = []

    init(child: consuming ChildProcess, channel: consuming ControlChannel, startedAt: MonotonicTime) {
        self.child = child
        self.channel = channel
        self.startedAt = startedAt
    }

    var pid: Int32 { child.pid }
    var endDescriptor: Int32 { child.descriptor.rawValue }
}

/// How the master carries out what a slot's machine decides.
extension Supervisor {
    func begin(_ slot: SupervisedSlot) {
        slot.alarm = Alarm { [unowned self, unowned slot] _, now in
            let beat = scoreboard[slot.index].lastBeat
            carryOut(slot.machine.deadlineReached(now: now, lastBeat: beat), in: slot)
        }
        carryOut(slot.machine.start(), in: slot)
    }

    func carryOut(_ action: WorkerSlot.Action, in slot: SupervisedSlot) {
        switch action {
        case .none:
            break
        case .fork:
            fork(in: slot)
        case .signal(let signal, let pid):
            log(signal, to: pid, in: slot)
            Process.signal(pid, signal)
            // A stopped process would keep SIGABRT for later.
            if signal == Signal.abort { Process.signal(pid, Signal.resume) }
        case .tell(let command):
            // A worker that cannot be told is ended by the deadline that the machine has set.
            slot.process?.channel.send([command.rawValue])
        }
        settle(slot)
    }

    /// Puts the machine's state where it is seen: the scoreboard and the timer.
    private func settle(_ slot: SupervisedSlot) {
        scoreboard[slot.index].setState(slot.machine.scoreboardState)
        guard let alarm = slot.alarm else { return }
        if let deadline = slot.machine.deadline { loop.schedule(alarm, at: deadline) } else { loop.cancel(alarm) }
    }

    // MARK: Birth

    private func fork(in slot: SupervisedSlot) {
        let now = MonotonicTime.now()
        do {
            let process = try startProcess(in: slot, now: now)
            do {
                try watch(process, of: slot)
            } catch {
                // It runs, but nobody would hear of its end.
                forget(process)
                _ = Process.killAndReap(process.pid)
                throw error
            }
            slot.process = process
            slot.machine.forked(pid: process.pid, now: now)
            scoreboard[slot.index].setProcess(process.pid)
            logger.debug("worker \(slot.index) (pid \(process.pid)) started")
        } catch {
            let sequel = slot.machine.forkFailed(now: now, random: &random)
            logger.error("worker \(slot.index) cannot be started: \(error); \(sequel)")
            judgeCourse(after: slot, reason: "\(error)")
        }
    }

    private func startProcess(in slot: SupervisedSlot, now: MonotonicTime) throws(SystemError) -> WorkerProcess {
        slot.generation += 1
        scoreboard[slot.index].begin(generation: slot.generation, at: now)
        let pair = try Socket.packetPair().release()
        let channel = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let workerEnd = OwnedDescriptor(rawValue: pair.second)
        let workerNumber = workerEnd.rawValue
        let masterOnly = masterDescriptors + [channel.descriptor]
        let child = try Process.fork { runChild(in: slot, channel: workerNumber, closing: masterOnly) }
        _ = consume workerEnd
        return WorkerProcess(child: child, channel: channel, startedAt: now)
    }

    /// What no child may keep: the master's loop and signals, and the master's ends of the other workers' channels. Were one of
    /// those held by a sibling, a worker would not see the master die.
    private var masterDescriptors: [Int32] {
        loop.descriptors + [signals.rawValue]
            + slots.compactMap(\.process).flatMap { [$0.endDescriptor, $0.channel.descriptor] }
    }

    /// The child's life. Nothing of the master's may be released in here: its objects believe to own descriptors whose numbers
    /// are about to be given to others. Hence the process ends by `_exit` when this returns.
    private func runChild(in slot: SupervisedSlot, channel: Int32, closing masterOnly: [Int32]) -> Int32 {
        for descriptor in masterOnly { OwnedDescriptor.close(descriptor) }
        listeners.keepOnly(slot: slot.index)

        // The terminal's Ctrl-C and hang-up go to the whole group: the master tells its workers itself. TERM and QUIT stay
        // blocked until `Worker.attach` reads them.
        let ordered = [Signal.terminate, Signal.quit]
        for signal in Self.handledSignals where !ordered.contains(signal) { Signal.ignore(signal) }
        // The Swift runtime installs its backtrace handlers when a program starts if SWIFT_BACKTRACE says so; a fork inherits
        // them. They would start a debugger in the middle of a worker's death and hide the signal that it died of.
        for signal in Signal.faults + [Signal.quit] { Signal.restoreDefault(signal) }
        Signal.unblock(Signal.faults + Self.handledSignals.filter { !ordered.contains($0) })

        let worker = Worker(
            slot: slot.index, generation: slot.generation, listeners: listeners, scoreboard: scoreboard,
            channel: ControlChannel(OwnedDescriptor(rawValue: channel)), configuration: configuration)
        return runWorker(worker)
    }

    // MARK: Life and death

    /// The watches must not hold `process`: the loop keeps them to the end of the turn in which it ended, and the successor,
    /// forked in that same turn, would inherit its descriptors.
    private func watch(_ process: WorkerProcess, of slot: SupervisedSlot) throws(SystemError) {
        let endWatch = Watch { [unowned self, unowned slot] _ in processEnded(in: slot) }
        try loop.add(endWatch, descriptor: process.endDescriptor, for: .readable)
        process.watches.append((endWatch, process.endDescriptor))
        let channel = process.channel.descriptor
        let channelWatch = Watch { [unowned self, unowned slot] watch in
            if readReports(in: slot) == .closed { loop.remove(watch, descriptor: channel) }
        }
        try loop.add(channelWatch, descriptor: channel, for: .readable)
        process.watches.append((channelWatch, channel))
    }

    private func forget(_ process: WorkerProcess) {
        for (watch, descriptor) in process.watches { loop.remove(watch, descriptor: descriptor) }
        process.watches = []
    }

    private enum ChannelState { case open, closed }

    private func readReports(in slot: SupervisedSlot) -> ChannelState {
        guard let process = slot.process else { return .closed }
        while true {
            switch process.channel.receive() {
            case .nothing: return .open
            case .closed: return .closed
            case .record(let record):
                switch WorkerReport(record: record) {
                case .ready:
                    slot.machine.reportedReady(now: loop.now)
                    settle(slot)
                    announceIfUp()
                case .failed(let reason):
                    process.reason = reason
                case nil:
                    logger.error("worker \(slot.index) (pid \(process.pid)) sent an unknown record")
                }
            }
        }
    }

    private func processEnded(in slot: SupervisedSlot) {
        guard let process = slot.process, let end = Process.reap(process.pid) else { return }
        _ = readReports(in: slot)  // its last words
        forget(process)
        slot.process = nil
        whenEnded(slot.index, slot.generation)
        scoreboard[slot.index].setProcess(0)
        let now = MonotonicTime.now()
        let sequel = slot.machine.ended(end, now: now, random: &random)
        settle(slot)

        let cause = process.reason.map { "\(end) (\($0))" } ?? "\(end)"
        let uptime = seconds(now.millisecondsSince(process.startedAt))
        let line: Logger.Message = "worker \(slot.index) (pid \(process.pid)) ended: \(cause) after \(uptime); \(sequel)"
        logger.log(level: sequel == .end && end == .exited(0) ? .info : .warning, line)
        judgeCourse(after: slot, reason: cause)
    }

    private func log(_ signal: Int32, to pid: Int32, in slot: SupervisedSlot) {
        let name = Signal.name(of: signal)
        guard signal == Signal.abort else {
            logger.warning("worker \(slot.index) (pid \(pid)) did not end in time: sending \(name)")
            return
        }
        let row = scoreboard[slot.index]
        guard row.state == .ready else {
            let waited = seconds(loop.now.millisecondsSince(slot.process?.startedAt ?? loop.now))
            logger.error(
                "worker \(slot.index) (pid \(pid)) is not ready after \(waited), phase \(row.phase): sending \(name)")
            return
        }
        let stuck = seconds(loop.now.millisecondsSince(row.lastBeat))
        logger.error(
            "worker \(slot.index) (pid \(pid)) hangs: no heartbeat for \(stuck), phase \(row.phase): sending \(name)")
    }

    private func seconds(_ milliseconds: UInt64) -> String { "\(milliseconds / 1000).\(milliseconds % 1000 / 100) s" }
}

extension WorkerSlot.Sequel: CustomStringConvertible {
    package var description: String {
        switch self {
        case .restart(after: .zero): "starting the next at once"
        case .restart(after: let delay): "starting the next in \(delay.wholeMilliseconds) ms"
        case .end: "as asked"
        case .abandon: "not to be restarted"
        }
    }
}

extension WorkerSlot {
    /// Whether the slot cannot be filled: given up by its worker, or `attempts` failures in a row.
    func isBroken(after attempts: Int) -> Bool { isAbandoned || failures >= attempts }

    var scoreboardState: Scoreboard.State {
        switch state {
        case .idle: .idle
        case .starting: .starting
        case .ready: .ready
        case .draining: .draining
        case .aborting, .killing: .ending
        case .backingOff: .backingOff
        case .ended: .ended
        case .abandoned: .abandoned
        }
    }
}
