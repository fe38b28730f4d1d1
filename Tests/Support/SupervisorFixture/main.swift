import ApusBus
import ApusPlatform
import ApusSupervisor
import Glibc
import Logging

/// A supervisor with workers that misbehave as the arguments say: `SupervisorFixture KEY=VALUE...`.
///
/// `workers=2 behavior=NAME heartbeat=MS start=MS drain=MS stop=MS orphan=MS grace=MS unix=PATH port=NUMBER`. The behaviours: serve,
/// crash, crash-later (all but the first process of each slot), failing (gives a reason), exit78, hang,
/// trap, silent-trap (a line on standard error, then a trap after `trap=MS`), flood and babble (the
/// control channel), silent (never ready), ignore (any command but the master's death), deaf (every
/// command); with `-once`, only slot 0's first process.
/// One event a line on standard output, log lines with the prefix `log`: `up ADDRESS...`, `ready SLOT PID GENERATION`,
/// `command SLOT NAME`, `error REASON`, `left ROW`, `ended`.
///
/// HUP: `reload=NAME` is the behaviour of the next generation, `reload=invalid` a configuration that is refused, `reload-workers=2` another
/// number of workers, `reload-port=0` one more address. USR2 starts the same program, with `upgrade=NAME` as its behaviour.
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

func work(_ worker: WorkerControl, _ behavior: String) -> Int32 {
    // Only the first process of slot 0 misbehaves, unless all shall.
    let isBad = behavior.hasSuffix("-once") ? worker.slot == 0 && worker.incarnation == 1 : true
    let kind = isBad ? behavior.replacing("-once", with: "") : "serve"
    switch kind {
    case "exit78": return 78
    case "crash": return 1
    case "crash-later" where worker.incarnation > 1: return 1
    case "failing":
        worker.reportFailure("the database is on fire")
        return 3
    default: break
    }
    do {
        let loop = try EventLoop()
        var isLeaving = false
        var acceptors: [Acceptor] = []
        try worker.attach(to: loop) { command in
            say("command \(worker.slot) \(command)")
            isLeaving = kind == "ignore" ? command == .masterDied : true
            if isLeaving, kind != "deaf" {
                for acceptor in acceptors {
                    acceptor.ready(.readable, in: loop)
                    loop.remove(acceptor, descriptor: acceptor.descriptor)
                }
                worker.closeListeners()
            }
        }
        for listener in worker.listeners {
            let acceptor = Acceptor(listener.descriptor, worker.row)
            acceptors.append(acceptor)
            try loop.add(acceptor, descriptor: listener.descriptor, for: [.readable, .exclusive])
        }
        if kind == "hang" { loop.schedule(Hang(worker.row), after: .milliseconds(10)) }
        if kind == "flood" { loop.schedule(Flood(worker), after: .milliseconds(10)) }
        if kind == "babble", let channel = worker.descriptors.last { loop.schedule(Babble(channel), after: .milliseconds(10)) }
        if kind == "silent-trap" {
            fputs("a log line\n", dlsym(nil, "stderr").assumingMemoryBound(to: UnsafeMutablePointer<FILE>.self).pointee)
            loop.schedule(SilentTrap(), after: duration("trap", 10))
        }
        if kind == "trap" { loop.schedule(Trap(), after: .milliseconds(10)) }
        if kind != "silent" { worker.reportReady() }
        say("ready \(worker.slot) \(Process.id) \(worker.incarnation)")
        worker.row.enter(.waiting)
        while !isLeaving || kind == "deaf" { try loop.turn() }
        return 0
    } catch {
        worker.reportFailure("\(error)")
        return 1
    }
}

/// A server as the arguments describe it.
final class FixtureServer: SupervisorDelegate {
    var configuration = SupervisorConfiguration(workers: arguments["workers"].flatMap { Int($0) } ?? 2)
    var addresses: [SocketAddress] = []
    let program = arguments["program"].map { [$0] + CommandLine.arguments.dropFirst() }

    init() {
        configuration.heartbeatTimeout = duration("heartbeat", 10_000)
        configuration.startTimeout = duration("start", 30_000)
        configuration.drainTimeout = duration("drain", 30_000)
        configuration.stopTimeout = duration("stop", 2_000)
        configuration.orphanTimeout = duration("orphan", 5_000)
        configuration.retirementGrace = duration("grace", 3_000)
        configuration.upgradeTimeout = duration("upgrade-timeout", 10_000)
        configuration.maxWorkers = 6
        if let path = arguments["unix"] { addresses.append(.unix(path: path)) }
        addresses.append(.ipv4(0x7F00_0001, port: arguments["port"].flatMap { UInt16($0) } ?? 0))
    }

    func spec(_ behavior: String) -> WorkerSpec {
        var spec = WorkerSpec(configuration: configuration, addresses: addresses) { work($0, behavior) }
        spec.onWorkerEnd = { mailbox, _ in say("left \(mailbox)") }
        return spec
    }

    func supervisorBecameReady(_ supervisor: Supervisor) { say("up \(Self.text(supervisor.addresses))") }

    func makeWorkerSpec() throws -> WorkerSpec {
        if arguments["reload"] == "invalid" { throw SystemError(code: 22, call: "configuration") }
        if let count = arguments["reload-workers"].flatMap({ Int($0) }) { configuration.workers = count }
        if let port = arguments["reload-port"].flatMap({ UInt16($0) }) {
            addresses = [addresses[0], .ipv4(0x7F00_0002, port: port)]
        }
        return spec(arguments["reload"] ?? "serve")
    }

    func supervisorReloaded(_ supervisor: Supervisor) { say("reloaded \(Self.text(supervisor.addresses))") }

    func setLogLevel(_ number: UInt8) -> String? { nil }

    func reopenLogs() {}

    var upgradePayload: [UInt8] { [] }

    var upgradeObstacle: String? { nil }

    func upgradeReached(_ stage: UpgradeStage) { say("upgrading \(stage)") }

    private static func text(_ addresses: [SocketAddress]) -> String {
        addresses.map(\.description).joined(separator: " ")
    }
}

do {
    let server = FixtureServer()
    let isUpgraded = Process.environment(Inheritance.channel) != nil
    let predecessor = Process.environment(Inheritance.channel).flatMap { Int32($0) }
    let inherited = Inheritance.groups(in: Process.environment(Inheritance.listeners) ?? "")
    let supervisor = try Supervisor(
        spec: server.spec((isUpgraded ? arguments["upgrade"] : nil) ?? arguments["behavior"] ?? "serve"),
        listeners: SlotListeners(slots: server.configuration.workers, inherited: inherited), delegate: server,
        logger: Logger(label: "fixture") { _ in LineHandler() }, predecessor: predecessor)
    try supervisor.run()
    say("ended")
} catch {
    say("error \(error)")
    exit(1)
}
