import Glibc
import Synchronization
import TestSupport
import Testing

/// What 16 clients and one killer of workers saw.
private final class Storm: Sendable {
    struct Observations {
        /// Workers that have answered, with the time of the first answer; the killed are taken out.
        var serving: [pid_t: ContinuousClock.Instant] = [:]
        /// Connections that ended before they were answered.
        var lost: [Loss] = []
        /// What must never happen: a connect refused or timed out, or a connection that is never answered.
        var failures: [String] = []
        var answered = 0
        var slowest = Duration.zero
    }

    let seen = Mutex(Observations())
    let stop = Flag()
    let stopped: StoppedWorkers

    init(at port: UInt16) { stopped = StoppedWorkers(of: port) }

    /// - Parameter number: each client has another, and by it an address to itself.
    func connectInALoop(to port: UInt16, as number: Int) {
        while !stop.isSet {
            let started = ContinuousClock.now
            do {
                let client = try RawClient(source: UInt8(100 + number), timeout: .seconds(5))
                let pid = try answer(client, at: port, started)
                seen.withLock {
                    $0.answered += 1
                    $0.slowest = max($0.slowest, .now - started)
                    if let pid, $0.serving[pid] == nil { $0.serving[pid] = .now }
                }
            } catch {
                seen.withLock { $0.failures.append("\(error)") }
            }
        }
    }

    /// The worker that answered; nil if the connection was lost.
    private func answer(_ client: RawClient, at port: UInt16, _ started: ContinuousClock.Instant) throws -> pid_t? {
        do {
            try client.connect(to: port)
            client.resetOnClose()
            try client.upgrade(path: "/worker")
            let text = try client.frame().text
            return text.firstMatch(of: /"pid":(\d+)/).flatMap { pid_t($0.output.1) }
        } catch let failure as RawClient.Failure where failure.isEnd {
            let loss = Loss(end: client.localEnd, began: started, ended: .now, how: failure)
            seen.withLock { $0.lost.append(loss) }
            return nil
        }
    }

    /// Kills a worker that has served for a while: younger ones count as crashing and are restarted with a delay, by design.
    func killNext(killed: inout Set<pid_t>) throws {
        let dead = killed
        var chosen: pid_t?
        let found = Deadline(after: .seconds(10)).wait {
            chosen = seen.withLock { seen in
                seen.serving.first { !dead.contains($0.key) && ContinuousClock.now - $0.value > .milliseconds(250) }?.key
            }
            return chosen != nil
        }
        guard found, let pid = chosen else { throw TestFailure("no worker serves") }
        guard try stopped.kill(pid) else { throw TestFailure("worker \(pid) has ended by itself") }
        killed.insert(pid)
        seen.withLock { $0.serving[pid] = nil }
    }
}

extension Integration {
    @Suite("Workers killed under load")
    struct KillStorm {
        private static let kills = 200
        private static let clients = 16

        /// A connection that a dying worker has accepted dies with it, which nobody can help. Any other must be served: by the
        /// worker's successor, out of the accept queue that the master holds open.
        @Test("200 SIGKILLs while 16 clients connect: none refused, none reset before it was accepted", .timeLimit(.minutes(2)))
        func kills() async throws {
            let server = try ApusServer(workers: 4, "--log-level", "error")
            let port = server.port
            let storm = Storm(at: port)
            async let clients: [Void] = Threads.run(Self.clients) { storm.connectInALoop(to: port, as: $0) }
            let started = ContinuousClock.now
            let killer = try await onThread {
                defer { storm.stop.set() }
                var killed: Set<pid_t> = []
                let deadline = Deadline(after: .seconds(60))
                while killed.count < Self.kills, !deadline.hasPassed { try storm.killNext(killed: &killed) }
                return killed.count
            }
            _ = try await clients
            let seen = storm.seen.withLock { $0 }
            print(
                "kill storm: \(killer) kills in \(ContinuousClock.now - started), \(seen.answered) connections answered, slowest \(seen.slowest), "
                    + "\(seen.lost.count) lost with their worker")
            #expect(killer == Self.kills)
            #expect(seen.failures == [])
            #expect(storm.stopped.account(for: seen.lost).unexplained.isEmpty)
            #expect(seen.answered > 10 * Self.kills)
            #expect(try server.end() == .exited(0))
        }
    }
}
