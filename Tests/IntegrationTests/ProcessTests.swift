import Glibc
import Synchronization
import TestSupport
import Testing

extension Integration {
    /// What RELIABILITY wants to be seen when processes stop and die, in figures.
    @Suite("Processes that stop and die")
    struct Processes {
        @Test("workers are stopped under load: no connect waits longer than the heartbeat may be old, and half a second")
        func stoppedUnderLoad() async throws {
            let place = try TemporaryDirectory()
            try Files.write("limits:\n  heartbeatTimeout: 1 s\n".utf8, to: place.path + "/c")
            let server = try ApusServer(workers: 2, "-c", place.path + "/c", "--log-level", "error")
            let port = server.port
            let load = ConnectLoad()
            let workers = StoppedWorkers(of: port)
            async let clients: [Void] = Threads.run(8) { load.run(against: port, as: $0) }
            defer { load.end() }
            for _ in 0..<3 {
                #expect(load.goOn(for: 2000))
                let stopped = try #require(server.workers.randomElement())
                try workers.stop(stopped)
                let isReplaced = Deadline(after: .seconds(20)).wait { server.workers.count == 2 && !server.workers.contains(stopped) }
                #expect(isReplaced, "\(server.process.standardError)")
            }
            #expect(load.goOn(for: 2000))
            load.end()
            _ = try await clients
            let seen = load.seen.withLock { $0 }
            print("stopped workers: \(seen.answered) answered, \(seen.lost.count) ended with their worker, slowest \(seen.slowest)")
            #expect(seen.failures == [])
            #expect(workers.account(for: seen.lost).unexplained.isEmpty)
            #expect(seen.slowest <= .milliseconds(1_500))
        }

        @Test("a master that is given orphans, as PID 1 is, reaps them and nothing else")
        func inheritsOrphans() throws {
            let place = try TemporaryDirectory()
            let (ports, orphans) = (place.path + "/ports", place.path + "/orphans")
            // 36: PR_SET_CHILD_SUBREAPER, which outlives exec. The orphans have ended before the server begins.
            let wrapper = """
                import ctypes, os, sys
                assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
                child = os.fork()
                if child == 0:
                    orphans = []
                    for _ in range(5):
                        orphans.append(os.fork())
                        if orphans[-1] == 0: os._exit(3)
                    with open(sys.argv[1], "w") as file: file.write("\\n".join(map(str, orphans)))
                    os._exit(0)
                os.waitpid(child, 0)
                os.execv(sys.argv[2], sys.argv[2:])
                """
            let process = try ChildProcess(
                [Places.python, "-c", wrapper, orphans, Places.command, "serve", "--workers", "2", "--listen", "127.0.0.1:0"]
                    + ["--port-file", ports])
            #expect(Deadline(after: .seconds(20)).wait { Files.exists(ports) || process.hasEnded != nil }, "\(process.standardError)")
            let pids = try #require(Files.text(orphans)).split(separator: "\n").map(String.init)
            #expect(pids.count == 5)
            #expect(Deadline(after: .seconds(10)).wait { !pids.contains { Files.exists("/proc/\($0)") } })
            // Its own children's ends are seen as ever.
            let workers = process.group.filter { $0.parent == process.pid }.map(\.pid)
            let victim = try #require(workers.first)
            kill(victim, SIGKILL)
            #expect(Deadline(after: .seconds(10)).wait { process.standardError.contains("(pid \(victim))") })
            process.signal(SIGTERM)
            #expect(try process.wait(within: .seconds(10)) == .exited(0))
        }

        @Test("the master is killed: within 100 ms nobody accepts any more")
        func orphans() throws {
            var times: [Duration] = []
            for _ in 0..<5 {
                let server = try ApusServer(workers: 3)
                let clients = try (0..<10).map { _ in try server.connect() }
                for client in clients { #expect(try client.request("GET /worker").status == 200) }
                let killed = ContinuousClock.now
                server.process.signal(SIGKILL)
                let isOver = Deadline(after: .seconds(5)).wait {
                    do {
                        _ = try server.connect()
                        return false
                    } catch RawClient.Failure.connect(ECONNREFUSED) {
                        return true
                    } catch { return false }
                }
                #expect(isOver)
                times.append(.now - killed)
                #expect(Deadline(after: .seconds(6)).wait { server.process.group.isEmpty })
            }
            print("master killed: refused after \(times)")
            #expect(times.sorted()[2] <= .milliseconds(100))
        }

        @Test("a port in use is refused by its name within a second")
        func portInUse() throws {
            let server = try ApusServer()
            let started = ContinuousClock.now
            let second = try ChildProcess([Places.command, "serve", "--listen", "127.0.0.1:\(server.port)"])
            #expect(try second.wait(within: .seconds(5)) == .exited(78))
            let time = ContinuousClock.now - started
            #expect(time < .seconds(1), "\(time)")
            #expect(second.standardError.contains("127.0.0.1:\(server.port)") && second.standardError.contains("in use"))
        }

        @Test("HUP with a certificate that is half-written, or a key of another: one error naming the file, and the old one is served on")
        func brokenCertificate() throws {
            let place = try TemporaryDirectory()
            func put(_ name: String, as file: String) throws {
                try Files.write(try #require(Files.bytes(try Certificates.path(name))), to: place.path + "/" + file)
            }
            try put("localhost.pem", as: "a.pem")
            try put("localhost.key", as: "a.key")
            try Files.write(
                "listen: 127.0.0.1:0\ntls:\n  certificate: \(place.path)/a.pem\n  key: \(place.path)/a.key\n".utf8, to: place.path + "/c")
            let server = try ApusServer(workers: 2, "-c", place.path + "/c", "--listen", "127.0.0.1:0")
            let workers = server.workers
            for (name, file, words) in [("half.pem", "a.pem", "a.pem"), ("localhost.pem", "a.pem", ""), ("other.key", "a.key", "a.key")] {
                try put(name, as: file)
                let before = server.process.standardError.split(separator: "\n").count
                if words.isEmpty { continue }
                server.process.signal(SIGHUP)
                let isSaid = Deadline(after: .seconds(5)).wait { server.process.standardError.split(separator: "\n").count >= before + 2 }
                #expect(isSaid)
                let said = server.process.standardError.split(separator: "\n").dropFirst(before)
                #expect(said.count { $0.contains(" error ") } == 1, "\(said)")
                #expect(said.contains { $0.contains("the reload changes nothing: ") && $0.contains("/" + words) }, "\(said)")
                #expect(try TLS.curl(server).standardOutput.contains("\"workers\":2"))
            }
            #expect(server.workers == workers)
            try put("localhost.key", as: "a.key")
            server.process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(5)).wait { server.process.standardError.contains("generation 1 serves with 2 workers") })
            #expect(try TLS.curl(server).standardOutput.contains("\"workers\":2"))
        }
    }
}
