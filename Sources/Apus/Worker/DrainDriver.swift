import ApusPlatform
import Logging

/// Carries out what `Drain` decides.
final class DrainDriver {
    private var machine: Drain
    private let loop: EventLoop
    private let logger: Logger
    private let table: ConnectionTable
    private let timer = ClosureTimer()
    /// For the order in which connections are closed.
    private var random: any RandomNumberGenerator

    init(limits: Limits, loop: EventLoop, logger: Logger, table: ConnectionTable, random: any RandomNumberGenerator) {
        machine = Drain(limits: limits)
        self.loop = loop
        self.logger = logger
        self.table = table
        self.random = random
        timer.body = { [unowned self] _, _ in closeWhatIsDue() }
    }

    deinit { loop.cancel(timer) }

    var isStopping: Bool { machine.isStopping }

    var isFinished: Bool { machine.isFinished }

    /// Begins to end gracefully.
    ///
    /// - Parameter patience: the drain timeout, if shorter than `Limits.drainTimeout`.
    /// - Returns: false if the worker is ending already.
    func drain(within patience: Duration?) -> Bool { machine.drain(at: loop.now, within: patience) }

    /// Begins to end quickly.
    ///
    /// - Returns: false if the worker is doing so already.
    func stop() -> Bool { machine.stop(at: loop.now) }

    func connectionsEnded() { machine.connectionsEnded() }

    /// Closes everything that can be closed without cutting it; the rest is cut by the timer.
    func closeAtOnce() {
        closeIdle()
        for socket in table.openWebSockets { socket.close(code: .goingAway, reason: "the server stops") }
        arm()
    }

    func closeWhatIsDue() {
        while true {
            switch machine.deadlineReached(at: loop.now, using: &random) {
            case .none: return arm()
            case .closeShare: closeShare()
            case .closeIdle: closeIdle()
            case .cut:
                if !table.isEmpty { logger.notice("drain timeout: closed \(table.count) connections") }
                for connection in table.all.reversed() { connection.close() }
            }
        }
    }

    private func arm() {
        if let deadline = machine.deadline { loop.schedule(timer, at: deadline) } else { loop.cancel(timer) }
    }

    private func closeShare() {
        var open = table.openWebSockets
        open.shuffle(using: &random)
        for socket in open.prefix(machine.share(of: open.count, at: loop.now)) {
            socket.close(code: .serviceRestart, reason: "the service restarts")
        }
    }

    private func closeIdle() { for connection in table.all { connection.endIfIdle() } }
}
