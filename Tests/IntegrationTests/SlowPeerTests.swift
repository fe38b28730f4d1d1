import TestSupport
import Testing

extension Integration {
    /// slowhttptest's four attacks, a hundred connections each, against one worker. It looks by itself whether others are served.
    @Suite("Slow peers")
    struct SlowPeers {
        struct Attack: Sendable, CustomTestStringConvertible {
            let testDescription: String
            let arguments: [String]
            let path: String
            /// When the last connection must have been given up.
            let seconds: Int

            init(_ name: String, _ arguments: String..., path: String = "/", seconds: Int) {
                testDescription = name
                self.arguments = arguments
                self.path = path
                self.seconds = seconds
            }
        }

        private static let attacks = [
            // The deadline, the second in which the connections are opened, and another to see it.
            Attack("slow heads", "-H", "-i", "2", seconds: 12), Attack("slow bodies", "-B", "-i", "2", "-s", "8192", seconds: 12),
            Attack("ranges by the thousand", "-R", "-a", "10", "-b", "1000", path: "/big.bin", seconds: 5),
            // What the kernels take counts as progress in the first ten seconds.
            Attack("slow reading", "-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", path: "/big.bin", seconds: 22),
        ]

        private static func perform(_ attack: Attack) throws {
            let place = try TemporaryDirectory()
            try Files.write("page".utf8, to: place.path + "/index.html")
            try Files.write([UInt8](repeating: 7, count: 20 << 20), to: place.path + "/big.bin")
            let server = try ApusServer(workers: 1, "--root", place.path)
            let worker = server.workers[0]
            func descriptors() -> Int { ProcessTable.descriptorCount(of: worker) }
            let before = descriptors()
            let url = "http://127.0.0.1:\(server.port)\(attack.path)"
            let started = ContinuousClock.now
            let attacker = try ChildProcess(
                ["slowhttptest", "-c", "100", "-r", "100", "-l", "20", "-p", "3", "-u", url] + attack.arguments)
            var most = 0
            _ = Deadline(after: .seconds(5)).wait {
                most = max(most, descriptors() - before)
                return most >= 100 || attacker.hasEnded != nil
            }
            // Its own probe comes and goes.
            let isOver = Deadline(after: .seconds(30)).wait { descriptors() <= before + 1 }
            let time = ContinuousClock.now - started
            print("slowhttptest, \(attack.testDescription): \(most) connections, all given up after \(time)")
            #expect(isOver && time < .seconds(attack.seconds), "\(attack.testDescription): \(time)")
            // Ranges are answered before they can be counted.
            #expect(most >= 50 || attack.arguments.contains("-R"), "\(attack.testDescription): \(attacker.standardOutput)")
            // It prints when it ends: with its last connection, or after 20 s.
            _ = try attacker.wait(within: .seconds(60))
            #expect(attacker.standardOutput.contains("service available:"), "\(attacker.standardOutput)")
            let wasUnavailable = attacker.standardOutput.matches(of: #/service available:[^A-Z]*NO/#).count > 0
            #expect(!wasUnavailable, "\(attack.testDescription): \(attacker.standardOutput)")
            #expect(try server.connect().request("GET /").status == 200)
            #expect(server.workers == [worker])
        }

        @Test("slow heads and bodies, ranges and slow reading end in time, and others are served meanwhile")
        func all() async throws {
            try await withThrowingTaskGroup { group in
                for attack in Self.attacks { group.addTask { try await onThread { try Self.perform(attack) } } }
                try await group.waitForAll()
            }
        }
    }
}
