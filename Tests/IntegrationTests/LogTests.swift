import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("The log file")
    struct LogFile {
        @Test("USR1 opens it anew, for workers too")
        func reopen() throws {
            let place = try TemporaryDirectory()
            let log = place.path + "/log"
            let server = try ApusServer(workers: 2, "--log", log, "--log-level", "debug")
            #expect(Deadline(after: .seconds(5)).wait { Files.text(log)?.contains("listening on") == true })
            rename(log, log + ".1")
            server.process.signal(SIGUSR1)
            #expect(Deadline(after: .seconds(5)).wait { Files.exists(log) })
            server.process.signal(SIGTTIN)
            #expect(Deadline(after: .seconds(5)).wait { Files.text(log)?.contains("3 workers serve") == true })
            #expect(Files.text(log + ".1")?.contains("3 workers") == false)
            #expect(try server.end() == .exited(0))
            #expect(server.process.standardError == "")
        }

        @Test("apus log-level changes master and workers in place, a reload undoes it, and other processes are left alone")
        func level() throws {
            let server = try ApusServer(workers: 2, "--log-level", "error")
            let workers = server.workers
            func request(_ level: String, of process: pid_t) throws -> ChildProcess.End? {
                try ChildProcess([Places.command, "log-level", level, "\(process)"]).wait(within: .seconds(5))
            }
            // Each is a line of its worker's at debug.
            func refuse() throws { #expect(try RawClient(port: server.port).request("GET", "Nothing").status == 400) }
            func lines() -> Int { server.process.standardError.matches(of: /debug apus: 127\.0\.0\.1:\d+ was answered 400/).count }
            for _ in 0..<20 { try refuse() }
            #expect(try request("debug", of: server.process.pid) == .exited(0))
            #expect(Deadline(after: .seconds(5)).wait { server.process.standardError.contains("the log level is debug") })
            #expect(lines() == 0)
            // The kernel chooses the worker: both have been told when none is silent.
            let isHeard = try Deadline(after: .seconds(5)).wait {
                let before = lines()
                for _ in 0..<20 { try refuse() }
                return Deadline(after: .milliseconds(100)).wait { lines() == before + 20 }
            }
            #expect(isHeard && server.workers == workers)

            server.process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(10)).wait { server.workers.count == 2 && Set(server.workers).isDisjoint(with: workers) })
            let before = lines()
            for _ in 0..<20 { try refuse() }
            #expect(lines() == before)

            let other = try ChildProcess(["sleep", "60"])
            #expect(try request("debug", of: other.pid) == .exited(69))
            #expect(other.hasEnded == nil)
            #expect(try request("loud", of: server.process.pid) == .exited(64))
        }

        @Test("a full disk: serving goes on, lost lines are counted, and it resumes within a second of there being room")
        func full() throws {
            let place = try TemporaryDirectory()
            let log = place.path + "/log"
            // A limit on the size of files is a full disk as far as the process can see; prlimit makes room again.
            let server = try ApusServer(workers: 2, "--log", log, "--log-level", "debug")
            #expect(Deadline(after: .seconds(5)).wait { Files.text(log)?.contains("listening on") == true })
            let pid = server.process.pid
            try run(["prlimit", "--pid", "\(pid)", "--fsize=\((Files.bytes(log) ?? []).count + 10):unlimited"])
            for _ in 0..<3 {
                server.process.signal(SIGUSR1)
                // It has been taken, and the master waits for the next: it has tried to write of it.
                let isServed = Deadline(after: .seconds(5)).wait {
                    !ProcessTable.hasPending(SIGUSR1, pid) && ProcessTable.entry(pid)?.state == "S"
                }
                #expect(isServed)
                #expect(try server.connect().request("GET /worker").status == 200)
            }
            #expect(Files.text(log)?.contains("reopening") == false)
            try run(["prlimit", "--pid", "\(pid)", "--fsize=unlimited:unlimited"])
            #expect(Deadline(after: .seconds(1)).wait { Files.text(log)?.contains("log lines lost: could not be written") == true })
            #expect(try server.end() == .exited(0))
        }
    }
}
