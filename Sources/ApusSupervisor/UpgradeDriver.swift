import ApusPlatform
import Logging

/// Starts a new program with the listeners of this one (USR2), and waits until all its workers
/// accept. This program serves meanwhile.
final class UpgradeDriver {
    private unowned let supervisor: Supervisor
    private let resources: MasterResources
    /// The new program, from its start until it serves or has ended.
    private var process: UpgradeProcess?

    /// More reports than this are read in the next turn.
    private static let reportsPerTurn = 64

    init(_ supervisor: Supervisor, resources: MasterResources) {
        self.supervisor = supervisor
        self.resources = resources
    }

    var isActive: Bool { process != nil }
    /// The master's descriptors of the new program.
    var descriptors: [Int32] { process?.descriptors ?? [] }
    func owns(_ pid: Int32) -> Bool { process?.pid == pid }

    func start() {
        let delegate = supervisor.delegate
        guard let program = delegate.program else {
            return supervisor.upgradeFailed("this server cannot start a new program")
        }
        if let obstacle = delegate.upgradeObstacle { return supervisor.upgradeFailed(obstacle) }
        delegate.upgradeReached(.starting)
        do {
            let process = try fork(program, payload: delegate.upgradePayload)
            self.process = process
            try watch(process)
            resources.logger.notice("the new program has pid \(process.pid)")
        } catch {
            kill()
            forget()
            delegate.upgradeReached(.failed)
            supervisor.upgradeFailed("\(error)")
        }
    }

    /// Ends the new program: the server ends, or its workers are drained.
    func cancel() {
        guard let process, !process.isCancelled else { return }
        process.isCancelled = true
        Process.signal(process.pid, Signal.terminate)
        guard let deadline = process.deadline else { return }
        let stopTimeout = supervisor.configuration.stopTimeout
        resources.loop.schedule(deadline, after: stopTimeout + stopTimeout)
    }

    /// Kills the new program and waits for its end.
    func kill() { if let pid = process?.pid { _ = Process.killAndReap(pid) } }

    // MARK: Start

    private func fork(_ program: [String], payload: [UInt8]) throws(SystemError) -> UpgradeProcess {
        let pair = try Socket.packetPair().release()
        let channel = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let childEnd = OwnedDescriptor(rawValue: pair.second)
        let number = childEnd.rawValue
        if !payload.isEmpty { channel.send(payload) }
        let closing = supervisor.descriptors + [channel.descriptor]
        let child = try Process.fork { execute(program, channel: number, closing: closing) }
        _ = consume childEnd
        return UpgradeProcess(child: child, channel: channel)
    }

    /// Runs in the child, until the new program takes its place.
    private func execute(_ program: [String], channel: Int32, closing masterOnly: [Int32]) -> Int32 {
        for descriptor in masterOnly { OwnedDescriptor.close(descriptor) }
        MasterSignals.restoreInChild(keepingBlocked: [])
        for signal in MasterSignals.handled + [Signal.brokenPipe, Signal.fileSize] {
            Signal.restoreDefault(signal)
        }
        Process.setEnvironment(Inheritance.listeners, to: resources.listeners.handedDown)
        Process.setEnvironment(Inheritance.channel, to: "\(channel)")
        // The watchdog will be that of the new main process; the variable names the old one.
        Process.removeEnvironment("WATCHDOG_PID")
        let kept = resources.listeners.allDescriptors + [channel]
        let error = Process.execute(program, keeping: kept)
        let report = WorkerReport.failed(reason: "\(program[0]): \(error)")
        ControlChannel(OwnedDescriptor(rawValue: channel)).send(report.record)
        return 127
    }

    private func watch(_ process: UpgradeProcess) throws(SystemError) {
        let end = ClosureSource { [unowned self] _, _ in processEnded() }
        try add(end, process.endDescriptor, of: process)
        let channel = process.channel.descriptor
        let reports = ClosureSource { [unowned self] source, _ in
            if !readReports() { resources.loop.remove(source, descriptor: channel) }
        }
        try add(reports, channel, of: process)
        let timeout = supervisor.configuration.upgradeTimeout
        let deadline = ClosureTimer { [unowned self] _, _ in deadlineReached(timeout) }
        process.deadline = deadline
        resources.loop.schedule(deadline, after: timeout)
    }

    private func add(_ source: ClosureSource, _ descriptor: Int32, of process: UpgradeProcess) throws(SystemError) {
        try resources.loop.add(source, descriptor: descriptor, for: .readable)
        process.sources.append((source, descriptor))
    }

    private func forget() {
        guard let process else { return }
        for (source, descriptor) in process.sources {
            resources.loop.remove(source, descriptor: descriptor)
        }
        process.sources = []
        if let deadline = process.deadline { resources.loop.cancel(deadline) }
        process.deadline = nil
        self.process = nil
    }

    // MARK: Events

    private func deadlineReached(_ timeout: Duration) {
        guard let process else { return }
        let what = process.isCancelled ? "gone" : "ready"
        resources.logger.error(
            "the new program (pid \(process.pid)) is not \(what) in time: sending SIGKILL")
        process.failureReason = "it was not ready after \(timeout)"
        Process.signal(process.pid, Signal.kill)
    }

    /// - Returns: Whether the channel is still open.
    private func readReports() -> Bool {
        guard let process else { return false }
        for _ in 0..<Self.reportsPerTurn {
            switch process.channel.receive() {
            case .nothing:
                return true
            case .closed:
                return false
            case .record(let record):
                switch WorkerReport(record: record) {
                case .ready where process.hasEnded:
                    break  // it was ready, and has died since
                case .ready:
                    becameReady(process)
                    return true
                case .failed(let reason):
                    process.failureReason = reason
                case .wrote, .noted, nil:
                    resources.logger.error("the new program (pid \(process.pid)) sent an unknown record")
                }
            }
        }
        return true
    }

    private func becameReady(_ process: UpgradeProcess) {
        guard supervisor.isUp else { return }
        forget()
        supervisor.handOver(to: process.pid)
    }

    private func processEnded() {
        guard let process, let end = Process.reap(process.pid) else { return }
        process.hasEnded = true
        _ = readReports()
        forget()
        supervisor.delegate.upgradeReached(.failed)
        guard !supervisor.isEnding else { return }
        let reason = process.failureReason.map { " (\($0))" } ?? ""
        supervisor.upgradeFailed(process.isCancelled ? "it was cancelled" : "\(end)\(reason)")
    }
}

/// The new program, from its start until it serves.
private final class UpgradeProcess {
    private let child: ChildProcess
    let channel: ControlChannel
    var sources: [(source: ClosureSource, descriptor: Int32)] = []
    /// Ends a program that does not get ready, or does not end, in time.
    var deadline: ClosureTimer?
    /// Why the program fails, by its own report.
    var failureReason: String?
    var isCancelled = false
    /// The process was reaped.
    var hasEnded = false

    init(child: consuming ChildProcess, channel: consuming ControlChannel) {
        self.child = child
        self.channel = channel
    }

    var pid: Int32 { child.pid }
    var endDescriptor: Int32 { child.descriptor.rawValue }
    var descriptors: [Int32] { [endDescriptor, channel.descriptor] }
}
