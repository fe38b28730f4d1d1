import Apus
import ApusPlatform
import Glibc
import Testing
import TestSupport

@Suite("How clients open WebSockets")
struct ClientOpeningTests {
    static func stage(_ configure: (inout Server) -> Void = { _ in }) throws -> TestServer {
        try TestServer {
            $0.webSocket("chat", at: "/chat") { _ in RecordingHandler.echo() }
            configure(&$0)
        }
    }

    static func url(_ stage: TestServer, _ path: String = "/chat") -> String { "ws://\(stage.worker.addresses[0])\(path)" }

    @Test("a message and its echo, in a worker that serves too")
    func echo() throws {
        let stage = try Self.stage()
        let attempt = Attempt(stage, Self.url(stage), subprotocols: ["other", "chat"])
        let socket = try attempt.opened()
        #expect(socket.subprotocol == "chat" && attempt.heads.count == 1)
        #expect(attempt.heads[0].status == .switchingProtocols)
        #expect(attempt.connection?.socket === socket)
        socket.send(text: "Grüße")
        try stage.until("the echo") { attempt.script.middle == ["text Grüße"] }
        attempt.connection?.cancel()
        try stage.until("the end") { attempt.script.endings.count == 1 }
        #expect(attempt.script.endings == ["closed 1000"] && attempt.errors.isEmpty)
        #expect(attempt.connection?.isOver == true)
    }

    @Test("a client's protocol stands for the client connections of its name, not for one of the server's")
    func ownProtocol() throws {
        let stage = try Self.stage { $0.webSocket("other", at: "/other") { _ in RecordingHandler.echo() } }
        let attempts = [
            Attempt(stage, Self.url(stage), subprotocols: ["chat"]), Attempt(stage, Self.url(stage), subprotocols: ["chat"]),
            Attempt(stage, Self.url(stage, "/other"), subprotocols: ["other"]), Attempt(stage, Self.url(stage)),
        ]
        let sockets = try attempts.map { try $0.opened() }
        let own = sockets[0].webSocketProtocol
        #expect(own.id == sockets[1].webSocketProtocol.id)
        #expect(own.id != sockets[2].webSocketProtocol.id && own.id != sockets[3].webSocketProtocol.id)
        stage.worker.signal(all: own, 7, payload: [1])
        stage.worker.requestWritable(all: own)
        stage.worker.remote.requestWritable(all: own.id)
        try stage.until("both are asked to write") { attempts[0...1].allSatisfy { $0.script.middle.contains("writable") } }
        #expect(attempts[0...1].allSatisfy { $0.script.middle.contains { $0.hasPrefix("signal 7") } })
        for attempt in attempts[2...3] { #expect(attempt.script.middle.isEmpty) }
        // Nor are the server's own connections, of the first protocol, meant.
        sockets[0].send(text: "x")
        try stage.until("the echo") { attempts[0].script.middle.contains("text x") }
        #expect(attempts[0].script.middle.count { $0 == "writable" } <= 2)
    }

    @Test("by name: localhost needs no resolver, and IPv4 follows when IPv6 refuses")
    func localhost() throws {
        let stage = try Self.stage()
        let port = try #require(stage.worker.addresses[0].port)
        let attempt = Attempt(stage, "ws://localhost:\(port)/chat")
        #expect(try attempt.opened().peer?.host == "127.0.0.1")
    }

    @Test("to a local socket, whose path and target the address has")
    func unix() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/s"
        let stage = try TestServer(listen: false) {
            $0.listen(on: .unix(path: path))
            $0.webSocket("chat", at: "/chat") { _ in RecordingHandler.echo() }
        }
        let attempt = Attempt(stage, "ws+unix://\(path):/chat")
        #expect(try attempt.opened().isOpen)
        unlink(path)
    }

    @Test("what the request says: headers, closure, origin, credentials")
    func request() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let headers = try HTTPFields(["X-One": "1"])
        var asked: [String] = []
        let attempt = Attempt(
            stage, "ws://me:p%40ss@127.0.0.1:\(server.port)/path?q=1", headers: headers, origin: "https://page.test"
        ) {
            $0.additionalFields = { address in
                asked.append(address.target)
                return try HTTPFields(["X-Two": "2"])
            }
        }
        let peer = try server.accept()
        let lines = try peer.requestHead().split(separator: "\r\n").map(String.init)
        #expect(lines[0] == "GET /path?q=1 HTTP/1.1" && lines[1] == "Host: 127.0.0.1:\(server.port)")
        for line in ["Origin: https://page.test", "X-One: 1", "X-Two: 2", "Authorization: Basic bWU6cEBzcw==", "Sec-WebSocket-Version: 13"]
        {
            #expect(lines.count { $0 == line } == 1, "\(line)")
        }
        #expect(asked == ["/path?q=1"])
        try peer.acceptWebSocket(lines.joined(separator: "\r\n"))
        _ = try attempt.opened()
    }

    @Test("Host can be another than the address's, on every request but those that another origin gets")
    func host() throws {
        let stage = try TestServer(RecordingHandler())
        let (server, other) = (try RawServer(stage), try RawServer(stage))
        let attempt = Attempt(stage, "ws://127.0.0.1:\(server.port)/") {
            $0.host = "chat.test:81"
            $0.maxRedirects = 2
        }
        let first = try server.accept()
        #expect(try first.requestHead().contains("\r\nHost: chat.test:81\r\n"))
        first.send("HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        let second = try server.accept()
        let again = try second.requestHead()
        #expect(again.hasPrefix("GET /there ") && again.contains("\r\nHost: chat.test:81\r\n"))
        second.send("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:\(other.port)/\r\nContent-Length: 0\r\n\r\n")
        let third = try other.accept()
        let elsewhere = try third.requestHead()
        #expect(elsewhere.contains("\r\nHost: 127.0.0.1:\(other.port)\r\n"))
        try third.acceptWebSocket(elsewhere)
        _ = try attempt.opened()
    }

    @Test("keys and masks differ from connection to connection")
    func keys() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        var keys: Set<String> = []
        var masks: Set<[UInt8]> = []
        for _ in 0..<5 {
            let attempt = Attempt(stage, server.url)
            let peer = try server.accept()
            let head = try peer.requestHead()
            keys.insert(String(try #require(head.split(separator: "\r\n").first { $0.hasPrefix("Sec-WebSocket-Key: ") })))
            try peer.acceptWebSocket(head)
            let socket = try attempt.opened()
            for _ in 0..<4 { socket.send(text: "") }
            try stage.settle()
            for _ in 0..<4 { masks.insert(Array(try peer.take(6).dropFirst(2))) }
        }
        #expect(keys.count == 5 && masks.count == 20)
    }

    @Test("messages that come in one piece with the answer are delivered after opened")
    func pipelined() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url)
        let peer = try server.accept()
        // The answer in two pieces, so that the frame is certain to come with its end.
        let head = try peer.requestHead()
        try peer.acceptWebSocket(head, fields: "X: " + String(repeating: "x", count: 100) + "\r\n")
        peer.send(Client.serverFrame(.text, Array("early".utf8)))
        _ = try attempt.opened()
        try stage.until("the message") { attempt.script.events == ["opened", "text early"] }
    }

    @Test("interim answers are skipped, but not for ever", arguments: [3, 40])
    func interim(count: Int) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url)
        let peer = try server.accept()
        let head = try peer.requestHead()
        for _ in 0..<count { peer.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") }
        try? peer.acceptWebSocket(head)
        if count < 16 { _ = try attempt.opened() } else { #expect(try attempt.failure().stage == .answer) }
    }

    // MARK: Refusals

    struct Hostile: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let answer: String
        let words: String
        var status: UInt16?
    }

    static let ok = "Upgrade: websocket\r\nConnection: Upgrade\r\n"

    static let hostile = [
        Hostile(
            testDescription: "a wrong Accept", answer: "HTTP/1.1 101 X\r\n\(ok)Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            words: "Sec-WebSocket-Accept", status: 101),
        Hostile(testDescription: "no Accept", answer: "HTTP/1.1 101 X\r\n\(ok)\r\n", words: "Sec-WebSocket-Accept", status: 101),
        Hostile(testDescription: "200", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", words: "200 OK", status: 200),
        Hostile(testDescription: "401", answer: "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n", words: "401", status: 401),
        Hostile(testDescription: "302 without leave", answer: "HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n", words: "302", status: 302),
        Hostile(
            testDescription: "101 without Upgrade", answer: "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n", words: "Upgrade", status: 101),
        Hostile(
            testDescription: "101 without Connection", answer: "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", words: "Connection",
            status: 101),
        Hostile(testDescription: "HTTP/1.0", answer: "HTTP/1.0 101 X\r\n\(ok)\r\n", words: "HTTP/1.1", status: 101),
        Hostile(testDescription: "no HTTP", answer: "SSH-2.0-x\r\n", words: "not HTTP"),
        Hostile(testDescription: "a bare LF", answer: "HTTP/1.1 101 X\nUpgrade: websocket\n\n", words: "not HTTP"),
        Hostile(
            testDescription: "a head over the limit", answer: "HTTP/1.1 101 X\r\nX: " + String(repeating: "x", count: 20_000),
            words: "larger than 16384 bytes"),
        Hostile(
            testDescription: "too many fields", answer: "HTTP/1.1 101 X\r\n" + String(repeating: "X: x\r\n", count: 101),
            words: "100 fields"),
    ]

    @Test("answers that open nothing", arguments: hostile)
    func refused(_ example: Hostile) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url)
        let peer = try server.accept()
        _ = try peer.requestHead()
        peer.send(example.answer)
        let error = try attempt.failure()
        #expect(error.description.contains(example.words), "\(error)")
        #expect(error.stage == .answer && error.response?.status.code == example.status)
        try peer.end()
    }

    @Test(
        "answers that are right but for one field",
        arguments: [
            ("Sec-WebSocket-Protocol: other\r\n", "other"),
            ("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n", "more than once"),
            ("Sec-WebSocket-Extensions: permessage-deflate\r\n", "permessage-deflate"),
        ])
    func wrongField(fields: String, words: String) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url, subprotocols: ["chat"])
        let peer = try server.accept()
        try peer.acceptWebSocket(try peer.requestHead(), fields: fields)
        let error = try attempt.failure()
        #expect(error.description.contains(words) && error.stage == .answer && error.response != nil, "\(error)")
    }

    @Test("the application refuses an answer that would do")
    func applicationRefuses() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url)
        attempt.refusal = Rejection(.forbidden, "not this server")
        let peer = try server.accept()
        try peer.acceptWebSocket(try peer.requestHead(), fields: "Server: x\r\n")
        let error = try attempt.failure()
        guard case .refused(let reason, let head) = error else {
            Issue.record("\(error)")
            return
        }
        #expect((reason as? Rejection)?.reason == "not this server" && head.fields["server"] == "x")
    }

    @Test(
        "what cannot be asked for sends no byte",
        arguments: [
            "ws://127.0.0.1:PORT/\r\nX: y", "ws://127.0.0.1:PORT/\u{0}", "http://127.0.0.1:PORT/", "ws://[127.0.0.1]:PORT/", "nonsense",
        ])
    func badAddress(url: String) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, url.replacing("PORT", with: "\(server.port)"))
        guard case .address = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
        #expect(server.isIdle)
    }

    @Test("fields and names that cannot stand in a request send no byte")
    func badFields() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let reserved = try HTTPFields(["Sec-WebSocket-Key": "x"])
        for attempt in [
            Attempt(stage, server.url, headers: reserved), Attempt(stage, server.url, subprotocols: ["a b"]),
            Attempt(stage, server.url, subprotocols: ["a\r\nX: y"]), Attempt(stage, server.url, origin: "a\r\nX: y"),
            Attempt(stage, server.url) { $0.additionalFields = { _ in throw Rejection(.forbidden) } },
            Attempt(stage, server.url) { $0.bindAddress = "localhost" }, Attempt(stage, server.url) { $0.interface = "" },
        ] {
            guard case .request = try attempt.failure() else {
                Issue.record("\(attempt.errors)")
                return
            }
        }
        #expect(server.isIdle)
    }

    // MARK: The network

    @Test("nobody listens: every address that was tried is named")
    func refusedConnect() throws {
        let stage = try TestServer(RecordingHandler())
        let port = try RawServer(stage).port
        let attempt = Attempt(stage, "ws://localhost:\(port)/")
        guard case .connect(let failures) = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
        #expect(failures.map { $0.address.host } == ["::1", "127.0.0.1"])
    }

    @Test("a name that does not exist")
    func unknownName() throws {
        let stage = try TestServer(RecordingHandler())
        let attempt = Attempt(stage, "ws://does-not-exist.invalid/") { $0.timeouts.name = .seconds(2) }
        let error = try attempt.failure()
        #expect(error.stage == .name, "\(error)")
    }

    @Test("the server closes, or resets, before it answers", arguments: [true, false])
    func closes(resets: Bool) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url)
        let peer = try server.accept()
        _ = try peer.requestHead()
        peer.send("HTTP/1.1 101 Switch")
        if resets { peer.reset() } else { peer.close() }
        guard case .closed(.answer) = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
    }

    @Test("an answer that trickles does not prolong its time")
    func stalledAnswer() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let start = ContinuousClock.now
        let attempt = Attempt(stage, server.url) { $0.timeouts.answer = .milliseconds(300) }
        let peer = try server.accept()
        peer.send("HTTP/1.1 101 X\r\nX: ")
        var next = start
        try stage.until("the end") {
            if ContinuousClock.now >= next {
                peer.send("x")
                next += .milliseconds(10)
            }
            return !attempt.errors.isEmpty
        }
        guard case .timeout(.answer) = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
        #expect(ContinuousClock.now - start >= .milliseconds(300) && ContinuousClock.now - start < .seconds(5))
    }

    @Test("a connect that hangs has its time")
    func stalledConnect() throws {
        let stage = try TestServer(RecordingHandler())
        // A listen queue that is full answers no more.
        let any = try #require(SocketAddress(numericHost: "127.0.0.1", port: 0))
        let listener = try Socket.stream(for: any)
        try Socket.bind(listener.rawValue, to: any)
        try Socket.listen(listener.rawValue, backlog: 0)
        let address = try Socket.localAddress(of: listener.rawValue)
        var fillers: [Int32] = []
        defer { for filler in fillers { close(filler) } }
        for _ in 0..<2 {
            let filler = try Socket.stream(for: address)
            _ = try Socket.connect(filler.rawValue, to: address)
            fillers.append(filler.release())
        }
        let attempt = Attempt(stage, "ws://\(address)/") { $0.timeouts.connect = .milliseconds(200) }
        guard case .timeout(.connect) = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
    }

    // MARK: From this side

    @Test("cancelled before anything, while it connects and while it waits: one event, no connection left")
    func cancelled() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        for turns in [0, 1, 6] {
            let attempt = Attempt(stage, server.url)
            for _ in 0..<turns { try stage.turn() }
            attempt.connection?.cancel()
            #expect(attempt.errors.isEmpty, "never from inside cancel")
            guard case .cancelled = try attempt.failure() else {
                Issue.record("\(attempt.errors)")
                return
            }
            attempt.connection?.cancel()
            try stage.settle()
            #expect(attempt.errors.count == 1)
        }
        let named = Attempt(stage, "ws://does-not-exist.invalid/")
        named.connection?.cancel()
        guard case .cancelled = try named.failure() else {
            Issue.record("\(named.errors)")
            return
        }
    }

    @Test("a worker that drains ends what is being opened, opens nothing more, and ends itself")
    func draining() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let waiting = Attempt(stage, server.url)
        let peer = try server.accept()
        _ = try peer.requestHead()
        // No turn comes between: that there is no such name has not been told.
        let connecting = Attempt(stage, "ws://does-not-exist.invalid/")
        stage.worker.drain()
        let late = Attempt(stage, server.url)
        for attempt in [waiting, connecting, late] {
            try stage.until("the end") { !attempt.errors.isEmpty }
            guard case .workerEnding = attempt.errors[0] else {
                Issue.record("\(attempt.errors)")
                return
            }
        }
        #expect(stage.worker.connectionCount == 0)
    }

    @Test("many at once, each with one outcome")
    func many() throws {
        let stage = try Self.stage()
        let attempts = (0..<200).map { Attempt(stage, Self.url(stage, $0 % 4 == 3 ? "/nothing" : "/chat")) }
        try stage.until("all outcomes") { attempts.allSatisfy { $0.errors.count + $0.script.count("opened") == 1 } }
        #expect(attempts.count { !$0.errors.isEmpty } == 50)
    }
}
