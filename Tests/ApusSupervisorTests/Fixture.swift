import ApusPlatform
import ApusSupervisor
import Glibc
import Testing
import TestSupport

/// A running `SupervisorFixture` and what it has said so far. Everything waits for a condition with a deadline.
final class Fixture {
    let pid: Int32
    private(set) var lines: [String] = []
    private let output: Int32
    private var partial: [UInt8] = []
    private(set) var isAtEnd = false
    private var reaped: ProcessEnd?

    static let path = Places.besideTests("SupervisorFixture")

    convenience init(_ arguments: String..., environment: [String] = []) throws {
        try self.init(arguments: arguments, environment: environment)
    }

    init(arguments: [String], environment: [String] = []) throws {
        let path = Self.path
        var pipeEnds: [Int32] = [-1, -1]
        try #require(pipe(&pipeEnds) == 0)
        for end in pipeEnds { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, pipeEnds[1], 1)
        posix_spawn_file_actions_adddup2(&actions, pipeEnds[1], 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        // A group of its own: a failed test takes the workers with it.
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        var argv = ([path] + arguments).map { strdup($0) } + [nil]
        var variables = environment.map { strdup($0) } + [nil]
        defer { for text in argv + variables { free(text) } }
        var child: Int32 = 0
        let status = posix_spawn(&child, path, &actions, &attributes, &argv, &variables)
        close(pipeEnds[1])
        output = pipeEnds[0]
        pid = child
        guard status == 0 else { throw SystemError(code: status, call: "posix_spawn") }
    }

    deinit {
        kill(-pid, SIGKILL)
        if reaped == nil { _ = Process.killAndReap(pid) }
        close(output)
    }

    func signal(_ signal: Int32) { kill(pid, signal) }

    /// The first line that fits and was not asked for before, waiting for it.
    func line(_ prefix: String, within seconds: Int = 10, from start: Int = 0) -> String? {
        let deadline = MonotonicTime.now() + .seconds(seconds)
        var next = start
        while true {
            while next < lines.count {
                if lines[next].hasPrefix(prefix) { return lines[next] }
                next += 1
            }
            guard !isAtEnd, read(until: deadline) else { return nil }
        }
    }

    /// Pids by slot, as of the latest `ready` lines, once slot `slot` has reached `generation`.
    func pid(ofSlot slot: Int, generation: Int, within seconds: Int = 10) -> Int32? {
        let deadline = MonotonicTime.now() + .seconds(seconds)
        while true {
            for line in lines where line.hasPrefix("ready \(slot) ") {
                let words = line.split(separator: " ")
                if words.last == "\(generation)" { return Int32(words[2]) }
            }
            guard !isAtEnd, read(until: deadline) else { return nil }
        }
    }

    /// Waits until nobody holds the output any more: master and workers are gone. False at the deadline.
    func everybodyGone(within seconds: Int) -> Bool {
        let deadline = MonotonicTime.now() + .seconds(seconds)
        while !isAtEnd { guard read(until: deadline) else { return false } }
        return true
    }

    /// How the master ended; call it when everybody is gone.
    func masterEnd() -> ProcessEnd? {
        let deadline = MonotonicTime.now() + .seconds(10)
        while reaped == nil, MonotonicTime.now() < deadline {
            reaped = Process.reap(pid)
            if reaped == nil { sched_yield() }
        }
        return reaped
    }

    /// Lets time pass, where time itself is the condition, and reads on meanwhile.
    func listen(milliseconds: Int) {
        let deadline = MonotonicTime.now() + .milliseconds(milliseconds)
        while !isAtEnd, read(until: deadline) {}
    }

    /// The address after `up`, the last one given.
    func address() throws -> SocketAddress {
        let up = try #require(line("up "))
        let port = try #require(up.split(separator: ":").last.flatMap { UInt16($0) })
        return .ipv4(0x7F00_0001, port: port)
    }

    func count(_ prefix: String) -> Int { lines.count { $0.hasPrefix(prefix) } }

    /// Takes what has been written; false when the deadline came first.
    private func read(until deadline: MonotonicTime) -> Bool {
        var waiting = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
        let left = Int32(clamping: deadline.millisecondsSince(.now()))
        guard poll(&waiting, 1, left) == 1 else { return false }
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(output, &buffer, buffer.count)
        guard count > 0 else {
            isAtEnd = true
            return true
        }
        partial += buffer[..<count]
        while let newline = partial.firstIndex(of: 10) {
            lines.append(String(decoding: partial[..<newline], as: UTF8.self))
            partial.removeSubrange(...newline)
        }
        return true
    }
}
