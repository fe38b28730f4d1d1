import Apus
import Testing

@Suite("Clients behind proxies")
struct ClientProxyTests {
    static func http(_ server: RawServer, _ user: String = "") throws -> Proxy { try Proxy(parsing: "\(user)127.0.0.1:\(server.port)") }
    static func socks(_ server: RawServer, _ user: String = "") throws -> Proxy {
        try Proxy(parsing: "socks5://\(user)127.0.0.1:\(server.port)")
    }

    @Test("CONNECT names the server, which this side never resolves, and the tunnel carries the handshake")
    func tunnel() throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        let attempt = Attempt(stage, "ws://does-not-exist.invalid/chat") { $0.proxy = try? .through(Self.http(proxy, "me:p%40ss@")) }
        let peer = try proxy.accept()
        let lines = try peer.requestHead().split(separator: "\r\n").map(String.init)
        #expect(lines[0] == "CONNECT does-not-exist.invalid:80 HTTP/1.1" && lines.contains("Host: does-not-exist.invalid:80"))
        #expect(lines.contains("Proxy-Authorization: Basic bWU6cEBzcw=="))
        #expect(peer.isSilent, "nothing is sent before the proxy has answered")
        peer.send("HTTP/1.1 200 Connection established\r\nVia: x\r\nContent-Length: 5\r\n\r\n")
        let head = try peer.requestHead()
        #expect(head.hasPrefix("GET /chat HTTP/1.1\r\nHost: does-not-exist.invalid\r\n") && !head.contains("Proxy-"))
        try peer.acceptWebSocket(head)
        _ = try attempt.opened()
    }

    @Test("bytes behind the proxy's answer go into the tunnel, once", arguments: [1, 7, 1000])
    func behindTheAnswer(pieceBytes: Int) throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        var options = ClientOptions()
        options.proxy = try .through(Self.http(proxy))
        var result: Result<HTTPResponse, ConnectError>?
        stage.worker.request("http://server.test/", options: options) { result = $0 }
        let peer = try proxy.accept()
        _ = try peer.requestHead()
        // The server behind the tunnel answers before it is asked: what HTTP does not forbid.
        let bytes = Array("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello".utf8)
        for start in stride(from: 0, to: bytes.count, by: pieceBytes) {
            peer.send(Array(bytes[start..<min(start + pieceBytes, bytes.count)]))
            if pieceBytes < 1000 { try stage.turn() }
        }
        try stage.until("the answer") { result != nil }
        #expect(try result?.get().body == Array("Hello".utf8))
    }

    @Test(
        "proxies that give no tunnel",
        arguments: [
            ("HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n", "407", 407), ("HTTP/1.1 403 No\r\n\r\n", "403", 403),
            ("HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "101", 101),
            ("HTTP/1.1 502 No\r\nContent-Length: 1\r\n\r\nx", "502", 502),
            ("HTTP/1.1 302 X\r\nLocation: ws://evil.test/\r\n\r\n", "302", 302),
            ("SSH-2.0\r\n", "not HTTP", nil),
            ("HTTP/1.1 200 OK\r\nX: " + String(repeating: "x", count: 20_000), "larger than", nil),
            (String(repeating: "HTTP/1.1 102 P\r\n\r\n", count: 30), "interim", nil),
        ] as [(String, String, UInt16?)])
    func refusals(answer: String, words: String, status: UInt16?) throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        let attempt = Attempt(stage, "ws://server.test/") {
            $0.proxy = try? .through(Self.http(proxy))
            $0.maxRedirects = 5
        }
        let peer = try proxy.accept()
        _ = try peer.requestHead()
        peer.send(answer)
        let error = try attempt.failure()
        #expect(error.description.contains(words), "\(error)")
        #expect(error.response?.status.code == status)
        if !words.contains("interim") { #expect(error.stage == .proxy) }
        try peer.end()
        #expect(proxy.isIdle, "nothing is tried again")
    }

    @Test(
        "what a tunnel says of a body is ignored", arguments: ["Content-Length: 5", "Transfer-Encoding: chunked"])
    func tunnelWithBodyFields(field: String) throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        let attempt = Attempt(stage, "ws://server.test/") { $0.proxy = try? .through(Self.http(proxy)) }
        let peer = try proxy.accept()
        _ = try peer.requestHead()
        peer.send("HTTP/1.1 200 OK\r\n\(field)\r\n\r\n")
        try peer.acceptWebSocket(try peer.requestHead())
        _ = try attempt.opened()
    }

    @Test("SOCKS 5: the name goes to the proxy; user and password if there are any", arguments: [true, false])
    func socks(hasCredentials: Bool) throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        let attempt = Attempt(stage, "ws://server.test:81/chat") {
            $0.proxy = try? .through(Self.socks(proxy, hasCredentials ? "me:pw@" : ""))
        }
        let peer = try proxy.accept()
        if hasCredentials {
            #expect(try peer.take(4) == [5, 2, 0, 2])
            peer.send([5, 2])
            #expect(try peer.take(7) == [1, 2, 0x6D, 0x65, 2, 0x70, 0x77])
            peer.send([1, 0])
        } else {
            #expect(try peer.take(3) == [5, 1, 0])
            peer.send([5, 0])
        }
        #expect(try peer.take(18) == [5, 1, 0, 3, 11] + "server.test".utf8 + [0, 81])
        peer.send([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        try peer.acceptWebSocket(try peer.requestHead())
        _ = try attempt.opened()
    }

    @Test(
        "SOCKS 5 refusals",
        arguments: [([5, 0xFF], "user and a password"), ([4, 90], "version 4"), ([0x48, 0x54], "version 72")] as [([UInt8], String)])
    func socksRefusals(answer: [UInt8], words: String) throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        let attempt = Attempt(stage, "ws://server.test/") { $0.proxy = try? .through(Self.socks(proxy)) }
        let peer = try proxy.accept()
        _ = try peer.take(3)
        peer.send(answer)
        let error = try attempt.failure()
        #expect(error.stage == .proxy && error.description.contains(words), "\(error)")
    }

    @Test("a proxy that stalls or goes", arguments: [true, false], [true, false])
    func stalled(isHTTP: Bool, closes: Bool) throws {
        let stage = try TestServer(RecordingHandler())
        let proxy = try RawServer(stage)
        let attempt = Attempt(stage, "ws://server.test/") {
            $0.proxy = try? .through(isHTTP ? Self.http(proxy) : Self.socks(proxy))
            if !closes { $0.timeouts.proxy = .milliseconds(200) }
        }
        let peer = try proxy.accept()
        _ = try peer.take(3)
        if closes { peer.close() }
        let error = try attempt.failure()
        #expect(error.stage == .proxy, "\(error)")
    }

    @Test("the worker's proxy, set from text, serves clients whose options name none")
    func contextProxy() throws {
        let stage = try TestServer(RecordingHandler())
        let (proxy, server) = (try RawServer(stage), try RawServer(stage))
        try stage.worker.setProxy("me:pw@127.0.0.1:\(proxy.port)")
        #expect(throws: ConnectError.self) { try stage.worker.setProxy("no proxy") }
        let through = Attempt(stage, server.url)
        #expect(try proxy.accept().requestHead().hasPrefix("CONNECT 127.0.0.1:\(server.port) "))
        through.connection?.cancel()
        let straight = Attempt(stage, server.url) { $0.proxy = ProxyChoice.none }
        #expect(try server.accept().requestHead().hasPrefix("GET / "))
        straight.connection?.cancel()
        try stage.settle()
    }
}
