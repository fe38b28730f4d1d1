import ApusBus
import ApusPlatform
import Logging

/// Reports the progress of draining to the log, and the state of the server to the service manager.
final class StatusReporter {
    private unowned let supervisor: Supervisor
    private let resources: MasterResources
    private let pool: WorkerPool
    private let deaths: DeathLog
    private var lastStatus = ""

    init(
        _ supervisor: Supervisor, resources: MasterResources, pool: WorkerPool, deaths: DeathLog
    ) {
        self.supervisor = supervisor
        self.resources = resources
        self.pool = pool
        self.deaths = deaths
    }

    /// Starts the watchdog of the service manager, if it has one.
    func startWatchdog() {
        guard let interval = resources.notifier.watchdogInterval else { return }
        let timer = ClosureTimer { [unowned self] timer, now in
            resources.loop.schedule(timer, at: now + interval / 3)
            if isHealthy(at: now) { resources.notifier.watchdog() }
        }
        resources.loop.schedule(timer, at: resources.loop.now)
    }

    /// Called once a second.
    func report() {
        logDraining()
        guard !supervisor.isEnding else { return }
        let status = status
        guard status != lastStatus else { return }
        lastStatus = status
        resources.notifier.status(status)
    }

    /// Whether a worker serves, and none of those that do has an old heartbeat.
    private func isHealthy(at now: MonotonicTime) -> Bool {
        if supervisor.isEnding { return true }
        let ready = pool.incumbents.filter(\.isReady)
        guard !ready.isEmpty || supervisor.isParked else { return false }
        // The supervisor replaces a worker that hangs. Only if that fails is the whole service ill.
        let oldest = pool.configuration.heartbeatTimeout + .seconds(2)
        return ready.allSatisfy { now < min($0.row.lastBeat, now) + oldest }
    }

    private func logDraining() {
        let draining = pool.draining
        guard !draining.isEmpty else { return }
        let left = draining.reduce(0) { $0 + $1.row[.connections] }
        let workers = "\(draining.count) \(draining.count == 1 ? "worker" : "workers")"
        let connections = "\(left) \(left == 1 ? "connection" : "connections")"
        resources.logger.info("draining: \(workers), \(connections) left")
    }

    /// `2 of 2 workers ready, 17 connections open, 4711 accepted; died: 1 trap, 2 killed, the last
    /// serving GET /items, from 10.0.0.7:4711 at …`
    var status: String {
        var open = 0
        var accepted = 0
        for row in 0..<resources.scoreboard.slots {
            open += resources.scoreboard[row][.connections]
            accepted += resources.scoreboard[row][.accepted]
        }
        let ready = pool.incumbents.count { $0.isReady }
        let draining = pool.draining.count
        let drain = draining > 0 ? ", \(draining) draining" : ""
        let died = deaths.summary.isEmpty ? "" : "; died: \(deaths.summary)"
        return "\(ready) of \(pool.slots) workers ready\(drain), \(open) connections open, \(accepted) accepted\(died)"
    }
}
