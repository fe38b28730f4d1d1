import Apus
import ArgumentParser
import Foundation
import Histogram

/// `apus bench`: how many messages a server echoes, how soon, and at what cost.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure a WebSocket echo server.",
        discussion: """
            Each connection keeps DEPTH messages on their way and sends the next when one has come back. One thread, one loop; the times are \
            from handing a message to the library to its echo being delivered. Every 16th echo is compared with what was sent, all are counted.
            """)

    @Argument(help: "The server: ws://ADDRESS:PORT/PATH.")
    var url: String

    @Option(name: [.short, .long], help: "Connections.")
    var connections = 100

    @Option(name: [.short, .long], help: "Bytes of a message.")
    var size = 20

    @Option(name: [.short, .long], help: "Messages on their way per connection.")
    var depth = 1

    @Option(name: [.short, .long], help: "Seconds to measure, after a tenth as much of warming up.")
    var time = 3.0

    @Flag(name: .long, help: "Binary messages instead of text.")
    var binary = false

    @Option(name: .long, help: ArgumentHelp("Also sum the CPU time of this process and its children.", valueName: "pid"))
    var serverPid: Int32?

    func validate() throws {
        func check(_ holds: Bool, _ option: String, _ value: Any, _ wanted: String) throws {
            if !holds { throw ValidationError("\(option) \(value): it wants \(wanted)") }
        }
        try check((1...1_000_000).contains(connections), "--connections", connections, "1 to 1000000")
        try check((0...1 << 30).contains(size), "--size", size, "0 to 1073741824 bytes")
        try check((1...65536).contains(depth), "--depth", depth, "1 to 65536")
        try check(time > 0 && time <= 86_400, "--time", time, "more than 0 and at most 86400 seconds")
    }

    func run() throws {
        let target = try BenchTarget(url)
        let server = try serverPid.map { pid in
            guard let tree = ProcessTree(root: pid) else { throw ValidationError("--server-pid \(pid): no such process") }
            return tree
        }
        let load = try EchoLoad(target: target, connections: connections, size: size, depth: depth, kind: binary ? .binary : .text)
        let progress = Progress()
        try load.connect { done in progress.show("connecting: \(done) of \(connections)") }
        try load.run(for: time / 10) { _ in }
        load.reset()
        let before = server?.cpuSeconds
        let elapsed = try load.run(for: time) { left in progress.show(String(format: "measuring: %.0f s left", left)) }
        progress.clear()
        let cpu = server.flatMap { tree in before.map { tree.cpuSeconds - $0 } }
        print(BenchReport(load: load, elapsed: elapsed, cpu: cpu).text)
        load.close()
        if load.failures > 0 { throw ExitCode(1) }
    }
}

/// Where to connect, from a URL.
struct BenchTarget {
    let address: ListenAddress
    let host: String
    let path: String

    init(_ text: String) throws {
        guard let parts = URLComponents(string: text), parts.scheme == "ws", let host = parts.host, !host.isEmpty else {
            throw ValidationError("\(text): it wants ws://ADDRESS:PORT/PATH")
        }
        let port = parts.port ?? 80
        let authority = "\(host):\(port)"
        do {
            address = try ListenAddress(parsing: authority)
        } catch {
            throw ValidationError("\(text): \(error)")
        }
        self.host = port == 80 ? host : authority
        let query = parts.percentEncodedQuery.map { "?" + $0 } ?? ""
        path = (parts.percentEncodedPath.isEmpty ? "/" : parts.percentEncodedPath) + query
    }
}

/// One line on a terminal that is written over; nothing elsewhere.
final class Progress {
    private let isTerminal = isatty(2) == 1
    private var last = ContinuousClock.now - .seconds(1)

    func show(_ text: String) {
        guard isTerminal, ContinuousClock.now - last > .milliseconds(200) else { return }
        last = .now
        FileHandle.standardError.write(Data("\r\u{1B}[K\(text)".utf8))
    }

    func clear() {
        if isTerminal { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
    }
}

/// What was measured, as text.
struct BenchReport {
    let load: EchoLoad
    let elapsed: Double
    let cpu: Double?

    var text: String {
        let rate = Double(load.messages) / elapsed
        let times = load.latencies
        func micro(_ percentile: Double) -> String { String(format: "%.1f", Double(times.valueAtPercentile(percentile)) / 1000) }
        var lines = [
            String(
                format: "messages    %d in %.2f s, %.0f/s, %.1f MB/s each way", load.messages, elapsed, rate, rate * Double(load.size) / 1e6
            ),
            "latency µs  p50 \(micro(50))  p99 \(micro(99))  p99.9 \(micro(99.9))  max \(micro(100))",
        ]
        if let cpu { lines.append(String(format: "server CPU  %.3f µs per message", cpu * 1e6 / Double(max(1, load.messages)))) }
        lines.append("failures    \(load.failures)" + (load.firstFailure.map { " (\($0))" } ?? ""))
        return lines.joined(separator: "\n")
    }
}

/// The CPU time of a process and everything below it, from `/proc`.
struct ProcessTree {
    let root: Int32

    init?(root: Int32) {
        guard FileManager.default.fileExists(atPath: "/proc/\(root)") else { return nil }
        self.root = root
    }

    /// Seconds, user and system together.
    var cpuSeconds: Double { members(of: root).reduce(0) { $0 + Self.seconds($1) } }

    private func members(of pid: Int32) -> [Int32] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        let children = tasks.flatMap { task in
            Self.words("/proc/\(pid)/task/\(task)/children").compactMap { Int32($0) }
        }
        return [pid] + children.flatMap(members)
    }

    private static func seconds(_ pid: Int32) -> Double {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        return tasks.reduce(0) { $0 + (words("/proc/\(pid)/task/\($1)/schedstat").first.flatMap { Double($0) } ?? 0) / 1e9 }
    }

    private static func words(_ path: String) -> [Substring] {
        ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split { $0 == " " || $0 == "\n" }
    }
}
