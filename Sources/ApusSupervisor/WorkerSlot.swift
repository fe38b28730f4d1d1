package import ApusPlatform

/// The life of one worker slot, as a pure state machine: events and the time in, one action for the supervisor out.
///
/// What happens after a death depends on how far the life got, not on how it ended:
/// - asked to leave: the slot has ended;
/// - ready: the successor starts at once, whatever killed the worker, but not within `minLife` (100 ms) of its predecessor's fork: so a request
///   that crashes each worker that reads it costs at most ten forks a second;
/// - never ready: a *failure*. The next start waits 100 ms, doubled with each further failure up to 30 s, of which a random half is taken off
///   so that slots do not crash in step. A worker that becomes ready clears the count;
/// - exit status 78 (`EX_CONFIG`) in a slot that has never been ready: abandoned, a restart would fail the same way. Once the slot has served,
///   it is a failure as any other: what is wrong now may be mended, and nothing is given up for ever.
///
/// The watchdog: a worker whose loop has not beaten for `heartbeatTimeout` gets SIGABRT (a core dump says where it hung), and
/// SIGKILL one second later; so does one that is not ready within `startTimeout`. If the supervisor itself was late to look
/// (the machine was suspended, the process group stopped), the worker's time starts anew.
package struct WorkerSlot {
    package struct Policy: Sendable, Equatable {
        /// The oldest a ready worker's heartbeat may be.
        package var heartbeatTimeout: Duration = .seconds(10)
        /// From the fork until the worker says that it is ready.
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
    /// From one fork to the next of a slot, at least.
    static let minLife = Duration.milliseconds(100)
    /// How late the supervisor may look at a heartbeat and still trust what it sees.
    static let lateLookMilliseconds: UInt64 = 1_000

    /// One process, from fork to reaping.
    struct Life: Equatable {
        let pid: Int32
        let startedAt: MonotonicTime
        /// It has served.
        var isReady = false
    }

    enum State: Equatable {
        /// Nothing was started yet, or a fork is under way.
        case idle
        /// Forked; to be ready by `deadline`.
        case starting(Life, deadline: MonotonicTime)
        /// Serving; its heartbeat is looked at next at `lookAt`.
        case ready(Life, lookAt: MonotonicTime)
        /// Asked to leave, by `order`.
        case draining(Life, order: WorkerCommand, killAt: MonotonicTime)
        /// SIGABRT was sent to a worker that hangs.
        case aborting(Life, killAt: MonotonicTime)
        /// SIGKILL was sent; the end is certain. `successor` tells whether another follows.
        case killing(Life, successor: Successor)
        /// No process; the next one starts at `until`.
        case backingOff(until: MonotonicTime)
        /// No process and none to come: asked to leave.
        case ended
        /// No process and none to come: status 78 before the slot has ever served.
        case abandoned
    }

    enum Successor { case wanted, unwanted }

    /// What the supervisor is to do.
    package enum Action: Equatable {
        case none
        /// Start a process and say `forked` or `forkFailed`.
        case fork
        /// Send a signal to the slot's process, which is not reaped yet.
        case signal(Int32, to: Int32)
        /// Tell the slot's process over its control channel.
        case tell(WorkerCommand)
    }

    /// What follows a death, for the log.
    package enum Sequel: Equatable {
        case restart(after: Duration)
        case end
        case abandon
    }

    private let policy: Policy
    private(set) var state: State = .idle
    /// Failures since a worker of the slot was last ready.
    package private(set) var failures = 0
    /// Whether any of the slot's processes was ever ready.
    package private(set) var hasBeenReady = false

    package init(policy: Policy) { self.policy = policy }

    // MARK: What the supervisor asks

    /// The slot's process; nil when there is none to signal or to reap.
    package var process: Int32? { life?.pid }

    private var life: Life? {
        switch state {
        case .starting(let life, _), .ready(let life, _), .draining(let life, _, _), .aborting(let life, _),
            .killing(let life, _):
            life
        case .idle, .backingOff, .ended, .abandoned: nil
        }
    }

    /// Whether the slot's process serves.
    package var isReady: Bool { if case .ready = state { true } else { false } }

    /// Whether nothing will happen in this slot any more.
    package var isOver: Bool {
        switch state {
        case .ended, .abandoned: true
        case .idle, .starting, .ready, .draining, .aborting, .killing, .backingOff: false
        }
    }

    package var isAbandoned: Bool { state == .abandoned }

    /// When `deadlineReached` is to be called; nil: not by time.
    package var deadline: MonotonicTime? {
        switch state {
        case .starting(_, let deadline): deadline
        case .ready(_, let lookAt): lookAt
        case .draining(_, _, let killAt), .aborting(_, let killAt): killAt
        case .backingOff(let until): until
        case .idle, .killing, .ended, .abandoned: nil
        }
    }

    // MARK: Events

    /// The supervisor wants the slot to serve.
    package mutating func start() -> Action {
        precondition(state == .idle, "a slot is started once")
        return .fork
    }

    package mutating func forked(pid: Int32, now: MonotonicTime) {
        precondition(state == .idle, "one process per slot")
        state = .starting(Life(pid: pid, startedAt: now), deadline: now + policy.startTimeout)
    }

    /// There was no memory or no process number: a failure like a death before ready.
    package mutating func forkFailed(now: MonotonicTime, random: inout some RandomNumberGenerator) -> Sequel {
        precondition(state == .idle, "one process per slot")
        return fail(now: now, random: &random)
    }

    /// The worker says that it serves. False when that is no news, or too late to matter: nobody may count on it then.
    @discardableResult
    package mutating func reportedReady(now: MonotonicTime) -> Bool {
        switch state {
        case .starting(var life, _):
            life.isReady = true
            hasBeenReady = true
            failures = 0
            state = .ready(life, lookAt: now + policy.heartbeatTimeout)
            return true
        case .idle, .ready, .draining, .aborting, .killing, .backingOff, .ended, .abandoned:
            return false
        }
    }

    /// The slot's process has ended and was reaped.
    package mutating func ended(
        _ end: ProcessEnd, now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> Sequel {
        switch state {
        case .starting(let life, _), .ready(let life, _), .aborting(let life, _), .killing(let life, successor: .wanted):
            return judge(life, end, now: now, random: &random)
        case .draining, .killing(_, successor: .unwanted):
            state = .ended
            return .end
        case .idle, .backingOff, .ended, .abandoned:
            preconditionFailure("a slot without a process cannot lose one")
        }
    }

    /// The deadline has come. `lastBeat` is what the scoreboard says, which the worker writes: a beat in the future is one now.
    package mutating func deadlineReached(now: MonotonicTime, lastBeat: MonotonicTime) -> Action {
        guard let deadline, deadline <= now else { return .none }
        let lookedLate = now.millisecondsSince(deadline) > Self.lateLookMilliseconds
        switch state {
        case .starting(let life, _):
            if lookedLate {
                state = .starting(life, deadline: now + policy.startTimeout)
                return .none
            }
            return abort(life, now: now)
        case .ready(let life, _):
            let stale = min(lastBeat, now) + policy.heartbeatTimeout
            if stale > now || lookedLate {
                state = .ready(life, lookAt: lookedLate ? now + policy.heartbeatTimeout : stale)
                return .none
            }
            return abort(life, now: now)
        case .draining(let life, _, _):
            state = .killing(life, successor: .unwanted)
            return .signal(Signal.kill, to: life.pid)
        case .aborting(let life, _):
            state = .killing(life, successor: .wanted)
            return .signal(Signal.kill, to: life.pid)
        case .backingOff:
            state = .idle
            return .fork
        case .idle, .killing, .ended, .abandoned:
            return .none
        }
    }

    /// The slot shall end; its connections may, too, within `drainTimeout`. `order` is `drain` or `handOver`.
    package mutating func drain(_ order: WorkerCommand = .drain, now: MonotonicTime) -> Action {
        leave(order, killAt: now + policy.drainTimeout)
    }

    /// The slot shall end now; also when it drains already.
    package mutating func stop(now: MonotonicTime) -> Action {
        leave(.stop, killAt: now + policy.stopTimeout)
    }

    /// A look at a worker that drains: if its loop does not turn any more, it is not waited for until the deadline.
    package mutating func lookAtDrain(now: MonotonicTime, lastBeat: MonotonicTime) -> Action {
        switch state {
        case .draining(let life, let order, let killAt) where order != .stop:
            guard min(lastBeat, now) + policy.heartbeatTimeout <= now else { return .none }
            state = .draining(life, order: .stop, killAt: min(killAt, now + policy.abortGrace))
            return .signal(Signal.abort, to: life.pid)
        case .idle, .starting, .ready, .draining, .aborting, .killing, .backingOff, .ended, .abandoned:
            return .none
        }
    }

    // MARK: Transitions

    private mutating func leave(_ order: WorkerCommand, killAt: MonotonicTime) -> Action {
        switch state {
        case .starting(let life, _), .ready(let life, _):
            state = .draining(life, order: order, killAt: killAt)
            return .tell(order)
        case .draining(let life, let present, let old) where order == .stop && present != .stop:
            // A second order only ever makes it faster.
            state = .draining(life, order: .stop, killAt: min(killAt, old))
            return .tell(.stop)
        case .draining:
            return .none
        case .aborting(let life, let old):
            // It hangs: no use to tell it anything, SIGKILL comes as planned.
            state = .draining(life, order: .stop, killAt: old)
            return .none
        case .killing(let life, _):
            state = .killing(life, successor: .unwanted)
            return .none
        case .idle, .backingOff:
            state = .ended
            return .none
        case .ended, .abandoned:
            return .none
        }
    }

    private mutating func abort(_ life: Life, now: MonotonicTime) -> Action {
        state = .aborting(life, killAt: now + policy.abortGrace)
        return .signal(Signal.abort, to: life.pid)
    }

    private mutating func judge(
        _ life: Life, _ end: ProcessEnd, now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> Sequel {
        if end == .exited(Self.doNotRestart), !hasBeenReady {
            state = .abandoned
            return .abandon
        }
        guard life.isReady else { return fail(now: now, random: &random) }
        let next = max(now, life.startedAt + Self.minLife)
        state = .backingOff(until: next)
        return .restart(after: .milliseconds(next.millisecondsSince(now)))
    }

    private mutating func fail(now: MonotonicTime, random: inout some RandomNumberGenerator) -> Sequel {
        failures += 1
        let delay = Duration.milliseconds(Self.backOffMilliseconds(failures: failures, random: &random))
        state = .backingOff(until: now + delay)
        return .restart(after: delay)
    }

    /// Between half and all of 100 ms · 2^(failures - 1), capped at 30 s before the draw.
    static func backOffMilliseconds(failures: Int, random: inout some RandomNumberGenerator) -> UInt64 {
        let doublings = UInt64(min(max(failures, 1) - 1, 20))
        let full = min(firstBackOffMilliseconds << doublings, longestBackOffMilliseconds)
        return UInt64.random(in: full / 2...full, using: &random)
    }
}
