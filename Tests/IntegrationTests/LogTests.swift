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
