import TestSupport
import Testing

extension Integration {
    @Suite("apus bench")
    struct Benchmark {
        /// Runs it with few connections for a short time.
        private static func bench(_ arguments: [String]) throws -> ChildProcess {
            let process = try ChildProcess([Places.command, "bench"] + arguments + ["-c", "20", "-t", "0.2"])
            // Nothing that is told at once takes the 20 s that connecting may.
            _ = try process.wait(within: .seconds(10))
            return process
        }

        @Test(
            "what cannot be opened ends it at once, with the first reason and the status of apus connect",
            arguments: [
                (["ws://127.0.0.1:1/"], 69, "Connection refused"), (["fanout", "ws://127.0.0.1:1/"], 69, "Connection refused"),
                (["ws://does-not-exist.invalid/"], 68, "does-not-exist.invalid"), (["wss://localhost:TLS/"], 77, "certificate"),
                (["ws://127.0.0.1:PORT/nowhere"], 76, "404"),
            ] as [([String], Int32, String)])
        func unreachable(arguments: [String], status: Int32, words: String) throws {
            let plain = try ApusServer()
            let secure = try ApusServer(options: try Certificates.options("localhost"))
            let process = try Self.bench(
                arguments.map { $0.replacing("PORT", with: "\(plain.port)").replacing("TLS", with: "\(secure.port)") })
            #expect(process.hasEnded == .exited(status), "\(process.standardError)")
            #expect(process.standardError.hasPrefix("apus: cannot connect: "), "\(process.standardError)")
            #expect(process.standardError.contains(words), "\(process.standardError)")
            #expect(process.standardOutput.isEmpty)
        }

        @Test(
            "a server of another kind is no result but a failure",
            arguments: [
                (["echo"], "/worker", "before it received one"), (["echo"], "/board", "before it received one"),
                (["echo"], "/broadcast", "not an echo server"), (["fanout"], "/worker", "not sent here"), (["fanout"], "/", "reached all"),
            ])
        func otherKind(load: [String], path: String, words: String) throws {
            let server = try ApusServer(workers: 2)
            let process = try Self.bench(load + ["ws://127.0.0.1:\(server.port)\(path)"])
            #expect(process.hasEnded == .exited(1), "\(process.standardOutput)\(process.standardError)")
            #expect(process.standardError.contains(words) && process.standardOutput.isEmpty, "\(process.standardError)")
        }

        @Test("a server that never answers is no result but a failure", arguments: [[], ["fanout"]])
        func mute(load: [String]) throws {
            let peer = try Client.Peer.websockets()
            let process = try Self.bench(load + ["ws://127.0.0.1:\(peer.port)/mute"])
            #expect(process.hasEnded == .exited(1), "\(process.standardOutput)\(process.standardError)")
            #expect(process.standardError.hasPrefix("apus: no message "), "\(process.standardError)")
        }

        @Test("echoes and deliveries are counted", arguments: [([], "/", "messages"), (["fanout"], "/broadcast", "deliveries")])
        func counted(load: [String], path: String, headline: String) throws {
            let server = try ApusServer(workers: 2)
            let process = try Self.bench(load + ["ws://127.0.0.1:\(server.port)\(path)"])
            #expect(process.hasEnded == .exited(0), "\(process.standardError)")
            let lines = process.standardOutput.split(separator: "\n")
            let count = lines.first?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
            #expect(lines.first?.hasPrefix(headline) == true && count > 100 && lines.last == "failures    0", "\(lines)")
        }
    }
}
