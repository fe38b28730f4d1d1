import Glibc
import TestSupport
import Testing

extension Integration {
    /// Waits of many seconds, all at once so that they last as long as the longest.
    @Suite("Deadlines")
    struct Deadlines {
        /// How long until the server ends the connection; what it sent before is dropped.
        private static func timeToEnd(_ client: RawClient) throws -> Duration {
            let started = ContinuousClock.now
            client.timeout = .seconds(20)
            _ = try client.receiveToEnd()
            return .now - started
        }

        @Test(
            "silence, slow heads and slow bodies end after 10 s, an unanswered close after 5 s, a worker that hangs is replaced")
        func all() async throws {
            let server = try ApusServer()
            async let silent = onThread { try Self.timeToEnd(server.connect()) }
            async let slowHead = onThread { try Self.trickle("GET / HTTP/1.1\r\nHost: h\r\nX: ", to: server.connect()) }
            async let slowBody = onThread { try Self.stalledBody(server.connect()) }
            async let unanswered = onThread { try Self.unansweredClose() }
            async let hung = onThread { try Self.hungWorker() }

            // A total: bytes that trickle in do not prolong it.
            let head: ClosedRange<Duration> = .milliseconds(9_500) ... .milliseconds(10_500)
            #expect(head.contains(try await silent))
            let (time, answer) = try await slowHead
            #expect(head.contains(time))
            #expect(answer.hasPrefix("HTTP/1.1 408 "))
            #expect(head.contains(try await slowBody))
            let close: ClosedRange<Duration> = .milliseconds(4_500) ... .milliseconds(5_500)
            #expect(close.contains(try await unanswered))
            // 10 s without a heartbeat, 1 s from SIGABRT to SIGKILL, and the time between two looks.
            #expect(try await hung < .milliseconds(12_500))
        }

        /// Sends a head's beginning, then a byte whenever nothing has come for 300 ms.
        private static func trickle(_ start: String, to client: RawClient) throws -> (Duration, String) {
            let started = ContinuousClock.now
            try client.send(start)
            client.timeout = .milliseconds(300)
            while .now - started < .seconds(15) {
                do {
                    let answer = try client.receive(until: "\r\n\r\n")
                    return (.now - started, answer)
                } catch RawClient.Failure.timeout {
                    try client.send("x")
                }
            }
            throw TestFailure("a head that never ends is still read after 15 s")
        }

        private static func stalledBody(_ client: RawClient) throws -> Duration {
            try client.send("POST /worker HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nthe beginning")
            return try timeToEnd(client)
        }

        /// SIGQUIT closes WebSockets; this peer reads the close and says nothing.
        private static func unansweredClose() throws -> Duration {
            let server = try ApusServer()
            let client = try server.connect()
            try client.upgrade()
            server.process.signal(SIGQUIT)
            let frame = try client.frame()
            guard frame.closeCode == 1012 else { throw TestFailure("\(frame)") }
            return try timeToEnd(client)
        }

        /// How long a stopped worker stays; while it does, the other worker serves.
        private static func hungWorker() throws -> Duration {
            let server = try ApusServer(workers: 2)
            let stopped = server.workers[0]
            let started = ContinuousClock.now
            kill(stopped, SIGSTOP)
            let isReplaced = Deadline(after: .seconds(20)).wait { !server.workers.contains(stopped) && server.workers.count == 2 }
            guard isReplaced else { throw TestFailure("a stopped worker is not replaced:\n\(server.process.standardError)") }
            let time = ContinuousClock.now - started
            for _ in 0..<20 {
                let status = try server.connect().request("GET /worker").status
                guard status == 200 else { throw TestFailure("status \(status) after the worker was replaced") }
            }
            return time
        }
    }
}
