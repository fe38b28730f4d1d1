import Glibc
import Synchronization
import TestSupport
import Testing

extension Integration {
    @Suite("Changes under load")
    struct ChangeStorm {
        private enum Act: CaseIterable {
            case kill, stop, resume, reload, more, fewer, upgrade

            var hasVictim: Bool {
                switch self {
                case .kill, .stop: true
                case .resume, .reload, .more, .fewer, .upgrade: false
                }
            }
        }

        /// Tests/Tools/soak sets APUS_SEEDS.
        static let seeds = SeededGenerator.seeds(1...50)

        /// A connection may be lost with a worker that had accepted it when the test stopped it; any other end is a failure.
        @Test("seeded mixes of kill, stop, continue, reload, scale and upgrade: nothing refused, nothing left over")
        func seeded() async throws {
            let place = try TemporaryDirectory()
            let pidFile = place.path + "/pid"
            let config = place.path + "/apus.yaml"
            // No less: a busy machine keeps a worker from its processors for half a second, and the watchdog takes that for a hang.
            try Files.write(Array("limits:\n  drainWindow: 100 ms\n  heartbeatTimeout: 1 s\n".utf8), to: config)
            let server = try ApusServer(workers: 2, "-c", config, "--pid-file", pidFile, "--log-level", "notice")
            let group = server.process.pid
            let port = server.port
            let load = ConnectLoad()
            let stopped = StoppedWorkers(of: port)
            async let clients: [Void] = Threads.run(4) { load.run(against: port, as: $0) }
            defer {
                load.end()
                // An upgraded master is not the child of this process; its group is.
                for entry in ProcessTable.group(group) { kill(entry.pid, SIGKILL) }
            }
            func master() -> pid_t { Files.text(pidFile).flatMap { pid_t($0.dropLast()) } ?? group }
            func workers() -> [pid_t] {
                let parent = master()
                return ProcessTable.group(group).filter { $0.parent == parent }.map(\.pid)
            }
            func log() -> String { server.process.standardError.split(separator: "\n").suffix(40).joined(separator: "\n") }
            // Between a fork and its pidfd a master has one less.
            func descriptors(_ master: pid_t) throws -> Int {
                try StoppedWorkers.pausing(master) { ProcessTable.descriptorCount(of: master) }
            }

            var target = 2
            let isUp = Deadline(after: .seconds(10)).wait { workers().count == target }
            #expect(isUp)
            // By number of workers: what the master has open.
            var expected: [Int: Int] = [:]
            for seed in Self.seeds {
                var random = SeededGenerator(seed: seed)
                var acts: [String] = []
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    let act = Act.allCases.randomElement(using: &random) ?? .kill
                    let victim = workers().randomElement(using: &random)
                    acts.append("\(act)\(act.hasVictim ? " \(victim ?? 0)" : "")")
                    switch act {
                    case .kill: if let victim { try stopped.kill(victim) }
                    case .stop: if let victim { try stopped.stop(victim) }
                    case .resume: for worker in workers() { try stopped.resume(worker) }
                    case .reload: kill(master(), SIGHUP)
                    case .more where target < 4:
                        Self.send(SIGTTIN, to: master())
                        target += 1
                    case .fewer where target > 1:
                        Self.send(SIGTTOU, to: master())
                        target -= 1
                    case .upgrade:
                        let before = master()
                        kill(before, SIGUSR2)
                        // A new program starts with the configured number.
                        let isDone = Deadline(after: .seconds(20)).wait {
                            master() != before && ProcessTable.entry(before).map { $0.state == "Z" } ?? true
                        }
                        if isDone { target = 2 }
                    case .more, .fewer: break
                    }
                    load.goOn(for: Int.random(in: 0...2000, using: &random), within: .milliseconds(500))
                }
                // At rest: as many workers as wanted, none stopped, none on the way out, and so says the master. A worker that leaves the last
                // slot, closed already, may have a successor to come: then the master has one descriptor less than at rest.
                let isSettled = Deadline(after: .seconds(20)).wait {
                    let now = ProcessTable.group(group).filter { $0.pid != master() }
                    guard now.count == target, Self.saidCount(server.process.standardError) == target else { return false }
                    return now.allSatisfy { !$0.isStopped && !Self.isLeaving($0.pid) && $0.parent == master() }
                }
                #expect(isSettled, "seed \(seed): wanted \(target), there are \(ProcessTable.group(group)) of master \(master())")
                let pid = master()
                // A retirement under way holds some for a moment: the fewest ever seen are what there must be again.
                let hasNoMore = try Deadline(after: .seconds(10)).wait { try descriptors(pid) <= expected[target, default: .max] }
                let now = try descriptors(pid)
                #expect(hasNoMore, "seed \(seed): \(now) descriptors with \(target) workers, not \(expected[target] ?? 0)")
                expected[target] = min(expected[target, default: .max], now)
                let (failures, lost) = load.seen.withLock { ($0.failures, $0.lost) }
                let unexplained = stopped.account(for: lost).unexplained
                #expect(failures == [], "seed \(seed), \(acts)\n\(log())")
                #expect(unexplained.isEmpty, "seed \(seed), \(acts): lost, though no stopped worker had accepted it\n\(log())")
                if !isSettled || !failures.isEmpty || !unexplained.isEmpty { break }
            }
            load.end()
            _ = try await clients
            let seen = load.seen.withLock { $0 }
            let account = stopped.account(for: seen.lost)
            print(
                "change storm: seeds \(Self.seeds), \(seen.answered) answered, \(seen.failures.count) failures; lost with the worker that had "
                    + "accepted them: \(account.killed) killed, \(account.stopped) stopped; \(account.unexplained.count) else; "
                    + "slowest \(seen.slowest)")
            kill(master(), SIGTERM)
            let isGone = Deadline(after: .seconds(10)).wait { ProcessTable.group(group).isEmpty }
            #expect(isGone, "\(ProcessTable.group(group))\n\(server.process.standardError)")
        }

        /// How many workers serve, as the log says last.
        private static func saidCount(_ log: String) -> Int? {
            for line in log.split(separator: "\n").reversed() {
                if let match = line.firstMatch(of: /(?:with|apus:) (\d+) workers?( serves?)?$/) { return Int(match.output.1) }
            }
            return nil
        }

        /// Whether a worker's title says so.
        private static func isLeaving(_ worker: pid_t) -> Bool {
            let title = Files.text("/proc/\(worker)/cmdline") ?? ""
            return title.contains("(draining)") || title.contains("(stopping)")
        }

        /// Until it is read: two signals of a kind that wait together are one.
        private static func send(_ signal: Int32, to pid: pid_t) {
            kill(pid, signal)
            _ = Deadline(after: .seconds(5)).wait { !ProcessTable.hasPending(signal, pid) }
        }
    }
}
