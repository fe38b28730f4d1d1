import Glibc
import TestSupport
import Testing

extension Integration {
    /// What the storms claim rests on it.
    @Suite("Whose a lost connection was")
    struct LostConnections {
        private static func loss(of end: SocketTable.End, since began: ContinuousClock.Instant) -> Loss {
            Loss(end: end, began: began, ended: .now, how: .ended(wasReset: true))
        }

        @Test("reset before its client has looked, a connection is lost, not refused, and has its name still")
        func resetAtConnect() throws {
            var listener: RawListener? = try RawListener()
            let port = try #require(listener?.port)
            let client = try RawClient(source: 99)
            try client.beginConnecting(to: port)
            let name = client.localEnd
            #expect(name.address == 0x7f00_0063 && name.port != 0)
            // What waits in its queue is reset.
            listener = nil
            #expect(throws: RawClient.Failure.ended(wasReset: true)) { try client.finishConnecting() }
            #expect(client.localEnd == name)
            #expect(throws: RawClient.Failure.connect(ECONNREFUSED)) { try RawClient(port: port) }
        }

        @Test("a worker's are those that it had accepted, and not closed, when it was stopped; none if it goes on")
        func accepted() throws {
            let server = try ApusServer()
            let workers = StoppedWorkers(of: server.port)
            let worker = try #require(server.workers.first)
            let began = ContinuousClock.now
            let left = try server.connect()
            #expect(try left.request("GET /worker").status == 200)
            left.resetOnClose()
            let gone = left.localEnd
            left.end()
            let held = try server.connect()
            #expect(try held.request("GET /worker").status == 200)

            #expect(try workers.stop(worker))
            let waiting = try server.connect()
            let ends = [gone, held.localEnd, waiting.localEnd]
            var account = workers.account(for: ends.map { Self.loss(of: $0, since: began) })
            #expect(account.stopped == 1 && account.killed == 0)
            #expect(account.unexplained.map(\.end) == [gone, waiting.localEnd])
            // Another's, by the same name, later.
            account = workers.account(for: [Self.loss(of: held.localEnd, since: .now)])
            #expect(account.unexplained.count == 1)

            try workers.resume(worker)
            account = workers.account(for: ends.map { Self.loss(of: $0, since: began) })
            #expect(account.unexplained.count == 3)
            for client in [held, waiting] { #expect(try client.request("GET /worker").status == 200) }
            #expect(server.workers == [worker])

            #expect(try workers.kill(worker))
            account = workers.account(for: ends.map { Self.loss(of: $0, since: began) })
            #expect(account.killed == 2 && account.unexplained.map(\.end) == [gone])
            for client in [held, waiting] { #expect(try client.receiveToEnd() == []) }
            #expect(try workers.kill(worker) == false)
        }

        @Test("a worker that the watchdog aborts while it is stopped loses what it had accepted")
        func aborted() throws {
            let place = try TemporaryDirectory()
            try Files.write("limits:\n  heartbeatTimeout: 200 ms\n".utf8, to: place.path + "/c")
            let server = try ApusServer(workers: 1, "-c", place.path + "/c")
            let workers = StoppedWorkers(of: server.port)
            let worker = try #require(server.workers.first)
            let began = ContinuousClock.now
            let held = try server.connect()
            #expect(try held.request("GET /worker").status == 200)
            #expect(try workers.stop(worker))
            #expect(try held.receiveToEnd() == [])
            let account = workers.account(for: [Self.loss(of: held.localEnd, since: began)])
            #expect(account.stopped == 1 && account.unexplained.isEmpty)
        }
    }
}
