import Glibc
import TestSupport

/// An echo server with permessage-deflate, on one loop in a process of its own, whose memory the
/// tests measure: `EchoFixture serve`, with its settings.
final class DeflateServer {
    let process: ChildProcess
    let port: UInt16

    init(_ settings: [String]) throws {
        let process = try ChildProcess([Places.besideTests("EchoFixture"), "serve", "deflate=1"] + settings)
        self.process = process
        guard Deadline(after: .seconds(10)).wait(until: { process.standardOutput.hasSuffix("\n") || process.hasEnded != nil }),
            let port = UInt16(process.standardOutput.dropLast())
        else { throw TestFailure("EchoFixture did not come up: \(process.standardOutput)\(process.standardError)") }
        self.port = port
    }

    /// A WebSocket that compresses unless the offer is empty.
    func open(_ offer: String = "permessage-deflate; client_max_window_bits", source: UInt8? = nil) throws -> RawClient {
        let client = try RawClient(port: port, source: source)
        let answer = try client.upgrade(offer.isEmpty ? "X-Nothing: offered" : "Sec-WebSocket-Extensions: \(offer)")
        guard offer.isEmpty || answer["sec-websocket-extensions"]?.hasPrefix("permessage-deflate") == true else {
            throw TestFailure("no compression: \(answer)")
        }
        return client
    }

    var privateBytes: Int { get throws { try ProcessTable.privateBytes(process.pid) } }

    /// Runs `body` and gives the most private memory, in bytes, that the process had meanwhile beyond what it had before; looked at
    /// every few milliseconds.
    func growth(during body: @escaping @Sendable () throws -> Void) async throws -> Int {
        let before = try privateBytes
        let pid = process.pid
        let isDone = Flag()
        async let most = onThread {
            var most = 0
            _ = try Deadline(after: .seconds(120)).wait {
                most = max(most, try ProcessTable.privateBytes(pid))
                return isDone.isSet
            }
            return most
        }
        defer { isDone.set() }
        do {
            try await onThread(body)
        } catch {
            isDone.set()
            _ = try await most
            throw error
        }
        isDone.set()
        return try await most - before
    }
}
