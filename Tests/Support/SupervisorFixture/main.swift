import ApusBus
import ApusPlatform
import ApusSupervisor
import Glibc
import Logging

/// A supervisor with workers that misbehave as the arguments say: `SupervisorFixture KEY=VALUE...`.
///
/// `workers=2 behavior=NAME heartbeat=MS start=MS drain=MS stop=MS orphan=MS unix=PATH port=NUMBER`. The behaviours: serve,
/// crash, crash-later (all but the first process of each slot), failing (gives a reason), exit78, hang, trap, silent (never
/// ready), ignore (any command but the master's death), deaf (every command); with `-once`, only slot 0's first process.
/// One event a line on standard output, log lines with the prefix `log`: `up ADDRESS...`, `ready SLOT PID GENERATION`,
/// `command SLOT NAME`, `error REASON`, `ended`.
let arguments = Dictionary(
    uniqueKeysWithValues: CommandLine.arguments.dropFirst().map { argument in
        let parts = argument.split(separator: "=", maxSplits: 1)
        return (String(parts[0]), String(parts[1]))
    })

func duration(_ key: String, _ otherwise: Int) -> Duration { .milliseconds(arguments[key].flatMap { Int($0) } ?? otherwise) }

func say(_ line: String) { try? FileSystem.writeAll(1, line + "\n") }

/// Log lines, one write each, so that those of several processes do not mix.
struct LineHandler: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .debug
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) { say("log \(event.level): \(event.message)") }
}

func work(_ worker: Worker) -> Int32 {
    let behavior = arguments["behavior"] ?? "serve"
    // Only the first process of slot 0 misbehaves, unless all shall.
    let isBad = behavior.hasSuffix("-once") ? worker.slot == 0 && worker.generation == 1 : true
    let kind = isBad ? behavior.replacing("-once", with: "") : "serve"
    switch kind {
    case "exit78": return 78
    case "crash": return 1
    case "crash-later" where worker.generation > 1: return 1
    case "failing":
        worker.reportFailure("the database is on fire")
        return 3
    default: break
    }
    do {
        let loop = try EventLoop()
        var isLeaving = false
        try worker.attach(to: loop) { command in
            say("command \(worker.slot) \(command)")
            isLeaving = kind == "ignore" ? command == .masterDied : true
        }
        for listener in worker.listeners {
            try loop.add(Acceptor(listener, worker.row), descriptor: listener, for: [.readable, .exclusive])
        }
        if kind == "hang" { loop.schedule(Hang(worker.row), after: .milliseconds(10)) }
        if kind == "trap" { loop.schedule(Trap(), after: .milliseconds(10)) }
        if kind != "silent" { worker.reportReady() }
        say("ready \(worker.slot) \(Process.id) \(worker.generation)")
        worker.row.enter(.waiting)
        while !isLeaving || kind == "deaf" { try loop.turn() }
        return 0
    } catch {
        worker.reportFailure("\(error)")
        return 1
    }
}

do {
    var configuration = SupervisorConfiguration(workers: arguments["workers"].flatMap { Int($0) } ?? 2)
    configuration.heartbeatTimeout = duration("heartbeat", 10_000)
    configuration.startTimeout = duration("start", 30_000)
    configuration.drainTimeout = duration("drain", 30_000)
    configuration.stopTimeout = duration("stop", 2_000)
    configuration.orphanTimeout = duration("orphan", 5_000)
    configuration.restartAttempts = 3
    var addresses: [SocketAddress] = []
    if let path = arguments["unix"] { addresses.append(.unix(path: path)) }
    addresses.append(.ipv4(0x7F00_0001, port: arguments["port"].flatMap { UInt16($0) } ?? 0))
    let listeners = try SlotListeners(addresses: addresses, slots: configuration.workers)
    let supervisor = try Supervisor(
        configuration: configuration, listeners: listeners, logger: Logger(label: "fixture") { _ in LineHandler() },
        runWorker: work)
    supervisor.whenAllReady = { say("up \($0.map(\.description).joined(separator: " "))") }
    try supervisor.run()
    say("ended")
} catch {
    say("error \(error)")
    exit(1)
}
