import Glibc
import Synchronization
import TestSupport
import Testing

/// What 16 clients and one killer of workers saw.
private final class Storm: Sendable {
    struct Observations {
        /// Workers that have answered, with the time of the first answer; the killed are taken out.
        var serving: [pid_t: ContinuousClock.Instant] = [:]
        /// Ports of connections that a worker had accepted when it was killed, and when.
        var owned: [UInt16: ContinuousClock.Instant] = [:]
        /// Connections that ended before they were answered.
        var lost: [(port: UInt16, at: ContinuousClock.Instant)] = []
        /// What must never happen: a connect refused or timed out, or a connection that is never answered.
        var failures: [String] = []
        var answered = 0
        var slowest = Duration.zero
    }

    let seen = Mutex(Observations())
    let stop = Flag()

    func connectInALoop(to port: UInt16) {
        while !stop.isSet {
            let started = ContinuousClock.now
            do {
                let client = try RawClient(port: port, timeout: .seconds(5))
                client.resetOnClose()
                let pid = try answer(client)
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
    private func answer(_ client: RawClient) throws -> pid_t? {
        let port = client.localPort
        do {
            try client.upgrade(path: "/worker")
            let text = try client.frame().text
            return text.firstMatch(of: /"pid":(\d+)/).flatMap { pid_t($0.output.1) }
        } catch RawClient.Failure.ended {
            seen.withLock { $0.lost.append((port, .now)) }
            return nil
        }
    }

    /// Kills a worker that has served for a while: younger ones count as crashing and are restarted with a delay, by design.
    func killNext(of port: UInt16, killed: inout Set<pid_t>) throws {
        let dead = killed
        var chosen: pid_t?
        let found = Deadline(after: .seconds(10)).wait {
            chosen = seen.withLock { seen in
                seen.serving.first { !dead.contains($0.key) && ContinuousClock.now - $0.value > .milliseconds(250) }?.key
            }
            return chosen != nil
        }
        guard found, let pid = chosen else { throw TestFailure("no worker serves") }
        // Stopped first, so that what it has accepted can be read while it cannot change.
        kill(pid, SIGSTOP)
        guard Deadline(after: .seconds(5)).wait(until: { ProcessTable.entry(pid)?.state == "T" }) else {
            throw TestFailure("\(pid) does not stop")
        }
        let ports = SocketTable.acceptedPeers(of: pid, at: port)
        seen.withLock { for peer in ports { $0.owned[peer] = .now } }
        kill(pid, SIGKILL)
        killed.insert(pid)
        seen.withLock { $0.serving[pid] = nil }
    }

    /// Lost connections that no killed worker had accepted: they were reset while they waited.
    var lostWhileWaiting: Int {
        seen.withLock { seen in
            seen.lost.count { loss in
                guard let killedAt = seen.owned[loss.port] else { return true }
                return loss.at - killedAt > .seconds(1)
            }
        }
    }
}

/// What /proc says of sockets.
private enum SocketTable {
    /// The remote ports of the connections to a local port that a process holds.
    static func acceptedPeers(of pid: pid_t, at port: UInt16) -> [UInt16] {
        let inodes = Set(
            Files.names(in: "/proc/\(pid)/fd").compactMap { Files.link("/proc/\(pid)/fd/\($0)") }
                .filter { $0.hasPrefix("socket:[") }.map { String($0.dropFirst(8).dropLast()) })
        // sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode
        return (Files.text("/proc/net/tcp") ?? "").split(separator: "\n").dropFirst().compactMap { line in
            let fields = line.split(separator: " ")
            guard fields.count > 9, fields[1].hasSuffix(":" + hexadecimal(port)), inodes.contains(String(fields[9])) else {
                return nil
            }
            return fields[2].split(separator: ":").last.flatMap { UInt16($0, radix: 16) }.flatMap { $0 == 0 ? nil : $0 }
        }
    }

    private static func hexadecimal(_ port: UInt16) -> String {
        let digits = String(port, radix: 16, uppercase: true)
        return String(repeating: "0", count: 4 - digits.count) + digits
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
            let storm = Storm()
            async let clients: [Void] = Threads.run(Self.clients) { _ in storm.connectInALoop(to: port) }
            let started = ContinuousClock.now
            let killer = try await onThread {
                defer { storm.stop.set() }
                var killed: Set<pid_t> = []
                let deadline = Deadline(after: .seconds(60))
                while killed.count < Self.kills, !deadline.hasPassed { try storm.killNext(of: port, killed: &killed) }
                return killed.count
            }
            _ = try await clients
            let seen = storm.seen.withLock { $0 }
            print(
                "kill storm: \(killer) kills in \(ContinuousClock.now - started), \(seen.answered) connections answered, slowest \(seen.slowest), "
                    + "\(seen.lost.count) lost with their worker")
            #expect(killer == Self.kills)
            #expect(seen.failures == [])
            #expect(storm.lostWhileWaiting == 0)
            #expect(seen.answered > 10 * Self.kills)
            #expect(try server.end() == .exited(0))
        }
    }
}
