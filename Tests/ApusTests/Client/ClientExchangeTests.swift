import Apus
import Testing

@Suite("HTTP requests of clients")
struct ClientExchangeTests {
    /// Notes what it is told.
    final class Reader: HTTPResponseHandler {
        private(set) var events: [String] = []
        private(set) var body: [UInt8] = []
        var whenContent: (ClientExchange) -> Void = { _ in }

        func received(_ head: HTTPResponseHead, in exchange: ClientExchange) { events.append("\(head.status.code)") }

        func received(_ content: RawSpan, in exchange: ClientExchange) {
            body += Message(kind: .binary, payload: content).bytes
            whenContent(exchange)
        }

        func ended(_ exchange: ClientExchange) { events.append("ended") }
        func failed(_ error: ConnectError, in exchange: ClientExchange) { events.append(error.stage.map(\.rawValue) ?? "\(error)") }
    }

    private static func get(
        _ stage: TestServer, _ url: String, method: HTTPMethod = .get, body: [UInt8] = [],
        _ configure: (inout ClientOptions) -> Void = { _ in }
    ) throws -> HTTPResponse {
        var options = ClientOptions()
        configure(&options)
        var result: Result<HTTPResponse, ConnectError>?
        stage.worker.request(url, method: method, body: body, options: options) {
            #expect(result == nil, "told once")
            result = $0
        }
        #expect(result == nil, "never from inside request")
        try stage.until("the answer") { result != nil }
        return try #require(result).get()
    }

    @Test("GET, HEAD and POST to a server of this library's, in the same worker")
    func ownServer() throws {
        let stage = try TestServer {
            $0.http(.get, at: "/x") { $0.respond(text: "query \($0.request.query.map(\.value))") }
            $0.http(.post, at: "/x") { exchange in exchange.respond(.created, body: exchange.request.body) }
        }
        let url = "http://\(stage.worker.addresses[0])/x"
        let got = try Self.get(stage, url + "?a=1")
        #expect(got.status == .ok && String(decoding: got.body, as: UTF8.self) == "query [\"1\"]")
        #expect(try Self.get(stage, url, method: .head).body.isEmpty)
        let large = (0..<900_000).map { UInt8(truncatingIfNeeded: $0) }
        let posted = try Self.get(stage, url, method: .post, body: large)
        #expect(posted.status == .created && posted.body == large)
        #expect(try Self.get(stage, "http://\(stage.worker.addresses[0])/nothing").status == .notFound)
        try stage.until("no connection") { stage.worker.connectionCount == 0 }
    }

    struct Body: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let answer: String
        var closes = false
        let events: [String]
        var body = "Hello"
    }

    static let bodies = [
        Body(testDescription: "Content-Length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello", events: ["200", "ended"]),
        Body(
            testDescription: "chunks",
            answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nHe\r\n3;x=y\r\nllo\r\n0\r\nT: x\r\n\r\n",
            events: ["200", "ended"]),
        Body(testDescription: "until close", answer: "HTTP/1.1 200 OK\r\n\r\nHello", closes: true, events: ["200", "ended"]),
        Body(testDescription: "HTTP/1.0 until close", answer: "HTTP/1.0 200 OK\r\n\r\nHello", closes: true, events: ["200", "ended"]),
        Body(testDescription: "no content", answer: "HTTP/1.1 204 No\r\n\r\n", events: ["204", "ended"], body: ""),
        Body(
            testDescription: "an interim answer", answer: "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            events: ["200", "ended"], body: ""),
        Body(
            testDescription: "more than was promised is not read", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHelloHello",
            events: ["200", "ended"]),
        Body(
            testDescription: "cut short", answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello", closes: true,
            events: ["200", "body"]),
        Body(
            testDescription: "chunks cut short", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n",
            closes: true,
            events: ["200", "body"]),
        Body(
            testDescription: "broken chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\nx\r\n",
            events: ["200", "body"]),
        Body(
            testDescription: "two lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nHello",
            events: ["answer"], body: ""),
        Body(
            testDescription: "too large", answer: "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\nHello", events: ["200", "body"], body: ""),
        Body(testDescription: "101", answer: "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", events: ["answer"], body: ""),
        Body(testDescription: "nothing", answer: "", closes: true, events: ["answer"], body: ""),
        Body(testDescription: "it stalls", answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello", events: ["200", "body"]),
    ]

    @Test("bodies, whole and byte by byte", arguments: bodies, [true, false])
    func read(_ example: Body, byteByByte: Bool) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let reader = Reader()
        var options = ClientOptions()
        options.maxResponseBodyBytes = 100
        if example.testDescription == "it stalls" { options.timeouts.body = .milliseconds(200) }
        let exchange = stage.worker.request(server.httpURL, options: options, handler: reader)
        let peer = try server.accept()
        let head = try peer.requestHead()
        #expect(head.hasPrefix("GET / HTTP/1.1\r\n") && head.contains("Connection: close") && !head.contains("Content-Length"))
        if byteByByte {
            for byte in example.answer.utf8 {
                peer.send([byte])
                try stage.turn()
            }
        } else {
            peer.send(example.answer)
        }
        if example.closes { peer.close() }
        try stage.until("the end") { exchange.isOver }
        try stage.settle()
        #expect(reader.events == example.events)
        #expect(String(decoding: reader.body, as: UTF8.self) == example.body)
        #expect(stage.worker.connectionCount == 0)
    }

    @Test("a handler that pauses stops the server; nothing is lost, and no deadline runs meanwhile")
    func backPressure() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let reader = Reader()
        var options = ClientOptions()
        options.maxResponseBodyBytes = 100 << 20
        options.timeouts.body = .milliseconds(100)
        reader.whenContent = { $0.pauseReceiving() }
        let exchange = stage.worker.request(server.httpURL, options: options, handler: reader)
        let peer = try server.accept()
        _ = try peer.requestHead()
        let content = (0..<(16 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(content.count)\r\n\r\n")
        var sent = 0
        func feed() {
            while sent < content.count {
                let count = peer.sendNow(content[sent..<min(sent + 65_536, content.count)])
                if count == 0 { return }
                sent += count
            }
        }
        try stage.until("content") {
            feed()
            return !reader.body.isEmpty
        }
        let deadline = ContinuousClock.now + .milliseconds(250)
        while ContinuousClock.now < deadline {
            feed()
            try stage.turn()
        }
        #expect(sent < content.count && reader.body.count <= 1 << 20 && !exchange.isOver, "\(sent) \(reader.body.count)")
        reader.whenContent = { _ in }
        exchange.resumeReceiving()
        try stage.until("the end") {
            feed()
            return exchange.isOver
        }
        #expect(reader.events == ["200", "ended"] && reader.body == content)
    }

    @Test("cancelled before and inside the answer", arguments: [true, false])
    func cancelled(inside: Bool) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let reader = Reader()
        if inside { reader.whenContent = { $0.cancel() } }
        let exchange = stage.worker.request(server.httpURL, handler: reader)
        let peer = try server.accept()
        _ = try peer.requestHead()
        if inside { peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello") } else { exchange.cancel() }
        try stage.until("the end") { exchange.isOver }
        #expect(reader.events.last == "it was cancelled")
        exchange.cancel()
        try stage.settle()
        #expect(reader.events.count == (inside ? 2 : 1) && stage.worker.connectionCount == 0)
    }

    @Test(
        "redirections: 303 and POST become GET, 307 keeps method and body",
        arguments: [(303, "GET"), (302, "GET"), (307, "POST"), (308, "POST")])
    func redirects(status: Int, method: String) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        var result: Result<HTTPResponse, ConnectError>?
        var options = ClientOptions()
        options.maxRedirects = 1
        stage.worker.request(server.httpURL, method: .post, body: Array("data".utf8), options: options) { result = $0 }
        let first = try server.accept()
        #expect(try first.requestHead().hasPrefix("POST / "))
        #expect(try first.take(4) == Array("data".utf8))
        first.send("HTTP/1.1 \(status) Go\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")
        let second = try server.accept()
        let head = try second.requestHead()
        #expect(head.hasPrefix("\(method) /next ") && head.contains("Content-Length: 4") == (method == "POST"))
        second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        try stage.until("the answer") { result != nil }
        #expect(try result?.get().status == .ok)
    }

    @Test("without leave, an answer that leads elsewhere is an answer")
    func notRedirected() throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        var result: Result<HTTPResponse, ConnectError>?
        stage.worker.request(server.httpURL) { result = $0 }
        let peer = try server.accept()
        _ = try peer.requestHead()
        peer.send("HTTP/1.1 302 Go\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")
        try stage.until("the answer") { result != nil }
        #expect(try result?.get().status.code == 302)
    }

    @Test("what cannot be asked for", arguments: ["ws://127.0.0.1/", "http://a b/", "nonsense"])
    func addresses(url: String) throws {
        let stage = try TestServer(RecordingHandler())
        #expect(throws: ConnectError.self) { try Self.get(stage, url) }
        #expect(throws: ConnectError.self) { try Self.get(stage, "http://127.0.0.1/", method: HTTPMethod(rawValue: "G T")) }
        #expect(throws: ConnectError.self) { try Self.get(stage, "http://127.0.0.1/", method: .connect) }
    }
}
