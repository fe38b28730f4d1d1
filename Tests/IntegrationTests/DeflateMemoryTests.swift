import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("Memory of compressing connections")
    struct DeflateMemory {
        struct Setting: Sendable, CustomTestStringConvertible {
            let testDescription: String
            let words: [String]
            let offer: String
            /// For each connection, in KiB: what zlib's documentation says that it takes, and some more.
            let maxKibibytes: Int

            init(_ name: String, _ words: [String], offer: String = "permessage-deflate; client_max_window_bits", maxKibibytes: Int) {
                testDescription = name
                self.words = words
                self.offer = offer
                self.maxKibibytes = maxKibibytes
            }
        }

        private static let both = ["server-takeover=1", "client-takeover=1"]

        static let settings = [
            Setting("not agreed on", [], offer: "", maxKibibytes: 1), Setting("no takeover", [], maxKibibytes: 2),
            Setting("server's, window 15, memory level 8", ["server-takeover=1"], maxKibibytes: 290),
            Setting("server's, window 9, memory level 1", ["server-takeover=1", "server-bits=9", "memory-level=1"], maxKibibytes: 24),
            Setting("client's, window 15", ["client-takeover=1"], maxKibibytes: 56),
            Setting("client's, window 9", ["client-takeover=1", "client-bits=9"], maxKibibytes: 20),
            Setting("both, window 15, memory level 8", both, maxKibibytes: 340),
            Setting("both, window 15, memory level 1", both + ["memory-level=1"], maxKibibytes: 220),
            Setting("both, window 9, memory level 8", both + ["server-bits=9", "client-bits=9"], maxKibibytes: 170),
            Setting("both, window 9, memory level 1", both + ["server-bits=9", "client-bits=9", "memory-level=1"], maxKibibytes: 40),
        ]

        @Test("what an idle connection costs after a message of 1 KB each way, and after one of 60 KB", arguments: settings)
        func perConnection(_ setting: Setting) throws {
            let server = try DeflateServer(setting.words)
            let isCompressed = !setting.offer.isEmpty
            let line = Array(#"{"id":4711,"name":"Apus apus","place":[52.5,13.4]}"#.utf8)
            var state: UInt32 = 1
            // Half text, half noise: windows and hash tables fill as they do in earnest.
            let long = (0..<60_000).map { index in
                state = state &* 1_664_525 &+ 1_013_904_223
                return index / 50 % 2 == 0 ? line[index % line.count] : UInt8(truncatingIfNeeded: state >> 24)
            }
            func echo(_ message: [UInt8], on client: RawClient) throws {
                try client.send(RawFrame(opcode: 2, isCompressed: isCompressed, payload: isCompressed ? Deflated.stored(message) : message))
                let echo = try client.frame()
                guard echo.isCompressed == isCompressed else { throw TestFailure("\(echo)") }
            }
            // What the first one needs is the process's.
            let first = try server.open(setting.offer)
            for _ in 0..<10 { try echo(long, on: first) }
            let before = try server.privateBytes
            let clients = try (0..<1000).map { _ in
                let client = try server.open(setting.offer)
                client.resetOnClose()
                try echo(Array(long[..<1000]), on: client)
                return client
            }
            let short = (try server.privateBytes - before) / clients.count
            for client in clients { try echo(long, on: client) }
            let full = (try server.privateBytes - before) / clients.count
            print("deflate memory: \(setting.testDescription): \(short) bytes each after 1 KB, \(full) after 60 KB")
            #expect(full <= setting.maxKibibytes * 1024)
            withExtendedLifetime((first, clients)) {}
        }
    }
}
