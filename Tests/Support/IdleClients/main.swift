import Glibc
import TestSupport

// Opens COUNT WebSockets from 127.0.0.SOURCE to PORT and holds them, since no process may hold the tests' 60,000: prints `open`, waits for
// SIGTERM, asks one in a hundred for an echo and prints `alive`.

var signals = sigset_t()
sigemptyset(&signals)
sigaddset(&signals, SIGTERM)
sigprocmask(SIG_BLOCK, &signals, nil)

let arguments = CommandLine.arguments.dropFirst().compactMap { Int($0) }
guard arguments.count == 3 else { throw TestFailure("usage: IdleClients PORT SOURCE COUNT") }
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
    guard try clients[index].frame() == .text("still here") else { throw TestFailure("connection \(index) is no echo") }
}
print("alive")
