import ApusBus
import ApusPlatform
import Logging

/// The workers of one generation in one slot, one after the other: their state machine, and the present process when there is one.
final class WorkerLine {
    /// What the line is to its slot.
    enum Role {
        /// Started by a reload; it will serve when all of its generation are ready.
        case successor
        /// It serves the slot.
        case incumbent
        /// It drains or stops, and nothing follows.
        case leaving
    }

    let slot: Int
    /// Which of the slot's rows and mailboxes it uses, 0 or 1.
    let side: Int
    let generation: Generation
    var role: Role
    var machine: WorkerSlot
    var process: WorkerProcess?
    /// Wakes the machine at its deadline.
    var alarm: Alarm?
    /// Which of the slot's processes the present one is, counted from 1.
    var life = 0

    init(slot: Int, side: Int, generation: Generation, role: Role) {
        self.slot = slot
        self.side = side
        self.generation = generation
        self.role = role
        machine = WorkerSlot(policy: generation.blueprint.configuration.policy)
    }

    var row: Int { Worker.mailbox(slot: slot, side: side) }
}

/// What a reload makes new: a description of the workers, and the sockets they accept from.
final class Generation {
    let number: Int
    let blueprint: Blueprint
    let listeners: [ListenerGroup]

    init(number: Int, blueprint: Blueprint, listeners: [ListenerGroup]) {
        self.number = number
        self.blueprint = blueprint
        self.listeners = listeners
    }
}

/// A child process, from fork to reaping, with the descriptors that tell of it.
final class WorkerProcess {
    private let child: ChildProcess
    let channel: ControlChannel
    let startedAt: MonotonicTime
    /// What the worker said of its own failure.
    var reason: String?
    var lastWords = LastWords()
    /// Notes of it that were logged.
    var notes = 0
    static let maxNotes = 4
    var watches: [(watch: Watch, descriptor: Int32)] = []
    /// It has been reaped: its number may be another's.
    var hasEnded = false
    /// Takes up its channel again.
    var resumption: Alarm?

    init(child: consuming ChildProcess, channel: consuming ControlChannel, startedAt: MonotonicTime) {
        self.child = child
        self.channel = channel
        self.startedAt = startedAt
    }

    var pid: Int32 { child.pid }
    var endDescriptor: Int32 { child.descriptor.rawValue }
}

/// How the master carries out what a line's machine decides.
extension Supervisor {
    /// Starts a line of workers in a slot, on the side that is free.
    @discardableResult
    func begin(slot: Int, generation: Generation, role: WorkerLine.Role) -> WorkerLine {
        let taken = lines.filter { $0.slot == slot }.map(\.side)
        let line = WorkerLine(slot: slot, side: taken.contains(0) ? 1 : 0, generation: generation, role: role)
        precondition(!taken.contains(line.side), "the agenda waits for a free side")
        lines.append(line)
        line.alarm = Alarm { [unowned self, unowned line] _, now in
            let beat = scoreboard[line.row].lastBeat
            carryOut(line.machine.deadlineReached(now: now, lastBeat: beat), in: line)
        }
        carryOut(line.machine.start(), in: line)
        return line
    }

    func carryOut(_ action: WorkerSlot.Action, in line: WorkerLine) {
        switch action {
        case .none:
            break
        case .fork:
            fork(in: line)
        case .signal(let signal, let pid):
            log(signal, to: pid, in: line)
            Process.signal(pid, signal)
            // A stopped process would keep SIGABRT for later.
            if signal == Signal.abort { Process.signal(pid, Signal.resume) }
        case .tell(let command):
            // A worker that cannot be told is ended by the deadline that the machine has set.
            line.process?.channel.send(command.record)
        }
        settle(line)
    }

    /// Puts the machine's state where it is seen: the scoreboard and the timer. A line that is over leaves.
    private func settle(_ line: WorkerLine) {
        scoreboard[line.row].setState(line.machine.scoreboardState)
        attend()
        guard let alarm = line.alarm else { return }
        if let deadline = line.machine.deadline { loop.schedule(alarm, at: deadline) } else { loop.cancel(alarm) }
        guard line.machine.isOver, line.role == .leaving, let place = lines.firstIndex(where: { $0 === line }) else { return }
        loop.cancel(alarm)
        lines.remove(at: place)
        proceed()
    }

    // MARK: Birth

    private func fork(in line: WorkerLine) {
        let now = MonotonicTime.now()
        do {
            let process = try startProcess(in: line, now: now)
            do {
                try watch(process, of: line)
            } catch {
                // It runs, but nobody would hear of its end.
                forget(process)
                _ = Process.killAndReap(process.pid)
                throw error
            }
            line.process = process
            line.machine.forked(pid: process.pid, now: now)
            scoreboard[line.row].setProcess(process.pid)
            logger.debug("worker \(line.slot) (pid \(process.pid)) started")
        } catch {
            let sequel = line.machine.forkFailed(now: now, random: &random)
            logger.error("worker \(line.slot) cannot be started: \(error); \(sequel)")
            judgeCourse(after: line, reason: "\(error)")
        }
    }

    private func startProcess(in line: WorkerLine, now: MonotonicTime) throws(SystemError) -> WorkerProcess {
        lives[line.slot, default: 0] += 1
        line.life = lives[line.slot, default: 1]
        scoreboard[line.row].begin(generation: line.life, at: now)
        let pair = try Socket.packetPair().release()
        let channel = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let workerEnd = OwnedDescriptor(rawValue: pair.second)
        let workerNumber = workerEnd.rawValue
        let masterOnly = masterDescriptors + [channel.descriptor]
        let master = Process.id
        let child = try Process.fork { runChild(in: line, channel: workerNumber, closing: masterOnly, master: master) }
        _ = consume workerEnd
        return WorkerProcess(child: child, channel: channel, startedAt: now)
    }

    /// What no child may keep: the master's loop and signals, and the master's ends of the other workers' channels. Were one of
    /// those held by a sibling, a worker would not see the master die.
    var masterDescriptors: [Int32] {
        loop.descriptors + [signals.rawValue] + lines.compactMap(\.process).flatMap { [$0.endDescriptor, $0.channel.descriptor] }
            + (upgrade?.descriptors ?? []) + (predecessor.map { [$0.descriptor] } ?? [])
    }

    /// What every child sets right about signals: the terminal's Ctrl-C and hang-up go to the whole group, and the master tells its workers
    /// itself. `kept` stay blocked until somebody reads them.
    static func restoreSignals(keeping kept: [Int32]) {
        for signal in handledSignals where !kept.contains(signal) { Signal.ignore(signal) }
        // The Swift runtime installs its backtrace handlers when a program starts if SWIFT_BACKTRACE says so; a fork inherits
        // them. They would start a debugger in the middle of a worker's death and hide the signal that it died of.
        for signal in Signal.faults + [Signal.quit] { Signal.restoreDefault(signal) }
        Signal.unblock(Signal.faults + handledSignals.filter { !kept.contains($0) })
    }

    /// The child's life. Nothing of the master's may be released in here: its objects believe to own descriptors whose numbers
    /// are about to be given to others. Hence the process ends by `_exit` when this returns.
    private func runChild(in line: WorkerLine, channel: Int32, closing masterOnly: [Int32], master: Int32) -> Int32 {
        for descriptor in masterOnly { OwnedDescriptor.close(descriptor) }
        listeners.keepOnly(slot: line.slot, of: line.generation.listeners)
        scoreboard.keepOnly(line.row)
        // TERM and QUIT stay blocked until `Worker.attach` reads them.
        Self.restoreSignals(keeping: [Signal.terminate, Signal.quit])
        let worker = Worker(
            line: line, count: max(slots, line.slot + 1),
            listeners: SlotListeners.listeners(for: line.slot, of: line.generation.listeners),
            turnedAway: quarantine.present(at: .now()), row: scoreboard[line.row],
            channel: ControlChannel(OwnedDescriptor(rawValue: channel), maxRecordBytes: WorkerCommand.maxRecordBytes), master: master)
        return line.generation.blueprint.runWorker(worker)
    }

    // MARK: Life and death

    /// The watches must not hold `process`: the loop keeps them to the end of the turn in which it ended, and the successor,
    /// forked in that same turn, would inherit its descriptors.
    private func watch(_ process: WorkerProcess, of line: WorkerLine) throws(SystemError) {
        let endWatch = Watch { [unowned self, unowned line] _ in processEnded(in: line) }
        try loop.add(endWatch, descriptor: process.endDescriptor, for: .readable)
        process.watches.append((endWatch, process.endDescriptor))
        let channel = process.channel.descriptor
        let channelWatch = Watch { [unowned self, unowned line] watch in
            switch readReports(in: line, atMost: Self.recordsPerTurn) {
            case .open: break
            case .full: pause(watch, of: line, channel: channel)
            case .closed: loop.remove(watch, descriptor: channel)
            }
        }
        try loop.add(channelWatch, descriptor: channel, for: .readable)
        process.watches.append((channelWatch, channel))
    }

    private func forget(_ process: WorkerProcess) {
        for (watch, descriptor) in process.watches { loop.remove(watch, descriptor: descriptor) }
        process.watches = []
        if let alarm = process.resumption { loop.cancel(alarm) }
        process.resumption = nil
    }

    /// A worker has a few records to say in its life. More than this in one turn are lines of the application's for standard error, or an
    /// attack: the rest waits, so that nobody else has to.
    private static let recordsPerTurn = 64
    private static let pauseBetweenTurns = Duration.milliseconds(100)
    /// More than the kernel holds of a process that has ended.
    private static let lastRecords = 1024

    private enum ChannelState {
        case open
        /// There may be more.
        case full
        case closed
    }

    /// Leaves a channel alone for a moment.
    private func pause(_ watch: Watch, of line: WorkerLine, channel: Int32) {
        loop.remove(watch, descriptor: channel)
        let alarm = Alarm { [unowned self, unowned watch, unowned line] _, _ in
            do {
                try loop.add(watch, descriptor: channel, for: .readable)
            } catch {
                // Nobody would hear it any more.
                distrust(line, "cannot be listened to: \(error)")
            }
        }
        line.process?.resumption = alarm
        loop.schedule(alarm, after: Self.pauseBetweenTurns)
    }

    /// What no worker of ours does: somebody has taken it over, or its memory is broken. Another takes its place.
    private func distrust(_ line: WorkerLine, _ deed: String) {
        guard let process = line.process, !process.hasEnded else { return }
        logger.error("worker \(line.slot) (pid \(process.pid)) \(deed): sending SIGKILL")
        Process.signal(process.pid, Signal.kill)
    }

    private func readReports(in line: WorkerLine, atMost most: Int) -> ChannelState {
        guard let process = line.process else { return .closed }
        for _ in 0..<most {
            switch process.channel.receive() {
            case .nothing: return .open
            case .closed: return .closed
            case .record(let record):
                switch WorkerReport(record: record) {
                case .ready:
                    guard line.machine.reportedReady(now: loop.now) else { continue }
                    settle(line)
                    if !process.hasEnded { becameReady(line) }
                case .failed(let reason):
                    process.reason = reason
                case .wrote(let text):
                    process.lastWords.heard(text)
                case .noted(let text):
                    // A worker that was taken over must not fill the log.
                    if process.notes < WorkerProcess.maxNotes { logger.warning("worker \(line.slot) (pid \(process.pid)): \(text)") }
                    process.notes += 1
                case nil:
                    distrust(line, "sent an unknown record")
                    return .closed
                }
            }
        }
        return .full
    }

    private func processEnded(in line: WorkerLine) {
        guard let process = line.process, let end = Process.reap(process.pid) else { return }
        process.hasEnded = true
        _ = readReports(in: line, atMost: Self.lastRecords)  // its last words
        forget(process)
        if line.role == .successor { agenda.lost(slot: line.slot) }
        line.process = nil
        line.generation.blueprint.whenEnded(line.row, line.life)
        scoreboard[line.row].setProcess(0)
        let now = MonotonicTime.now()
        let death = WorkerDeath(
            end, violation: scoreboard[line.row].violation, wasAborted: line.machine.isBeingAborted, reason: process.reason,
            lastWords: process.lastWords.text)
        let sequel = line.machine.ended(end, now: now, random: &random)

        // What it did when it died: nothing, if it waited.
        let row = scoreboard[line.row]
        let serving = row.phase == .handler ? line.generation.blueprint.serving(row) : nil
        let uptime = seconds(now.millisecondsSince(process.startedAt))
        let text: Logger.Message =
            "worker \(line.slot) (pid \(process.pid)) ended: \(death) after \(uptime)\(Self.what(serving)); \(sequel)"
        let wasAsked = sequel == .end && end == .exited(0)
        var figures = wasAsked ? [:] : deaths.counting(death)
        // What it took with it.
        if !wasAsked { figures["connections"] = "\(scoreboard[line.row][.connections])" }
        logger.log(level: wasAsked ? .info : .warning, text, metadata: figures)
        if let serving, !wasAsked { suspect(serving, of: death) }
        settle(line)
        judgeCourse(after: line, reason: "\(death)")
    }

    private func log(_ signal: Int32, to pid: Int32, in line: WorkerLine) {
        let name = Signal.name(of: signal)
        let row = scoreboard[line.row]
        let worker = "worker \(line.slot) (pid \(pid))"
        guard signal == Signal.abort else {
            let left = row[.connections]
            logger.warning(
                "\(worker) did not end in time, phase \(row.phase), \(left) \(left == 1 ? "connection" : "connections") left: sending \(name)"
            )
            return
        }
        guard row.state != .starting else {
            let waited = seconds(loop.now.millisecondsSince(line.process?.startedAt ?? loop.now))
            logger.error("\(worker) is not ready after \(waited), phase \(row.phase): sending \(name)")
            return
        }
        let stuck = seconds(loop.now.millisecondsSince(row.lastBeat))
        let serving = row.phase == .handler ? line.generation.blueprint.serving(row) : nil
        logger.error("\(worker) hangs: no heartbeat for \(stuck), phase \(row.phase)\(Self.what(serving)): sending \(name)")
    }

    private static func what(_ serving: Serving?) -> String { serving.map { ", serving \($0)" } ?? "" }

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
