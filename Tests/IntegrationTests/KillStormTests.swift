import Glibc
import Synchronization
import TestSupport
import Testing

/// What clients saw, whose server's workers are killed or stopped meanwhile.
private final class Storm: Sendable {
    struct Observations {
        /// Connections that ended before they were answered.
        var lost: [Loss] = []
        /// What must never happen: a connect refused or timed out, or a connection that is never answered.
        var failures: [String] = []
        var answered = 0
        /// Of those that no stopped worker had accepted.
        var slowest = Duration.zero
    }

    let seen = Mutex(Observations())
    let stop = Flag()
    let stopped: StoppedWorkers

    init(at port: UInt16) { stopped = StoppedWorkers(of: port) }

    /// - Parameter number: each client has another, and by it an address to itself.
    func connectInALoop(to port: UInt16, as number: Int) {
        while !stop.isSet {
            do {
                try ask(try RawClient(source: UInt8(100 + number), timeout: .seconds(5)), at: port)
            } catch {
                seen.withLock { $0.failures.append("\(error)") }
            }
        }
    }

    private func ask(_ client: RawClient, at port: UInt16) throws {
        let began = ContinuousClock.now
        do {
            try client.connect(to: port)
            client.resetOnClose()
            try client.upgrade(path: "/worker")
            _ = try client.frame()
            let ended = ContinuousClock.now
            let hadToWait = ended - began > .milliseconds(500) && stopped.hadAccepted(client.localEnd, from: began, to: ended)
            seen.withLock {
                $0.answered += 1
                if !hadToWait { $0.slowest = max($0.slowest, ended - began) }
            }
        } catch let failure as RawClient.Failure where failure.isEnd {
            let loss = Loss(end: client.localEnd, began: began, ended: .now, how: failure)
            seen.withLock { $0.lost.append(loss) }
        }
    }
}

extension Integration {
    @Suite("Workers that are killed, stopped and crashed under load")
    struct KillStorm {
        enum Deed: String, CaseIterable, Sendable { case kill, stop }

        private static let clients = 16
        /// `Tests/Tools/soak storms` sets APUS_SEEDS and APUS_STORM_SECONDS.
        private static let seeds = SeededGenerator.seeds(1...2)
        private static let length = Duration.seconds(getenv("APUS_STORM_SECONDS").flatMap { Int(String(cString: $0)) } ?? 6)

        /// A connection that a dying worker has accepted dies with it, and one that a stopped worker has accepted waits, which nobody can help. Any
        /// other must be served within a second, by the slot's next worker or its adopter, out of the accept queue that the master holds open.
        @Test(
            "a random worker is killed, or stopped for a while, every 50 to 300 ms: none refused, none slower than a second",
            arguments: Deed.allCases)
        func storm(deed: Deed) async throws {
            for seed in Self.seeds {
                let server = try ApusServer(workers: 4, "--log-level", "error")
                let port = server.port
                let storm = Storm(at: port)
                async let clients: [Void] = Threads.run(Self.clients) { storm.connectInALoop(to: port, as: $0) }
                let master = server.process.pid
                let deeds = try await onThread {
                    defer { storm.stop.set() }
                    return try Self.rage(deed, seed, storm, of: master)
                }
                _ = try await clients
                let seen = storm.seen.withLock { $0 }
                print(
                    "\(deed) storm, seed \(seed): \(deeds) in \(Self.length), \(seen.answered) answered, slowest \(seen.slowest), "
                        + "\(seen.lost.count) lost with their worker")
                #expect(deeds > 2)
                #expect(seen.failures == [], "seed \(seed)")
                #expect(storm.stopped.account(for: seen.lost).unexplained.isEmpty, "seed \(seed)")
                #expect(seen.slowest <= .seconds(1), "seed \(seed)")
                #expect(seen.answered > 1000)
                #expect(try server.end() == .exited(0))
            }
        }

        /// How often it was done.
        private static func rage(_ deed: Deed, _ seed: UInt64, _ storm: Storm, of master: pid_t) throws -> Int {
            var random = SeededGenerator(seed: seed)
            var count = 0
            let end = Deadline(after: length)
            while !end.hasPassed {
                let pause = Duration.milliseconds(Int.random(in: 50...300, using: &random))
                _ = Deadline(after: pause).wait { false }
                guard let victim = ProcessTable.group(master).filter({ $0.parent == master }).map(\.pid).randomElement(using: &random)
                else { continue }
                switch deed {
                case .kill: if try storm.stopped.kill(victim) { count += 1 }
                case .stop:
                    guard try storm.stopped.stop(victim) else { continue }
                    count += 1
                    let pause = Duration.milliseconds(Int.random(in: 50...2000, using: &random))
                    _ = Deadline(after: pause).wait { false }
                    try storm.stopped.resume(victim)
                }
            }
            return count
        }

        /// `GET /do/bounds` ends the worker that serves it.
        @Test("one client's requests crash whoever reads them: others are served, and the log names it", arguments: [false, true])
        func crashes(quarantine: Bool) async throws {
            let fixture = try Misbehaving(["workers"] + (quarantine ? ["quarantine"] : []))
            let port = fixture.port
            let load = ConnectLoad(path: "/call/open")
            let stop = Flag()
            async let clients: [Void] = Threads.run(8) { load.run(against: port, as: $0) }
            async let crasher: Void = onThread {
                while !stop.isSet {
                    let client = try RawClient(source: 99, timeout: .seconds(5))
                    do {
                        try client.connect(to: port)
                        _ = try client.request("GET /do/bounds")
                    } catch is RawClient.Failure {}
                }
            }
            let deaths = { fixture.process.standardError.matches(of: /serving GET \/do\/bounds, from 127\.0\.0\.99:/).count }
            let isNamed = Deadline(after: .seconds(20)).wait {
                let log = fixture.process.standardError
                return log.contains("3 workers have died within a minute while they served GET /do/bounds")
                    && log.contains("3 workers have died within a minute while they served 127.0.0.99: ")
            }
            #expect(isNamed, "\(fixture.process.standardError)")
            if quarantine {
                #expect(fixture.process.standardError.contains("it is turned away for 60 s"))
                // Those that were on their way when the third died.
                load.goOn(for: 500)
                let before = deaths()
                load.goOn(for: 2000)
                #expect(deaths() == before && before <= 3 + 4, "\(deaths()) deaths")
            } else {
                let before = deaths()
                let goesOn = Deadline(after: .seconds(20)).wait { deaths() > before + 10 }
                #expect(goesOn)
            }
            load.forgetSlowest()
            load.goOn(for: 2000)
            stop.set()
            load.end()
            try await crasher
            _ = try await clients
            let seen = load.seen.withLock { $0 }
            print(
                "crash storm, quarantine \(quarantine): \(deaths()) deaths, \(seen.answered) answered, slowest \(seen.slowest), \(seen.lost.count) lost"
            )
            #expect(seen.failures == [])
            #expect(seen.slowest <= .seconds(1))
            #expect(seen.answered > 2 * seen.lost.count)
            fixture.process.kill()
        }
    }
}
