import Glibc
import TestSupport
import Testing

/// A socket such as a service manager gives to its services.
private final class NotifySocket: @unchecked Sendable {
    let path: String
    private let descriptor: Int32
    private let directory: TemporaryDirectory
    private(set) var messages: [String] = []

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.path + "/notify"
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard result == 0 else { throw TestFailure.call("bind") }
    }

    deinit { close(descriptor) }

    /// Waits for a message with this line.
    func says(_ line: String, after count: Int = 0, within duration: Duration = .seconds(10)) -> Bool {
        Deadline(after: duration).wait {
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = recv(descriptor, &buffer, buffer.count, 0)
                guard count > 0 else { break }
                messages.append(String(decoding: buffer[..<count], as: UTF8.self))
            }
            return messages.dropFirst(count).contains { $0.split(separator: "\n").contains { $0.hasPrefix(line) } }
        }
    }
}

extension Integration {
    @Suite("The service manager")
    struct ServiceManager {
        private func server(_ socket: NotifySocket, _ arguments: [String] = [], _ environment: [String: String] = [:]) throws
            -> ChildProcess
        {
            var variables = environment
            variables["NOTIFY_SOCKET"] = socket.path
            return try ChildProcess(
                [Places.command, "serve", "--workers", "2", "--listen", "127.0.0.1:0"] + arguments, environment: variables)
        }

        @Test("READY when all accept, RELOADING and READY around a reload, STATUS with figures, STOPPING")
        func notifies() throws {
            let socket = try NotifySocket()
            let process = try server(socket)
            #expect(socket.says("READY=1"))
            #expect(socket.messages.last?.contains("STATUS=2 of 2 workers ready, 0 connections open") == true)
            let count = socket.messages.count
            process.signal(SIGHUP)
            #expect(socket.says("RELOADING=1", after: count))
            #expect(socket.says("MONOTONIC_USEC=", after: count))
            #expect(socket.says("READY=1", after: count))
            let ended = socket.messages.count
            process.signal(SIGTERM)
            #expect(socket.says("STOPPING=1", after: ended))
            #expect(try process.wait(within: .seconds(5)) == .exited(0))
        }

        @Test("STATUS says how many workers have died of what, and the log what each took with it")
        func deaths() throws {
            let socket = try NotifySocket()
            let process = try server(socket)
            #expect(socket.says("READY=1"))
            let port = try #require(process.standardError.firstMatch(of: /127\.0\.0\.1:(\d+)/).flatMap { UInt16($0.output.1) })
            let client = try RawClient(port: port)
            let pid = try #require(client.request("GET /worker").text.firstMatch(of: /"pid":(\d+)/).flatMap { pid_t($0.output.1) })
            #expect(socket.says("STATUS=2 of 2 workers ready, 1 connections open, 1 accepted"))
            kill(pid, SIGKILL)
            #expect(socket.says("STATUS=2 of 2 workers ready, 0 connections open, 1 accepted; died: 1 killed"))
            #expect(process.standardError.contains("(pid \(pid)) ended: killed by SIGKILL after"))
            #expect(process.standardError.contains(" connections=1 killed=1"), "\(process.standardError)")
            withExtendedLifetime(client) {}
        }

        @Test("a server whose workers cannot start is never READY")
        func neverReady() throws {
            let socket = try NotifySocket()
            let process = try server(socket, ["--listen", "203.0.113.1:1"])
            #expect(try process.wait(within: .seconds(5)) == .exited(78))
            #expect(!socket.says("READY=1", within: .milliseconds(50)))
        }

        @Test("WATCHDOG while hearts beat; not when it is meant for another process")
        func watchdog() throws {
            let socket = try NotifySocket()
            let file = try TemporaryDirectory()
            try Files.write(Array("limits:\n  heartbeatTimeout: 60 s\n".utf8), to: file.path + "/c")
            let process = try server(socket, ["-c", file.path + "/c"], ["WATCHDOG_USEC": "300000"])
            #expect(socket.says("READY=1"))
            #expect(socket.says("WATCHDOG=1", after: socket.messages.count))
            #expect(socket.says("WATCHDOG=1", after: socket.messages.count))
            #expect(try process.stopped() == .exited(0))

            // For another process: none of ours.
            let other = try server(socket, [], ["WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"])
            let count = socket.messages.count
            #expect(socket.says("READY=1", after: count))
            #expect(!socket.says("WATCHDOG=1", after: socket.messages.count, within: .milliseconds(400)))
            #expect(try other.stopped() == .exited(0))
        }

        @Test("no WATCHDOG while a worker that should serve has an old heartbeat: it is told again when the worker is replaced")
        func staleHeart() throws {
            let socket = try NotifySocket()
            let file = try TemporaryDirectory()
            try Files.write(Array("limits:\n  heartbeatTimeout: 1 s\n".utf8), to: file.path + "/c")
            let process = try server(socket, ["-c", file.path + "/c"], ["WATCHDOG_USEC": "300000"])
            #expect(socket.says("WATCHDOG=1"))
            let stopped = try #require(process.group.first { $0.parent == process.pid }?.pid)
            // As when the machine was suspended: the master has looked late, so the worker has its time anew before it is replaced. Nobody has
            // seen it turn since, and the service manager, which can do more than we, is told so.
            let started = ContinuousClock.now
            kill(stopped, SIGSTOP)
            process.signal(SIGSTOP)
            #expect(Deadline(after: .seconds(10)).wait { ContinuousClock.now - started > .milliseconds(3_300) })
            _ = socket.says("nothing more", within: .zero)
            let count = socket.messages.count
            process.signal(SIGCONT)
            #expect(!socket.says("WATCHDOG=1", after: count, within: .milliseconds(700)))
            #expect(socket.says("WATCHDOG=1", after: count), "\(process.standardError)")
            #expect(process.standardError.contains("(pid \(stopped)) hangs: no heartbeat for "), "\(process.standardError)")
            #expect(try process.stopped() == .exited(0))
        }

        @Test("no WATCHDOG while no worker serves", .enabled(if: geteuid() == 0))
        func nobodyServes() throws {
            let socket = try NotifySocket()
            let place = try TemporaryDirectory()
            let (root, elsewhere) = (place.path + "/root", place.path + "/elsewhere")
            mkdir(root, 0o755)
            let process = try server(socket, ["--workers", "1", "--chroot", root], ["WATCHDOG_USEC": "150000"])
            #expect(socket.says("WATCHDOG=1"))
            // A worker that cannot enter its sandbox is tried again later each time.
            rename(root, elsewhere)
            for worker in process.group where worker.parent == process.pid { kill(worker.pid, SIGKILL) }
            let isAway = Deadline(after: .seconds(20)).wait {
                let last = process.standardError.matches(of: /starting the next in (\d+) ms/).last
                return last.flatMap { Int($0.output.1) }.map { $0 >= 800 } ?? false
            }
            #expect(isAway, "\(process.standardError)")
            _ = socket.says("nothing more", within: .zero)
            let count = socket.messages.count
            #expect(!socket.says("WATCHDOG=1", after: count, within: .milliseconds(400)))
            rename(elsewhere, root)
            #expect(socket.says("WATCHDOG=1", after: count, within: .seconds(20)))
            #expect(try process.stopped() == .exited(0))
        }

        @Test("USR2: the new program is the main process")
        func mainProcess() throws {
            let socket = try NotifySocket()
            let process = try server(socket)
            #expect(socket.says("READY=1"))
            let count = socket.messages.count
            process.signal(SIGUSR2)
            #expect(socket.says("MAINPID=", after: count))
            #expect(try process.wait(within: .seconds(10)) == .exited(0))
            let pid = socket.messages.compactMap { $0.firstMatch(of: /MAINPID=(\d+)/).flatMap { pid_t($0.output.1) } }.last
            let next = try #require(pid)
            #expect(next != process.pid && kill(next, SIGTERM) == 0)
            #expect(Deadline(after: .seconds(5)).wait { process.group.isEmpty })
        }

        @Test("sockets that are passed are served, several for one address too, and survive a reload and an upgrade")
        func activation() throws {
            let script = """
                import os, socket, sys
                a = socket.socket(); a.bind(("127.0.0.1", 0)); a.listen(64)
                b = socket.socket(); b.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); b.bind(("127.0.0.1", 0)); b.listen(64)
                c = socket.socket(); c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); c.bind(b.getsockname()); c.listen(64)
                kept = [os.dup(s.fileno()) for s in (a, b, c)]
                for place, number in enumerate(kept): os.dup2(number, 3 + place, True)
                os.closerange(6, 64)
                os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="one:two:three")
                os.execv(sys.argv[1], sys.argv[1:])
                """
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            let process = try ChildProcess(
                [
                    "/usr/bin/python3", "-c", script, Places.command, "serve", "--workers", "3", "--port-file", ports, "--pid-file",
                    place.path + "/pid",
                ])
            #expect(Deadline(after: .seconds(20)).wait { Files.exists(ports) }, "\(process.standardError)")
            let numbers = (Files.text(ports) ?? "").split(separator: "\n").compactMap {
                $0.split(separator: ":").last.flatMap { UInt16($0) }
            }
            #expect(numbers.count == 2)
            func served() throws {
                for port in numbers {
                    for _ in 0..<40 { #expect(try RawClient(port: port).request("GET /worker").status == 200) }
                }
            }
            try served()
            process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(10)).wait { process.standardError.contains("generation 1 serves") })
            try served()
            process.signal(SIGUSR2)
            #expect(try process.wait(within: .seconds(10)) == .exited(0))
            try served()
            let next = try #require(Files.text(place.path + "/pid").flatMap { pid_t($0.dropLast()) })
            #expect(next != process.pid)
            kill(next, SIGTERM)
            #expect(Deadline(after: .seconds(5)).wait { process.group.isEmpty })
            #expect(!Files.exists(place.path + "/pid") && !Files.exists(place.path + "/pid.oldbin"))
        }

        @Test("a passed descriptor that does not listen is an error with its name")
        func notListening() throws {
            let process = try ChildProcess([
                "/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" serve 3</dev/null", Places.command,
            ])
            #expect(try process.wait(within: .seconds(5)) == .exited(78))
            #expect(process.standardError.contains("descriptor 3 (web) of LISTEN_FDS is not a listening stream socket"))
        }

        @Test("a second instance with the pid file of one that runs does not start; the file of one that was killed is taken")
        func pidFile() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/pid"
            let first = try ApusServer(workers: 1, "--pid-file", file)
            let second = try ChildProcess([Places.command, "serve", "--listen", "127.0.0.1:0", "--pid-file", file])
            #expect(try second.wait(within: .seconds(5)) == .exited(78))
            #expect(second.standardError.contains("process \(first.process.pid) is already running"))
            #expect(Files.text(file) == "\(first.process.pid)\n")
            first.process.signal(SIGKILL)
            _ = try first.process.wait(within: .seconds(5))
            let third = try ApusServer(workers: 1, "--pid-file", file)
            #expect(Files.text(file) == "\(third.process.pid)\n")
        }

        @Test("ps tells master, workers and those that drain")
        func titles() throws {
            let server = try ApusServer(workers: 2)
            func title(_ pid: pid_t) -> String { (Files.text("/proc/\(pid)/cmdline") ?? "").replacing("\0", with: "") }
            #expect(title(server.process.pid) == "apus: master")
            #expect(Set(server.workers.map(title)) == ["apus: worker 0", "apus: worker 1"])
            let client = try server.connect()
            try client.upgrade()
            let old = Set(server.workers)
            server.process.signal(SIGHUP)
            let isSeen = Deadline(after: .seconds(5)).wait { old.contains { title($0).hasSuffix(" (draining)") } }
            #expect(isSeen)
            #expect(try client.frame().closeCode == 1012)
        }
    }
}

extension ChildProcess {
    /// Stops it and gives how it ended.
    fileprivate func stopped() throws -> End {
        signal(SIGTERM)
        return try wait(within: .seconds(5))
    }
}
