import ApusPlatform

/// Receives the events of a `WorkerProcess`.
protocol WorkerProcessDelegate: AnyObject {
    /// The process can be reaped.
    func processEnded()
    /// The process reported that it serves.
    func processReportedReady()
    /// The process sent a line for the log.
    func processNoted(_ text: String)
    /// The process did what no worker of ours does: it is compromised, or its memory is corrupt.
    func processMisbehaved(_ reason: String)
}

/// A worker process from fork to reaping: its pidfd, and the master's end of its control channel.
///
/// Both descriptors are closed when this object is released. That must happen before the successor
/// is forked, which may be in the same turn of the loop; and the loop keeps removed sources until
/// the end of a turn. So sources and timers hold no reference to this object.
final class WorkerProcess {
    let startedAt: MonotonicTime
    /// Why the worker ends, by its own report.
    private(set) var failureReason: String?
    private(set) var crashMessage = CrashMessage()
    /// The process was reaped: its number may belong to another process.
    private(set) var hasEnded = false

    private let child: ChildProcess
    private let channel: ControlChannel
    private let loop: EventLoop
    private weak var delegate: (any WorkerProcessDelegate)?
    private var sources: [(source: ClosureSource, descriptor: Int32)] = []
    /// Resumes the reading of the channel.
    private var resumption: ClosureTimer?
    private var noteCount = 0

    /// Limit on logged notes: a compromised worker must not fill the log.
    private static let maxNotes = 4
    /// A worker sends a few reports in its life. More than this in one turn are lines that the
    /// application writes to standard error, or an attack. The rest waits, so that reading it does
    /// not delay the master's other events.
    private static let reportsPerTurn = 64
    private static let pauseBetweenTurns = Duration.milliseconds(100)
    /// More records than the kernel holds of a process that has ended.
    private static let maxLastReports = 1024

    init(
        child: consuming ChildProcess, channel: consuming ControlChannel, startedAt: MonotonicTime,
        loop: EventLoop
    ) {
        self.child = child
        self.channel = channel
        self.startedAt = startedAt
        self.loop = loop
    }

    var pid: Int32 { child.pid }

    /// The master's descriptors of this process.
    var descriptors: [Int32] { [child.descriptor.rawValue, channel.descriptor] }

    // MARK: Orders

    /// Sends an order, with descriptors.
    ///
    /// - Returns: Whether the channel took it.
    @discardableResult
    func send(_ command: WorkerCommand, passing descriptors: [Int32] = []) -> Bool {
        descriptors.isEmpty ? channel.send(command.record) : channel.send(command.record, passing: descriptors)
    }

    // MARK: Events

    /// Watches the process and its channel until `didEnd` or `unwatch`.
    func watch(_ delegate: any WorkerProcessDelegate) throws(SystemError) {
        self.delegate = delegate
        let end = ClosureSource { [unowned delegate] _, _ in delegate.processEnded() }
        try add(end, child.descriptor.rawValue)
        let reports = ClosureSource { [unowned self] source, _ in
            switch readReports(limit: Self.reportsPerTurn) {
            case .open: break
            case .limitReached: pause(source)
            case .closed: loop.remove(source, descriptor: channel.descriptor)
            }
        }
        try add(reports, channel.descriptor)
    }

    private func add(_ source: ClosureSource, _ descriptor: Int32) throws(SystemError) {
        try loop.add(source, descriptor: descriptor, for: .readable)
        sources.append((source, descriptor))
    }

    func unwatch() {
        for (source, descriptor) in sources { loop.remove(source, descriptor: descriptor) }
        sources = []
        if let resumption { loop.cancel(resumption) }
        resumption = nil
    }

    /// The process was reaped: reads what it sent before.
    func didEnd() {
        hasEnded = true
        _ = readReports(limit: Self.maxLastReports)
        unwatch()
    }

    private enum ChannelState {
        case open
        /// There may be more to read.
        case limitReached
        case closed
    }

    private func readReports(limit: Int) -> ChannelState {
        for _ in 0..<limit {
            switch channel.receive() {
            case .nothing: return .open
            case .closed: return .closed
            case .record(let record):
                switch WorkerReport(record: record) {
                case .ready:
                    delegate?.processReportedReady()
                case .failed(let reason):
                    failureReason = reason
                case .wrote(let line):
                    crashMessage.wrote(line, at: loop.now)
                case .noted(let text):
                    if noteCount < Self.maxNotes { delegate?.processNoted(text) }
                    noteCount += 1
                case nil:
                    delegate?.processMisbehaved("sent an unknown record")
                    return .closed
                }
            }
        }
        return .limitReached
    }

    private func pause(_ source: ClosureSource) {
        loop.remove(source, descriptor: channel.descriptor)
        let timer = ClosureTimer { [unowned self, unowned source] _, _ in
            do {
                try loop.add(source, descriptor: channel.descriptor, for: .readable)
            } catch {
                // Its reports would be lost.
                delegate?.processMisbehaved("has a control channel that cannot be watched: \(error)")
            }
        }
        resumption = timer
        loop.schedule(timer, after: Self.pauseBetweenTurns)
    }
}
