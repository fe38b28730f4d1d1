import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("Supervision")
    struct Supervision {
        /// Open WebSockets on every worker of a server.
        private static func openSockets(_ count: Int, on server: ApusServer) throws -> [RawClient] {
            try (0..<count).map { _ in
                let client = try server.connect()
                try client.upgrade()
                return client
            }
        }

        @Test("SIGQUIT: every WebSocket gets a close frame of 1012, and the process group is gone in time")
        func drain() throws {
            let server = try ApusServer(workers: 2)
            let clients = try Self.openSockets(100, on: server)
            let group = server.process.pid
            server.process.signal(SIGQUIT)
            for client in clients {
                let frame = try client.frame()
                #expect(frame.opcode == 8 && frame.closeCode == 1012)
                try client.send(frame)
                #expect(try client.receiveToEnd() == [])
            }
            // The closes are spread over two seconds.
            #expect(try server.process.wait(within: .seconds(5)) == .exited(0))
            #expect(ProcessTable.group(group).isEmpty)
        }

        @Test("SIGQUIT: a request under way is answered, a new connection is not taken")
        func drainFinishesRequests() throws {
            let server = try ApusServer()
            let (busy, idle) = (try server.connect(), try server.connect())
            let socket = try Self.openSockets(1, on: server)[0]
            #expect(try idle.request("GET /worker").status == 200)
            try busy.send("POST /worker HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
            // The answer to 100-continue is a proof that the server has the head; a second request in front would be answered first.
            #expect(try server.connect().request("GET /worker").status == 200)
            server.process.signal(SIGQUIT)
            #expect(try idle.receiveToEnd() == [])
            try busy.send("cd")
            let answer = try busy.response()
            #expect(answer.status == 405 && answer["connection"] == "close")
            #expect(try busy.receiveToEnd() == [])
            try socket.send(try socket.frame())
            #expect(try server.process.wait(within: .seconds(5)) == .exited(0))
            #expect(throws: RawClient.Failure.connect(ECONNREFUSED)) { try server.connect() }
        }

        @Test("SIGTERM and SIGINT: a close frame of 1001 and a quick end", arguments: [SIGTERM, SIGINT])
        func stop(signal: Int32) throws {
            let server = try ApusServer(workers: 2)
            let clients = try Self.openSockets(20, on: server)
            let group = server.process.pid
            server.process.signal(signal)
            for client in clients { #expect(try client.frame().closeCode == 1001) }
            // They do not answer: a second, and what is left is cut.
            let end = try withExtendedLifetime(clients) { try server.process.wait(within: .seconds(3)) }
            #expect(end == .exited(0))
            #expect(ProcessTable.group(group).isEmpty)
        }

        @Test("the master is killed: its workers say goodbye and go, and a new one starts at once")
        func masterKilled() throws {
            let server = try ApusServer(workers: 3)
            let clients = try Self.openSockets(30, on: server)
            let group = server.process.pid
            server.process.signal(SIGKILL)
            #expect(try server.process.wait(within: .seconds(1)) == .signalled(SIGKILL))
            // Its workers stop listening within 100 ms; until then the address is taken.
            var next: ApusServer?
            let hasNext = Deadline(after: .seconds(1)).wait {
                next = try? ApusServer(workers: 1, "--listen", "127.0.0.1:\(server.port)")
                return next != nil
            }
            #expect(hasNext, "no new master within a second")
            for client in clients {
                let frame = try client.frame()
                #expect(frame.opcode == 8)
                try client.send(frame)
            }
            let areGone = Deadline(after: .seconds(6)).wait { ProcessTable.group(group).isEmpty }
            #expect(areGone, "\(ProcessTable.group(group))")
            #expect(try next?.connect().request("GET /worker").status == 200)
        }

        /// How many workers the slot that answers has had before.
        private static func generation(of server: ApusServer) throws -> Int? {
            let answer = try server.connect().request("GET /worker").text
            return answer.split(separator: "\"generation\":").last.flatMap { Int($0.prefix { $0.isNumber }) }
        }

        @Test("a worker that dies is replaced, in its slot, and the others are left alone")
        func replaced() throws {
            let server = try ApusServer(workers: 2)
            let before = server.workers
            #expect(try Set((0..<40).map { _ in try Self.generation(of: server) }) == [0])
            kill(before[0], SIGKILL)
            let isReplaced = Deadline(after: .seconds(5)).wait {
                server.workers.count == 2 && !server.workers.contains(before[0])
            }
            #expect(isReplaced)
            #expect(server.workers.contains(before[1]))
            #expect(server.process.standardError.contains("pid \(before[0])) ended: "))
            let succeeds = Deadline(after: .seconds(5)).wait { (try? Self.generation(of: server)) == 1 }
            #expect(succeeds, "the slot's second worker")
        }
    }
}
