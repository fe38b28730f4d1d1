import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("Sandbox")
    struct Sandboxed {
        // MARK: What a worker is

        /// The fields of /proc/PID/status.
        private static func status(of pid: pid_t) throws -> [String: String] {
            let text = try #require(Files.text("/proc/\(pid)/status"))
            let pairs = text.split(separator: "\n").compactMap { line -> (String, String)? in
                guard let colon = line.firstIndex(of: ":") else { return nil }
                let value = line[line.index(after: colon)...].split(whereSeparator: { " \t".contains($0) }).joined(separator: " ")
                return (String(line[..<colon]), value)
            }
            return Dictionary(pairs) { first, _ in first }
        }

        /// What a process has open: where each descriptor leads, by its number; of a socket only that it is one.
        private static func descriptors(of pid: pid_t) -> [Int: String] {
            let pairs = Files.names(in: "/proc/\(pid)/fd").compactMap { name -> (Int, String)? in
                guard let number = Int(name), let target = Files.link("/proc/\(pid)/fd/\(name)") else { return nil }
                return (number, target.hasPrefix("socket:") ? "socket" : target)
            }
            return Dictionary(pairs) { first, _ in first }
        }

        @Test(
            "every worker is nobody: no rights, no groups, no children, no core, no new privileges, a filter",
            .enabled(if: geteuid() == 0))
        func identity() throws {
            let server = try ApusServer(workers: 3)
            let nobody = try run(["id", "-u", "nobody"]).split(separator: "\n")[0]
            #expect(server.workers.count == 3)
            for worker in server.workers {
                let status = try Self.status(of: worker)
                #expect(status["Seccomp"] == "2")
                #expect(status["NoNewPrivs"] == "1")
                for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] { #expect(status[set] == "0000000000000000", "\(set)") }
                #expect(status["Groups"] == "")
                #expect(status["Uid"] == [String](repeating: String(nobody), count: 4).joined(separator: " "))
                #expect(status["Gid"]?.split(separator: " ").contains("0") == false)
                // Who is not dumpable belongs to root in /proc.
                var information = stat()
                #expect(stat("/proc/\(worker)/mem", &information) == 0 && information.st_uid == 0)
                let limits = try #require(Files.text("/proc/\(worker)/limits"))
                for limit in ["Max processes", "Max core file size"] {
                    let line = try #require(limits.split(separator: "\n").first { $0.hasPrefix(limit) })
                    #expect(line.dropFirst(limit.count).split(separator: " ").prefix(2) == ["0", "0"], "\(line)")
                }
            }
        }

        @Test("a worker writes no file, unless its log is one", arguments: [true, false])
        func fileSize(logsToFile: Bool) throws {
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            let output = logsToFile ? "2>\(place.path)/log" : "2>&1 | cat"
            let process = try ChildProcess([
                "sh", "-c",
                "\"$0\" serve --workers 1 --listen 127.0.0.1:0 --port-file \(ports) --pid-file \(place.path)/pid >/dev/null \(output)",
                Places.command,
            ])
            #expect(Deadline(after: .seconds(20)).wait { Files.exists(ports) || process.hasEnded != nil }, "\(process.standardError)")
            let master = try #require(Files.text(place.path + "/pid").flatMap { pid_t($0.dropLast()) })
            let worker = try #require(ProcessTable.children(of: master).first?.pid)
            let limits = try #require(Files.text("/proc/\(worker)/limits"))
            let line = try #require(limits.split(separator: "\n").first { $0.hasPrefix("Max file size") })
            #expect(line.dropFirst("Max file size".count).split(separator: " ")[0] == (logsToFile ? "unlimited" : "0"))
        }

        @Test("a worker has what is declared open, and nothing that the master had besides")
        func descriptors() throws {
            let place = try TemporaryDirectory()
            try Files.write("page".utf8, to: place.path + "/index.html")
            try Files.write("SECRET".utf8, to: place.path + "/secret")
            let ports = place.path + "/ports"
            // Descriptor 9 comes from whoever starts the server.
            let process = try ChildProcess([
                "sh", "-c", "exec 9<\(place.path)/secret; exec \"$@\"", "sh", Places.command, "serve", "--workers", "2", "--listen",
                "127.0.0.1:0", "--root", place.path, "--port-file", ports,
            ])
            let isUp = Deadline(after: .seconds(20)).wait { Files.exists(ports) || process.hasEnded != nil }
            #expect(isUp && process.hasEnded == nil, "\(process.standardError)")
            #expect(Self.descriptors(of: process.pid)[9] == place.path + "/secret")
            for worker in process.group where worker.parent == process.pid {
                let open = Self.descriptors(of: worker.pid)
                let kinds = Dictionary(open.filter { $0.key > 2 }.map { ($0.value, 1) }, uniquingKeysWith: +)
                // The loop, its spare for when there is no other, and the one that Dispatch gets; what takes a listener's place when the master
                // dies.
                let counted: Set<String> = ["socket", "anon_inode:[eventfd]"]
                #expect(
                    kinds.filter { !counted.contains($0.key) } == [
                        "anon_inode:[eventpoll]": 3, "anon_inode:[signalfd]": 1, "/dev/null": 1, place.path: 1,
                    ], "\(open)")
                // The listener and the control channel, where it reads its mailbox, and where each mailbox is written; the loop's own waker, and one
                // for each mailbox; and Dispatch's, for its main queue and for its own loop.
                let (sockets, wakers) = (kinds["socket"] ?? 0, kinds["anon_inode:[eventfd]"] ?? 0)
                #expect(wakers > 2 && sockets - 3 == wakers - 3, "\(open)")
            }
        }

        @Test("--chroot: the workers' root is another, and files are served still", .enabled(if: geteuid() == 0))
        func root() throws {
            let place = try TemporaryDirectory()
            let jail = place.path + "/jail"
            guard mkdir(jail, 0o755) == 0 else { throw TestFailure.call("mkdir") }
            try Files.write("page".utf8, to: place.path + "/index.html")
            let server = try ApusServer(workers: 1, "--chroot", jail, "--root", place.path)
            #expect(Files.link("/proc/\(try #require(server.workers.first))/root") == jail)
            #expect(try server.connect().request("GET /index.html").text == "page")
        }

        @Test("--user and --group by name and by number", .enabled(if: geteuid() == 0), arguments: ["daemon:sys", "1:3", "65534:"])
        func user(text: String) throws {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            let server = try ApusServer(options: ["--user", parts[0]] + (parts[1].isEmpty ? [] : ["--group", parts[1]]))
            let status = try Self.status(of: try #require(server.workers.first))
            let (user, group) = parts[1].isEmpty ? ("65534", "65534") : ("1", "3")
            #expect(status["Uid"] == "\(user) \(user) \(user) \(user)")
            #expect(status["Gid"] == "\(group) \(group) \(group) \(group)")
            #expect(status["Groups"] == "")
        }

        // MARK: The self-test

        @Test("--sandbox-selftest: every attempt goes as wanted, with all layers and without each")
        func selfTest() throws {
            let output = try run([Places.command, "serve", "--sandbox-selftest"])
            let lines = output.split(separator: "\n")
            for line in lines.dropLast() { #expect(line.hasPrefix("ok   "), "\(line)") }
            #expect(try #require(lines.last).hasSuffix(" attempts, 0 unexpected results"))
            let whole = lines.filter { $0.contains(", all layers: ") }
            let allowed = whole.filter { $0.contains("expected allowed") }
            let permitted = [
                "threads: start a thread", "threads: list the threads", "connecting: a pair of stream sockets", "reading: read a file",
                "writing: create and rename", "connecting: a TCP socket",
            ]
            let possible = ["a mounted root", "send on", "with the master's orders", "a pipe"] + permitted
            #expect(allowed.count == possible.count)
            #expect(allowed.allSatisfy { line in possible.contains { line.contains($0) } })
            let forbidden = [
                "/etc/passwd", "a key by its path", "create a file", "unlink", "Unix socket", "netlink", "packet", "bind", "connect",
                "listen",
                "execve", "execveat", "clone", "ptrace", "memory,", "descriptor of the master", "signal the master",
                "write and execute", "executable", "setuid(0)", "unshare", "mount", "chroot", "bpf", "io_uring_setup", "userfaultfd",
                "keyctl",
                "int 0x80",
            ]
            for name in forbidden { #expect(whole.contains { $0.contains(name) && $0.contains("expected refused") }, "\(name)") }
        }

        // MARK: Deaths

        struct Death: Sendable, CustomTestStringConvertible {
            let path: String
            let text: String
            var kind = ""
            var testDescription: String { path }
        }

        @Test(
            "a worker's death is logged for what it was, counted, and followed by another worker",
            arguments: [
                Death(path: "/call/execve", text: "sandbox-violation: execve after", kind: "sandbox-violation=1"),
                Death(path: "/call/ptrace", text: "sandbox-violation: ptrace after", kind: "sandbox-violation=1"),
                Death(path: "/call/bpf", text: "sandbox-violation: bpf after", kind: "sandbox-violation=1"),
                Death(path: "/call/listen", text: "sandbox-violation: listen after", kind: "sandbox-violation=1"),
                Death(path: "/do/writableCode", text: "sandbox-violation: mmap after", kind: "sandbox-violation=1"),
                Death(path: "/do/executableCode", text: "sandbox-violation: mprotect after", kind: "sandbox-violation=1"),
                Death(path: "/do/terminate", text: "sandbox-violation: kill after", kind: "sandbox-violation=1"),
                Death(path: "/do/fatalError", text: "Fatal error: the handler has given up and says so (killed", kind: "trap=1"),
                Death(path: "/do/bounds", text: "trap (killed by SIG", kind: "trap=1"),
                Death(path: "/do/overflow", text: "trap (killed by SIG", kind: "trap=1"),
                Death(path: "/do/cast", text: "trap: Could not cast value of type 'Swift.String'", kind: "trap=1"),
                Death(path: "/do/abort", text: "trap (killed by SIGABRT)", kind: "trap=1"),
                Death(path: "/do/freeTwice", text: "trap (killed by SIGABRT)", kind: "trap=1"),
                Death(path: "/do/segfault", text: "segfault (killed by SIGSEGV)", kind: "segfault=1"),
                Death(path: "/do/stack", text: "segfault (killed by SIG", kind: "segfault=1"),
                Death(path: "/run", text: "Fatal error: expected run() to be called outside of handlers", kind: "trap=1"),
                Death(path: "/do/exit", text: "exit 3 after", kind: "exit=1"),
            ])
        func deaths(death: Death) throws {
            let server = try Misbehaving()
            let first = try #require(server.worker)
            #expect(throws: RawClient.Failure.self) { try server.answer(death.path) }
            let isLogged = Deadline(after: .seconds(10)).wait { server.process.standardError.contains("(pid \(first)) ended: ") }
            let log = server.process.standardError
            let line = try #require(isLogged ? log.split(separator: "\n").first { $0.contains("(pid \(first)) ended: ") } : nil, "\(log)")
            #expect(line.contains(" warning ") && line.contains(death.text), "\(line)")
            #expect(line.contains(", serving GET \(death.path), from 127.0.0.1:"), "\(line)")
            #expect(line.hasSuffix(" \(death.kind)"), "\(line)")
            if !death.kind.hasPrefix("sandbox") { #expect(!log.contains("sandbox-violation"), "\(log)") }
            let isReplaced = Deadline(after: .seconds(10)).wait { server.worker.map { $0 != first } ?? false }
            #expect(isReplaced)
            #expect(try server.answer("/do/warn") == "warned")
        }

        @Test("stuck in a callback when its master is killed, a worker frees the port at once and ends in time, in the sandbox too")
        func stuckOrphan() throws {
            let server = try Misbehaving()
            let worker = try #require(server.worker)
            let client = try RawClient(port: server.port)
            try client.send("GET /do/spin HTTP/1.1\r\nHost: h\r\n\r\n")
            // It has nothing else to do: it runs from now on.
            let isStuck = Deadline(after: .seconds(5)).wait {
                (try? ProcessTable.processorTime(worker)).map { $0 > .milliseconds(100) } ?? false
            }
            #expect(isStuck)
            server.process.signal(SIGKILL)
            let next = Deadline(after: .seconds(2)).wait {
                (try? ApusServer(workers: 1, "--listen", "127.0.0.1:\(server.port)")) != nil
            }
            #expect(next, "the stuck worker keeps the port")
            #expect(Deadline(after: .seconds(8)).wait { ProcessTable.entry(worker).map { $0.state == "Z" } ?? true })
        }

        @Test("a worker may not: it is told so and lives")
        func refused() throws {
            let server = try Misbehaving()
            let first = server.worker
            for (path, answer) in [
                ("/call/open", "\(EACCES)"), ("/call/socket", "\(EACCES)"), ("/call/clone3", "\(ENOSYS)"),
                ("/do/datagram", "errno \(EACCES)"),
                ("/do/passwd", "errno \(EACCES)"), ("/do/hosts", "errno \(EACCES)"), ("/do/roots", "errno \(EACCES)"),
                ("/do/loopback", "errno \(EACCES)"),
            ] {
                #expect(try server.answer(path) == answer, "\(path)")
            }
            // And these are what a program does.
            #expect(try ["0", "1"].contains(server.answer("/do/memory")))
            #expect(try server.answer("/do/thread") == "4000")
            #expect(try server.answer("/do/sort") == "true")
            #expect(try server.answer("/do/warn") == "warned")
            #expect(server.worker == first)
            #expect(server.process.standardError.contains("only a warning\n"))
        }

        @Test("what the sandbox refuses to a client names the permission, and server.clientTLS")
        func hints() throws {
            let server = try Misbehaving(["roots=/nowhere/authority.pem", "unlisted"])
            for address in ["http://127.0.0.1:\(server.port)/", "http://somewhere.test/"] {
                let text = try RawClient(port: server.port).request("GET /fetch", "X-Address: \(address)").text
                #expect(text.contains("the worker lacks the permission .connecting"), "\(text)")
            }
            for options in [[], ["connect"]] {
                let server = try Misbehaving(["roots=/etc/hostname", "unlisted"] + options)
                let text = try RawClient(port: server.port).request("GET /fetch", "X-Address: https://127.0.0.1:\(server.port)/").text
                let hint = options.isEmpty ? "the worker lacks the permission .connecting" : "add the same options to server.clientTLS"
                #expect(text.contains(hint), "\(text)")
            }
            let allowed = try Misbehaving(["connect"])
            let text = try RawClient(port: allowed.port).request("GET /fetch", "X-Address: http://127.0.0.1:1/").text
            #expect(text.contains("refused") && !text.contains("permission"), "\(text)")
        }

        @Test("allowsConnect: sockets, names and certificates, but no other file, and nothing to listen with")
        func connecting() throws {
            let server = try Misbehaving(["connect"])
            let first = server.worker
            for (path, answer) in [
                ("/do/datagram", "0"), ("/do/hosts", "read"), ("/do/roots", "read"), ("/do/bind", "bound"),
                ("/do/loopback", "errno \(ECONNREFUSED)"), ("/do/passwd", "errno \(EACCES)"),
            ] {
                #expect(try server.answer(path) == answer, "\(path)")
            }
            #expect(server.worker == first)
            #expect(throws: RawClient.Failure.self) { try server.answer("/call/listen") }
            let isLogged = Deadline(after: .seconds(10)).wait { server.process.standardError.contains("sandbox-violation: listen") }
            #expect(isLogged, "\(server.process.standardError)")
        }

        @Test("allowsConnect: a handler's clients resolve names, connect, and check certificates against the system's authorities")
        func clients() throws {
            let place = try TemporaryDirectory()
            try run([Places.package + "/Tests/Tools/dev-cert", place.path])
            let certificate = ["--tls-certificate", place.path + "/localhost.pem", "--tls-key", place.path + "/localhost.key"]
            let secure = try ApusServer(options: certificate)
            let server = try Misbehaving(["connect"])
            let first = server.worker
            let fetch = { (address: String, fields: String...) throws -> String in
                let client = try RawClient(port: server.port)
                try client.send("GET /fetch HTTP/1.1\r\nHost: h\r\nX-Address: \(address)\r\n\(fields.map { $0 + "\r\n" }.joined())\r\n")
                return try client.response().text
            }
            #expect(try fetch("http://localhost:\(server.port)/do/warn") == "warned")
            #expect(try fetch("http://127.0.0.1:\(server.port)/do/warn", "X-From: 127.0.0.3") == "warned")
            #expect(try fetch("https://localhost:\(secure.port)/worker").contains("certificate is not acceptable"))
            // Whether or not there is a name server here: it is asked, or found missing, without the end of the process.
            let unknown = try fetch("http://nobody.invalid/")
            #expect(unknown.contains("cannot resolve") || unknown.contains("timed out"), "\(unknown)")
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("a client's authorities are read before the sandbox is entered", .enabled(if: geteuid() == 0))
        func clientTLS() throws {
            let place = try TemporaryDirectory()
            try run([Places.package + "/Tests/Tools/dev-cert", place.path])
            let certificate = ["--tls-certificate", place.path + "/localhost.pem", "--tls-key", place.path + "/localhost.key"]
            let secure = try ApusServer(options: certificate)
            // Nobody but root may enter.
            chmod(place.path, 0o700)
            let server = try Misbehaving(["connect", "roots=\(place.path)/authority.pem"])
            let answer = try RawClient(port: server.port).request(
                "GET /fetch", "X-Address: https://localhost:\(secure.port)/nothing")
            #expect(answer.text.contains("404"), "\(answer.text)")
        }

        @Test("SIGSTOP and SIGCONT leave a worker alive, in the wait and under load")
        func stopped() throws {
            let server = try ApusServer()
            let worker = try #require(server.workers.first)
            for _ in 0..<20 {
                let client = try server.connect()
                kill(worker, SIGSTOP)
                try client.send("GET /worker HTTP/1.1\r\nHost: h\r\n\r\n")
                let isStopped = Deadline(after: .seconds(5)).wait { ["T", "t"].contains(ProcessTable.entry(worker)?.state) }
                #expect(isStopped)
                kill(worker, SIGCONT)
                #expect(try client.response().status == 200)
            }
            #expect(server.workers == [worker])
        }

        // MARK: What is wrong, and what is missing

        struct Refusal: Sendable, CustomTestStringConvertible {
            let options: [String]
            let reason: String
            var testDescription: String { options.joined(separator: " ") }
        }

        @Test(
            "what cannot be is refused with status 78 and the reason", .enabled(if: geteuid() == 0),
            arguments: [
                Refusal(options: ["--user", "no-such-user"], reason: "there is no user \"no-such-user\""),
                Refusal(options: ["--user", "nobody", "--group", "no-such-group"], reason: "there is no group \"no-such-group\""),
                Refusal(options: ["--group", "nogroup"], reason: "a group requires a user"),
                Refusal(options: ["--chroot", "/no/such/directory"], reason: "sandbox: chroot to \"/no/such/directory\": "),
            ])
        func refusals(refusal: Refusal) throws {
            let process = try ChildProcess([Places.command, "serve", "--workers", "1", "--listen", "127.0.0.1:0"] + refusal.options)
            #expect(try process.wait(within: .seconds(20)) == .exited(78))
            #expect(process.standardError.contains(refusal.reason), "\(process.standardError)")
        }

        /// The command, where somebody who is not root can run it.
        private static func runningAsNobody(_ arguments: [String]) throws -> ChildProcess? {
            let copy = try TemporaryDirectory()
            let command = copy.path + "/apus"
            try Files.write(try #require(Files.bytes(Places.command)), to: command)
            chmod(command, 0o755)
            let asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            let process = try ChildProcess(asNobody + [command] + arguments)
            _ = Deadline(after: .seconds(20)).wait { process.hasEnded != nil || process.standardError.contains("listening on") }
            return withExtendedLifetime(copy) { process }
        }

        @Test("who is not root cannot choose a user, but serves in the sandbox", .enabled(if: geteuid() == 0))
        func unprivileged() throws {
            let refused = try #require(try Self.runningAsNobody(["serve", "--listen", "127.0.0.1:0", "--user", "daemon"]))
            #expect(refused.hasEnded == .exited(78))
            #expect(refused.standardError.contains("only root can make its workers user \"daemon\""), "\(refused.standardError)")

            let server = try #require(try Self.runningAsNobody(["serve", "--workers", "1", "--listen", "127.0.0.1:0"]))
            #expect(server.hasEnded == nil, "\(server.standardError)")
            let worker = try #require(server.group.first { $0.parent == server.pid })
            let status = try Self.status(of: worker.pid)
            #expect(status["Seccomp"] == "2" && status["NoNewPrivs"] == "1" && status["CapEff"] == "0000000000000000")
        }

        @Test("--sandbox off: each start says so, and only the user and its groups are given up")
        func off() throws {
            let server = try ApusServer(workers: 1, "--sandbox", "off")
            #expect(server.process.standardError.contains("warning apus: the sandbox is off"))
            let status = try Self.status(of: try #require(server.workers.first))
            #expect(status["Seccomp"] == Self.ownStatus["Seccomp"])
            let user = geteuid() == 0 ? "65534 65534 65534 65534" : Self.ownStatus["Uid"]
            #expect(status["Uid"] == user && (geteuid() != 0 || status["Groups"] == ""))
            // A user of choice, too.
            guard geteuid() == 0 else { return }
            let chosen = try ApusServer(options: ["--sandbox", "off", "--user", "daemon"])
            #expect(try Self.status(of: try #require(chosen.workers.first))["Uid"] == "1 1 1 1")
        }

        private static var ownStatus: [String: String] { (try? status(of: getpid())) ?? [:] }

        @Test("started as root: it says who the workers are", .enabled(if: geteuid() == 0))
        func says() throws {
            #expect(try ApusServer(workers: 1).process.standardError.contains("started as root: the workers run as nobody"))
        }

        @Test("a kernel without Landlock: refused, or served with a warning where that was asked for")
        func withoutLandlock() throws {
            let place = try TemporaryDirectory()
            let library = try Faults.build(in: place)
            let environment = ["LD_PRELOAD": library, "NO_LANDLOCK": "1"]
            let command = [Places.command, "serve", "--workers", "1", "--listen", "127.0.0.1:0"]
            let refused = try ChildProcess(command, environment: environment)
            #expect(try refused.wait(within: .seconds(20)) == .exited(78))
            #expect(refused.standardError.contains("this kernel has no Landlock"), "\(refused.standardError)")

            let server = try ChildProcess(command + ["--sandbox", "best-effort"], environment: environment)
            let isUp = Deadline(after: .seconds(20)).wait { server.standardError.contains("listening on") || server.hasEnded != nil }
            #expect(isUp && server.hasEnded == nil)
            #expect(server.standardError.contains("warning apus: the sandbox is incomplete: this kernel has no Landlock"))
            let worker = try #require(server.group.first { $0.parent == server.pid })
            #expect(try Self.status(of: worker.pid)["Seccomp"] == "2")
        }
    }
}

/// A server whose handlers misbehave.
final class Misbehaving {
    let process: ChildProcess
    let port: UInt16
    private let directory: TemporaryDirectory

    init(_ arguments: [String] = []) throws {
        directory = try TemporaryDirectory()
        let ports = directory.path + "/ports"
        process = try ChildProcess([Places.besideTests("SandboxFixture"), ports] + arguments)
        let isUp = Deadline(after: .seconds(20)).wait { [process] in Files.exists(ports) || process.hasEnded != nil }
        guard isUp, let port = Files.text(ports)?.split(separator: "\n").first?.split(separator: ":").last.flatMap({ UInt16($0) })
        else {
            throw TestFailure("SandboxFixture did not come up:\n\(process.standardError)")
        }
        self.port = port
    }

    var worker: pid_t? { process.group.first { [process] in $0.parent == process.pid }?.pid }

    func answer(_ path: String) throws -> String { try RawClient(port: port).request("GET \(path)").text }
}
