import Glibc
import TestSupport
import Testing

extension Integration {
    /// A library server on default settings, and what the code of a stranger does in its handlers.
    @Suite("Ordinary code in a worker")
    struct OrdinaryCode {
        /// `OrdinaryFixture` with one worker.
        private final class Ordinary {
            let process: ChildProcess
            let port: UInt16
            private let directory = try? TemporaryDirectory()

            /// - Parameter resolver: the text of /etc/resolv.conf, beside /etc/hosts with `somewhere.test`; only root can replace them.
            init(
                _ options: [String] = [], environment: [String: String?] = [:], asNobody: Bool = false, resolver: String? = nil
            ) throws {
                let place = try #require(directory).path
                let ports = place + "/ports"
                var command = [Places.besideTests("OrdinaryFixture"), ports] + options
                if asNobody {
                    chmod(place, 0o777)
                    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + command
                }
                if let resolver {
                    try Files.write(resolver.utf8, to: place + "/resolv.conf")
                    try Files.write("127.0.0.1 localhost somewhere.test\n".utf8, to: place + "/hosts")
                    let script = "for i in resolv.conf hosts; do mount --bind '\(place)/'$i /etc/$i || exit 1; done; exec \"$@\""
                    command = ["unshare", "-m", "sh", "-c", script, "sh"] + command
                }
                let unset = environment.filter { $0.value == nil }.flatMap { ["-u", $0.key] }
                process = try ChildProcess(["env"] + unset + command, environment: environment.compactMapValues { $0 })
                let isUp = Deadline(after: .seconds(20)).wait { [process] in Files.exists(ports) || process.hasEnded != nil }
                guard isUp, let port = Files.text(ports)?.split(separator: "\n").first?.split(separator: ":").last.flatMap({ UInt16($0) })
                else { throw TestFailure("OrdinaryFixture did not come up:\n\(process.standardError)") }
                self.port = port
            }

            var worker: pid_t? { process.group.first { [process] in $0.parent == process.pid }?.pid }

            func answer(_ path: String) throws -> String { try RawClient(port: port).request("GET \(path)").text }

            func logs(_ text: String) -> Bool {
                Deadline(after: .seconds(10)).wait { [process] in process.standardError.contains(text) }
            }
        }

        struct Answer: Sendable, CustomTestStringConvertible {
            let deed: String
            let text: String
            var testDescription: String { deed }
        }

        /// With the time zone Europe/Berlin or UTC, as `TZ` says.
        private static func answers(zone: String, offset: Int) -> [Answer] {
            let hours = offset / 3600
            return [
                Answer(deed: "log", text: "logged"), Answer(deed: "print", text: "printed"),
                Answer(deed: "iso8601", text: "2026-07-01T00:00:00Z"), Answer(deed: "formatted", text: "2026-07-01T00:00:00Z"),
                Answer(deed: "timeZone", text: "\(zone) \(offset)"), Answer(deed: "localTime", text: "\(hours) \(offset)"),
                Answer(deed: "fileExists", text: "false"), Answer(deed: "write", text: "refused"), Answer(deed: "sleep", text: "slept"),
                Answer(deed: "setlocale", text: "set"), Answer(deed: "processInfo", text: "true true"),
                Answer(deed: "environment", text: "some"), Answer(deed: "contents?path=/etc/passwd", text: "refused"),
                Answer(deed: "directory?path=/etc", text: "refused"), Answer(deed: "terminal", text: "0 0"),
                Answer(deed: "user", text: "true"), Answer(deed: "home", text: "survived"), Answer(deed: "json", text: "{\"a\":1}"),
                Answer(deed: "fetch", text: "false"),
                Answer(deed: "task", text: "true"), Answer(deed: "thread", text: "went on"), Answer(deed: "dispatch", text: "went on"),
                Answer(deed: "delayed", text: "went on"), Answer(deed: "source", text: "went on"), Answer(deed: "timer", text: "went on"),
                Answer(deed: "workingDirectory", text: "true"), Answer(deed: "memory", text: "true"), Answer(deed: "yield", text: "3"),
                Answer(deed: "directories", text: "refused"),
                Answer(deed: "pipe", text: "x"), Answer(deed: "ownState", text: "refused"), Answer(deed: "otherState", text: "refused"),
                Answer(deed: "task-threads", text: "[true]"),
                Answer(deed: "task-sleep", text: "[\"slept\", \"cancelled\"] true"), Answer(deed: "main-actor", text: "later"),
            ]
        }

        private static func check(_ server: Ordinary, _ answers: [Answer]) throws {
            let first = try #require(server.worker)
            for answer in answers {
                let got = Result { try server.answer("/" + answer.deed) }
                guard case .success(answer.text) = got else {
                    Issue.record("\(answer.deed): expected \(answer.text), got \(got); \(server.process.standardError)")
                    continue
                }
            }
            for deed in ["dateFormatter", "locale", "number", "bundle"] {
                #expect(try !server.answer("/" + deed).isEmpty, "\(deed): \(server.process.standardError)")
            }
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("it lives, whatever TZ is", arguments: ["", "UTC", "Europe/Berlin"])
        func lives(zone: String) throws {
            let server = try Ordinary(environment: ["TZ": zone.isEmpty ? nil : zone, "HOME": "/root"])
            // Unset: the system's, which a machine without a link to a zone does not have.
            if zone.isEmpty {
                try Self.check(server, Self.answers(zone: "", offset: 0).filter { !["timeZone", "localTime"].contains($0.deed) })
            } else {
                try Self.check(server, Self.answers(zone: zone == "UTC" ? "GMT" : zone, offset: zone == "UTC" ? 0 : 7200))
            }
            #expect(server.logs("a notice of a handler") && server.logs("a line of swift-log's own"))
            // Standard output is a file here, and a line is there before the worker ends.
            let isPrinted = Deadline(after: .seconds(5)).wait { server.process.standardOutput.contains("printed by a handler\n") }
            #expect(isPrinted)
            #expect(server.logs("a thread was not started"), "\(server.process.standardError)")
            #expect(server.logs("a timer or an event source of Dispatch or Foundation will not fire"), "\(server.process.standardError)")
        }

        @Test("a second answer is a warning, and the first is sent; a death in a task is told as one")
        func tasks() throws {
            let server = try Ordinary()
            #expect(try server.answer("/twice") == "first")
            #expect(server.logs("GET \"/twice\" was answered twice: the second answer was not sent"))
            _ = try server.answer("/forge")
            #expect(server.logs("failed: one 2026-01-01T00:00:00.000Z critical apus: forged"))
            _ = try? server.answer("/trap")
            #expect(server.logs("serving a task, or a block of the main queue"), "\(server.process.standardError)")
            #expect(server.logs("trapped in a task"))
        }

        @Test("it lives where nobody is root", .enabled(if: geteuid() == 0))
        func livesAsNobody() throws {
            let server = try Ordinary(environment: ["TZ": "Europe/Berlin", "HOME": "/root"], asNobody: true)
            try Self.check(server, Self.answers(zone: "Europe/Berlin", offset: 7200))
        }

        @Test("randomness is random from every source")
        func random() throws {
            let server = try Ordinary()
            let first = try #require(server.worker)
            var identifiers: [Substring] = []
            for _ in 0..<50 { identifiers += try server.answer("/uuid").split(separator: " ") }
            #expect(identifiers.count == 200 && Set(identifiers).count == 200)
            let numbers = try (0..<50).flatMap { _ in try server.answer("/random").split(separator: " ").prefix(3) }
            #expect(Set(numbers).count == 150)
            #expect(try server.answer("/device") == "random" || (Int(server.answer("/device")) ?? 0) > 0)
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("what a factory throws is an answer, and a malformed request is a line of the debug log")
        func errors() throws {
            let server = try Ordinary(["debug"])
            let first = try #require(server.worker)
            let client = try RawClient(port: server.port)
            try client.send(RawClient.handshake(path: "/throws"))
            #expect(try client.response().status == 500)
            let hostile = try RawClient(port: server.port)
            try hostile.send("GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n")
            #expect(try hostile.response().status == 400)
            #expect(server.logs("was answered 400"))
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("socket.peer is the client's address, and documented socket options can be set")
        func peer() throws {
            let server = try Ordinary()
            let client = try RawClient(port: server.port)
            #expect(try client.upgrade(path: "/peer").status == 101)
            #expect(String(decoding: try client.frame().payload, as: UTF8.self) == "127.0.0.1:\(client.localPort) true")
        }

        @Test("worker states outlive onWorkerStop, and what it prints is written")
        func stops() throws {
            let server = try Ordinary()
            server.process.signal(SIGTERM)
            #expect(try server.process.wait(within: .seconds(10)) == .exited(0))
            #expect(server.process.standardOutput.contains("stopped with a state\n"), "\(server.process.standardOutput)")
        }

        @Test("the permission .threads: Dispatch works, under the filter", arguments: ["threads", "off"])
        func threads(option: String) throws {
            let server = try Ordinary([option])
            let first = try #require(server.worker)
            #expect(try server.answer("/threads") == "500500")
            #expect(try server.answer("/task") == "true")
            #expect(try server.answer("/task-sleep") == "[\"slept\", \"cancelled\"] true")
            #expect(try server.answer("/main-actor") == "later")
            #expect(try server.answer("/pool") == "lives")
            if option == "threads" {
                #expect(try server.answer("/ownState") == "refused")
                #expect(try server.answer("/otherState") == "refused")
            }
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("tasks run on the worker's loop, with threads beside it, too", arguments: [[], ["threads"], ["off"]])
        func tasksOnLoop(options: [String]) throws {
            let server = try Ordinary(options)
            let first = try #require(server.worker)
            for _ in 0..<10 { #expect(try server.answer("/task-threads") == "[true]") }
            if !options.isEmpty { for _ in 0..<5 { #expect(try server.answer("/task-storm") == "\(499 * 250)") } }
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("a task of the master does not run, is an error of the log, and hinders no worker", arguments: ["start-task", "ready-task"])
        func masterTasks(option: String) throws {
            let server = try Ordinary([option])
            #expect(server.logs("error apus: expected no Task in the master (onStart, onReady, reload), got one"))
            let first = try #require(server.worker)
            kill(first, SIGKILL)
            let isReplaced = Deadline(after: .seconds(10)).wait { server.worker.map { $0 != first } ?? false }
            #expect(isReplaced, "\(server.process.standardError)")
            #expect(try server.answer("/task") == "true")
            let log = server.process.standardError
            #expect(log.ranges(of: "expected no Task").count == 1, "\(log)")
            #expect(!server.process.standardOutput.contains("in the master"))
        }

        @Test(
            "run() refuses a process that has used Dispatch, before it opens or writes anything", arguments: ["early-task", "early-queue"])
        func earlyDispatch(option: String) throws {
            let directory = try TemporaryDirectory()
            let process = try ChildProcess([Places.besideTests("OrdinaryFixture"), directory.path + "/ports", option])
            #expect(try process.wait(within: .seconds(20)) != .exited(0))
            let text = "expected no Task, Dispatch queue or run loop in a process that calls run()"
            #expect(process.standardError.contains(text), "\(process.standardError)")
        }

        @Test("a worker does not start after Dispatch was used in the master: the error names what may be used where")
        func masterQueue() throws {
            let directory = try TemporaryDirectory()
            let process = try ChildProcess([Places.besideTests("OrdinaryFixture"), directory.path + "/ports", "start-queue"])
            #expect(try process.wait(within: .seconds(20)) != .exited(0))
            let text = "worker 0 does not start: exit 78 (expected no Task, Dispatch queue or run loop in the master"
            #expect(process.standardError.contains(text), "\(process.standardError)")
        }

        @Test("a thread of onStart takes no signal of the master's")
        func masterThread() throws {
            let server = try Ordinary(["start-thread"])
            let first = try #require(server.worker)
            server.process.signal(SIGHUP)
            let isReplaced = Deadline(after: .seconds(10)).wait { server.worker.map { $0 != first } ?? false }
            #expect(isReplaced, "\(server.process.standardError)")
            server.process.signal(SIGTERM)
            #expect(try server.process.wait(within: .seconds(10)) == .exited(0))
        }

        @Test("the permission .connecting: the C library's resolver works, with a name server that refuses", .enabled(if: geteuid() == 0))
        func resolver() throws {
            let server = try Ordinary(["connecting"], resolver: "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            let first = try #require(server.worker)
            #expect(try server.answer("/resolve?path=somewhere.test") == "true true")
            #expect(try server.answer("/resolve?path=nobody.test") == "false false")
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test(
            "the permissions .threads and .connecting: URLSession resolves names and receives answers", .enabled(if: geteuid() == 0))
        func urlSession() throws {
            let server = try Ordinary(["threads", "connecting"], resolver: "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            let first = try #require(server.worker)
            for host in ["127.0.0.1", "localhost", "somewhere.test"] {
                #expect(try server.answer("/url?path=http://\(host):\(server.port)/json") == "{\"a\":1}")
            }
            #expect(server.worker == first, "\(server.process.standardError)")
        }

        @Test("the permissions .reading and .writing: beneath the path, and nowhere else")
        func files() throws {
            let place = try TemporaryDirectory()
            let given = place.path + "/given"
            chmod(place.path, 0o755)
            guard mkdir(given, 0o777) == 0, chmod(given, 0o777) == 0 else { throw TestFailure.call("mkdir") }
            try Files.write("inside".utf8, to: given + "/inside")
            try Files.write("secret".utf8, to: place.path + "/secret")
            guard symlink(place.path + "/secret", given + "/link") == 0 else { throw TestFailure.call("symlink") }
            for permission in ["reading", "writing"] {
                let server = try Ordinary(["\(permission)=\(given)"])
                let first = try #require(server.worker)
                #expect(try server.answer("/contents?path=\(given)/inside") == "read")
                #expect(try server.answer("/directory?path=\(given)") == "2")
                #expect(try server.answer("/contents?path=/etc/passwd") == "refused")
                #expect(try server.answer("/escape?path=\(given)") == "[true, true, true]")
                #expect(try server.answer("/link?path=\(given)") == "refused")
                let made = try server.answer("/makeFile?path=\(given)")
                #expect(permission == "writing" ? made == "two" : made != "two", "\(made)")
                #expect(try server.answer("/makeFile?path=\(place.path)") != "two")
                #expect(server.worker == first, "\(server.process.standardError)")
            }
        }

        @Test("run() refuses a process that has threads, which a fork would lose, before it opens or writes anything")
        func severalThreads() throws {
            let directory = try TemporaryDirectory()
            let ports = directory.path + "/ports"
            try Files.write("of another\n".utf8, to: ports)
            let process = try ChildProcess([Places.besideTests("OrdinaryFixture"), ports, "early"])
            #expect(try process.wait(within: .seconds(20)) != .exited(0))
            #expect(process.standardError.contains("needs a process with one thread; this one has 2"), "\(process.standardError)")
            #expect(Files.text(ports) == "of another\n")
        }

        @Test("a permission for what does not exist is a configuration error")
        func missing() throws {
            let error = #expect(throws: TestFailure.self) { try Ordinary(["reading=/no/such/place"]) }
            #expect(error.map { "\($0)".contains("/no/such/place") } == true, "\(String(describing: error))")
        }

        @Test("1,000 forked workers draw nothing twice: no UUID, number, mask, OpenSSL's bytes or those of a ticket")
        func randomness() throws {
            let count = 1000
            let process = try ChildProcess([Places.besideTests("RandomFixture"), "\(count)"])
            func lines() -> [Substring] { process.standardOutput.split(separator: "\n") }
            let haveAll = Deadline(after: .seconds(120)).wait { process.hasEnded != nil || lines().count >= count }
            let drawn = lines().map { $0.split(separator: " ") }
            #expect(haveAll && drawn.count == count, "\(drawn.count) lines\n\(process.standardError.suffix(1000))")
            for (place, source) in ["a UUID", "a number", "two masks", "OpenSSL's bytes", "a ticket's bytes"].enumerated() {
                #expect(Set(drawn.map { $0[place] }).count == count, "\(source) came twice")
            }
            process.signal(SIGTERM)
            #expect(try process.wait(within: .seconds(60)) == .exited(0))
        }
    }
}
