import Glibc
import TestSupport
import Testing

extension Integration {
    /// Peers that try to make the server hold memory. Limits are the defaults; memory is looked at from outside, while it happens.
    @Suite("Hostile peers")
    struct HostilePeers {
        private static let limit = 1 << 20
        private static let kibibyte = 1024

        /// What is needed once for the first connection and message is not what a peer costs.
        private static func warm(_ server: DeflateServer) throws {
            let client = try server.open()
            let message = [UInt8](repeating: 0x61, count: 1000)
            // So is the window that is inflated with.
            for _ in 0..<40 { try client.send(RawFrame(opcode: 2, isCompressed: true, payload: Deflated.stored(message))) }
            try client.send(RawFrame(opcode: 2, isCompressed: true, payload: Deflated.stored([UInt8](repeating: 1, count: 40_000))))
            for _ in 0..<41 { _ = try client.frame() }
            // The receive buffer and the one that collects output are the worker's; a worker that was stopped meanwhile fills them. The
            // kernel lets more arrive before it is read the more it sees read at a time.
            let many = [[UInt8]](repeating: RawFrame(opcode: 2, payload: message).masked, count: 300).flatMap { $0 }
            for _ in 0..<20 {
                server.process.signal(SIGSTOP)
                try client.send(many)
                server.process.signal(SIGCONT)
                for _ in 0..<300 { _ = try client.frame() }
            }
            try client.send(RawFrame(opcode: 2, isCompressed: true, payload: [0xFF]))
            #expect(try client.frame().closeCode == 1007)
            // The pool keeps a few large buffers for the next messages; they are the worker's, too.
            let plain = try server.open("")
            let large = RawFrame(opcode: 2, payload: [UInt8](repeating: 1, count: 60_000)).masked
            for _ in 0..<8 {
                try plain.send(large + large)
                for _ in 0..<2 { _ = try plain.frame() }
            }
        }

        private static func report(_ what: String, _ growth: Int) {
            print("hostile: \(what): at most \(growth / kibibyte) KiB more")
        }

        @Test("a bomb of 100 MiB costs the limit, whole or in frames", arguments: [1 << 20, 1000, 1])
        func bomb(frameBytes: Int) async throws {
            let server = try DeflateServer([])
            try Self.warm(server)
            let bomb = Deflated.zeros(100 << 20)
            // So much of it is inflated to less than the limit: 13 bits for 258 bytes.
            let below = (Self.limit / 258 - 1) * 13 / 8
            func wire(_ range: Range<Int>) -> [UInt8] {
                stride(from: range.lowerBound, to: range.upperBound, by: frameBytes).flatMap { start in
                    let end = min(start + frameBytes, range.upperBound)
                    return RawFrame(
                        opcode: start == 0 ? 2 : 0, isFinal: end == bomb.count, isCompressed: start == 0, payload: Array(bomb[start..<end])
                    ).masked
                }
            }
            let client = try server.open()
            let first = wire(0..<below)
            let rest = wire(below..<bomb.count)
            var held = 0
            let before = try server.privateBytes
            var most = try await server.growth {
                try client.send(first + RawFrame(opcode: 9).masked)
                guard try client.frame().opcode == 10 else { throw TestFailure("no pong") }
            }
            held = try server.privateBytes - before
            let more = try await server.growth {
                // The server may have closed before all is sent.
                do { try client.send(rest) } catch RawClient.Failure.ended {}
                let frame = try client.frame()
                guard frame.closeCode == 1009 else { throw TestFailure("\(frame)") }
            }
            most = max(most, held + more)
            Self.report("bomb of \(bomb.count / Self.kibibyte) KiB in frames of \(frameBytes)", most)
            #expect(held >= Self.limit * 3 / 4, "what is measured is the message")
            #expect(most <= Self.limit + 64 * Self.kibibyte)
        }

        @Test("fragments of one byte that never end cost the limit, and end at it")
        func oneByteFragments() async throws {
            let server = try DeflateServer([])
            try Self.warm(server)
            let client = try server.open("")
            client.timeout = .seconds(60)
            let growth = try await server.growth {
                try client.send(RawFrame(opcode: 2, isFinal: false, payload: [0]))
                let many = [[UInt8]](repeating: RawFrame(opcode: 0, isFinal: false, payload: [0]).masked, count: 10_000).flatMap { $0 }
                do { for _ in 0..<200 { try client.send(many) } } catch RawClient.Failure.ended {}
                let frame = try client.frame()
                guard frame.closeCode == 1009 else { throw TestFailure("\(frame)") }
            }
            Self.report("fragments of one byte", growth)
            #expect(growth <= Self.limit + 64 * Self.kibibyte)
        }

        @Test("a message that hardly grows is given up, compressed or not", arguments: [true, false])
        func trickle(isCompressed: Bool) throws {
            let server = try DeflateServer(["progress=500"])
            let client = try server.open(isCompressed ? "permessage-deflate" : "")
            let started = ContinuousClock.now
            try client.send(RawFrame(opcode: 2, isFinal: false, isCompressed: isCompressed, payload: isCompressed ? [0xF2] : [0]))
            client.timeout = .milliseconds(20)
            var frame: RawFrame?
            // A byte whenever nothing has come for a while. A compressed stored block of which nothing follows.
            _ = try Deadline(after: .seconds(10)).wait {
                do {
                    frame = try client.frame()
                    return true
                } catch RawClient.Failure.timeout {
                    if !isCompressed { try client.send(RawFrame(opcode: 0, isFinal: false, payload: [0])) }
                    return false
                }
            }
            #expect(frame?.closeCode == 1008)
            #expect(ContinuousClock.now - started < .seconds(5))
        }

        @Test("pings for 5 s, to a peer that never reads")
        func pingFlood() async throws {
            let server = try DeflateServer([])
            try Self.warm(server)
            let client = try server.open("")
            let pings = [[UInt8]](repeating: RawFrame(opcode: 9, payload: [UInt8](repeating: 1, count: 125)).masked, count: 1000).flatMap {
                $0
            }
            let growth = try await server.growth {
                let end = Deadline(after: .seconds(5))
                client.timeout = .milliseconds(500)
                while !end.hasPassed {
                    do { try client.send(pings) } catch RawClient.Failure.timeout {}
                }
            }
            Self.report("pings for 5 s, nothing read", growth)
            #expect(growth <= 256 * Self.kibibyte)
            #expect(server.process.hasEnded == nil)
        }

        @Test("echoes that are never read: no more than 256 KiB, and the end after the silence that follows", arguments: [100, 60_000])
        func unreadEchoes(size: Int) async throws {
            let server = try DeflateServer(["silence=3000"])
            try Self.warm(server)
            let client = try server.open("")
            let frame = RawFrame(opcode: 2, payload: [UInt8](repeating: 1, count: size)).masked
            let many = [[UInt8]](repeating: frame, count: max(1, 100_000 / frame.count)).flatMap { $0 }
            let growth = try await server.growth {
                client.timeout = .seconds(1)
                do {
                    while true { try client.send(many) }
                } catch RawClient.Failure.timeout {}
                // Then the server gives it up, while this side still does not read.
                guard Deadline(after: .seconds(10)).wait(until: { client.hasHungUp }) else { throw TestFailure("it is still served") }
            }
            Self.report("echoes of \(size) bytes, never read", growth)
            #expect(growth <= 256 * Self.kibibyte)
        }

        @Test(
            "200 connections deflate at once, all in the midst of a message",
            arguments: [[], ["server-takeover=1", "client-takeover=1"], ["server-bits=9", "memory-level=1"]])
        func many(settings: [String]) throws {
            let server = try DeflateServer(settings)
            let clients = try (0..<200).map { _ in try server.open() }
            for round in 0..<3 {
                let messages = clients.indices.map { index in (0..<3000).map { UInt8(truncatingIfNeeded: ($0 / 7) &* (index + round + 1)) }
                }
                let frames = messages.map(Deflated.stored)
                for (client, frame) in zip(clients, frames) {
                    try client.send(RawFrame(opcode: 2, isFinal: false, isCompressed: true, payload: Array(frame[..<1000])))
                }
                for (client, frame) in zip(clients, frames) { try client.send(RawFrame(opcode: 0, payload: Array(frame[1000...]))) }
                for client in clients {
                    let echo = try client.frame()
                    #expect(echo.opcode == 2 && echo.isCompressed && !echo.payload.isEmpty)
                }
            }
            #expect(server.process.hasEnded == nil)
        }
    }
}
