// A library server on default settings, as a stranger writes it: its handlers log, print, format dates, make UUIDs, throw, look for files, sleep
// and start tasks. `OrdinaryFixture FILE [threads] [connecting] [reading=PATH] [writing=PATH] [off]` writes its address to FILE; `GET /NAME`
// does what `Deed` says, in the worker, and answers with what came of it. `early-task`, `early-queue`, `start-task` and `ready-task` start
// tasks in the master, where none can run, `start-queue` a block of the main queue, and `start-thread` a thread.
import Apus
import Foundation
import FoundationNetworking
import Logging
import Synchronization

enum Deed: String, CaseIterable {
    case log, print, uuid, random, device, iso8601, formatted, dateFormatter, timeZone, localTime, locale, number, bundle, fileExists, write
    case sleep, setlocale, processInfo, environment, contents, directory, terminal, user, home, json
    case pipe, ownState, otherState, resolve
    case memory, makeFile, escape, link, fetch, thread, dispatch, delayed, source, timer, workingDirectory, directories, trap

    func done(_ exchange: HTTPExchange) -> String {
        let path = exchange.request.query.first { $0.name == "path" }?.value ?? ""
        // 2026-07-01, in summer time.
        let date = Date(timeIntervalSince1970: 1_782_864_000)
        switch self {
        case .log:
            exchange.worker.logger.notice("a notice of a handler")
            Logger(label: "stranger").info("a line of swift-log's own")
            return "logged"
        case .print:
            Swift.print("printed by a handler")
            return "printed"
        case .uuid: return (0..<4).map { _ in UUID().uuidString }.joined(separator: " ")
        case .random:
            var generator = SystemRandomNumberGenerator()
            return "\(UInt64.random(in: 0 ... .max)) \(generator.next()) \(Int.random(in: 0 ..< .max)) \([1, 2, 3].shuffled().count)"
        case .device: return FileManager.default.contents(atPath: "/dev/urandom").map { "\($0.count)" } ?? Self.device()
        case .iso8601: return ISO8601DateFormatter().string(from: date)
        case .formatted: return date.formatted(.iso8601)
        case .dateFormatter:
            let formatter = DateFormatter()
            formatter.dateFormat = "yyyy-MM-dd HH:mm zzz"
            return formatter.string(from: date)
        case .timeZone: return "\(TimeZone.current.identifier) \(TimeZone.current.secondsFromGMT(for: date))"
        case .localTime:
            var time = time_t(1_782_864_000)
            var parts = tm()
            // localtime, unlike localtime_r, looks for a new zone each time.
            if let shared = localtime(&time) { parts = shared.pointee }
            return "\(parts.tm_hour) \(parts.tm_gmtoff)"
        case .locale: return Locale.current.identifier
        case .number: return NumberFormatter().string(from: 1234.5) ?? "nothing"
        case .bundle: return Bundle.main.bundlePath.isEmpty ? "empty" : "a path"
        case .fileExists: return "\(FileManager.default.fileExists(atPath: "/etc/passwd"))"
        case .write:
            do {
                try Data("x".utf8).write(to: URL(fileURLWithPath: "/tmp/apus-ordinary"))
                return "written"
            } catch { return "refused" }
        case .sleep:
            usleep(1000)
            Thread.sleep(forTimeInterval: 0.001)
            return "slept"
        case .setlocale: return Glibc.setlocale(LC_ALL, "") == nil ? "refused" : "set"
        case .processInfo:
            return "\(ProcessInfo.processInfo.processIdentifier == getpid()) \(ProcessInfo.processInfo.activeProcessorCount > 0)"
        case .environment: return ProcessInfo.processInfo.environment["HOME"] == nil ? "none" : "some"
        case .contents: return FileManager.default.contents(atPath: path) == nil ? "refused" : "read"
        case .directory:
            return (try? FileManager.default.contentsOfDirectory(atPath: path)).map { "\($0.count)" } ?? "refused"
        case .terminal: return "\(isatty(1)) \(isatty(2))"
        case .home:
            _ = (NSUserName(), NSHomeDirectory(), FileManager.default.temporaryDirectory, UserDefaults.standard.string(forKey: "key"))
            return "survived"
        case .user: return "\(getuid() == geteuid())"
        case .json: return (try? JSONEncoder().encode(["a": 1])).map { String(decoding: $0, as: UTF8.self) } ?? "nothing"
        case .makeFile:
            let place = path
            do {
                try FileManager.default.createDirectory(atPath: place + "/new", withIntermediateDirectories: false)
                try Data("one".utf8).write(to: URL(fileURLWithPath: place + "/new/file"), options: .atomic)
                try Data("two".utf8).write(to: URL(fileURLWithPath: place + "/new/file"), options: .atomic)
                let text = try String(contentsOfFile: place + "/new/file", encoding: .utf8)
                try FileManager.default.removeItem(atPath: place + "/new")
                return text
            } catch { return "\(error)" }
        case .escape:
            // Beneath what is allowed by name, elsewhere by what it leads to.
            let place = path
            return ["/../secret", "/link", "/../../../../etc/passwd"].map { FileManager.default.contents(atPath: place + $0) == nil }
                .description
        case .link:
            let place = path
            let isLinked = symlink("/etc/passwd", place + "/made") == 0 || Glibc.link("/etc/passwd", place + "/made") == 0
            return isLinked ? "linked" : "refused"
        case .fetch: return "\(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) >= 0)"
        case .thread:
            Thread { Glibc.exit(9) }.start()
            return "went on"
        case .dispatch:
            DispatchQueue.global().async { Glibc.exit(9) }
            return "went on"
        case .delayed:
            DispatchQueue.global().asyncAfter(deadline: .now() + 0.001) { Glibc.exit(9) }
            return "went on"
        case .source:
            let source = DispatchSource.makeTimerSource(queue: .main)
            source.schedule(deadline: .now(), repeating: 0.001)
            source.setEventHandler { Glibc.exit(9) }
            source.resume()
            sources.append(source)
            return "went on"
        case .timer:
            sources.append(Timer.scheduledTimer(withTimeInterval: 0.001, repeats: true) { _ in Glibc.exit(9) })
            return "went on"
        case .pipe:
            let pipe = Pipe()
            guard (try? pipe.fileHandleForWriting.write(contentsOf: Data("x".utf8))) != nil else { return "refused" }
            return String(decoding: pipe.fileHandleForReading.readData(ofLength: 1), as: UTF8.self)
        case .ownState: return FileManager.default.contents(atPath: "/proc/self/status") == nil ? "refused" : "read"
        case .otherState:
            let parent = getppid()
            let paths = ["/proc/\(parent)/stat", "/proc/\(parent)/task/\(parent)/stat", "/proc/self/maps"]
            return paths.contains { FileManager.default.contents(atPath: $0) != nil } ? "read" : "refused"
        case .resolve:
            var list: UnsafeMutablePointer<addrinfo>?
            let code = getaddrinfo(path, nil, nil, &list)
            freeaddrinfo(list)
            return "\(code == 0) \(gethostbyname(path) != nil)"
        case .memory:
            return
                "\(ProcessInfo.processInfo.physicalMemory == UInt64(sysconf(Int32(_SC_PHYS_PAGES))) * UInt64(sysconf(Int32(_SC_PAGESIZE))))"
        case .workingDirectory: return "\(FileManager.default.currentDirectoryPath.hasPrefix("/"))"
        case .directories:
            do {
                try FileManager.default.createDirectory(atPath: "/nowhere/to/be/made", withIntermediateDirectories: true)
                return "made"
            } catch { return "refused" }
        case .trap:
            // After the handler has returned.
            Task { fatalError("trapped in a task") }
            return "went on"
        }
    }

    private static func device() -> String {
        guard let file = fopen("/dev/urandom", "r") else { return "refused" }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 16)
        return fread(&bytes, 1, 16, file) == 16 && Set(bytes).count > 1 ? "random" : "constant"
    }
}

/// Whether this runs on the thread of the worker's loop, which is the process's first.
func isOnLoop() -> Bool { Thread.isMainThread }

/// What must outlive its handler.
nonisolated(unsafe) var sources: [Any] = []

actor Counter {
    private var count = 0
    func next() -> Int {
        count += 1
        return count
    }
    func isOnLoop() -> Bool { Thread.isMainThread }
}

/// Carries an exchange of this worker's only thread into a task.
struct Carried<Value>: @unchecked Sendable { let value: Value }

final class Peer: WebSocketHandler {
    func opened(_ socket: WebSocket) {
        var on: Int32 = 1
        let isSet = setsockopt(socket.descriptor ?? -1, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4) == 0
        socket.send(text: "\(socket.peer.map { "\($0)" } ?? "nobody") \(isSet)")
    }
}

struct Mistake: Error {}
struct Forged: Error, CustomStringConvertible { var description: String { "one\n2026-01-01T00:00:00.000Z critical apus: forged" } }

/// What a thread has come to.
let result = Mutex(0)

let arguments = CommandLine.arguments.dropFirst()
let mayThread = arguments.contains("threads") || arguments.contains("off")
var server = Server()
server.workers = .count(1)
server.listen(on: .tcp("127.0.0.1", port: 0))
server.portFile = arguments.first
for argument in arguments.dropFirst() {
    let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
    switch (parts[0], parts.count) {
    case ("threads", 1): server.sandbox.allows.insert(.threads)
    case ("connecting", 1): server.sandbox.allows.insert(.connecting)
    case ("reading", 2): server.sandbox.allows.insert(.reading(parts[1]))
    case ("writing", 2): server.sandbox.allows.insert(.writing(parts[1]))
    case ("debug", 1): server.logger.logLevel = .debug
    case ("early-task", 1): Task { print("a task ran in the master") }
    case ("early-queue", 1): DispatchQueue.main.async { print("a block ran in the master") }
    case ("start-task", 1): server.onStart = { _ in Task { print("a task ran in the master") } }
    case ("ready-task", 1): server.onReady = { _, _ in for _ in 0..<3 { Task.detached { print("a task ran in the master") } } }
    case ("start-queue", 1): server.onStart = { _ in DispatchQueue.main.async { print("a block ran in the master") } }
    case ("start-thread", 1): server.onStart = { _ in Thread { DispatchSemaphore(value: 0).wait() }.start() }
    case ("early", 1): Thread { DispatchSemaphore(value: 0).wait() }.start()
    case ("off", 1): server.sandbox.mode = .off
    default: fatalError("unknown argument \(argument)")
    }
}
for deed in Deed.allCases {
    server.http(.get, at: "/" + deed.rawValue) { $0.respond(text: deed.done($0), type: "text/plain") }
}
let counter = Counter()
server.http(.get, at: "/task") { exchange in
    let exchange = Carried(value: exchange)
    Task {
        let first = await counter.next()
        async let child = counter.next()
        let sum = await first + child
        exchange.value.respond(text: "\(sum > 0)", type: "text/plain")
    }
}
server.http(.get, at: "/task-sleep") { exchange in
    let exchange = Carried(value: exchange)
    let started = ContinuousClock.now
    Task {
        // The first of two is over when the other one is cancelled, which ends it at once.
        let ends = try await withThrowingTaskGroup(of: String.self) { group in
            group.addTask { (try? await Task.sleep(for: .seconds(600))) == nil ? "cancelled" : "slept" }
            group.addTask {
                try await Task.sleep(nanoseconds: 20_000_000)
                try await Task.sleep(for: .milliseconds(20), clock: .suspending)
                return "slept"
            }
            let first = try await group.next()
            group.cancelAll()
            return [first, try await group.next()]
        }
        let isLate = ContinuousClock.now - started >= .milliseconds(40)
        exchange.value.respond(text: "\(ends.compactMap { $0 }) \(isLate)", type: "text/plain")
    }
}
server.http(.get, at: "/yield") { exchange in
    let exchange = Carried(value: exchange)
    Task.detached {
        for _ in 0..<5 { await Task.yield() }
        let stream = AsyncStream { continuation in
            Task.detached {
                for number in 0..<3 {
                    continuation.yield(number)
                    await Task.yield()
                }
                continuation.finish()
            }
        }
        let sum = await stream.reduce(0, +)
        exchange.value.respond(text: "\(sum)", type: "text/plain")
    }
}
server.http(.get, at: "/forge") { _ in throw Forged() }
server.http(.get, at: "/main-actor") { exchange in
    let exchange = Carried(value: exchange)
    Task { @MainActor in
        try await Task.sleep(for: .milliseconds(10))
        DispatchQueue.main.asyncAfter(deadline: .now() + 0.01) {
            DispatchQueue.main.asyncAfter(wallDeadline: .now() + 0.01) { exchange.value.respond(text: "later", type: "text/plain") }
        }
    }
}
server.http(.get, at: "/twice") { exchange in
    exchange.respond(text: "first")
    exchange.respond(text: "second")
}
server.http(.get, at: "/threads") { exchange in
    let exchange = Carried(value: exchange)
    DispatchQueue.global().async {
        // Work on another thread, then an answer by the worker's own.
        let sum = (1...1000).reduce(0, +)
        result.withLock { $0 = sum }
    }
    func look(_ left: Int) {
        let sum = result.withLock { $0 }
        if sum > 0 || left == 0 { return exchange.value.respond(text: "\(sum)", type: "text/plain") }
        exchange.value.worker.schedule(after: .milliseconds(5)) { look(left - 1) }
    }
    look(1000)
}
/// Ends with whether each part of a task ran on the loop's thread: the start of tasks of all kinds, and what follows their waits.
server.http(.get, at: "/task-threads") { exchange in
    let exchange = Carried(value: exchange)
    Task {
        var places = [isOnLoop()]
        try await Task.sleep(for: .milliseconds(5))
        places.append(isOnLoop())
        await Task.yield()
        places.append(isOnLoop())
        places.append(await Task.detached { isOnLoop() }.value)
        places.append(await counter.isOnLoop())
        places.append(await MainActor.run { isOnLoop() })
        // Timers of Dispatch resume it, if there are any.
        if mayThread {
            try await Task.sleep(for: .milliseconds(5), tolerance: .milliseconds(5))
            places.append(isOnLoop())
        }
        exchange.value.respond(text: "\(Set(places))", type: "text/plain")
    }
}
/// Tasks that threads start and resume, while they work.
server.http(.get, at: "/task-storm") { exchange in
    let exchange = Carried(value: exchange)
    Task {
        let sum = await withTaskGroup(of: Int.self) { group in
            for number in 0..<500 {
                group.addTask {
                    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                        DispatchQueue.global().async { continuation.resume() }
                    }
                    return isOnLoop() ? number : -1_000_000
                }
            }
            var sum = 0
            for await number in group { sum += number }
            return sum
        }
        exchange.value.respond(text: "\(sum)", type: "text/plain")
    }
}
/// Dispatch counts its running threads each second while there are some.
server.http(.get, at: "/pool") { exchange in
    let exchange = Carried(value: exchange)
    for _ in 0..<8 { DispatchQueue.global().async { Glibc.sleep(3) } }
    exchange.value.worker.schedule(after: .milliseconds(2500)) { exchange.value.respond(text: "lives", type: "text/plain") }
}
server.http(.get, at: "/url") { exchange in
    let exchange = Carried(value: exchange)
    guard let url = exchange.value.request.query.first(where: { $0.name == "path" }).flatMap({ URL(string: $0.value) }) else { return }
    let task = URLSession.shared.dataTask(with: url) { data, _, error in
        let text = data.map { String(decoding: $0, as: UTF8.self) } ?? "\(error.map { "\($0)" } ?? "nothing")"
        DispatchQueue.main.async { exchange.value.respond(text: text, type: "text/plain") }
    }
    task.resume()
}
server.webSocket("throws", at: "/throws") { _ in throw Mistake() }
server.webSocket("peer", at: "/peer") { _ in Peer() }
let state = server.workerState { _ in "a state" }
server.onWorkerStop = { worker in print("stopped with \(worker[state])") }
try server.run()
