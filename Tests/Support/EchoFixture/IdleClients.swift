import Glibc
import TestSupport

/// Idle WebSockets in a process of their own, since one process may not hold the 60,000 of a test.
enum IdleClients {
    /// Opens WebSockets, prints `open`, waits for SIGTERM, has one in a hundred echoed and prints
    /// `alive`.
    ///
    /// - Parameter arguments: the server's port, the last byte of the address 127.0.0.N to connect
    ///   from, and the number of WebSockets.
    static func hold(_ arguments: [Int]) throws {
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGTERM)
        sigprocmask(SIG_BLOCK, &signals, nil)

        guard arguments.count == 3 else { throw TestFailure("usage: EchoFixture idle PORT SOURCE COUNT") }
        let clients = try (0..<arguments[2]).map { _ in
            let client = try RawClient(port: UInt16(arguments[0]), source: UInt8(arguments[1]), timeout: .seconds(20))
            client.resetOnClose()
            try client.upgrade()
            return client
        }
        print("open")
        fflush(nil)

        var signal: Int32 = 0
        sigwait(&signals, &signal)
        for index in stride(from: 0, to: clients.count, by: 100) {
            try clients[index].send(.text("still here"))
            guard try clients[index].frame() == .text("still here") else { throw TestFailure("connection \(index): expected an echo") }
        }
        print("alive")
    }
}
