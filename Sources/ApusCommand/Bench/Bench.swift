import Apus
import ArgumentParser
import Glibc
import Histogram

/// `apus bench`: loads for WebSocket servers.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure a WebSocket server.", subcommands: [Echo.self, Fanout.self], defaultSubcommand: Echo.self)

    /// What all loads are told.
    struct Options: ParsableArguments {
        @Argument(help: "The server: ws://HOST[:PORT]/PATH, wss://…, or ws+unix:///PATH/OF/SOCKET:/PATH.")
        var url: String

        @Option(name: [.short, .long], help: "Bytes of a message.")
        var size = 20

        @Option(name: [.short, .long], help: "Messages on their way: per connection, or per publisher.")
        var depth = 1

        @Option(name: [.short, .long], help: "Seconds to measure, after a tenth as much of warming up.")
        var time = 3.0

        @Option(name: .long, help: ArgumentHelp("Also sum the CPU time of this process and its children.", valueName: "pid"))
        var serverPid: Int32?

        @OptionGroup var tls: TLSArguments

        /// How connections are made; never through a proxy.
        func client() throws -> ClientOptions {
            var options = ClientOptions()
            options.proxy = ProxyChoice.none
            options.tls = try tls.clientTLS()
            return options
        }

        func validate() throws {
            try Bench.checkAddress(url)
            _ = try tls.clientTLS()
            try Bench.check((0...1 << 30).contains(size), "--size", size, "0 to 1073741824 bytes")
            try Bench.check((1...65536).contains(depth), "--depth", depth, "1 to 65536")
            try Bench.check(time > 0 && time <= 86_400, "--time", time, "more than 0 and at most 86400 seconds")
        }

        var server: ProcessTree? {
            get throws {
                try serverPid.map { pid in
                    guard let tree = ProcessTree(root: pid) else { throw ValidationError("--server-pid \(pid): no such process") }
                    return tree
                }
            }
        }
    }

    static func check(_ holds: Bool, _ option: String, _ value: Any, _ expected: String) throws {
        if !holds { throw ValidationError("\(option): expected \(expected), got \(value)") }
    }

    /// A WebSocket's address, as far as can be told without connecting.
    static func checkAddress(_ url: String) throws {
        do {
            let address = try ClientAddress(parsing: url)
            guard address.scheme.isWebSocket else { throw ValidationError("\(address): expected ws, wss or ws+unix") }
        } catch let error as ConnectError {
            throw ValidationError("\(error)")
        }
    }

    /// Connects, warms up, measures and reports; exit status 1 if anything failed.
    private static func measure(_ load: some Load, _ options: Options, count: Int, headline: (Double) -> String) throws {
        let progress = Progress()
        defer { progress.clear() }
        let server = try options.server
        try load.connect { done in progress.show("connecting: \(done) of \(count)") }
        try load.run(for: options.time / 10) { _ in }
        load.reset()
        let before = server?.cpuSeconds
        let elapsed = try load.run(for: options.time) { left in progress.show("measuring: \(Decimal.text(left, places: 0)) s left") }
        progress.clear()
        if let reason = load.nothingMeasured { throw RuntimeFailure(reason) }
        let cpu = server.flatMap { tree in before.map { tree.cpuSeconds - $0 } }
        load.close()
        try ApusCommand.write(BenchReport(headline: headline(elapsed), load: load, cpu: cpu).text + "\n")
        if load.failures > 0 { throw ExitCode(1) }
    }

    /// `apus bench [echo]`: how many messages a server echoes, how soon, and at what cost.
    struct Echo: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Measure an echo server.",
            discussion: """
                Each connection keeps DEPTH messages on their way and sends the next when one has come back. One thread, one loop; the times \
                are from handing a message to the library to its echo being delivered. Every 16th echo is compared with what was sent, all are \
                counted.
                """)

        @OptionGroup var options: Options

        @Option(name: [.short, .long], help: "Connections.")
        var connections = 100

        @Flag(name: .long, help: "Binary messages instead of text.")
        var binary = false

        func validate() throws { try Bench.check((1...1_000_000).contains(connections), "--connections", connections, "1 to 1000000") }

        func run() throws {
            let load = try EchoLoad(
                target: options.url, client: options.client(), connections: connections, size: options.size, depth: options.depth,
                kind: binary ? .binary : .text)
            try Bench.measure(load, options, count: connections) { elapsed in
                let rate = Double(load.count) / elapsed
                return "messages    \(load.count) in \(Decimal.text(elapsed, places: 2)) s, \(Decimal.text(rate, places: 0))/s, "
                    + "\(Decimal.text(rate * Double(options.size) / 1e6, places: 1)) MB/s each way"
            }
        }
    }

    /// `apus bench fanout`: what it costs to bring one message to many.
    struct Fanout: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Measure a server that sends what one client says to all.",
            discussion: """
                SUBSCRIBERS connections receive what one more sends to the path, which must broadcast, as /broadcast of `apus serve` does. The \
                next message is published when one has reached everybody; DEPTH are on their way. The latency is to the last receiver.
                """)

        @OptionGroup var options: Options

        @Option(name: [.short, .long], help: "Subscribers.")
        var connections = 1000

        @Option(
            name: [.short, .long],
            help: ArgumentHelp("Milliseconds from a message's last delivery to the next message: what it takes when idle.", valueName: "ms")
        )
        var pause = 0

        func validate() throws {
            try Bench.check((1...1_000_000).contains(connections), "--connections", connections, "1 to 1000000")
            try Bench.check((0...60_000).contains(pause), "--pause", pause, "0 to 60000 milliseconds")
        }

        func run() throws {
            let load = try FanoutLoad(
                target: options.url, client: options.client(), subscribers: connections, size: options.size, depth: options.depth,
                pause: .milliseconds(pause))
            try Bench.measure(load, options, count: connections) { elapsed in
                let rate = Double(load.count) / elapsed
                return "deliveries  \(load.count) in \(Decimal.text(elapsed, places: 2)) s, \(Decimal.text(rate, places: 0))/s"
            }
        }
    }
}

/// One line on a terminal that is written over; nothing elsewhere.
final class Progress {
    private let isTerminal = isatty(2) == 1
    private var last = ContinuousClock.now - .seconds(1)

    func show(_ text: String) {
        guard isTerminal, ContinuousClock.now - last > .milliseconds(200) else { return }
        last = .now
        StandardStreams.note("\r\u{1B}[K\(text)")
    }

    func clear() {
        if isTerminal { StandardStreams.note("\r\u{1B}[K") }
    }
}

/// What `apus bench` measures.
protocol Load: AnyObject {
    /// What is counted, such as "message".
    static var unit: String { get }
    /// Since the last `reset`.
    var count: Int { get }
    var failures: Int { get }
    var firstFailure: String? { get }
    /// Why there is nothing to report; nil if there is.
    var nothingMeasured: String? { get }
    /// Nanoseconds.
    var latencies: Histogram<UInt64> { get }

    /// Opens all connections, or throws with the first failure.
    func connect(progress: (Int) -> Void) throws
    /// Serves the connections for some seconds and gives how long it really took.
    @discardableResult
    func run(for seconds: Double, progress: (Double) -> Void) throws -> Double
    /// Forgets what the warm-up measured.
    func reset()
    func close()
}

/// What was measured, as text.
struct BenchReport<Measured: Load> {
    let headline: String
    let load: Measured
    let cpu: Double?

    var text: String {
        let times = load.latencies
        func micro(_ percentile: Double) -> String { Decimal.text(Double(times.valueAtPercentile(percentile)) / 1000, places: 1) }
        var lines = [headline, "latency µs  p50 \(micro(50))  p99 \(micro(99))  p99.9 \(micro(99.9))  max \(micro(100))"]
        if let cpu {
            lines.append("server CPU  \(Decimal.text(cpu * 1e6 / Double(max(1, load.count)), places: 3)) µs per \(Measured.unit)")
        }
        lines.append("failures    \(load.failures)" + (load.firstFailure.map { " (\($0))" } ?? ""))
        return lines.joined(separator: "\n")
    }
}
