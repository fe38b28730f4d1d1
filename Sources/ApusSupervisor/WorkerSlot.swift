import ApusBus
package import ApusPlatform

/// The life of one worker slot, as a pure state machine: events and the time in, one action out.
///
/// What follows a death depends on how far the process got, not on what ended it:
/// - ordered to end: the slot has ended;
/// - ready: the successor starts at once, but at least `minForkInterval` (100 ms) after the fork of
///   its predecessor. So a request that crashes each worker that reads it costs at most ten forks a
///   second;
/// - never ready: a *failure*. The next start waits 100 ms, doubled with each further failure up to
///   30 s. A random half of that is taken off, so that slots do not crash in step. A worker that
///   becomes ready resets the count;
/// - exit status 78 (`EX_CONFIG`) in a slot that has never been ready: abandoned, since a restart
///   would fail in the same way. Once the slot has served, it is a failure like others.
///
/// The watchdog: a worker whose loop has not beaten for `heartbeatTimeout`, or that is not ready
/// within `startTimeout`, gets SIGABRT (a core dump shows where it hung) and SIGKILL one second
/// later. If the supervisor itself looked late (the machine was suspended, or the process group
/// stopped), the time of the worker starts anew.
package struct WorkerSlot {
    package struct Policy: Sendable, Equatable {
        /// Upper limit on the age of a ready worker's heartbeat.
        package var heartbeatTimeout: Duration = .seconds(10)
        /// From the fork until the worker must be ready.
        package var startTimeout: Duration = .seconds(30)
        /// From SIGABRT to SIGKILL.
        package var abortGrace: Duration = .seconds(1)
        /// From the order to drain to SIGKILL.
        package var drainTimeout: Duration = .seconds(30)
        /// From the order to stop to SIGKILL.
        package var stopTimeout: Duration = .seconds(2)

        package init() {}
    }

    /// The exit status that means "do not restart" (`EX_CONFIG` of sysexits).
    package static let doNotRestart: Int32 = 78
    static let firstBackOffMilliseconds: UInt64 = 100
    static let longestBackOffMilliseconds: UInt64 = 30_000
    /// The least time between two forks of a slot.
    static let minForkInterval = Duration.milliseconds(100)
    /// How late the supervisor may look at a heartbeat and still trust it.
    static let maxLookDelayMilliseconds: UInt64 = 1_000

    /// One process of the slot, from fork to reaping.
    struct Incarnation: Equatable {
        let pid: Int32
        let startedAt: MonotonicTime
        /// It has served.
        var isReady = false
    }

    enum State: Equatable {
        /// No process was started yet, or a fork is under way.
        case idle
        /// Forked; it must be ready by `deadline`.
        case starting(Incarnation, deadline: MonotonicTime)
        /// Serving; its heartbeat is checked next at `lookAt`.
        case ready(Incarnation, lookAt: MonotonicTime)
        /// Ordered to end, by `order`.
        case draining(Incarnation, order: WorkerCommand, killAt: MonotonicTime)
        /// SIGABRT was sent because it hangs.
        case aborting(Incarnation, killAt: MonotonicTime, successor: Successor)
        /// SIGKILL was sent.
        case killing(Incarnation, successor: Successor)
        /// No process; the next one starts at `until`.
        case backingOff(until: MonotonicTime)
        /// No process and no successor: ordered to end.
        case ended
        /// No process and no successor: status 78 before the slot has ever served.
        case abandoned
    }

    enum Successor { case wanted, unwanted }

    /// What the supervisor must do.
    package enum Action: Equatable {
        case none
        /// Start a process and call `forked` or `forkFailed`.
        case fork
        /// Send a signal to the slot's process, which is not reaped yet.
        case signal(Int32, to: Int32)
        /// Send an order over the control channel of the slot's process.
        case send(WorkerCommand)
    }

    /// What follows a death.
    package enum RestartDecision: Equatable {
        case restart(after: Duration)
        case end
        case abandon
    }

    private let policy: Policy
    private(set) var state: State = .idle
    /// Failures since a worker of the slot was last ready.
    package private(set) var failures = 0
    /// Whether any process of the slot was ever ready.
    package private(set) var hasBeenReady = false

    package init(policy: Policy) { self.policy = policy }

    // MARK: State

    /// The slot's process; nil if there is none to signal or to reap.
    package var process: Int32? { incarnation?.pid }

    private var incarnation: Incarnation? {
        switch state {
        case .starting(let process, _), .ready(let process, _), .draining(let process, _, _),
            .aborting(let process, _, _), .killing(let process, _):
            process
        case .idle, .backingOff, .ended, .abandoned: nil
        }
    }

    /// Whether the slot's process serves.
    package var isReady: Bool { if case .ready = state { true } else { false } }

    /// Whether SIGABRT was sent to the slot's process. In `killing` it may have been, and the end
    /// of a process that dumps core comes after SIGKILL was sent, too.
    var isAborted: Bool {
        switch state {
        case .aborting, .killing: true
        case .idle, .starting, .ready, .draining, .backingOff, .ended, .abandoned: false
        }
    }

    /// Whether the slot has no process and gets none.
    package var isOver: Bool {
        switch state {
        case .ended, .abandoned: true
        case .idle, .starting, .ready, .draining, .aborting, .killing, .backingOff: false
        }
    }

    package var isAbandoned: Bool { state == .abandoned }

    /// Whether the slot was abandoned, or has failed `attempts` times in a row.
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

    /// When `deadlineReached` must be called; nil: never.
    package var deadline: MonotonicTime? {
        switch state {
        case .starting(_, let deadline): deadline
        case .ready(_, let lookAt): lookAt
        case .draining(_, _, let killAt), .aborting(_, let killAt, _): killAt
        case .backingOff(let until): until
        case .idle, .killing, .ended, .abandoned: nil
        }
    }

    // MARK: Events

    /// Starts the slot. Called once.
    package mutating func start() -> Action {
        precondition(state == .idle, "a slot is started once")
        return .fork
    }

    package mutating func forked(pid: Int32, now: MonotonicTime) {
        precondition(state == .idle, "one process per slot")
        let process = Incarnation(pid: pid, startedAt: now)
        state = .starting(process, deadline: now + policy.startTimeout)
    }

    /// The fork failed, which counts like a death before ready.
    package mutating func forkFailed(
        now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> RestartDecision {
        precondition(state == .idle, "one process per slot")
        return backOff(now: now, random: &random)
    }

    /// The worker has reported that it serves.
    ///
    /// - Returns: False if it had reported that before, or too late: then it does not count as
    ///   ready.
    @discardableResult
    package mutating func reportedReady(now: MonotonicTime) -> Bool {
        switch state {
        case .starting(var process, _):
            process.isReady = true
            hasBeenReady = true
            failures = 0
            state = .ready(process, lookAt: now + policy.heartbeatTimeout)
            return true
        case .idle, .ready, .draining, .aborting, .killing, .backingOff, .ended, .abandoned:
            return false
        }
    }

    /// The slot's process has ended and was reaped.
    package mutating func ended(
        _ end: ProcessEnd, now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> RestartDecision {
        switch state {
        case .starting(let process, _), .ready(let process, _),
            .aborting(let process, _, successor: .wanted), .killing(let process, successor: .wanted):
            return decideRestart(process, end, now: now, random: &random)
        case .draining, .aborting(_, _, successor: .unwanted), .killing(_, successor: .unwanted):
            state = .ended
            return .end
        case .idle, .backingOff, .ended, .abandoned:
            preconditionFailure("a slot without a process cannot lose one")
        }
    }

    /// The deadline was reached.
    ///
    /// - Parameter lastBeat: From the scoreboard, where the worker writes it: a time in the future
    ///   counts as now.
    package mutating func deadlineReached(now: MonotonicTime, lastBeat: MonotonicTime) -> Action {
        guard let deadline, deadline <= now else { return .none }
        let isLate = now.millisecondsSince(deadline) > Self.maxLookDelayMilliseconds
        switch state {
        case .starting(let process, _):
            if isLate {
                state = .starting(process, deadline: now + policy.startTimeout)
                return .none
            }
            return abort(process, killAt: now + policy.abortGrace, successor: .wanted)
        case .ready(let process, _):
            let stale = min(lastBeat, now) + policy.heartbeatTimeout
            if stale > now || isLate {
                state = .ready(process, lookAt: isLate ? now + policy.heartbeatTimeout : stale)
                return .none
            }
            return abort(process, killAt: now + policy.abortGrace, successor: .wanted)
        case .draining(let process, _, _):
            state = .killing(process, successor: .unwanted)
            return .signal(Signal.kill, to: process.pid)
        case .aborting(let process, _, let successor):
            state = .killing(process, successor: successor)
            return .signal(Signal.kill, to: process.pid)
        case .backingOff:
            state = .idle
            return .fork
        case .idle, .killing, .ended, .abandoned:
            return .none
        }
    }

    /// Ends the slot gracefully: its connections may take up to `drainTimeout`.
    ///
    /// - Parameter order: `drain` or `handOver`.
    package mutating func drain(_ order: WorkerCommand = .drain, now: MonotonicTime) -> Action {
        end(order, killAt: now + policy.drainTimeout)
    }

    /// Ends the slot now, even if it is draining.
    package mutating func stop(now: MonotonicTime) -> Action {
        end(.stop, killAt: now + policy.stopTimeout)
    }

    /// Aborts a draining worker whose loop does not turn, before its deadline.
    package mutating func checkDrain(now: MonotonicTime, lastBeat: MonotonicTime) -> Action {
        switch state {
        case .draining(let process, let order, let killAt) where order != .stop:
            guard min(lastBeat, now) + policy.heartbeatTimeout <= now else { return .none }
            return abort(process, killAt: min(killAt, now + policy.abortGrace), successor: .unwanted)
        case .idle, .starting, .ready, .draining, .aborting, .killing, .backingOff, .ended, .abandoned:
            return .none
        }
    }

    // MARK: Transitions

    private mutating func end(_ order: WorkerCommand, killAt: MonotonicTime) -> Action {
        switch state {
        case .starting(let process, _), .ready(let process, _):
            state = .draining(process, order: order, killAt: killAt)
            return .send(order)
        case .draining(let process, let present, let old) where order == .stop && present != .stop:
            // A second order never postpones the deadline.
            state = .draining(process, order: .stop, killAt: min(killAt, old))
            return .send(.stop)
        case .draining:
            return .none
        case .aborting(let process, let killAt, _):
            // It hangs and would not read an order.
            state = .aborting(process, killAt: killAt, successor: .unwanted)
            return .none
        case .killing(let process, _):
            state = .killing(process, successor: .unwanted)
            return .none
        case .idle, .backingOff:
            state = .ended
            return .none
        case .ended, .abandoned:
            return .none
        }
    }

    private mutating func abort(
        _ process: Incarnation, killAt: MonotonicTime, successor: Successor
    ) -> Action {
        state = .aborting(process, killAt: killAt, successor: successor)
        return .signal(Signal.abort, to: process.pid)
    }

    private mutating func decideRestart(
        _ process: Incarnation, _ end: ProcessEnd, now: MonotonicTime,
        random: inout some RandomNumberGenerator
    ) -> RestartDecision {
        if end == .exited(Self.doNotRestart), !hasBeenReady {
            state = .abandoned
            return .abandon
        }
        guard process.isReady else { return backOff(now: now, random: &random) }
        let next = max(now, process.startedAt + Self.minForkInterval)
        state = .backingOff(until: next)
        return .restart(after: .milliseconds(next.millisecondsSince(now)))
    }

    private mutating func backOff(
        now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> RestartDecision {
        failures += 1
        let delay = Duration.milliseconds(
            Self.backOffMilliseconds(failures: failures, random: &random))
        state = .backingOff(until: now + delay)
        return .restart(after: delay)
    }

    /// Between half and all of 100 ms · 2^(failures - 1), where all is at most 30 s.
    static func backOffMilliseconds(
        failures: Int, random: inout some RandomNumberGenerator
    ) -> UInt64 {
        let doublings = UInt64(min(max(failures, 1) - 1, 20))
        let full = min(firstBackOffMilliseconds << doublings, longestBackOffMilliseconds)
        return UInt64.random(in: full / 2...full, using: &random)
    }
}

extension WorkerSlot.RestartDecision: CustomStringConvertible {
    package var description: String {
        switch self {
        case .restart(after: .zero): "starting the next at once"
        case .restart(after: let delay): "starting the next in \(delay.wholeMilliseconds) ms"
        case .end: "as asked"
        case .abandon: "not to be restarted"
        }
    }
}
