/// The number of workers, and the timeouts of their supervision.
package struct SupervisorConfiguration: Sendable {
    package var workers: Int
    /// Upper limit on workers, however often TTIN is sent.
    package var maxWorkers = 1024
    /// A worker whose loop has not turned for this long is replaced.
    package var heartbeatTimeout: Duration = .seconds(10)
    /// From the fork until the worker must be ready.
    package var startTimeout: Duration = .seconds(30)
    /// From the order to drain until SIGKILL.
    package var drainTimeout: Duration = .seconds(30)
    /// From the order to stop until SIGKILL.
    package var stopTimeout: Duration = .seconds(2)
    /// How long a worker may drain after the master has died.
    package var orphanTimeout: Duration = .seconds(5)
    /// From steering new connections away from a slot until its worker is ordered to drain:
    /// connections that the kernel has already assigned to the slot arrive meanwhile.
    package var retirementGrace: Duration = .seconds(3)
    /// From the start of a new program until all its workers must be ready.
    package var upgradeTimeout: Duration = .seconds(60)
    /// Consecutive failures of one slot after which the start of the server counts as failed.
    package var startAttempts = 5
    /// Consecutive failures of one slot after which a reload, or the growth by TTIN, is given up.
    package var reloadAttempts = 3
    /// Whether a peer that was being served in three deaths within a minute is refused for a
    /// minute.
    package var quarantine = false
    /// The process title, as `ps` shows it.
    package var title = "apus"

    package init(workers: Int) { self.workers = workers }

    var policy: WorkerSlot.Policy {
        var policy = WorkerSlot.Policy()
        policy.heartbeatTimeout = heartbeatTimeout
        policy.startTimeout = startTimeout
        policy.drainTimeout = drainTimeout
        policy.stopTimeout = stopTimeout
        return policy
    }
}
