import Glibc
import Synchronization
import TestSupport

/// Stops and kills workers, and remembers what each had accepted by then.
///
/// A connection that a dying worker has accepted dies with it, which nobody can help; any other must be served, out of the accept queue that
/// the master holds open. Which is which is a matter of fact: a worker is stopped first, and read from /proc what it holds; as long as it is
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

    init(of port: UInt16) { self.port = port }

    /// Stops a worker, and takes down what it has accepted. False: it has ended by itself.
    @discardableResult
    func stop(_ worker: pid_t) throws -> Bool {
        Glibc.kill(worker, SIGSTOP)
        guard Deadline(after: .seconds(5)).wait(until: { ProcessTable.entry(worker)?.isStopped ?? true }) else {
            guard ProcessTable.entry(worker)?.isDead == false else { return false }
            throw TestFailure("worker \(worker) does not stop")
        }
        let began = ContinuousClock.now
        let accepted = SocketTable.acceptedPeers(of: worker, at: port)
        let ended = ContinuousClock.now
        // One that the watchdog has killed meanwhile has been looked at when it was stopped.
        guard let accepted, ProcessTable.entry(worker)?.isStopped == true else {
            guard ProcessTable.entry(worker)?.isStopped != true else { throw TestFailure("worker \(worker) cannot be looked into") }
            return false
        }
        looks.withLock { $0.append(Look(worker: worker, began: began, ended: ended, accepted: accepted)) }
        return true
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
    /// it died. So the master is stopped for that moment, while it waits for events and decides nothing.
    func resume(_ worker: pid_t) throws {
        guard let entry = ProcessTable.entry(worker), entry.isStopped else { return }
        try stopWhileWaiting(entry.parent)
        defer { Glibc.kill(entry.parent, SIGCONT) }
        // Aborted or killed already: it does not run again.
        if ProcessTable.hasPending(SIGABRT, worker) || ProcessTable.hasPending(SIGKILL, worker) {
            Glibc.kill(worker, SIGCONT)
            return
        }
        guard let before = ProcessTable.waits(of: worker) else { return }
        looks.withLock { looks in looks.removeAll { $0.worker == worker } }
        Glibc.kill(worker, SIGCONT)
        // Its loop runs the timers that are due before it waits for events. It may only now be counted that the stop was a wait, too. A worker
        // that was about to leave may have left.
        let hasBeaten = Deadline(after: .seconds(5)).wait {
            ProcessTable.entry(worker)?.isDead ?? true || ProcessTable.waits(of: worker).map { $0 >= before + 2 } ?? true
        }
        guard hasBeaten else { throw TestFailure("worker \(worker) does not go on") }
    }

    /// epoll_wait and epoll_pwait of x86-64, epoll_pwait of arm64.
    private static let waitingCalls = [232, 281, 22]

    private func stopWhileWaiting(_ master: pid_t) throws {
        let isStopped = Deadline(after: .seconds(5)).wait {
            Glibc.kill(master, SIGSTOP)
            let isStopped = Deadline(after: .seconds(5)).wait { ProcessTable.entry(master)?.isStopped ?? true }
            if isStopped, let call = ProcessTable.systemCall(of: master), Self.waitingCalls.contains(call) { return true }
            Glibc.kill(master, SIGCONT)
            return false
        }
        guard isStopped else { throw TestFailure("master \(master) is never found waiting") }
    }

    // MARK: What was lost

    struct Account {
        /// Accepted by workers that were killed, and by those that were stopped and then replaced.
        var killed = 0
        var stopped = 0
        /// What no stopped worker had accepted.
        var unexplained: [Loss] = []
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
