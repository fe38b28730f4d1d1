import ApusBus
import ApusPlatform
import Logging

/// What the master says of how things stand: to the log while workers drain, to the service manager always.
extension Supervisor {
    private static let progressInterval = Duration.seconds(1)

    func startReporting() {
        let alarm = Alarm { [unowned self] alarm, now in
            loop.schedule(alarm, at: now + Self.progressInterval)
            lookAtDrain(now)
            reportDrain()
            reportStatus()
            reapOrphans()
        }
        progressAlarm = alarm
        loop.schedule(alarm, after: Self.progressInterval)
        guard let interval = notifier.watchdogInterval else { return }
        let watchdog = Alarm { [unowned self] alarm, now in
            loop.schedule(alarm, at: now + interval / 3)
            if isHealthy(at: now) { notifier.watchdog() }
        }
        loop.schedule(watchdog, at: loop.now)
    }

    /// PID 1 of a container is given the processes whose parents have ended. Its own children are reaped where their ends are noticed.
    private func reapOrphans() {
        guard Process.inheritsOrphans else { return }
        while let pid = Process.endedChild(), upgrade?.pid != pid, !lines.contains(where: { $0.process?.pid == pid }) {
            _ = Process.reap(pid)
        }
    }

    /// Whether some worker serves, and none that should has an old heartbeat.
    private func isHealthy(at now: MonotonicTime) -> Bool {
        switch course {
        case .ending: return true
        case .comingUp, .up: break
        }
        let ready = incumbents.filter(\.machine.isReady)
        guard !ready.isEmpty || agenda.isParked else { return false }
        // The supervisor replaces a stuck worker itself; only if that does not help is the whole service ill.
        let oldest = configuration.heartbeatTimeout + .seconds(2)
        return ready.allSatisfy { now < min(scoreboard[$0.row].lastBeat, now) + oldest }
    }

    private func lookAtDrain(_ now: MonotonicTime) {
        for line in lines where line.role == .leaving && line.process != nil {
            carryOut(line.machine.lookAtDrain(now: now, lastBeat: scoreboard[line.row].lastBeat), in: line)
        }
    }

    private func reportDrain() {
        let leaving = lines.filter { $0.role == .leaving && $0.process != nil }
        guard !leaving.isEmpty else { return }
        let connections = leaving.reduce(0) { $0 + scoreboard[$1.row][.connections] }
        logger.info(
            "draining: \(leaving.count) \(leaving.count == 1 ? "worker" : "workers"), \(connections) \(connections == 1 ? "connection" : "connections") left"
        )
    }

    private func reportStatus() {
        if case .ending = course { return }
        let status = status
        guard status != lastStatus else { return }
        lastStatus = status
        notifier.status(status)
    }

    /// `2 of 2 workers ready, 17 connections open, 4711 accepted; died: 1 trap, 2 killed, one serving GET /items, from 10.0.0.7:4711 at …`
    var status: String {
        var open = 0
        var accepted = 0
        for row in 0..<scoreboard.slots {
            open += scoreboard[row][.connections]
            accepted += scoreboard[row][.accepted]
        }
        let ready = incumbents.count { $0.machine.isReady }
        let leaving = lines.count { $0.role == .leaving && $0.process != nil }
        let drain = leaving > 0 ? ", \(leaving) draining" : ""
        let dead = deaths.description.isEmpty ? "" : "; died: \(deaths)\(lastServing.map { ", the last serving \($0)" } ?? "")"
        return "\(ready) of \(slots) workers ready\(drain), \(open) connections open, \(accepted) accepted\(dead)"
    }
}

/// What it makes of deaths.
extension Supervisor {
    /// A worker's death that is its own, or its peer's: what it was serving is said in the log, and remembered.
    func suspect(_ serving: Serving, of death: WorkerDeath) {
        lastServing = serving.description
        // Who sent SIGKILL, and why, nobody knows: a person, or the kernel when memory was short.
        guard death.kind != .killed, death.kind != .exit, death.kind != .signal else { return }
        for (suspect, deaths) in suspects.died(serving: serving, at: loop.now) {
            switch suspect {
            case .route(let name):
                logger.error("\(deaths) workers have died within a minute while they served \(name)")
            case .peer(let peer):
                let measure =
                    configuration.quarantine ? "it is turned away for \(Quarantine.period.wholeMilliseconds / 1000) s" : "quarantine is off"
                logger.error("\(deaths) workers have died within a minute while they served \(peer.host): \(measure)")
                if configuration.quarantine { turnAway(peer) }
            }
        }
    }

    private func turnAway(_ peer: SocketAddress) {
        quarantine.add(peer, at: loop.now)
        let order = WorkerCommand.turnAway(peer, until: loop.now + Quarantine.period).record
        for line in lines { line.process?.channel.send(order) }
    }
}
