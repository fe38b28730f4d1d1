import Glibc
import Synchronization
import TestSupport

/// Stops and kills workers, and remembers what each had accepted by then.
///
/// A connection that a dying worker has accepted dies with it, which nobody can help; any other must be served, out of the accept queue that
/// the master holds open. Which is which is a matter of fact: a worker is stopped first and its sockets are looked at; as long as it is
/// stopped it accepts nothing more. So whoever kills it then, this object or the server's watchdog, exactly those connections are lost.
final class StoppedWorkers: Sendable {
    enum Fate { case killed, stopped }

    private struct Look {
        let worker: pid_t
        /// The worker was stopped from before `began` until after `ended`.
        let began: ContinuousClock.Instant
        let ended: ContinuousClock.Instant
        let accepted: Set<SocketTable.End>
        var fate = Fate.stopped
    }

    private let port: UInt16
    private let looks = Mutex<[Look]>([])
    /// All there ever were.
    private let history = Mutex<[Look]>([])

    init(of port: UInt16) { self.port = port }

    /// Stops a worker, and takes down what it has accepted. False: it has ended by itself.
    @discardableResult
    func stop(_ worker: pid_t) throws -> Bool {
        guard let entry = ProcessTable.entry(worker), !entry.isDead else { return false }
        // On a busy machine the watchdog might strike before the look is over.
        return try Self.pausing(Self.master(of: entry)) {
            Glibc.kill(worker, SIGSTOP)
            guard Deadline(after: .seconds(5)).wait(until: { Self.isStoppedOrDead(worker) }) else {
                throw TestFailure("worker \(worker) does not stop")
            }
            let began = ContinuousClock.now
            let accepted = SocketTable.acceptedPeers(of: worker, at: port)
            let ended = ContinuousClock.now
            guard ProcessTable.entry(worker)?.isStopped == true else { return false }
            guard let accepted else { throw TestFailure("worker \(worker) cannot be looked into") }
            let look = Look(worker: worker, began: began, ended: ended, accepted: accepted)
            looks.withLock { $0.append(look) }
            history.withLock { $0.append(look) }
            return true
        }
    }

    /// An orphan's parent is somebody else, who must not be stopped.
    private static func master(of worker: ProcessTable.Entry) throws -> pid_t {
        guard ProcessTable.entry(worker.parent)?.group == worker.group else { throw TestFailure("worker \(worker.pid) has no master") }
        return worker.parent
    }

    private static func isStoppedOrDead(_ process: pid_t) -> Bool {
        ProcessTable.entry(process).map { $0.isStopped || $0.isDead } ?? true
    }

    /// Kills a worker. False: it has ended by itself.
    @discardableResult
    func kill(_ worker: pid_t) throws -> Bool {
        guard try stop(worker) else { return false }
        looks.withLock { looks in
            for index in looks.indices where looks[index].worker == worker { looks[index].fate = .killed }
        }
        Glibc.kill(worker, SIGKILL)
        return true
    }

    /// Lets a worker go on, if it is stopped: from now on it must lose nothing.
    ///
    /// It accepts again before its heart beats, and if the watchdog had just then made up its mind, nobody could tell what it had accepted when
    /// it died. So the master is stopped for that moment.
    func resume(_ worker: pid_t) throws {
        guard let entry = ProcessTable.entry(worker), entry.isStopped else { return }
        try Self.pausing(Self.master(of: entry)) {
            // Aborted or killed already: it does not run again.
            if ProcessTable.hasPending(SIGABRT, worker) || ProcessTable.hasPending(SIGKILL, worker) { return }
            guard let before = ProcessTable.waits(of: worker) else { return }
            looks.withLock { looks in looks.removeAll { $0.worker == worker } }
            Glibc.kill(worker, SIGCONT)
            // Its loop runs the timers that are due before it waits for events. It may only now be counted that the stop was a wait, too. A
            // worker that was about to leave may have left.
            let hasBeaten = Deadline(after: .seconds(5)).wait {
                ProcessTable.entry(worker)?.isDead ?? true || ProcessTable.waits(of: worker).map { $0 >= before + 2 } ?? true
            }
            guard hasBeaten else { throw TestFailure("worker \(worker) does not go on") }
        }
    }

    /// epoll_wait and epoll_pwait of x86-64, epoll_pwait of arm64.
    private static let waitingCalls = [232, 281, 22]

    /// Runs `body` while a master is stopped in its wait for events: it is in the midst of nothing, and begins nothing.
    static func pausing<Result>(_ master: pid_t, _ body: () throws -> Result) throws -> Result {
        defer { Glibc.kill(master, SIGCONT) }
        let isWaiting = Deadline(after: .seconds(5)).wait {
            Glibc.kill(master, SIGSTOP)
            guard Deadline(after: .seconds(5)).wait(until: { isStoppedOrDead(master) }) else { return false }
            if let call = ProcessTable.systemCall(of: master), waitingCalls.contains(call) { return true }
            Glibc.kill(master, SIGCONT)
            return false
        }
        guard isWaiting else { throw TestFailure("master \(master) is never found waiting") }
        return try body()
    }

    // MARK: What was lost

    struct Account {
        /// Accepted by workers that were killed, and by those that were stopped and then replaced.
        var killed = 0
        var stopped = 0
        /// What no stopped worker had accepted.
        var unexplained: [Loss] = []
    }

    /// Whether a worker that was stopped meanwhile had accepted the connection: then it had to wait.
    func hadAccepted(_ end: SocketTable.End, from began: ContinuousClock.Instant, to ended: ContinuousClock.Instant) -> Bool {
        history.withLock { $0.contains { $0.began <= ended && began <= $0.ended && $0.accepted.contains(end) } }
    }

    func account(for losses: [Loss]) -> Account {
        let looks = looks.withLock { $0 }
        var account = Account()
        for loss in losses {
            // The loss comes after the stop, and the connection was there while the worker was looked at.
            let look = looks.first { $0.began <= loss.ended && loss.began <= $0.ended && $0.accepted.contains(loss.end) }
            switch look?.fate {
            case .killed: account.killed += 1
            case .stopped: account.stopped += 1
            case nil: account.unexplained.append(loss)
            }
        }
        return account
    }
}
