import ApusPlatform

/// A worker's shutdown: requests and time in, actions out.
struct Drain {
    private enum State {
        case running
        /// No new connections; open ones end after their current request or by a close frame.
        case draining(Draining)
        /// All connections are being closed.
        case stopping(cutAt: MonotonicTime)
        case finished
    }

    private struct Draining {
        /// When the next share of WebSockets is closed.
        var nextStep: MonotonicTime
        /// When connections without a request are closed; nil once done.
        var idleEnd: MonotonicTime?
        /// When all WebSockets should have been closed.
        let windowEnd: MonotonicTime
        /// When remaining connections are closed without a handshake.
        let cutAt: MonotonicTime
    }

    enum Action: Equatable {
        case none
        /// Close a share of the open WebSockets; see `share`.
        case closeShare
        /// Close connections on which no request has begun.
        case closeIdle
        /// Close the remaining connections at once.
        case cut
    }

    private var state = State.running
    private let limits: Limits

    private static let step = Duration.milliseconds(50)
    /// Random, so that workers do not close their shares at the same time.
    private static let jitterMilliseconds: ClosedRange<Int64> = -10...10
    private static let stopTimeout = Duration.seconds(1)

    init(limits: Limits) { self.limits = limits }

    var isRunning: Bool { if case .running = state { true } else { false } }

    var isFinished: Bool { if case .finished = state { true } else { false } }

    /// Whether no new work may start, not even on an open connection.
    var isStopping: Bool {
        switch state {
        case .running, .draining: false
        case .stopping, .finished: true
        }
    }

    /// Starts a graceful shutdown.
    ///
    /// - Parameter patience: the drain timeout, if shorter than `Limits.drainTimeout`.
    /// - Returns: false if the worker is shutting down already.
    mutating func drain(at now: MonotonicTime, within patience: Duration?) -> Bool {
        guard case .running = state else { return false }
        let time = min(limits.drainTimeout, patience ?? limits.drainTimeout)
        let windowEnd = now + min(limits.drainWindow, time / 2)
        state = .draining(Draining(nextStep: now, idleEnd: windowEnd, windowEnd: windowEnd, cutAt: now.deadline(after: time)))
        return true
    }

    /// Starts a fast shutdown.
    ///
    /// - Returns: false if one has started already.
    mutating func stop(at now: MonotonicTime) -> Bool {
        switch state {
        case .running, .draining:
            state = .stopping(cutAt: now.deadline(after: Self.stopTimeout))
            return true
        case .stopping, .finished: return false
        }
    }

    /// Called when all connections have ended.
    mutating func connectionsEnded() { if !isRunning { state = .finished } }

    /// When `deadlineReached` must be called.
    var deadline: MonotonicTime? {
        switch state {
        case .running, .finished: nil
        case .draining(let draining): min(draining.nextStep, draining.idleEnd ?? draining.cutAt, draining.cutAt)
        case .stopping(let cutAt): cutAt
        }
    }

    /// Returns one action that is due; call it until it returns `none`.
    mutating func deadlineReached(at now: MonotonicTime, using random: inout some RandomNumberGenerator) -> Action {
        switch state {
        case .running, .finished: return .none
        case .stopping(let cutAt):
            guard now >= cutAt else { return .none }
            state = .finished
            return .cut
        case .draining(var draining):
            if now >= draining.cutAt {
                state = .finished
                return .cut
            }
            if now >= draining.nextStep {
                let jitter = Duration.milliseconds(Int64.random(in: Self.jitterMilliseconds, using: &random))
                draining.nextStep = now.deadline(after: Self.step + jitter)
                state = .draining(draining)
                return .closeShare
            }
            if let idleEnd = draining.idleEnd, now >= idleEnd {
                draining.idleEnd = nil
                state = .draining(draining)
                return .closeIdle
            }
            return .none
        }
    }

    /// How many of the `open` WebSockets to close in this step: spread over the drain window, at
    /// most `Limits.drainRate` per second.
    func share(of open: Int, at now: MonotonicTime) -> Int {
        guard case .draining(let draining) = state else { return open }
        let step = Self.step.wholeMilliseconds
        let steps = Int(clamping: draining.windowEnd.millisecondsSince(now) / step) + 1
        let (product, isTooLarge) = limits.drainRate.multipliedReportingOverflow(by: Int(step))
        let most = isTooLarge ? .max : max(1, product / 1000)
        return min((open + steps - 1) / steps, most)
    }
}
