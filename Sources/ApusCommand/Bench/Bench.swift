import Apus
import ArgumentParser
import Glibc
import Histogram

/// `apus bench`: measures WebSocket servers under load.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure a WebSocket server.", subcommands: [Echo.self, Fanout.self], defaultSubcommand: Echo.self)

    /// The options of all loads.
    struct Options: ParsableArguments {
        @Argument(help: "The server: ws://HOST[:PORT]/PATH, wss://…, or ws+unix:///PATH/OF/SOCKET:/PATH.")
        var url: String

        @Option(name: [.short, .long], help: "Bytes of a message.")
        var size = 20

        @Option(name: [.short, .long], help: "Messages in flight: per connection, or per publisher.")
        var depth = 1

        @Option(name: [.short, .long], help: "Seconds to measure, after a warm-up of a tenth of it.")
        var time = 3.0

        @Option(name: .long, help: ArgumentHelp("Also report the CPU time of this process and its children.", valueName: "pid"))
        var serverPid: Int32?

        @OptionGroup var tls: TLSArguments

        /// The options of the connections, which never use a proxy.
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
                    guard let tree = ProcessTree(root: pid) else {
                        throw ValidationError("--server-pid: expected a process, got \(pid): No such process")
                    }
                    return tree
                }
            }
        }
    }

    static func check(_ holds: Bool, _ option: String, _ value: Any, _ expected: String) throws {
        if !holds { throw ValidationError("\(option): expected \(expected), got \(value)") }
    }

    /// Checks the address of a WebSocket without connecting.
    static func checkAddress(_ url: String) throws {
        do {
            let address = try ClientAddress(parsing: url)
            guard address.scheme.isWebSocket else { throw ValidationError("\(address): expected ws, wss or ws+unix") }
        } catch let error as ConnectError {
            throw ValidationError("\(error)")
        }
    }

    /// Connects, warms up, measures and reports; the exit status is 1 after a failure.
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

    /// `apus bench [echo]`: the rate, the latency and the cost of echoes.
    struct Echo: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Measure an echo server.",
            discussion: """
                Each connection keeps DEPTH messages in flight and sends the next one when an echo arrives. One thread runs one loop; latency \
                is measured from passing a message to the library to the delivery of its echo. Every 16th echo is compared with the message, all are \
                counted.
                """)

        @OptionGroup var options: Options

        @Option(name: [.short, .long], help: "Number of connections.")
        var connections = 100

        @Flag(name: .long, help: "Send binary messages instead of text.")
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

    /// `apus bench fanout`: the cost of delivering one message to many connections.
    struct Fanout: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Measure a server that broadcasts the messages of one client.",
            discussion: """
                One connection publishes, and CONNECTIONS more receive. The path must broadcast each message to all, like /broadcast of `apus serve`. \
                The next message is published when one has reached all; DEPTH are in flight. Latency is measured to the last receiver.
                """)

        @OptionGroup var options: Options

        @Option(name: [.short, .long], help: "Number of subscribers.")
        var connections = 1000

        @Option(
            name: [.short, .long],
            help: ArgumentHelp(
                "Milliseconds from a message's last delivery to the next message, to measure an idle server.", valueName: "ms")
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

/// A progress line on a terminal, overwritten by the next one; nothing elsewhere.
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

/// A load of `apus bench`.
protocol Load: AnyObject {
    /// The unit of `count`, such as "message".
    static var unit: String { get }
    /// Since the last `reset`.
    var count: Int { get }
    var failures: Int { get }
    var firstFailure: String? { get }
    /// Why there is no result; nil if there is one.
    var nothingMeasured: String? { get }
    /// In nanoseconds.
    var latencies: Histogram<UInt64> { get }

    /// Opens all connections; throws the first failure.
    func connect(progress: (Int) -> Void) throws
    /// Serves the connections.
    ///
    /// - Returns: the seconds that it took.
    @discardableResult
    func run(for seconds: Double, progress: (Double) -> Void) throws -> Double
    /// Drops the results of the warm-up.
    func reset()
    func close()
}

/// The text of the results.
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
