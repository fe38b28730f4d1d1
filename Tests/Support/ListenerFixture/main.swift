import ApusPlatform
import ApusTransport
import Glibc

// Lets a listener run out of descriptors, and prints what it did as lines `what: number`. In a program of its own because the limit
// on descriptors belongs to the whole process.

/// Descriptors that the listener can still open.
let free: Int32 = 3

let loop = try EventLoop()
guard let any = SocketAddress(numericHost: "127.0.0.1", port: 0) else { fatalError() }
let socket = try Socket.stream(for: any)
try Socket.bind(socket.rawValue, to: any)
try Socket.listen(socket.rawValue, backlog: 64)
let address = try Socket.localAddress(of: socket.rawValue)

// The clients have theirs before they get scarce.
var clients: [Int32] = []
for _ in 0..<8 {
    let client = try Socket.stream(for: address)
    _ = try Socket.connect(client.rawValue, to: address)
    clients.append(client.release())
}

var accepted: [Int32] = []
var refusals: [SystemError] = []
let listener = Listener(
    descriptor: socket.rawValue, isShared: false, loop: loop,
    accepted: { descriptor, _ in
        let owner = descriptor
        accepted.append(owner.release())
    }, refused: { refusals.append($0) })

let next = dup(0)
close(next)
var limit = rlimit()
getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
limit.rlim_cur = rlim_t(next + free)
setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)

/// Turns the loop for so long; gives how often it turned.
@MainActor func turn(for duration: Duration, until condition: () -> Bool = { false }) throws -> Int {
    let end = MonotonicTime.now() + duration
    var turns = 0
    while !condition(), MonotonicTime.now() < end {
        try loop.turn(timeout: .milliseconds(Int(end.millisecondsSince(.now()))))
        turns += 1
    }
    return turns
}

@MainActor func turnedAway() -> Int {
    clients.count { client in
        var byte: UInt8 = 0
        let count = recv(client, &byte, 1, Int32(MSG_DONTWAIT))
        return count == 0 || (count < 0 && errno == ECONNRESET)
    }
}

@MainActor func report(_ what: String, _ number: Int) { print("\(what): \(number)") }

try listener.start()
_ = try turn(for: .milliseconds(1000)) { !refusals.isEmpty }
report("accepted before", accepted.count)
report("refused before", refusals.count)
report("turned away before", turnedAway())
report("error", Int(refusals.first?.code ?? 0))
report("turns while resting", try turn(for: .milliseconds(50)))

// One ends: the listener is told, as a worker does, and takes the next although its rest is not over.
close(accepted[0])
listener.resume()
_ = try turn(for: .milliseconds(50)) { accepted.count == 4 }
report("accepted after one closed", accepted.count)

// Another ends, and nobody says so.
_ = try turn(for: .milliseconds(1000)) { refusals.count == 2 }
close(accepted[1])
_ = try turn(for: .milliseconds(1000)) { accepted.count == 5 }
report("accepted by itself", accepted.count)
