import Glibc
import TestSupport
import Testing

extension Integration {
    /// What a server has little of, and what peers take of it.
    @Suite("Descriptors and other resources")
    struct Resources {
        private static func lines(_ server: ApusServer) -> Int { server.process.standardError.split(separator: "\n").count }

        /// - Parameter knows: the worker has had the limit since its start, and stops accepting before it has no descriptor left; else the limit
        ///   is lowered behind its back, and it learns of it from `accept`.
        @Test(
            "64 descriptors and 150 silent clients: no spin, the oldest make room, and when they leave the next is served at once",
            arguments: [true, false])
        func fewDescriptors(knows: Bool) throws {
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            // Who lowers another's limit must be the same user, or have a right that root lacks in many a container.
            let user = geteuid() == 0 ? ["--user", "root"] : []
            let process = try ChildProcess(
                [
                    "sh", "-c", "ulimit -n \(knows ? 64 : 1024); exec \"$@\"", "sh", Places.command, "serve", "--workers", "1", "--listen",
                    "127.0.0.1:0", "--port-file", ports,
                ] + user)
            #expect(Deadline(after: .seconds(20)).wait { Files.exists(ports) || process.hasEnded != nil })
            let port = try #require(
                Files.text(ports)?.split(separator: ":").last.flatMap { UInt16($0.dropLast()) }, "\(process.standardError)")
            let worker = try #require(ProcessTable.children(of: process.pid).first?.pid)
            let known = try RawClient(port: port)
            #expect(try known.request("GET /worker").status == 200)
            let before = ProcessTable.descriptorCount(of: worker)
            if !knows { try run(["prlimit", "--pid", "\(worker)", "--nofile=64"]) }

            let started = ContinuousClock.now
            let busy = try ProcessTable.processorTime(worker)
            let silent = try (0..<150).map { _ in try RawClient(port: port) }
            // Its turn comes when those before it have gone, sixteen in each half second. Where `accept` fails, one that waits is turned away
            // for each that comes, or it would wait without an end; then it comes again.
            var patient = try RawClient(port: port, timeout: .seconds(20))
            let isServed = Deadline(after: .seconds(9)).wait {
                do {
                    return try patient.request("GET /worker").status == 200
                } catch {
                    if let next = try? RawClient(port: port, timeout: .seconds(20)) { patient = next }
                    return false
                }
            }
            #expect(isServed)
            let waited = ContinuousClock.now - started
            let spent = try ProcessTable.processorTime(worker) - busy
            print(
                "64 descriptors\(knows ? "" : ", EMFILE"): a client behind 150 silent ones is served after \(waited), for \(spent) of CPU")
            #expect(waited < .seconds(9), "sooner than they give up by themselves")
            #expect(spent <= waited / 20)
            // All but those there is room for. Where `accept` fails, some of the newest went, too.
            #expect(silent[0].hasHungUp && silent.count { $0.hasHungUp } > 100)
            #expect(try known.request("GET /worker").status == 200, "who has made a request stays")
            if knows { #expect(ProcessTable.descriptorCount(of: worker) < 64) }
            #expect(process.standardError.contains("no room for new connections") != knows, "\(process.standardError)")

            for client in silent { client.end() }
            let freed = ContinuousClock.now
            #expect(try RawClient(port: port).request("GET /worker").status == 200)
            #expect(ContinuousClock.now - freed <= .milliseconds(100))
            patient.end()
            #expect(Deadline(after: .seconds(5)).wait { ProcessTable.descriptorCount(of: worker) == before })
            let said = process.standardError.split(separator: "\n").count
            #expect(knows ? said < 10 : said < 200, "\(process.standardError)")
        }

        @Test("20,000 resets leave no descriptor behind and no line in the log")
        func resets() async throws {
            let server = try ApusServer(workers: 2, "--log-level", "notice")
            let workers = server.workers
            let before = workers.map(ProcessTable.descriptorCount)
            let lines = Self.lines(server)
            _ = try await Threads.run(4) { thread in
                for round in 0..<5000 {
                    let client = try server.connect()
                    client.resetOnClose()
                    // Before it has said anything, in the midst of a head, with an answer under way, as a WebSocket.
                    switch (round + thread) % 4 {
                    case 0: break
                    case 1: try client.send("GET / HTTP/1.1\r\nHo")
                    case 2: try client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    default: try client.send(RawClient.handshake() + "\u{1}")
                    }
                    client.end()
                }
            }
            #expect(server.workers == workers)
            #expect(Deadline(after: .seconds(10)).wait { workers.map(ProcessTable.descriptorCount) == before })
            #expect(Self.lines(server) == lines, "\(server.process.standardError)")
            #expect(try server.connect().request("GET /worker").status == 200)
        }

        @Test("1,000 subscribers that never read are closed at their cap; those that read get everything")
        func silentSubscribers() throws {
            let place = try TemporaryDirectory()
            try Files.write("limits:\n  maxBufferedBytes: 128 KiB\n  closingTimeout: 500 ms\n".utf8, to: place.path + "/c")
            let server = try ApusServer(workers: 2, "-c", place.path + "/c")
            let workers = server.workers
            let readers = try (0..<10).map { _ in
                let client = try server.connect()
                try client.upgrade(path: "/broadcast")
                return client
            }
            func open() -> Int { workers.map(ProcessTable.descriptorCount).reduce(0, +) }
            let before = open()
            let deaf = try (0..<1000).map { _ in
                let client = try RawClient(port: server.port, keepsLittle: true)
                try client.upgrade(path: "/broadcast")
                return client
            }
            #expect(Deadline(after: .seconds(5)).wait { open() == before + 1000 })
            let base = try ProcessTable.privateBytes(workers[0])
            var most = 0
            var sent = 0
            let payload = [UInt8](repeating: 0x61, count: 20_000)
            let deadline = Deadline(after: .seconds(25))
            while open() > before, !deadline.hasPassed {
                // One at a time: whoever reads is never behind.
                try readers[0].send(RawFrame(opcode: 2, payload: payload))
                for reader in readers { #expect(try reader.frame().payload.count == payload.count) }
                sent += 1
                most = max(most, try ProcessTable.privateBytes(workers[0]) - base)
            }
            print("1,000 deaf subscribers: closed after \(sent) messages of 20 KB; one of two workers took \(most / 1024) KiB for them")
            #expect(open() == before)
            // What is said once is kept once, however many wait for it: 64 MiB it would be if each had its own.
            #expect(most < 4 << 20)
            for reader in readers {
                try reader.send(RawFrame.close(1000))
                #expect(try reader.frame().closeCode == 1000)
            }
            #expect(server.workers == workers)
            withExtendedLifetime(deaf) {}
        }

        @Test("the wall clock jumps a year ahead, then two back: dates follow, deadlines do not notice", .timeLimit(.minutes(1)))
        func wallClock() throws {
            let faults = try Faults()
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            try Files.write("limits:\n  requestHeadTimeout: 2 s\n  heartbeatTimeout: 2 s\n".utf8, to: place.path + "/c")
            let process = try ChildProcess(
                [
                    Places.command, "serve", "-c", place.path + "/c", "--workers", "1", "--listen", "127.0.0.1:0", "--port-file", ports,
                ], environment: faults.environment)
            #expect(Deadline(after: .seconds(20)).wait { Files.exists(ports) || process.hasEnded != nil })
            let port = try #require(
                Files.text(ports)?.split(separator: ":").last.flatMap { UInt16($0.dropLast()) }, "\(process.standardError)")
            let worker = try #require(ProcessTable.children(of: process.pid).first?.pid)
            let socket = try RawClient(port: port)
            try socket.upgrade()
            func year() throws -> Int {
                let date = try #require(try RawClient(port: port).request("GET /worker")["date"])
                return try #require(date.split(separator: " ").dropFirst(3).first.flatMap { Int($0) })
            }
            let now = try year()
            for offset: Int32 in [31_622_400, -31_622_400] {
                let silent = try RawClient(port: port)
                let started = ContinuousClock.now
                faults.moveWallClock(bySeconds: offset)
                #expect(try year() == now + (offset > 0 ? 1 : -1))
                try socket.send(RawFrame.text("still here"))
                #expect(try socket.frame().text == "still here")
                _ = try silent.receiveToEnd()
                let time = ContinuousClock.now - started
                #expect(time > .milliseconds(1_900) && time < .milliseconds(2_900), "\(time)")
            }
            #expect(ProcessTable.children(of: process.pid).map(\.pid) == [worker], "\(process.standardError)")
        }
    }
}
