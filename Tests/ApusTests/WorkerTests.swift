import Apus
import Glibc
import Testing
import TestSupport

@Suite("A worker runs and ends")
struct ContextTests {
    /// Runs the worker to its end; gives how long that took.
    static func run(_ worker: Worker) throws -> Duration {
        let start = ContinuousClock.now
        try worker.run()
        return start.duration(to: .now)
    }

    // MARK: Ending

    @Test("stop ends run; WebSockets are told 1001, idle connections are closed")
    func stop() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let webSocket = try stage.webSocket()
        let idle = try stage.client()
        _ = try idle.request("GET /")
        stage.worker.stop()
        #expect(try webSocket.frame() == .close(1001, "the server stops"))
        webSocket.send(Client.close(1001))
        webSocket.close()
        idle.close()
        #expect(try Self.run(stage.worker) < .milliseconds(900), "nothing is left to wait for")
        #expect(script.endings == ["closed 1001"])
        #expect(stage.worker.connectionCount == 0)
        try stage.worker.run()
    }

    @Test("stop cuts what is left after a second; closed is still called")
    func stopCuts() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let stubborn = try stage.webSocket()
        stage.worker.stop()
        let passed = try Self.run(stage.worker)
        #expect(passed > .milliseconds(950) && passed < .seconds(5), "\(passed)")
        #expect(script.endings == ["closed 1006"])
        #expect(try stubborn.frame().closeCode == 1001)
        try stubborn.end()
    }

    @Test("drain ends run: WebSockets are told 1012 within the window, requests in flight are answered")
    func drain() throws {
        var late: HTTPExchange?
        var ended: [ContinuousClock.Instant] = []
        let stage = try TestServer(limits: { $0.drainWindow = .milliseconds(300) }) { server in
            server.webSocket("chat", at: "/") { _ in
                let script = RecordingHandler()
                script.whenClosed = { _ in ended.append(.now) }
                return script
            }
            server.http(.get, at: "/late") { late = $0 }
        }
        let webSockets = try (0..<10).map { _ in try stage.webSocket() }
        let idle = try stage.client()
        _ = try idle.request("GET /nowhere")
        let waiting = try stage.client()
        waiting.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.until("the request") { late != nil }
        let start = ContinuousClock.now
        stage.worker.drain()
        var open = webSockets
        try stage.until("all closed") {
            open.removeAll { client in
                client.poll()
                guard let frame = client.received.count >= 2 ? try? client.frame() : nil else { return false }
                #expect(frame == .close(1012, "the service restarts"))
                client.send(Client.close(1012))
                return true
            }
            return ended.count == 10
        }
        #expect(start.duration(to: ended[0]) < .milliseconds(250), "the first at once")
        #expect(ended[0].duration(to: ended[9]) > .milliseconds(100), "not all at once")
        #expect(try idle.end().isEmpty)
        idle.close()
        late?.respond(text: "still answered")
        let response = try waiting.response()
        #expect(response.text == "still answered")
        #expect(response["connection"] == "close")
        try waiting.end()
        waiting.close()
        #expect(try Self.run(stage.worker) < .seconds(5))
    }

    @Test("what is left after the drain timeout is cut")
    func drainTimeout() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script) {
            $0.drainTimeout = .milliseconds(200)
            $0.drainWindow = .zero
        }
        let stubborn = try stage.webSocket()
        stage.worker.drain()
        stage.worker.drain()
        let passed = try Self.run(stage.worker)
        #expect(passed > .milliseconds(180) && passed < .seconds(3), "\(passed)")
        #expect(script.endings == ["closed 1006"])
        #expect(try stubborn.frame().closeCode == 1012)
    }

    @Test("stop after drain hurries")
    func stopAfterDrain() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script) { $0.drainWindow = .seconds(100) }
        for _ in 0..<3 { _ = try stage.webSocket() }
        stage.worker.drain()
        try stage.settle()
        stage.worker.stop()
        #expect(try Self.run(stage.worker) < .seconds(5))
        #expect(script.endings.count == 3)
    }

    @Test("who waited in the queue is served before a drain ends, a handshake too, and then told 1012 like the others")
    func drainServesQueue() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script, limits: { $0.drainWindow = .milliseconds(300) })
        let open = try stage.webSocket()
        let queued = try stage.client()
        stage.worker.drain()
        queued.send(Client.handshake())
        #expect(try queued.response(hasBody: false).status == 101)
        #expect(try queued.frame() == .close(1012, "the service restarts"))
        #expect(script.count("opened") == 2)
        open.close()
        queued.close()
        try stage.worker.run()
    }

    @Test("stop from a handler and from a timer", arguments: [false, true])
    func stopFromWithin(byTimer: Bool) throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, _ in socket.worker.stop() }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        if byTimer {
            stage.worker.schedule(after: .milliseconds(20)) { stage.worker.stop() }
        } else {
            client.send(.text, "stop")
        }
        #expect(try Self.run(stage.worker) < .seconds(5))
        #expect(script.endings.count == 1)
    }

    @Test("a worker that has ended is freed, and its port with it")
    func freed() throws {
        weak var watched: Worker?
        var address: SocketAddress?
        do {
            let script = RecordingHandler()
            let stage = try TestServer(script)
            watched = stage.worker
            address = stage.worker.addresses[0]
            let client = try stage.webSocket()
            stage.worker.stop()
            client.close()
            try stage.worker.run()
            // Whoever keeps a socket keeps its worker.
            script.forgetSocket()
        }
        #expect(watched == nil)
        // Somebody else can listen there.
        let port = try #require(address?.port)
        _ = try TestServer(listen: false) { $0.listen(on: .tcp("127.0.0.1", port: port)) }
    }

    @Test("a worker that never served a connection is freed too")
    func freedUnused() throws {
        weak var watched: Worker?
        do {
            let stage = try TestServer(RecordingHandler())
            watched = stage.worker
            stage.worker.stop()
            try stage.worker.run()
        }
        #expect(watched == nil)
    }

    // MARK: Running

    @Test("service returns when its time has passed, when it is woken, and when there is nothing to wait for")
    func service() throws {
        let stage = try TestServer(RecordingHandler())
        var start = ContinuousClock.now
        try stage.worker.service(timeout: .milliseconds(30))
        #expect(start.duration(to: .now) >= .milliseconds(29))
        start = .now
        try stage.worker.service(timeout: .zero)
        stage.worker.wakeUp()
        try stage.worker.service(timeout: .seconds(30))
        stage.worker.waker.wakeUp()
        try stage.worker.service()
        #expect(start.duration(to: .now) < .seconds(10))
    }

    @Test("timers fire once, in order, not when cancelled, and can start themselves again")
    func timers() throws {
        let stage = try TestServer(RecordingHandler())
        var fired: [String] = []
        stage.worker.schedule(after: .milliseconds(40)) { fired.append("later") }
        stage.worker.schedule(after: .milliseconds(10)) { fired.append("sooner") }
        let cancelled = stage.worker.schedule(after: .milliseconds(5)) { fired.append("never") }
        cancelled.cancel()
        var again: DeadlineTimer?
        var left = 3
        again = stage.worker.schedule(after: .milliseconds(15)) {
            left -= 1
            if left > 0 { again?.start(after: .milliseconds(1)) }
        }
        try stage.until("the last") { fired.count == 2 && left == 0 }
        #expect(fired == ["sooner", "later"])
        again = nil
    }

    @Test("more connections than allowed wait in the queue until one ends")
    func maxConnections() throws {
        let stage = try TestServer(limits: { $0.maxConnections = 2 }) { $0.http(.get, at: "/") { $0.respond(text: "served") } }
        let first = try stage.client()
        let second = try stage.client()
        #expect(try first.request("GET /").text == "served")
        #expect(try second.request("GET /").text == "served")
        let third = try stage.client()
        third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.serve(for: .milliseconds(50))
        #expect(third.isSilent)
        #expect(stage.worker.connectionCount == 2)
        first.close()
        #expect(try third.response().text == "served")
    }

    @Test("without room, who has made no request goes after half a second, the oldest first; who has made one stays")
    func makingRoom() throws {
        let stage = try TestServer(limits: { $0.maxConnections = 3 }) { $0.http(.get, at: "/") { $0.respond(text: "served") } }
        let served = try stage.client()
        #expect(try served.request("GET /").text == "served")
        let started = ContinuousClock.now
        let silent = try stage.client()
        try stage.until("the silent one") { stage.worker.connectionCount == 2 }
        let slow = try stage.client()
        slow.send("GET / HTTP/1.1\r\nHost: a\r\n")
        let others = try (0..<2).map { _ in try stage.client() }
        for client in others { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") }
        #expect(try others[0].response().text == "served")
        #expect(started.duration(to: .now) >= .milliseconds(490), "it had its time")
        #expect(try silent.end().isEmpty)
        #expect(try others[1].response().text == "served")
        #expect(try slow.end().isEmpty)
        // All have made requests now.
        let last = try stage.client()
        last.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.serve(for: .milliseconds(600))
        #expect(last.isSilent && stage.worker.connectionCount == 3)
        #expect(try served.request("GET /").text == "served")
        served.close()
        #expect(try last.response().text == "served")
    }

    @Test("with room, a silent client has its whole time; a request in time saves it without room")
    func timeToSpeak() throws {
        let stage = try TestServer(limits: { $0.maxConnections = 2 }) { $0.http(.get, at: "/") { $0.respond(text: "served") } }
        let silent = try stage.client()
        try stage.serve(for: .milliseconds(700))
        #expect(silent.isSilent && stage.worker.connectionCount == 1)
        let late = try stage.client()
        try stage.until("both") { stage.worker.connectionCount == 2 }
        // The first has had its time; the second speaks in time.
        try stage.until("room") { stage.worker.connectionCount == 1 }
        #expect(try late.request("GET /").text == "served")
        let full = try stage.client()
        #expect(try full.request("GET /").text == "served")
        try stage.serve(for: .milliseconds(600))
        #expect(stage.worker.connectionCount == 2)
    }

    // MARK: Listening

    @Test("a Unix socket: both protocols, no port, and its file goes with the server")
    func unix() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/socket"
        do {
            let script = RecordingHandler.echo()
            let stage = try TestServer(listen: false) { server in
                server.listen(on: .unix(path: path))
                server.webSocket("chat", at: "/") { _ in script }
                server.http(.get, at: "/peer") { $0.respond(text: "\($0.request.peer)") }
            }
            #expect(stage.worker.addresses == [.unix(path: path)])
            let client = try stage.client(to: .unix(path: path))
            #expect(try client.request("GET /peer").text == "unix:")
            client.send(Client.handshake())
            #expect(try client.response().status == 101)
            client.send(.text, "hello")
            #expect(try client.frame() == .text("hello"))
            client.close()
            stage.worker.stop()
            try stage.worker.run()
            script.forgetSocket()
        }
        #expect(access(path, F_OK) != 0)
    }

    @Test("several addresses at once, IPv6 among them")
    func addresses() throws {
        let stage = try TestServer { server in
            server.listen(on: .tcp("127.0.0.1", port: 0))
            server.listen(on: .tcp("::1", port: 0))
            server.http(.get, at: "/") { $0.respond(text: $0.request.peer.host) }
        }
        #expect(stage.worker.addresses.count == 3)
        for (address, peer) in zip(stage.worker.addresses, ["127.0.0.1", "127.0.0.1", "::1"]) {
            #expect(address.port != 0)
            #expect(try stage.client(to: address).request("GET /").text == peer)
        }
    }

    @Test("an address that is taken, nonsense, or none at all for workers")
    func configurationErrors() throws {
        let stage = try TestServer(RecordingHandler())
        let port = try #require(stage.worker.addresses[0].port)
        #expect(throws: ConfigurationError.self) { _ = try TestServer(listen: false) { $0.listen(on: .tcp("127.0.0.1", port: port)) } }
        // A worker may listen nowhere, to be a client; workers may not.
        #expect(try TestServer(listen: false) { _ in }.worker.addresses.isEmpty)
        #expect(throws: ConfigurationError.nothingToListenOn) { try Server().run() }
        #expect(throws: ConfigurationError.self) {
            _ = try TestServer(listen: false) { $0.listen(on: .tcp("localhost.example", port: 0)) }
        }
        #expect(throws: ConfigurationError.self) {
            _ = try TestServer(listen: false) { $0.listen(on: .unix(path: "/" + String(repeating: "x", count: 200))) }
        }
    }

    @Test(
        "addresses as text",
        arguments: [
            ("127.0.0.1:80", .tcp("127.0.0.1", port: 80)), ("[::1]:0", .tcp("::1", port: 0)),
            ("localhost:8080", .tcp("127.0.0.1", port: 8080)),
            ("unix:/run/x", .unix(path: "/run/x")), ("::1:80", nil), ("127.0.0.1", nil), ("127.0.0.1:65536", nil),
            ("127.0.0.1:", nil),
            ("example.com:80", nil), ("unix:", nil), ("", nil),
            ("unix:/x,mode=0660,owner=me,group=7", .unix(path: "/x", access: .init(mode: 0o660, owner: "me", group: "7"))),
            ("unix:/a,b,mode=7", .unix(path: "/a,b", access: .init(mode: 7))), ("unix:/x,mode=888", nil), ("unix:/x,mode=1777", nil),
            ("unix:/x,mode=", nil), ("unix:/x,owner=", nil), ("unix:/x,user=me", nil), ("unix:,mode=0600", nil),
        ] as [(String, ListenAddress?)])
    func listenAddress(text: String, expected: ListenAddress?) {
        #expect((try? ListenAddress(parsing: text)) == expected)
        if let expected { #expect((try? ListenAddress(parsing: "\(expected)")) == expected) }
    }
}
