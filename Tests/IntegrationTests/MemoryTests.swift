import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("Idle WebSockets")
    struct Idle {
        private static let maxBytesEach = 1024
        private static let socketsPerClient = 15_000

        @Test("an idle WebSocket costs its worker at most 1 KiB of private memory", arguments: [1, 4])
        func memory(workers: Int) throws {
            let server = try ApusServer(workers: workers, "--log-level", "error")
            let pids = server.workers
            #expect(pids.count == workers)
            let before = try pids.map(ProcessTable.privateBytes).reduce(0, +)
            // Each from an address of its own, so that each finds free ports.
            let clients = try (1...workers).map { source in
                try ChildProcess([Places.besideTests("EchoFixture"), "idle", "\(server.port)", "\(source)", "\(Self.socketsPerClient)"])
            }
            for client in clients {
                let isOpen = Deadline(after: .seconds(30)).wait { client.standardOutput == "open\n" || client.hasEnded != nil }
                guard isOpen, client.hasEnded == nil else { throw TestFailure("not all open: \(client.standardError)") }
            }
            let total = workers * Self.socketsPerClient
            let each = (try pids.map(ProcessTable.privateBytes).reduce(0, +) - before) / total
            print("idle: \(total) WebSockets on \(workers) workers take \(each) bytes each")
            #expect(each <= Self.maxBytesEach)
            for client in clients {
                client.signal(SIGTERM)
                #expect(try client.wait(within: .seconds(20)) == .exited(0))
                #expect(client.standardOutput == "open\nalive\n")
            }
            #expect(server.workers == pids)
        }

        @Test("large messages leave nothing behind, however many were under way at a time")
        func afterLargeMessages() throws {
            let server = try DeflateServer([])
            let message = RawFrame(opcode: 2, payload: [UInt8](repeating: 0x61, count: 100_000))
            let bytes = message.masked
            let clients = try (0..<200).map { _ in try server.open("") }
            // What the first one needs is the process's.
            try clients[0].send(bytes)
            #expect(try clients[0].frame() == message)
            let before = try server.privateBytes
            for client in clients { try client.send(Array(bytes[..<80_000])) }
            let isHeld = try Deadline(after: .seconds(20)).wait { try server.privateBytes - before > clients.count * 70_000 }
            #expect(isHeld, "what is measured is the messages")
            for client in clients {
                try client.send(Array(bytes[80_000...]))
                #expect(try client.frame() == message)
            }
            var each = Int.max
            _ = try Deadline(after: .seconds(10)).wait {
                each = (try server.privateBytes - before) / clients.count
                return each < Self.maxBytesEach
            }
            print("large messages: \(each) bytes each are left")
            #expect(each < Self.maxBytesEach)
            withExtendedLifetime(clients) {}
        }
    }
}
