import Glibc
import TestSupport
import Testing

extension Integration {
    /// A new program that does not get so far, and files that are not its own.
    @Suite("Upgrades that fail, reloads that change nothing")
    struct Upgrades {
        /// A server of a configuration file that tests change.
        private final class Configured {
            let place: TemporaryDirectory
            let process: ChildProcess
            let file: String
            init(_ text: String, options: [String] = []) throws {
                place = try TemporaryDirectory()
                file = place.path + "/apus.yaml"
                try Files.write(Array(text.replacing("HERE", with: place.path).utf8), to: file)
                process = try ChildProcess([Places.command, "serve", "-c", file] + options)
            }
            func write(_ text: String) throws { try Files.write(Array(text.replacing("HERE", with: place.path).utf8), to: file) }
            func says(_ text: String, in log: String? = nil, within duration: Duration = .seconds(20)) -> Bool {
                Deadline(after: duration).wait {
                    (log.map { Files.text(place.path + "/" + $0) ?? "" } ?? process.standardError).contains(text)
                }
            }
            func names(_ prefix: String) -> [String] { Files.names(in: place.path).filter { $0.hasPrefix(prefix) }.sorted() }
        }

        /// A listening socket that is in the way.
        private static func occupied() throws -> (socket: RawListener, port: UInt16) {
            let listener = try RawListener()
            return (listener, listener.port)
        }

        @Test(
            "USR2 whose new program fails leaves socket, port and pid file to the one that goes on",
            arguments: ["chroot: HERE/nowhere", "further address", "unlisted"])
        func files(failure: String) throws {
            let rest = "workers: 2\nport-file: HERE/ports\npid-file: HERE/pid\n"
            let server = try Configured("listen: [\"unix:HERE/s.sock\", \"127.0.0.1:0\"]\n" + rest)
            #expect(server.says("listening on"))
            let before = Files.text(server.place.path + "/ports")
            let taken = try Self.occupied()
            switch failure {
            case "further address":
                try server.write("listen: [\"unix:HERE/s.sock\", \"127.0.0.1:0\", \"127.0.0.1:\(taken.port)\"]\n" + rest)
            case "unlisted":
                try server.write("listen: \"127.0.0.1:0\"\nchroot: HERE/nowhere\n" + rest)
            default:
                try server.write("listen: [\"unix:HERE/s.sock\", \"127.0.0.1:0\"]\n\(failure)\n" + rest)
            }
            server.process.signal(SIGUSR2)
            #expect(server.says("the upgrade is given up, this program goes on"))
            if failure == "further address" {
                #expect(server.process.standardError.contains("cannot listen on 127.0.0.1:\(taken.port): bind: Address already in use"))
            }
            for name in ["s.sock", "ports", "pid"] { #expect(server.names(name) == [name]) }
            #expect(Files.text(server.place.path + "/ports") == before)
            #expect(Files.text(server.place.path + "/pid") == "\(server.process.pid)\n")
            server.process.signal(SIGTERM)
            #expect(try server.process.wait(within: .seconds(10)) == .exited(0))
            for name in ["s.sock", "ports", "pid"] { #expect(server.names(name) == []) }
        }

        @Test("USR2 is refused while the program before this one still drains, and has its pid file at FILE.oldbin")
        func oldbin() throws {
            let server = try Configured("listen: \"127.0.0.1:0\"\nworkers: 1\nport-file: HERE/ports\npid-file: HERE/pid\n")
            #expect(server.says("listening on"))
            let port = try #require(Files.text(server.place.path + "/ports")?.split(separator: ":").last.flatMap { UInt16($0.dropLast()) })
            // One that never answers keeps the first program draining.
            let client = try RawClient(port: port)
            try client.upgrade()
            server.process.signal(SIGUSR2)
            #expect(server.says("serves; this one drains"))
            let next = try #require(Files.text(server.place.path + "/pid").flatMap { pid_t($0.dropLast()) })
            #expect(next != server.process.pid)
            kill(next, SIGUSR2)
            let reason = "the previous program, pid \(server.process.pid), has not ended yet"
            #expect(server.says("the upgrade is given up, this program goes on: \(reason)"))
            #expect(Files.text(server.place.path + "/pid.oldbin") == "\(server.process.pid)\n")
            #expect(Files.text(server.place.path + "/pid") == "\(next)\n")
            _ = consume client
            #expect(try server.process.wait(within: .seconds(20)) == .exited(0))
            #expect(!Files.exists(server.place.path + "/pid.oldbin"))
            kill(next, SIGTERM)
            #expect(Deadline(after: .seconds(10)).wait { server.process.group.isEmpty })
        }

        @Test("HUP: the log moves when the new generation serves, not before; pid and port file stay")
        func reloadedFiles() throws {
            func text(_ log: String, _ ports: String, _ more: String = "") -> String {
                "listen: [\"127.0.0.1:0\"\(more)]\nworkers: 1\nlog: HERE/\(log)\nport-file: HERE/\(ports)\npid-file: HERE/\(ports)pid\n"
            }
            let server = try Configured(text("a.log", "one"))
            #expect(server.says("listening on", in: "a.log"))
            let taken = try Self.occupied()
            try server.write(text("b.log", "two", ", \"127.0.0.1:\(taken.port)\""))
            server.process.signal(SIGHUP)
            #expect(server.says("the reload changes nothing: \(server.file):1: cannot listen on 127.0.0.1:\(taken.port)", in: "a.log"))
            server.process.signal(SIGUSR1)
            #expect(server.says("reopening the logs", in: "a.log"))
            #expect(Files.text(server.place.path + "/b.log") == "")
            try server.write(text("b.log", "two"))
            server.process.signal(SIGHUP)
            #expect(server.says("generation 1 serves", in: "a.log"))
            server.process.signal(SIGTTIN)
            #expect(server.says("2 workers serve", in: "b.log"))
            #expect(server.says("the port file is \(server.place.path)/one until the server is restarted", in: "a.log"))
            #expect(server.names("one") == ["one", "onepid"])
            #expect(server.names("two") == [])
            server.process.signal(SIGTERM)
            #expect(try server.process.wait(within: .seconds(10)) == .exited(0))
            #expect(server.names("one") == [])
        }

        @Test("standard error that nobody reads: the master serves, replaces and ends as ever, and says how many lines were lost")
        func unreadStandardError() throws {
            let place = try TemporaryDirectory()
            // A pipe of one page whose reading end is the server's own descriptor 200.
            let script = """
                import fcntl, os, sys
                r, w = os.pipe()
                fcntl.fcntl(w, 1031, 4096)
                os.dup2(w, 2, True)
                os.dup2(r, 200, True)
                os.execv(sys.argv[1], sys.argv[1:])
                """
            let process = try ChildProcess([
                "/usr/bin/python3", "-c", script, Places.command, "serve", "--workers", "1", "--listen", "127.0.0.1:0", "--port-file",
                place.path + "/ports",
            ])
            #expect(Deadline(after: .seconds(20)).wait { Files.exists(place.path + "/ports") })
            func worker() -> pid_t? { process.group.first { $0.parent == process.pid }?.pid }
            let first = try #require(worker())
            // The pipe takes some fifty lines.
            for _ in 0..<100 {
                process.signal(SIGUSR1)
                _ = Deadline(after: .milliseconds(5)).wait { false }
            }
            kill(first, SIGKILL)
            #expect(Deadline(after: .seconds(5)).wait { worker().map { $0 != first } ?? false })
            let pipe = open("/proc/\(process.pid)/fd/200", O_RDONLY | O_NONBLOCK | O_CLOEXEC)
            try #require(pipe >= 0)
            defer { close(pipe) }
            var text = ""
            func read() {
                var buffer = [UInt8](repeating: 0, count: 65536)
                let count = Glibc.read(pipe, &buffer, buffer.count)
                if count > 0 { text += String(decoding: buffer[..<count], as: UTF8.self) }
            }
            read()
            #expect(text.contains("reopening the logs") && !text.contains("lost"))
            process.signal(SIGUSR1)
            let isSaid = Deadline(after: .seconds(5)).wait {
                read()
                return text.contains("log lines lost: standard error was not writable")
            }
            #expect(isSaid, "\(text)")
            for _ in 0..<100 {
                process.signal(SIGUSR1)
                _ = Deadline(after: .milliseconds(5)).wait { false }
            }
            process.signal(SIGTERM)
            #expect(try process.wait(within: .seconds(10)) == .exited(0))
        }
    }
}
