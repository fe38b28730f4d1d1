import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("The command line")
    struct CommandLine {
        struct Mistake: Sendable, CustomTestStringConvertible {
            let arguments: [String]
            let status: Int32
            /// What the one line must say.
            let words: [String]
            var testDescription: String { arguments.joined(separator: " ") }
        }

        static let mistakes = [
            Mistake(arguments: ["--listen", "203.0.113.1:80"], status: 78, words: ["--listen", "203.0.113.1:80", "assign"]),
            Mistake(arguments: ["--listen", "127.0.0.1:IN-USE"], status: 78, words: ["--listen", "127.0.0.1:", "in use"]),
            Mistake(arguments: ["--listen", "nonsense"], status: 64, words: ["--listen", "nonsense"]),
            Mistake(arguments: ["--listen", "127.0.0.1:65536"], status: 64, words: ["--listen", "65536"]),
            Mistake(arguments: ["--listen", "::1:80"], status: 64, words: ["--listen", "[::1]:80"]),
            Mistake(arguments: ["--listen", "example.test:80"], status: 64, words: ["--listen", "example.test"]),
            Mistake(arguments: ["--listen", "unix:"], status: 64, words: ["--listen", "unix:"]),
            Mistake(
                arguments: ["--listen", "unix:/x,mode=999"], status: 64, words: ["--listen", "mode: expected an octal number", "\"999\""]),
            Mistake(
                arguments: ["--listen", "unix:/x,owner=nosuchuser"], status: 78, words: ["--listen", "there is no user \"nosuchuser\""]),
            Mistake(arguments: ["--listen", "unix:rel"], status: 64, words: ["--listen", "unix:rel", "unix:/PATH"]),
            Mistake(
                arguments: ["--listen", "127.0.0.1:7", "--listen", "localhost:7"], status: 78, words: ["--listen", "127.0.0.1:7", "twice"]),
            Mistake(arguments: ["--user", "nosuchuser"], status: 78, words: ["--user", "there is no user \"nosuchuser\" (--user)"]),
            Mistake(arguments: ["--chroot", "/nowhere"], status: 78, words: ["--chroot", "/nowhere", "No such file"]),
            Mistake(arguments: ["--allow-origin", "https://a.test/"], status: 78, words: ["--allow-origin", "no path", "HOST[:PORT]"]),
            Mistake(
                arguments: ["--tls-certificate", "/nowhere.pem", "--tls-key", "/nowhere.key"], status: 78,
                words: ["--tls-certificate", "TLS on 127.0.0.1:0: cannot read \"/nowhere.pem\": No such file"]),
            Mistake(
                arguments: ["--tls-certificate", "LOCKED.pem", "--tls-key", "LOCKED.key"], status: 78,
                words: ["LOCKED.key\" is encrypted, and no passphrase was given", "--tls-key-passphrase FILE", "(--tls-key)"]),
            Mistake(
                arguments: ["--tls-certificate", "LOCKED.pem", "--tls-key", "LOCKED.key", "--tls-key-passphrase", "/nowhere"], status: 78,
                words: ["tls.passphrase: cannot read \"/nowhere\"", "--tls-key-passphrase"]),
            Mistake(
                arguments: ["--listen", "unix:/nowhere/socket"], status: 78,
                words: ["--listen", "/nowhere/socket", "No such file"]),
            Mistake(arguments: ["--root", "/nowhere"], status: 78, words: ["--root", "/nowhere", "No such file"]),
            Mistake(arguments: ["--root", "/etc/passwd"], status: 78, words: ["--root", "/etc/passwd", "Not a directory"]),
            Mistake(arguments: ["--workers", "0"], status: 64, words: ["--workers", "0"]),
            Mistake(arguments: ["--workers", "-1"], status: 64, words: ["--workers"]),
            Mistake(arguments: ["--workers", "many"], status: 64, words: ["--workers", "many"]),
            Mistake(arguments: ["--log-level", "loud"], status: 64, words: ["--log-level", "loud"]),
            Mistake(arguments: ["--pid-file", "/nowhere/pid"], status: 78, words: ["--pid-file", "/nowhere/pid"]),
            Mistake(arguments: ["--port-file", "/nowhere/port"], status: 78, words: ["--port-file", "/nowhere/port"]),
            Mistake(arguments: ["--nonsense"], status: 64, words: ["--nonsense"]),
            Mistake(arguments: ["--listen"], status: 64, words: ["--listen"]),
        ]

        @Test("a mistake gets one line that names it, and leaves nothing behind", arguments: mistakes)
        func mistake(_ mistake: Mistake) throws {
            let other = try ApusServer()
            let locked = mistake.arguments.contains("LOCKED.key") ? try Self.lockedCertificate() : nil
            func known(_ text: String) -> String {
                text.replacing("IN-USE", with: "\(other.port)").replacing("LOCKED", with: "\(locked?.path ?? "")/locked")
            }
            var arguments = mistake.arguments.map(known)
            if !arguments.contains("--listen") { arguments += ["--listen", "127.0.0.1:0"] }
            let process = try ChildProcess([Places.command, "serve"] + arguments)
            let end = try process.wait(within: .seconds(5))
            let lines = process.standardError.split(separator: "\n", omittingEmptySubsequences: false)
            #expect(end == .exited(mistake.status))
            #expect(lines.count == 2 && lines[1].isEmpty && lines[0].hasPrefix("apus: "), "\(process.standardError)")
            for word in mistake.words { #expect(process.standardError.contains(known(word)), "\(process.standardError)") }
            #expect(process.standardOutput.isEmpty)
            #expect(process.group.isEmpty)
        }

        @Test(
            "a word that is no command is an error with the commands and the likely one",
            arguments: [("chek", "; did you mean \"check\"?"), ("Serve", "; did you mean \"serve\"?"), ("frobnicate", ""), ("", "")])
        func unknownCommand(word: String, likely: String) throws {
            let process = try ChildProcess([Places.command, word, "--workers", "1"])
            #expect(try process.wait(within: .seconds(5)) == .exited(64))
            let expected = "expected one of serve, check, connect, ping, bench, log-level, help\(likely)"
            #expect(process.standardError == "apus: unknown command \"\(word)\": \(expected)\n")
        }

        /// A directory with a certificate whose key has a passphrase.
        private static func lockedCertificate() throws -> TemporaryDirectory {
            let place = try TemporaryDirectory()
            try run([
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-passout", "pass:secret", "-subj",
                "/CN=localhost", "-keyout", place.path + "/locked.key", "-out", place.path + "/locked.pem",
            ])
            return place
        }

        /// A shell that runs the command with its descriptors redirected.
        private static func shell(_ redirection: String, _ arguments: [String]) throws -> ChildProcess {
            try ChildProcess(["sh", "-c", "exec \"$@\" \(redirection)", "sh", Places.command] + arguments)
        }

        @Test("an error that cannot be written still has its exit status")
        func unwritableError() throws {
            let process = try Self.shell("2>/dev/full", ["serve", "--workers", "0"])
            #expect(try process.wait(within: .seconds(5)) == .exited(64))
        }

        @Test(
            "output that cannot be written is an error",
            arguments: [
                ["check"], ["--help"], ["connect", "URL"], ["ping", "-c", "2", "-i", "0.01", "URL"],
                ["bench", "-c", "2", "-t", "0.1", "URL"],
            ])
        func unwritableOutput(arguments: [String]) throws {
            let server = try ApusServer()
            let place = try TemporaryDirectory()
            try Files.write("hi\n".utf8, to: place.path + "/in")
            let process = try Self.shell(
                "<\(place.path)/in >/dev/full", arguments.map { $0.replacing("URL", with: "ws://127.0.0.1:\(server.port)/") })
            #expect(try process.wait(within: .seconds(10)) == .exited(74))
            #expect(process.standardError == "apus: cannot write to standard output: No space left on device\n")
        }

        @Test("started without descriptors 0 to 2, it gives their numbers to /dev/null and not to sockets")
        func closedDescriptors() throws {
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            let master = try Self.shell(
                "<&- >&- 2>&-", ["serve", "--workers", "1", "--listen", "127.0.0.1:0", "--port-file", ports])
            try #require(Deadline(after: .seconds(20)).wait { Files.exists(ports) || master.hasEnded != nil })
            let workers = master.group.filter { $0.parent == master.pid }.map(\.pid)
            #expect(workers.count == 1)
            for process in [master.pid] + workers {
                for number in 0...2 { #expect(Files.link("/proc/\(process)/fd/\(number)") == "/dev/null") }
            }
        }

        @Test("the soft limit on descriptors does not keep workers from starting")
        func softLimit() throws {
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            let arguments = ["serve", "--workers", "24", "--listen", "127.0.0.1:0", "--port-file", ports]
            let master = try ChildProcess(["sh", "-c", "ulimit -Sn 64; exec \"$@\"", "sh", Places.command] + arguments)
            let isUp = Deadline(after: .seconds(30)).wait { Files.exists(ports) || master.hasEnded != nil }
            #expect(isUp && master.hasEnded == nil, "\(master.standardError)")
        }

        @Test("what a killed master has left in the port file is gone before another one serves")
        func stalePorts() throws {
            let place = try TemporaryDirectory()
            let ports = place.path + "/ports"
            try Files.write("127.0.0.1:1\n".utf8, to: ports)
            let port = try RawListener.freePort()
            let arguments = ["serve", "--workers", "1", "--listen", "127.0.0.1:\(port)", "--port-file", ports]
            // It can write no file, so that what is there when it serves is what it has found.
            let master = try ChildProcess(["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", Places.command] + arguments)
            let isUp = Deadline(after: .seconds(20)).wait {
                (try? RawClient(port: port).request("GET /worker").status) == 200 || master.hasEnded != nil
            }
            #expect(isUp && master.hasEnded == nil)
            #expect(!Files.exists(ports))
        }

        @Test("a directory that the workers' user may not enter is a warning at the start", .enabled(if: getuid() == 0))
        func unreadableRoot() throws {
            let place = try TemporaryDirectory()
            let directory = place.path + "/private"
            mkdir(directory, 0o700)
            let server = try ApusServer(workers: 1, "--root", directory)
            #expect(server.process.standardError.contains("may not enter \"\(directory)\""), "\(server.process.standardError)")
            chmod(directory, 0o711)
            let other = try ApusServer(workers: 1, "--root", directory)
            #expect(!other.process.standardError.contains("may not enter"), "\(other.process.standardError)")
        }

        @Test("with a root, nothing of the demo is served unless it is asked for", arguments: [false, true])
        func demo(isAsked: Bool) throws {
            let place = try TemporaryDirectory()
            try Files.write("page".utf8, to: place.path + "/index.html")
            let server = try ApusServer(options: ["--root", place.path] + (isAsked ? ["--demo"] : []))
            #expect(try server.connect().request("GET /").text == "page")
            #expect(try server.connect().request("GET /worker").status == (isAsked ? 200 : 404))
            for path in ["/", "/broadcast", "/board", "/worker"] {
                let isOpened = (try? server.connect().upgrade(path: path)) != nil
                #expect(isOpened == isAsked, "\(path)")
            }
        }

        @Test("a Unix socket has the owner and the permissions that were asked for, and new ones after a reload")
        func socketAccess() throws {
            let place = try TemporaryDirectory()
            let (socket, file) = (place.path + "/socket", place.path + "/apus.yaml")
            func status() throws -> (mode: mode_t, owner: uid_t, group: gid_t) {
                var information = stat()
                guard unsafe lstat(socket, &information) == 0 else { throw TestFailure.call("lstat") }
                return (information.st_mode & 0o777, information.st_uid, information.st_gid)
            }
            let other = getuid() == 0 ? ",owner=nobody,group=65534" : ""
            try Files.write("listen: \"unix:\(socket),mode=0660\(other)\"\n".utf8, to: file)
            let server = try ApusServer(workers: 1, "--listen", "127.0.0.1:0", "--listen", "unix:\(socket),mode=0606")
            #expect(try status() == (0o606, getuid(), getgid()))
            #expect(try server.end() == .exited(0))
            let process = try ChildProcess([Places.command, "serve", "--workers", "1", "-c", file])
            defer { process.signal(SIGKILL) }
            #expect(Deadline(after: .seconds(20)).wait { process.standardError.contains("listening on unix:\(socket) ") })
            let expected: (uid_t, gid_t) = getuid() == 0 ? (65534, 65534) : (getuid(), getgid())
            #expect(try status() == (0o660, expected.0, expected.1))
            try Files.write("listen: \"unix:\(socket),mode=0600\"\n".utf8, to: file)
            process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(20)).wait { (try? status().mode) == 0o600 })
            #expect(try run(["curl", "-sS", "--unix-socket", socket, "http://h/worker"]).contains("\"slot\":0"))
        }

        @Test("it says where it listens, with how many workers, and writes its files")
        func announcement() throws {
            let place = try TemporaryDirectory()
            let pidFile = place.path + "/pid"
            let socket = place.path + "/socket"
            let server = try ApusServer(
                workers: 3, "--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", "unix:\(socket)", "--pid-file", pidFile)
            #expect(Files.text(pidFile) == "\(server.process.pid)\n")
            #expect(server.addresses.count == 3)
            #expect(server.addresses[0].hasPrefix("127.0.0.1:") && server.addresses[1].hasPrefix("[::1]:"))
            #expect(server.addresses[2] == "unix:\(socket)")
            #expect(server.workers.count == 3)
            let said = Deadline(after: .seconds(5)).wait {
                server.process.standardError.contains("127.0.0.1:\(server.port)")
                    && server.process.standardError.contains("3 workers")
            }
            #expect(said, "\(server.process.standardError)")
            #expect(try run(["curl", "-sSf", "http://\(server.addresses[1])/worker"]).contains("\"workers\":3"))
            #expect(try run(["curl", "-sSf", "--unix-socket", socket, "http://h/worker"]).contains("\"workers\":3"))
            #expect(try server.end() == .exited(0))
            #expect(!Files.exists(pidFile) && !Files.exists(socket))
        }

        @Test("help and version go to standard output", arguments: ["--help", "--version"])
        func help(flag: String) throws {
            let process = try ChildProcess([Places.command, flag])
            #expect(try process.wait(within: .seconds(5)) == .exited(0))
            #expect(!process.standardOutput.isEmpty && process.standardError.isEmpty)
        }
    }
}
