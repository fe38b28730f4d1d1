import Glibc
import TestSupport
import Testing

extension Integration {
    /// Connections whose readiness never goes away: a loop that does not let go of them spins.
    @Suite("Half-closed and unread connections")
    struct Spins {
        private static let window = Duration.seconds(5)
        /// 1 % of the window.
        private static let most = Duration.milliseconds(50)

        @Sendable private static func echoesUnread(_ server: ApusServer) throws -> RawClient {
            let client = try server.connect(timeout: .milliseconds(300))
            try client.upgrade()
            let frame = RawFrame(opcode: 2, payload: [UInt8](repeating: 1, count: 60_000)).masked
            do {
                while true { try client.send(frame) }
            } catch RawClient.Failure.timeout {}
            return client
        }

        @Sendable private static func responsesUnread(_ server: ApusServer) throws -> RawClient {
            let client = try server.connect(timeout: .milliseconds(300))
            let requests = String(repeating: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", count: 1000)
            do {
                while true { try client.send(requests) }
            } catch RawClient.Failure.timeout {}
            return client
        }

        private static func webSocket(_ server: ApusServer, _ frames: RawFrame...) throws -> RawClient {
            let client = try server.connect()
            try client.upgrade()
            try client.send(frames.flatMap(\.masked))
            return client
        }

        /// Each leaves its connection in some state that stays.
        private static let states: [(name: String, make: @Sendable (ApusServer) throws -> RawClient)] = [
            ("nothing sent, half-closed", { try halfClosed($0.connect()) }),
            ("half a head, half-closed", { try halfClosed($0.connect(), "GET / HTTP/1.1\r\nHost") }),
            (
                "half a body, half-closed",
                { try halfClosed($0.connect(), "POST /worker HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf") }
            ),
            ("a request, half-closed, the answer unread", { try halfClosed($0.connect(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n") }),
            (
                "a bad request and more behind it, unread",
                { try sent($0.connect(), "NONSENSE\r\n\r\n" + String(repeating: "x", count: 100_000)) }
            ),
            ("responses unread", responsesUnread), ("responses unread, half-closed", { try halfClosed(responsesUnread($0)) }),
            ("responses unread, reset", { try reset(responsesUnread($0)) }),
            ("a WebSocket, half-closed", { try halfClosed(webSocket($0)) }),
            ("half a frame, half-closed", { try halfClosed(sent(webSocket($0), "\u{1}")) }),
            ("half a message, half-closed", { try halfClosed(webSocket($0, RawFrame(opcode: 1, isFinal: false, payload: [0x61]))) }),
            ("a close frame, its answer unread", { try webSocket($0, .close(1000)) }),
            (
                "a violation and more behind it, unread",
                { try webSocket($0, RawFrame(opcode: 3), RawFrame(opcode: 2, payload: [UInt8](repeating: 0, count: 90_000))) }
            ),
            ("a violation, half-closed", { try halfClosed(webSocket($0, RawFrame(opcode: 3))) }), ("echoes unread", echoesUnread),
            ("echoes unread, half-closed", { try halfClosed(echoesUnread($0)) }), ("echoes unread, reset", { try reset(echoesUnread($0)) }),
            (
                "echoes unread, a close frame behind them",
                {
                    let client = try echoesUnread($0)
                    do { try client.send(.close(1000)) } catch RawClient.Failure.timeout {}
                    return client
                }
            ),
        ]

        private static func sent(_ client: RawClient, _ text: String) throws -> RawClient {
            try client.send(text)
            return client
        }

        private static func halfClosed(_ client: RawClient, _ text: String = "") throws -> RawClient {
            try client.send(text)
            client.finishSending()
            return client
        }

        private static func reset(_ client: RawClient) throws -> RawClient {
            client.resetOnClose()
            client.end()
            return client
        }

        @Test("the worker stays at 1 % of a CPU for 5 s with each of them")
        func spins() throws {
            // One server for each, so that a failure names its state; all in the same five seconds.
            let cases = try Self.states.map { state in
                let server = try ApusServer()
                return (state.name, server, try state.make(server))
            }
            try Self.expectCalm(cases.map { ($0.0, $0.1) }) { try $0.connect().request("GET /worker").status == 200 }
            withExtendedLifetime(cases) {}
        }

        /// Made by Tests/Support/Peers/tls_states.py.
        private static let secureStates = [
            "half a hello, half-closed", "close_notify", "close_notify, half-closed", "no close_notify, half-closed",
            "half a record, half-closed", "answers unread", "answers unread, half-closed",
            "answers unread, close_notify behind them, half-closed",
        ]

        @Test("nor does it spin over TLS: shut down, half-closed, with data unread")
        func spinsOverTLS() throws {
            let cases = try Self.secureStates.map { name in
                let server = try ApusServer(options: try Certificates.options("localhost"))
                return (name, server, try ChildProcess([Places.python, Places.peer("tls_states.py"), "\(server.port)", name]))
            }
            for (name, _, peer) in cases {
                let isMade = Deadline(after: .seconds(20)).wait { peer.standardOutput.contains("made") || peer.hasEnded != nil }
                #expect(isMade && peer.hasEnded == nil, "\(name): \(peer.standardError)")
            }
            try Self.expectCalm(cases.map { ($0.0, $0.1) }) { try TLS.curl($0).standardOutput.contains("workers") }
            withExtendedLifetime(cases) {}
        }

        private static func expectCalm(_ cases: [(name: String, server: ApusServer)], serves: (ApusServer) throws -> Bool) throws {
            // What the states' making asked for is over when a worker has had nothing to do for a while: the window begins.
            let workers = cases.map { $0.server.workers[0] }
            let before = try workers.map(ProcessTable.processorTime)
            // Time itself is what is waited for here.
            _ = Deadline(after: Self.window).wait { false }
            let spent = try zip(workers, before).map { try ProcessTable.processorTime($0) - $1 }
            for (index, (name, server)) in cases.enumerated() {
                print("spin: \(name): \(spent[index] / Self.window * 100) %")
                #expect(spent[index] <= Self.most, "\(name)")
                #expect(server.workers == [workers[index]], "\(name)")
                #expect(try serves(server), "\(name)")
            }
        }
    }
}
