public import Glibc

/// A process that a test has started, in a process group of its own. It and its group end with this object at the latest.
public final class ChildProcess: @unchecked Sendable {
    public enum End: Equatable, Sendable, CustomStringConvertible {
        case exited(Int32)
        case signalled(Int32)

        public var description: String {
            switch self {
            case .exited(let status): "exit status \(status)"
            case .signalled(let signal): "signal \(signal)"
            }
        }
    }

    public let pid: pid_t
    private let directory: TemporaryDirectory
    private var end: End?

    /// Starts `arguments[0]`, looked up in PATH if it has no slash.
    ///
    /// - Parameters:
    ///   - directory: where it runs.
    ///   - environment: set besides what this process has.
    public init(_ arguments: [String], in directory: String? = nil, environment: [String: String] = [:]) throws {
        let output = try TemporaryDirectory()
        self.directory = output
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, output.path + "/stdout", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, output.path + "/stderr", O_WRONLY | O_CREAT | O_APPEND, 0o600)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var variables = Self.environment
        variables.merge(environment) { $1 }
        // posix_spawn has no portable way to change the directory; env(1) execs.
        let command = (directory.map { ["env", "-C", $0] } ?? []) + arguments
        var argv = command.map { strdup($0) } + [nil]
        var envp = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in argv + envp { free(text) } }
        var pid = pid_t()
        let code = posix_spawnp(&pid, command[0], &actions, &attributes, &argv, &envp)
        guard code == 0 else { throw TestFailure.call("cannot start \(arguments[0])", code) }
        self.pid = pid
    }

    deinit { kill() }

    private static var environment: [String: String] {
        var result: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
            entry += 1
        }
        return result
    }

    // MARK: What it does

    /// What it has written so far.
    public var standardOutput: String { Files.text(directory.path + "/stdout") ?? "" }
    public var standardError: String { Files.text(directory.path + "/stderr") ?? "" }

    /// Nil while it runs.
    public var hasEnded: End? {
        if let end { return end }
        var status: Int32 = 0
        guard waitpid(pid, &status, WNOHANG) == pid else { return nil }
        let signal = status & 0x7f
        end = signal == 0 ? .exited(status >> 8 & 0xff) : .signalled(signal)
        return end
    }

    /// Waits for its end.
    public func wait(within duration: Duration) throws -> End {
        if Deadline(after: duration).wait(until: { hasEnded != nil }), let end { return end }
        throw TestFailure("process \(pid) still runs after \(duration); its standard error:\n\(standardError)")
    }

    public func signal(_ signal: Int32) { if hasEnded == nil { Glibc.kill(pid, signal) } }

    /// The processes of its group that live: it and what it has forked.
    public var group: [ProcessTable.Entry] { ProcessTable.group(pid) }

    /// Ends it and its group, at once.
    public func kill() {
        let others = group.map(\.pid)
        for other in others { Glibc.kill(other, SIGKILL) }
        if hasEnded == nil { Glibc.kill(pid, SIGKILL) }
        _ = Deadline(after: .seconds(5)).wait { hasEnded != nil }
    }
}

/// What /proc says of processes.
public enum ProcessTable {
    public struct Entry: Sendable {
        public let pid: pid_t
        public let parent: pid_t
        public let group: pid_t
        /// As in ps: R, S, T …
        public let state: Character

        /// By a signal; strace's children are t then.
        public var isStopped: Bool { state == "T" || state == "t" }
        /// It has ended, whether or not anybody has reaped it.
        public var isDead: Bool { state == "Z" || state == "X" }
    }

    public static func entry(_ pid: pid_t) -> Entry? {
        // The name, in parentheses, may hold anything: what counts stands behind the last one.
        guard let line = Files.text("/proc/\(pid)/stat"), let end = line.lastIndex(of: ")") else { return nil }
        let fields = line[line.index(after: end)...].split(separator: " ")
        guard fields.count > 3, let parent = pid_t(fields[1]), let group = pid_t(fields[2]), let state = fields[0].first else {
            return nil
        }
        return Entry(pid: pid, parent: parent, group: group, state: state)
    }

    /// The living members of a process group; the dead that nobody has reaped do not count.
    public static func group(_ group: pid_t) -> [Entry] {
        Files.names(in: "/proc").compactMap { pid_t($0) }.compactMap(entry).filter {
            $0.group == group && !$0.isDead
        }
    }

    /// The living children of a process.
    public static func children(of parent: pid_t) -> [Entry] {
        Files.names(in: "/proc").compactMap { pid_t($0) }.compactMap(entry).filter {
            $0.parent == parent && !$0.isDead
        }
    }

    /// The kinds of a process's open descriptors, sorted.
    public static func descriptors(of pid: pid_t) -> [String] {
        Files.names(in: "/proc/\(pid)/fd").map { name in
            let target = Files.link("/proc/\(pid)/fd/\(name)") ?? ""
            return target.hasPrefix("anon_inode") ? target : String(target.prefix { $0 != ":" })
        }.sorted()
    }

    public static func descriptorCount(of pid: pid_t) -> Int { Files.names(in: "/proc/\(pid)/fd").count }

    /// How often it has given up the processor to wait for something, its first thread.
    public static func waits(of pid: pid_t) -> Int? {
        let line = (Files.text("/proc/\(pid)/status") ?? "").split(separator: "\n").first { $0.hasPrefix("voluntary_ctxt_switches:") }
        return line?.split(separator: "\t").last.flatMap { Int($0) }
    }

    /// The number of the system call that its first thread is in, or was stopped in; nil outside of any.
    public static func systemCall(of pid: pid_t) -> Int? {
        Files.text("/proc/\(pid)/syscall")?.split(separator: " ").first.flatMap { Int($0) }
    }

    /// Whether a signal to the process waits to be taken.
    public static func hasPending(_ signal: Int32, _ pid: pid_t) -> Bool {
        guard let line = (Files.text("/proc/\(pid)/status") ?? "").split(separator: "\n").first(where: { $0.hasPrefix("ShdPnd:") }),
            let mask = line.split(separator: "\t").last.flatMap({ UInt64($0, radix: 16) })
        else { return false }
        return mask & (1 << UInt64(signal - 1)) != 0
    }

    /// Time on a CPU since its start, of its first thread.
    public static func processorTime(_ pid: pid_t) throws -> Duration {
        guard let text = Files.text("/proc/\(pid)/schedstat"), let nanoseconds = text.split(separator: " ").first.flatMap({ Int64($0) })
        else {
            throw TestFailure("no schedstat of \(pid)")
        }
        return .nanoseconds(nanoseconds)
    }

    /// Memory that the process has written and no other shares, in bytes. Clean pages are the page cache's: those of a library become
    /// "private" whenever the last other process that uses them ends.
    public static func privateBytes(_ pid: pid_t) throws -> Int {
        guard let text = Files.text("/proc/\(pid)/smaps_rollup") else { throw TestFailure("no smaps_rollup of \(pid)") }
        return text.split(separator: "\n").filter { $0.hasPrefix("Private_Dirty:") }
            .compactMap { line in line.split(separator: " ").dropFirst().first.flatMap { Int($0) } }.reduce(0, +) * 1024
    }
}
