import Apus
import ApusCodec
import Glibc
import Testing

/// Records an exchange's events, and does what a test tells it to.
private final class Recorder: HTTPHandler {
    var events: [String] = []
    var bytes: [UInt8] = []
    var exchange: HTTPExchange?
    var whenReceived: ((HTTPExchange) throws -> Void)?
    var whenEnded: ((HTTPExchange) throws -> Void)? = { $0.respond(text: "done") }
    var whenWritable: ((HTTPExchange) -> Void)?

    func received(_ piece: RawSpan, on exchange: HTTPExchange) throws {
        #expect(piece.byteCount > 0)
        bytes.append(contentsOf: piece.withUnsafeBytes { Array($0) })
        events.append("received")
        try whenReceived?(exchange)
    }

    func ended(_ exchange: HTTPExchange) throws {
        events.append("ended")
        self.exchange = exchange
        try whenEnded?(exchange)
    }

    func writable(_ exchange: HTTPExchange) {
        events.append("writable")
        whenWritable?(exchange)
    }

    func completed(_ exchange: HTTPExchange) { events.append("completed") }
    func aborted(_ exchange: HTTPExchange, reason: String) { events.append("aborted: \(reason)") }

    /// Events without repetitions.
    var order: [String] { events.reduce(into: []) { if $0.last != $1 { $0.append($1) } } }
}

private struct Broken: Error {}

@Suite("Exchanges in pieces")
struct StreamedExchangeTests {
    private static func server(
        _ recorder: Recorder, max: Int = 1 << 30, limits: (inout Limits) -> Void = { _ in }, more: (inout Server) -> Void = { _ in }
    ) throws -> TestServer {
        try TestServer(limits: limits) { server in
            server.put("/upload/:name", body: .streamed(maxBytes: max)) { request in
                if request.parameters["name"] == "refused" { throw Rejection(.forbidden, "not this one") }
                return recorder
            }
            server.get("/hello") { _ in .text("hello") }
            more(&server)
        }
    }

    // MARK: Requests

    @Test("a body arrives piece by piece, counted or in chunks, and the connection goes on", arguments: [true, false])
    func upload(isChunked: Bool) throws {
        let recorder = Recorder()
        let server = try Self.server(recorder, limits: { $0.maxRequestBodyBytes = 1000 })
        let client = try server.client()
        let body = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        client.send(
            "PUT /upload/a HTTP/1.1\r\nHost: a\r\n\(isChunked ? "Transfer-Encoding: chunked" : "Content-Length: \(body.count)")\r\n\r\n")
        if isChunked {
            var rest = body[...]
            while !rest.isEmpty {
                let piece = rest.prefix(70_001)
                client.send(Array("\(String(piece.count, radix: 16))\r\n".utf8) + piece + Array("\r\n".utf8))
                rest = rest.dropFirst(piece.count)
            }
            client.send("0\r\n\r\n")
        } else {
            client.send(body)
        }
        #expect(try client.response().text == "done")
        #expect(recorder.order == ["received", "ended", "completed"])
        #expect(recorder.events.count > 10)
        let isSame = recorder.bytes == body
        #expect(isSame)
        #expect(server.worker.heldBytes < 500_000)
        #expect(try client.request("GET /hello").text == "hello")
    }

    @Test("a body without content ends at once")
    func emptyUpload() throws {
        let recorder = Recorder()
        let server = try Self.server(recorder)
        let client = try server.client()
        #expect(try client.request("PUT /upload/a").text == "done")
        #expect(try client.request("PUT /upload/a", "Content-Length: 0\r\n").text == "done")
        #expect(recorder.order == ["ended", "completed", "ended", "completed"])
    }

    @Test("a body over its limit is answered with 413, announced or found out", arguments: [true, false])
    func tooLarge(isAnnounced: Bool) throws {
        let recorder = Recorder()
        let server = try Self.server(recorder, max: 1000)
        let client = try server.client()
        let body = String(repeating: "x", count: 1001)
        let response =
            isAnnounced
            ? try client.request("PUT /upload/a", "Content-Length: 1001\r\n", body: body)
            : try client.request("PUT /upload/a", "Transfer-Encoding: chunked\r\n", body: "3e9\r\n\(body)\r\n0\r\n\r\n")
        #expect(response.status == 413)
        #expect(try client.end().isEmpty)
        #expect(recorder.events.filter { $0 != "received" }.count <= 1)
    }

    @Test("a paused body is not read, which does not count against its sender")
    func paused() throws {
        let recorder = Recorder()
        var exchange: HTTPExchange?
        recorder.whenReceived = {
            exchange = $0
            $0.pauseReceiving()
        }
        let server = try Self.server(recorder, limits: { $0.bodyTimeout = .milliseconds(200) })
        let client = try server.client()
        client.send("PUT /upload/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        try server.until("a piece") { exchange != nil }
        client.send("67890GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        try server.serve(for: .milliseconds(500))
        #expect(recorder.events == ["received"])
        #expect(client.isSilent)
        recorder.whenReceived = nil
        try #require(exchange).resumeReceiving()
        #expect(try client.response().text == "done")
        #expect(try client.response().text == "hello")
        #expect(recorder.bytes == Array("1234567890".utf8))
        exchange = nil
    }

    @Test("an answer before the end of the body: the rest is dropped, and the connection goes on")
    func early() throws {
        let recorder = Recorder()
        recorder.whenReceived = { $0.respond(.conflict, text: "enough") }
        let server = try Self.server(recorder)
        let client = try server.client()
        client.send("PUT /upload/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        #expect(try client.response().status == 409)
        client.send("67890")
        #expect(try client.request("GET /hello").text == "hello")
        #expect(recorder.events == ["received", "completed"])
    }

    @Test("a refused upload, and one whose handler fails")
    func failing() throws {
        let recorder = Recorder()
        recorder.whenReceived = { _ in throw Broken() }
        let server = try Self.server(recorder)
        let client = try server.client()
        #expect(try client.request("PUT /upload/refused", "Content-Length: 3\r\n", body: "abc").status == 403)
        #expect(try client.request("PUT /upload/a", "Content-Length: 3\r\n", body: "abc").status == 500)
        #expect(try client.request("GET /hello").text == "hello")
        #expect(recorder.events == ["received", "completed"])
    }

    @Test("a client that goes in the middle: aborted, once")
    func gone() throws {
        for way in ["reset", "close"] {
            let recorder = Recorder()
            let server = try Self.server(recorder)
            let client = try server.client()
            client.send("PUT /upload/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
            try server.until("a piece") { !recorder.events.isEmpty }
            if way == "reset" { client.reset() } else { client.close() }
            try server.until("the end") { server.worker.connectionCount == 0 }
            #expect(recorder.events.count == 2 && recorder.events[1].hasPrefix("aborted: "), "\(recorder.events)")
        }
    }

    // MARK: Responses

    private static func streaming(
        _ recorder: Recorder = Recorder(), length: Int? = nil, limits: (inout Limits) -> Void = { _ in },
        _ open: @escaping (HTTPExchange) throws -> Void
    ) throws -> TestServer {
        try server(recorder, limits: limits) { server in
            server.get("/stream") { _ in .stream(type: "text/plain", fields: ["X-A": "b"], length: length, open) }
        }
    }

    @Test("in chunks, with trailers; until the end for HTTP/1.0; nothing for HEAD")
    func chunked() throws {
        let server = try Self.streaming { exchange in
            #expect(exchange.send(text: "Hello, ") == .accepted)
            #expect(exchange.send([]) == .accepted)
            exchange.send(text: "world")
            exchange.end(trailers: ["X-Sum": "12", "Content-Length": "3"])
            #expect(exchange.send(text: "more") == .closed)
            exchange.end()
        }
        let client = try server.client()
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        let response = try client.response()
        #expect(response["transfer-encoding"] == "chunked" && response["content-type"] == "text/plain" && response["x-a"] == "b")
        let chunks = "7\r\nHello, \r\n5\r\nworld\r\n0\r\nX-Sum: 12\r\n\r\n"
        #expect(String(decoding: try client.take(chunks.utf8.count), as: UTF8.self) == chunks)
        #expect(try client.response()["transfer-encoding"] == "chunked")
        #expect(try client.request("GET /hello").text == "hello")
        let old = try server.client()
        old.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        let oldResponse = try old.response()
        #expect(oldResponse["transfer-encoding"] == nil && oldResponse["connection"] == "close")
        #expect(String(decoding: try old.end(), as: UTF8.self) == "Hello, world")
    }

    @Test("with a length: exactly so much, or the connection is aborted", arguments: [4, 5, 6])
    func counted(sent: Int) throws {
        var ended: [String?] = []
        let server = try Self.streaming(length: 5) { exchange in
            exchange.onEnd = { ended.append($0) }
            exchange.send([UInt8](repeating: 0x61, count: sent))
            exchange.end()
        }
        let client = try server.client()
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        if sent == 5 {
            #expect(try client.response().text == "aaaaa")
            #expect(try client.request("GET /hello").text == "hello")
            #expect(ended == [nil])
        } else {
            let got = String(decoding: try client.end(), as: UTF8.self)
            #expect(!got.hasSuffix("aaaaa"))
            #expect(ended.count == 1 && ended[0]?.contains("expected") == true, "\(ended)")
        }
    }

    @Test("a large one as its client reads it: writable, and never much in memory")
    func large() throws {
        let recorder = Recorder()
        let piece = [UInt8](repeating: 0x62, count: 50_000)
        var left = 200
        func send(_ exchange: HTTPExchange) {
            while left > 0 {
                left -= 1
                guard case .accepted = exchange.send(piece) else { break }
            }
            if left > 0 { exchange.requestWritable() } else { exchange.end() }
        }
        recorder.whenWritable = send
        recorder.whenEnded = { exchange in
            exchange.begin(length: 10_000_000)
            send(exchange)
        }
        let server = try Self.server(recorder)
        let client = try server.client(receiveBufferBytes: 10_000)
        client.send("PUT /upload/a HTTP/1.1\r\nHost: a\r\n\r\n")
        let response = try client.response()
        #expect(response.body.count == 10_000_000)
        try server.until("the completion") { recorder.events.last == "completed" }
        #expect(recorder.order.first == "ended")
        #expect(recorder.events.count { $0 == "writable" } > 10)
        #expect(try client.request("GET /hello").text == "hello")
    }

    @Test("one that is not read: the exchange that sends on is aborted at the limit")
    func notRead() throws {
        var exchange: HTTPExchange?
        var ended: [String?] = []
        let server = try Self.streaming(limits: { $0.maxBufferedBytes = 100_000 }) {
            exchange = $0
            $0.onEnd = { ended.append($0) }
        }
        let client = try server.client(receiveBufferBytes: 10_000)
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        try server.until("the exchange") { exchange != nil }
        let piece = [UInt8](repeating: 0x62, count: 50_000)
        try server.until("the limit") {
            try server.turn()
            return exchange?.send(piece) == .closed
        }
        try server.until("the end") { server.worker.connectionCount == 0 }
        #expect(ended == ["its client reads too slowly"])
        exchange = nil
    }

    @Test("one that nobody reads ends with bodyTimeout; an idle one lasts")
    func stalled() throws {
        var exchange: HTTPExchange?
        var ended: [String?] = []
        let server = try Self.streaming(limits: {
            $0.bodyTimeout = .milliseconds(200)
            $0.answerTimeout = .milliseconds(200)
            $0.keepAliveTimeout = .milliseconds(200)
        }) {
            exchange = $0
            $0.onEnd = { ended.append($0) }
        }
        let client = try server.client(receiveBufferBytes: 10_000)
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        try server.until("the exchange") { exchange != nil }
        try server.serve(for: .milliseconds(600))
        #expect(ended.isEmpty && exchange?.send(text: "still here") != .closed)
        try server.until("output that waits") {
            exchange?.send([UInt8](repeating: 0x62, count: 50_000))
            try server.turn()
            return exchange?.bufferedBytes ?? 0 > 100_000
        }
        try server.until("the end") {
            // The kernel may enlarge its buffer and take all.
            if exchange?.bufferedBytes ?? 0 < 100_000 { exchange?.send([UInt8](repeating: 0x62, count: 200_000)) }
            return server.worker.connectionCount == 0
        }
        #expect(ended.count == 1 && ended[0] != nil)
        exchange = nil
    }

    @Test("a client that leaves a stream: aborted; a handler that fails in the midst: cut off")
    func left() throws {
        var ended: [String?] = []
        let server = try Self.streaming { exchange in
            exchange.onEnd = { ended.append($0) }
            if exchange.request.fields["x-fail"] != nil {
                exchange.send(text: "half")
                throw Broken()
            }
        }
        let client = try server.client()
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        _ = try client.response()
        client.reset()
        try server.until("the end") { ended.count == 1 }
        let other = try server.client()
        other.send("GET /stream HTTP/1.1\r\nHost: a\r\nX-Fail: 1\r\n\r\n")
        #expect(!String(decoding: try other.end(), as: UTF8.self).hasSuffix("0\r\n\r\n"))
        #expect(ended.count == 2 && ended.allSatisfy { $0 != nil })
    }

    @Test("interim responses precede the final one; HTTP/1.0 gets none")
    func interim() throws {
        let server = try TestServer { server in
            server.http(.get, at: "/hints") { exchange in
                exchange.inform(.earlyHints, fields: ["Link": "</a.css>; rel=preload"])
                exchange.respond(text: "page")
                exchange.inform(.earlyHints, fields: [:])
            }
        }
        let client = try server.client()
        client.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n")
        let hints = try client.response()
        #expect(hints.status == 103 && hints["link"] == "</a.css>; rel=preload")
        #expect(try client.response().text == "page")
        let old = try server.client()
        old.send("GET /hints HTTP/1.0\r\n\r\n")
        #expect(try old.response().text == "page")
    }

    @Test("a deadline of its own: 504 before the response, cut off after its head")
    func deadline() throws {
        var kept: HTTPExchange?
        let server = try TestServer { server in
            server.http(.get, at: "/late") { exchange in
                exchange.setDeadline(after: .milliseconds(50))
                if exchange.request.fields["x-begin"] != nil { exchange.begin() }
                kept = exchange
            }
            server.get("/hello") { _ in .text("hello") }
        }
        let client = try server.client()
        #expect(try client.request("GET /late").status == 504)
        #expect(try client.request("GET /hello").text == "hello")
        client.send("GET /late HTTP/1.1\r\nHost: a\r\nX-Begin: 1\r\n\r\n")
        #expect(try client.response().status == 200)
        #expect(try client.end().isEmpty)
        #expect(kept != nil)
    }

    @Test("an exchange streams both ways at once")
    func bothWays() throws {
        let recorder = Recorder()
        recorder.whenReceived = { exchange in
            if recorder.events.count == 1 { exchange.begin(length: 10) }
            exchange.send([UInt8](recorder.bytes.suffix(5)))
        }
        recorder.whenEnded = { $0.end() }
        let server = try Self.server(recorder)
        let client = try server.client()
        client.send("PUT /upload/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        let head = try client.take(try Self.headCount(client))
        #expect(String(decoding: head, as: UTF8.self).hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(String(decoding: try client.take(5), as: UTF8.self) == "12345")
        client.send("67890")
        #expect(String(decoding: try client.take(5), as: UTF8.self) == "67890")
        #expect(try client.request("GET /hello").text == "hello")
        #expect(recorder.order == ["received", "ended", "completed"])
    }

    private static func headCount(_ client: Client) throws -> Int {
        var count: Int?
        while count == nil {
            try client.turn()
            client.poll()
            count = client.received.indices.first { client.received[$0...].starts(with: Array("\r\n\r\n".utf8)) }.map { $0 + 4 }
        }
        return count ?? 0
    }
}
