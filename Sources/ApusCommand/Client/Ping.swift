import Apus
import ArgumentParser

/// `apus ping`: measures the round-trip time of WebSocket pings.
struct Ping: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Send WebSocket pings to a server and print round-trip times like ping.",
        discussion: """
            The time is measured from passing a ping to the library to its pong. Ctrl-C ends it and prints the statistics. Exit status: 0 after a pong, \
            1 without one; if no WebSocket could be opened, that of `apus connect`.
            """)

    @OptionGroup var arguments: ClientArguments

    @Option(name: [.short, .long], help: ArgumentHelp("Stop after this many pings.", valueName: "n"))
    var count: Int?

    @Option(name: [.short, .long], help: ArgumentHelp("Seconds between pings.", valueName: "seconds"))
    var interval = 1.0

    @Option(name: [.customShort("W"), .long], help: ArgumentHelp("Seconds to wait for the last pongs.", valueName: "seconds"))
    var timeout = 10.0

    @Option(name: [.short, .long], help: ArgumentHelp("Bytes of a ping's payload: 8 to 125.", valueName: "bytes"))
    var size = 56

    @Flag(name: [.short, .long], help: "Print the statistics only.")
    var quiet = false

    func validate() throws {
        if let count { try Bench.check((1...1_000_000_000).contains(count), "--count", count, "1 to 1000000000") }
        try Bench.check(interval >= 0.001 && interval <= 86_400, "--interval", interval, "0.001 to 86400 seconds")
        try Bench.check(timeout > 0 && timeout <= 86_400, "--timeout", timeout, "more than 0 and at most 86400 seconds")
        try Bench.check((8...125).contains(size), "--size", size, "8 to 125")
    }

    func run() throws {
        throw ExitCode(try PingSession(self, try Worker(Server())).run(headers: arguments.headers(), options: arguments.clientOptions()))
    }
}

/// Statistics of round-trip times, like ping's.
struct RoundTrips {
    private(set) var count = 0
    private var sum = 0.0
    private var squares = 0.0
    private var least = Double.infinity
    private var most = 0.0

    /// - Parameter time: in milliseconds.
    mutating func add(_ time: Double) {
        count += 1
        sum += time
        squares += time * time
        least = min(least, time)
        most = max(most, time)
    }

    /// Minimum, mean, maximum and standard deviation.
    var summary: String {
        guard count > 0 else { return "" }
        let mean = sum / Double(count)
        let deviation = max(0, squares / Double(count) - mean * mean).squareRoot()
        return "rtt min/avg/max/mdev = \([least, mean, most, deviation].map { Decimal.text($0, places: 3) }.joined(separator: "/")) ms"
    }
}

/// A run of `apus ping`.
private final class PingSession: WebSocketHandler {
    private let command: Ping
    /// Printed without user and password.
    private let address: ClientAddress
    private let worker: Worker
    private let terminal = Terminal()
    private var connection: ClientConnection?
    private var times = RoundTrips()
    private var sent = 0
    private var started = ContinuousClock.now
    /// Pings without a pong yet, by number.
    private var pending: [UInt64: ContinuousClock.Instant] = [:]
    private var status: Int32?
    private var outputFailed = false

    init(_ command: Ping, _ worker: Worker) throws {
        self.command = command
        self.worker = worker
        address = try ClientAddress(parsing: command.arguments.url)
    }

    /// Runs until the end of the session.
    ///
    /// - Returns: the exit status.
    func run(headers: HTTPFields, options: ClientOptions) throws -> Int32 {
        let arguments = command.arguments
        let interrupts = try InterruptSource(in: worker) { [unowned self] in stop() }
        connection = worker.connect(
            to: arguments.url, subprotocols: arguments.subprotocol, headers: headers, origin: arguments.origin, options: options,
            makeHandler: { [unowned self] _ in self },
            failed: { [unowned self] error in
                terminal.note("\(error)", .red)
                status = ClientExit.status(error)
            })
        while status == nil { try worker.service() }
        withExtendedLifetime(interrupts) {}
        if let socket = connection?.socket { worker.closeAll([socket]) }
        return status ?? 0
    }

    func opened(_ socket: WebSocket) {
        printLine("PING \(address): \(command.size) bytes of payload")
        started = .now
        ping(socket)
    }

    private func ping(_ socket: WebSocket) {
        guard status == nil else { return }
        if let count = command.count, sent >= count {
            // The last pongs may still arrive.
            worker.schedule(after: .seconds(command.timeout)) { [unowned self] in stop() }
            return
        }
        sent += 1
        let number = UInt64(sent)
        var payload = withNumber(number)
        payload += Array(repeating: UInt8(ascii: "-"), count: command.size - payload.count)
        pending[number] = .now
        socket.ping(payload)
        worker.schedule(after: .seconds(command.interval)) { [unowned self] in ping(socket) }
    }

    private func withNumber(_ number: UInt64) -> [UInt8] {
        stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: number >> UInt64($0)) }
    }

    func pong(_ payload: RawSpan, on socket: WebSocket) {
        let now = ContinuousClock.now
        let bytes = Message(kind: .binary, payload: payload).bytes
        guard bytes.count == command.size else { return }
        let number = bytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard let start = pending.removeValue(forKey: number) else { return }
        let time = (now - start) / .milliseconds(1)
        times.add(time)
        if !command.quiet { printLine("pong: seq=\(number) time=\(Decimal.text(time, places: time < 1 ? 3 : 2)) ms") }
        if sent == command.count, pending.isEmpty { stop() }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        guard status == nil else { return }
        terminal.note("closed with \(code.rawValue)" + (reason.isEmpty ? "" : " \(reason)"), .red)
        stop()
    }

    private func stop() {
        guard status == nil else { return }
        status = times.count > 0 ? 0 : 1
        if sent > 0 {
            let loss = 100 * Double(sent - times.count) / Double(sent)
            let elapsed = Int((ContinuousClock.now - started) / .milliseconds(1))
            printLine("--- \(address) ping statistics ---")
            printLine("\(sent) pings sent, \(times.count) pongs received, \(Decimal.shortest(loss, places: 4))% loss, time \(elapsed) ms")
            if times.count > 0 { printLine(times.summary) }
        }
    }

    private func printLine(_ line: String) {
        switch terminal.write(line: line) {
        case .written: break
        case .readerHasGone: status = status ?? 0
        case .failed(let reason):
            guard !outputFailed else { return }
            outputFailed = true
            let failure = ApusCommand.unwritable(reason)
            terminal.note(failure.description, .red)
            status = failure.status
        }
    }
}
