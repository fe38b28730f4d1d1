import Apus
import ApusCodec
import Testing
import TestSupport

@Suite("HTTP/1.1 requests answered")
struct HTTPServerTests {
    static let big = WebSocketFlowTests.big(1_000_000)
    /// More than kernel buffers take.
    static let huge = [UInt8](repeating: 0x61, count: 20_000_000)

    /// What most tests talk to.
    static func stage(limits: (inout Limits) -> Void = { _ in }, more: (inout Server) -> Void = { _ in }) throws -> TestServer {
        try TestServer(limits: limits) { server in
            server.http(.get, at: "/hello") { $0.respond(text: "hello") }
            server.http(.get, at: "/big") { $0.respond(body: big) }
            server.http(.get, at: "/huge") { $0.respond(body: huge) }
            server.http(.get, at: "/name") { $0.respond(text: $0.request.query.first?.value ?? "") }
            server.http(.post, at: "/echo") { $0.respond(body: $0.request.body) }
            server.http(.put, at: "/echo") { $0.respond(body: $0.request.body) }
            server.http(.get, at: "/empty") { $0.respond(.noContent) }
            more(&server)
        }
    }

    @Test("a response has a length, a date and a type")
    func simple() throws {
        let stage = try Self.stage()
        let client = try stage.client()
        let response = try client.request("GET /hello")
        #expect(response.status == 200)
        #expect(response.text == "hello")
        #expect(response["content-length"] == "5")
        #expect(response["content-type"] == "text/plain; charset=utf-8")
        #expect(response["connection"] == nil)
        let date = try #require(response["date"])
        #expect(HTTPDate.parse(date) != nil)
    }

    struct Persistence: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let request: String
        let connection: String?
        let persists: Bool
    }

    static let persistences: [Persistence] = [
        Persistence(testDescription: "1.1", request: "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", connection: nil, persists: true),
        Persistence(
            testDescription: "1.1 with close", request: "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            connection: "close",
            persists: false),
        Persistence(testDescription: "1.0", request: "GET /hello HTTP/1.0\r\n\r\n", connection: "close", persists: false),
        Persistence(
            testDescription: "1.0 with keep-alive", request: "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            connection: "keep-alive",
            persists: true),
    ]

    @Test("the connection persists as the client asks", arguments: persistences)
    func persistence(_ persistence: Persistence) throws {
        let stage = try Self.stage()
        let client = try stage.client()
        client.send(persistence.request)
        let response = try client.response()
        #expect(response["connection"]?.lowercased() == persistence.connection)
        if persistence.persists {
            #expect(try client.request("GET /hello").text == "hello")
        } else {
            #expect(try client.end().isEmpty)
        }
    }

    @Test("a hundred pipelined requests get a hundred answers in order, also octet by octet", arguments: [false, true])
    func pipelining(cut: Bool) throws {
        let stage = try Self.stage()
        let client = try stage.client()
        let count = cut ? 5 : 100
        let requests = (0..<count).map { "GET /name?n=\($0) HTTP/1.1\r\nHost: a\r\n\r\n" }.joined()
        if cut {
            for octet in requests.utf8 {
                client.send([octet])
                try stage.turn()
            }
        } else {
            client.send(requests)
        }
        for index in 0..<count { #expect(try client.response().text == "\(index)") }
    }

    @Test("answers keep the order of requests even if the first is answered late")
    func lateInOrder() throws {
        var late: [HTTPExchange] = []
        let stage = try Self.stage(more: { $0.http(.get, at: "/late") { late.append($0) } })
        let client = try stage.client()
        client.send(
            "GET /late HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.until("the first") { late.count == 1 }
        try stage.settle()
        #expect(client.isSilent)
        #expect(late.count == 1, "the third waits for the first")
        late[0].respond(text: "late")
        #expect(try client.response().text == "late")
        #expect(try client.response().text == "hello")
        try stage.until("the third") { late.count == 2 }
        late[1].respond(text: "later")
        late[1].respond(text: "twice: ignored")
        #expect(!late[1].isOpen)
        #expect(try client.response().text == "later")
        #expect(try client.request("GET /hello").text == "hello")
    }

    @Test("an answer from a timer")
    func fromTimer() throws {
        let stage = try Self.stage(more: {
            $0.http(.get, at: "/timer") { exchange in
                exchange.worker.schedule(after: .milliseconds(30)) { exchange.respond(text: "in time") }
            }
        })
        let client = try stage.client()
        #expect(try client.request("GET /timer").text == "in time")
    }

    @Test("an exchange is over when its peer resets the connection, and answering it is harmless")
    func abandoned() throws {
        var exchange: HTTPExchange?
        let stage = try Self.stage(more: { $0.http(.get, at: "/late") { exchange = $0 } })
        let client = try stage.client()
        client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.until("the request") { exchange != nil }
        #expect(exchange?.isOpen == true)
        client.reset()
        try stage.until("the reset") { stage.worker.connectionCount == 0 }
        #expect(exchange?.isOpen == false)
        exchange?.respond(text: "nobody hears")
        try stage.settle()
    }

    @Test("HEAD is answered by GET's handler, without the body", arguments: ["/hello", "/big", "/nowhere"])
    func head(path: String) throws {
        let stage = try Self.stage()
        let client = try stage.client()
        let get = try client.request("GET \(path)")
        let head = try client.request("HEAD \(path)")
        #expect(head.status == get.status)
        #expect(head["content-length"] == get["content-length"])
        #expect(head["content-type"] == get["content-type"])
        #expect(head.body.isEmpty)
        #expect(try client.request("GET /hello").text == "hello", "nothing of the body was sent")
    }

    @Test("a method that is not known at all: 501, with and without a body or an upgrade; CONNECT, too")
    func unknownMethods() throws {
        let stage = try Self.stage(more: { server in
            server.http(HTTPMethod(rawValue: "PROPFIND"), at: "/dav") { $0.respond(text: "dav") }
            server.webSocket("chat", at: "/chat") { _ in RecordingHandler() }
        })
        let client = try stage.client()
        for line in ["FOO /hello", "FOO /nowhere", "get /hello", "FOO /chat"] { #expect(try client.request(line).status == 501, "\(line)") }
        #expect(try client.request("FOO /echo", "Content-Length: 2\r\n", body: "hi").status == 501)
        #expect(try client.request("CONNECT a:80").status == 501)
        #expect(try client.request("PROPFIND /dav").text == "dav")
        #expect(try client.request("PROPFIND /hello").status == 405)
        client.send("FOO" + Client.handshake("/chat").dropFirst(3))
        #expect(try client.response().status == 501)
        client.send("POST" + Client.handshake("/chat").dropFirst(3))
        #expect(try client.response().status == 405)
    }

    @Test("HEAD is refused without a body", arguments: headRefusals)
    func headRefused(refusal: Refusal) throws {
        let stage = try Self.stage(limits: {
            $0.maxRequestBodyBytes = 1000
            $0.maxRequestHeadBytes = 1024
            $0.maxRequestTargetBytes = 500
            $0.requestHeadTimeout = .milliseconds(100)
            $0.bodyTimeout = .milliseconds(100)
        }) { $0.webSocket("chat", at: "/chat") { _ in RecordingHandler() } }
        let client = try stage.client()
        client.send(refusal.request)
        let response = try client.response(hasBody: false)
        #expect(response.status == refusal.status)
        #expect(response["content-length"].flatMap { Int($0) } ?? 0 > 0)
        #expect(try client.end(within: .seconds(4)).isEmpty)
    }

    static let headRefusals: [Refusal] = [
        Refusal(testDescription: "an upgrade", request: "HEAD" + Client.handshake("/chat").dropFirst(3), status: 405),
        Refusal(testDescription: "a length", request: "HEAD /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", status: 413),
        Refusal(
            testDescription: "chunks", request: "HEAD /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", status: 413
        ),
        Refusal(
            testDescription: "a bad chunk", request: "HEAD /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", status: 400),
        Refusal(testDescription: "no Host", request: "HEAD /hello HTTP/1.1\r\n\r\n", status: 400),
        Refusal(testDescription: "a bad field", request: "HEAD /hello HTTP/1.1\r\nHost : a\r\n\r\n", status: 400),
        Refusal(testDescription: "a bare line feed", request: "HEAD /hello HTTP/1.1\nHost: a\n\n", status: 400),
        Refusal(testDescription: "a head that does not end", request: "HEAD /hello HTTP/1.1\r\nHost: ", status: 408),
        Refusal(testDescription: "a line that does not end", request: "HEAD /hel", status: 408),
        Refusal(
            testDescription: "a body that does not end", request: "HEAD /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            status: 408),
        Refusal(testDescription: "a long target", request: "HEAD /" + String(repeating: "x", count: 600), status: 414),
        Refusal(
            testDescription: "a large head", request: "HEAD /hello HTTP/1.1\r\nX: " + String(repeating: "x", count: 2000), status: 431),
        Refusal(
            testDescription: "an unknown coding", request: "HEAD /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", status: 501
        ),
        Refusal(testDescription: "HTTP/2", request: "HEAD /hello HTTP/2.0\r\nHost: a\r\n\r\n", status: 505),
    ]

    @Test("a handler that sets Connection: close closes, in a list and in any case too", arguments: ["close", "Foo, CLOSE", "keep-alive"])
    func closing(value: String) throws {
        let stage = try Self.stage(more: { server in
            server.http(.get, at: "/bye") { $0.respond(fields: try HTTPFields(["Connection": value]), body: [0x21]) }
        })
        let client = try stage.client()
        let response = try client.request("GET /bye")
        #expect(response.text == "!")
        let closes = value != "keep-alive"
        #expect(response["connection"] == (closes ? "close" : nil))
        if closes { #expect(try client.end().isEmpty) } else { #expect(try client.request("GET /hello").text == "hello") }
    }

    @Test("a target in absolute form is for its own host, Upgrade in HTTP/1.0 is ignored")
    func absoluteForm() throws {
        let stage = try Self.stage(more: { server in
            server.http(.get, at: "/host") { $0.respond(text: $0.request.head.host ?? "") }
            server.webSocket("chat", at: "/hello") { _ in RecordingHandler() }
        })
        let client = try stage.client()
        #expect(try client.request("GET http://b:8080/host").text == "b:8080")
        client.send("GET /hello HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, keep-alive\r\n\r\n")
        #expect(try client.response().text == "hello")
    }

    @Test("no route, wrong method")
    func statuses() throws {
        let stage = try Self.stage()
        let client = try stage.client()
        #expect(try client.request("GET /nowhere").status == 404)
        #expect(try client.request("GET /hello/").status == 404)
        let wrong = try client.request("GET /echo")
        #expect(wrong.status == 405)
        #expect(wrong["allow"] == "POST, PUT, OPTIONS")
        #expect(try client.request("DELETE /hello").status == 405)
        let options = try client.request("OPTIONS *")
        #expect(options.status == 204)
        #expect(options["content-length"] == nil, "RFC 9110 §8.6")
        #expect(try client.request("GET /empty").status == 204)
        #expect(try client.request("GET /hello").text == "hello")
    }

    // MARK: Bodies

    @Test("bodies, counted and chunked, whole and octet by octet", arguments: [false, true])
    func bodies(cut: Bool) throws {
        let stage = try Self.stage()
        let client = try stage.client()
        let requests: [(request: String, body: String)] = [
            ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHello", "Hello"),
            (
                "PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nWik\r\n2;x=y\r\ni!\r\n0\r\nT: u\r\n\r\n",
                "Wiki!"
            ),
            ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ""),
            ("POST /echo HTTP/1.1\r\nHost: a\r\n\r\n", ""),
            ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        ]
        if cut {
            for octet in requests.map(\.request).joined().utf8 {
                client.send([octet])
                try stage.turn()
            }
        } else {
            client.send(requests.map(\.request).joined())
        }
        for (_, body) in requests {
            let response = try client.response()
            #expect(response.status == 200)
            #expect(response.text == body)
        }
    }

    @Test("a large body comes back byte-exact")
    func largeBody() throws {
        let stage = try Self.stage()
        let client = try stage.client()
        let body = WebSocketFlowTests.big(1_000_000)
        client.send(Array("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".utf8) + body)
        #expect(try client.response().body == body)
    }

    @Test("100 (Continue) is sent when it is waited for, and not otherwise")
    func expectContinue() throws {
        let stage = try Self.stage()
        let client = try stage.client()
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        #expect(try client.response().status == 100)
        client.send("hi")
        #expect(try client.response().text == "hi")
        #expect(try client.request("POST /echo", "Content-Length: 2\r\n", body: "ho").text == "ho")
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let request: String
        let status: Int
    }

    static let refusals: [Refusal] = [
        Refusal(
            testDescription: "a counted body over the limit, before it comes",
            request: "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", status: 413),
        Refusal(
            testDescription: "a chunked body over the limit",
            request: "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", status: 413),
        Refusal(
            testDescription: "a broken chunk",
            request: "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n", status: 400),
        Refusal(
            testDescription: "two lengths",
            request: "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            status: 400),
        Refusal(
            testDescription: "a length beside chunks",
            request: "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", status: 400),
        Refusal(testDescription: "no Host", request: "GET /hello HTTP/1.1\r\n\r\n", status: 400),
        Refusal(testDescription: "a bare line feed", request: "GET /hello HTTP/1.1\nHost: a\n\n", status: 400),
        Refusal(testDescription: "HTTP/2's preface", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 505),
        Refusal(
            testDescription: "an encoding unheard of",
            request: "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", status: 501),
        Refusal(testDescription: "a TLS hello", request: "\u{16}\u{3}\u{1}\u{2}\0\u{1}", status: 400),
        Refusal(
            testDescription: "dot segments that leave the root", request: "GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
            status: 400),
        Refusal(
            testDescription: "a head over the limit",
            request: "GET /hello HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "x", count: 2000),
            status: 431),
        Refusal(testDescription: "a target over the limit", request: "GET /" + String(repeating: "x", count: 600), status: 414),
        Refusal(
            testDescription: "too many fields",
            request: "GET /hello HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: y\r\n", count: 20) + "\r\n", status: 431),
    ]

    @Test("refused once, then the connection ends, whatever comes behind", arguments: refusals, [false, true])
    func refused(refusal: Refusal, hasFollower: Bool) throws {
        let stage = try Self.stage(limits: {
            $0.maxRequestBodyBytes = 1000
            $0.maxRequestHeadBytes = 1024
            $0.maxRequestTargetBytes = 500
            $0.maxRequestFields = 10
        })
        let client = try stage.client()
        client.send(refusal.request + (hasFollower ? "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n" : ""))
        let response = try client.response()
        #expect(response.status == refusal.status)
        #expect(response["connection"] == "close")
        let rest = try client.end(within: .seconds(4))
        #expect(rest.isEmpty, "a second answer: \(String(decoding: rest, as: UTF8.self))")
        #expect(!client.isReset)
        client.close()
        try stage.until("the connection to be gone") { stage.worker.connectionCount == 0 }
    }

    @Test("a body at the limit passes")
    func bodyAtLimit() throws {
        let stage = try Self.stage(limits: { $0.maxRequestBodyBytes = 5 })
        let client = try stage.client()
        #expect(try client.request("POST /echo", "Content-Length: 5\r\n", body: "Hello").text == "Hello")
    }

    // MARK: Slow and half-closed peers

    @Test("a large answer reaches a client that has shut its side", arguments: [("/huge", 20_000_000), ("/hello", 5)])
    func halfClosed(path: String, count: Int) throws {
        let stage = try Self.stage()
        let client = try stage.client(receiveBufferBytes: 4096)
        client.send("GET \(path) HTTP/1.1\r\nHost: a\r\n\r\n")
        client.shutdownWrite()
        let response = try client.response()
        #expect(response.body.count == count)
        try client.end()
        try stage.until("the connection to be gone") { stage.worker.connectionCount == 0 }
    }

    @Test("what the kernel has not taken yet reaches a client that has shut its side")
    func halfClosedBuffered() throws {
        let directory = try TemporaryDirectory()
        let address = SocketAddress.unix(path: directory.path + "/socket")
        let stage = try TestServer(listen: false) { server in
            server.listen(on: .unix(path: directory.path + "/socket"))
            server.http(.get, at: "/size") { $0.respond(body: [UInt8](repeating: 7, count: Int($0.request.query[0].value) ?? 0)) }
        }
        // A Unix socket's buffer has a fixed size: with some of these a little of the answer waits in our queue.
        for size in stride(from: 100_000, to: 600_000, by: 10_000) {
            let client = try stage.client(to: address)
            client.send("GET /size?n=\(size) HTTP/1.1\r\nHost: a\r\n\r\n")
            client.shutdownWrite()
            try stage.settle()
            #expect(try client.response().body.count == size)
            #expect(try client.end().isEmpty)
        }
    }

    @Test("pipelined large answers do not pile up for a client that does not read")
    func backPressure() throws {
        var served = 0
        let expected = WebSocketFlowTests.big(300_000)
        let stage = try Self.stage(more: {
            $0.http(.get, at: "/count") {
                served += 1
                $0.respond(body: expected)
            }
        })
        let client = try stage.client(receiveBufferBytes: 4096)
        client.send(String(repeating: "GET /count HTTP/1.1\r\nHost: a\r\n\r\n", count: 100))
        try stage.settle()
        let first = served
        #expect(first < 50)
        try stage.settle()
        #expect(served == first)
        for _ in 0..<100 { if try client.response().body != expected { Issue.record("not byte-exact") } }
        #expect(served == 100)
    }

    // MARK: Deadlines

    static func withDeadlines() throws -> TestServer {
        try stage(limits: {
            $0.requestHeadTimeout = .milliseconds(200)
            $0.bodyTimeout = .milliseconds(150)
            $0.keepAliveTimeout = .milliseconds(300)
            $0.closingTimeout = .milliseconds(300)
        })
    }

    /// Serves until the server ends the connection; gives how long that took.
    static func timeToEnd(_ client: Client, meanwhile: () -> Void = {}) throws -> Duration {
        let start = ContinuousClock.now
        while !client.isEnded {
            meanwhile()
            client.poll()
            if start.duration(to: .now) > TestServer.patience { throw TimedOut(description: "the end") }
            try client.turn()
        }
        return start.duration(to: .now)
    }

    @Test("a silent connection is closed without a word")
    func silent() throws {
        let stage = try Self.withDeadlines()
        let client = try stage.client()
        let passed = try Self.timeToEnd(client)
        #expect(client.received.isEmpty)
        #expect(passed > .milliseconds(190) && passed < .seconds(3), "\(passed)")
    }

    @Test("a head that trickles in is answered 408 by a total deadline", arguments: [false, true])
    func slowHead(second: Bool) throws {
        let stage = try Self.withDeadlines()
        let client = try stage.client()
        if second { _ = try client.request("GET /hello") }
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\nX: ")
        let passed = try Self.timeToEnd(client) {
            client.send("x")
            try? stage.serve(for: .milliseconds(5))
        }
        #expect(try client.response().status == 408)
        #expect(passed > .milliseconds(190) && passed < .seconds(3), "\(passed)")
    }

    @Test("a body may take its time as long as it comes, and no longer")
    func slowBody() throws {
        let stage = try Self.withDeadlines()
        let client = try stage.client()
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n")
        for _ in 0..<4 {
            try stage.serve(for: .milliseconds(60))
            client.send(String(repeating: "x", count: 1024))
        }
        try stage.settle()
        #expect(client.isSilent)
        let passed = try Self.timeToEnd(client)
        #expect(try client.response().status == 408)
        #expect(passed > .milliseconds(130) && passed < .seconds(3), "\(passed)")
    }

    @Test("a body that trickles is answered 408 by a deadline that its bytes do not prolong", arguments: [false, true])
    func tricklingBody(isChunked: Bool) throws {
        let stage = try Self.withDeadlines()
        let client = try stage.client()
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\n\(isChunked ? "Transfer-Encoding: chunked" : "Content-Length: 100000")\r\n\r\n")
        let passed = try Self.timeToEnd(client) {
            client.send(isChunked ? "1\r\nx\r\n" : "x")
            try? stage.serve(for: .milliseconds(5))
        }
        #expect(try client.response().status == 408)
        #expect(passed > .milliseconds(130) && passed < .seconds(3), "\(passed)")
    }

    @Test("a large answer is measured by itself, not by what was left of one before it")
    func slowReaderAgain() throws {
        let stage = try Self.stage(limits: { $0.bodyTimeout = .milliseconds(300) })
        let client = try stage.client()
        // The first one is looked at when little of it is left, each of them when much of the next is.
        for _ in 0..<3 {
            client.send("GET /huge HTTP/1.1\r\nHost: a\r\n\r\n")
            var taken = 0
            try stage.until("the answer") {
                try stage.serve(for: .milliseconds(20))
                taken += client.takeSome(500_000).count
                return client.isEnded || taken >= 20_000_000
            }
            #expect(!client.isEnded)
        }
    }

    @Test("an idle connection is closed after a response, without a word")
    func idle() throws {
        let stage = try Self.withDeadlines()
        let client = try stage.client()
        _ = try client.request("GET /hello")
        let passed = try Self.timeToEnd(client)
        #expect(client.received.isEmpty)
        #expect(passed > .milliseconds(280) && passed < .seconds(3), "\(passed)")
    }

    @Test("a client that takes nothing of a large answer is given up; one that takes it slowly is not")
    func slowReader() throws {
        let stage = try Self.stage(limits: { $0.bodyTimeout = .milliseconds(400) })
        let stuck = try stage.client(receiveBufferBytes: 4096)
        let slow = try stage.client()
        stuck.send("GET /huge HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in 0..<3 { slow.send("GET /huge HTTP/1.1\r\nHost: a\r\n\r\n") }
        try stage.until("both") { stage.worker.connectionCount == 2 }
        var taken = 0
        try stage.until("the stuck one to be given up") {
            try stage.serve(for: .milliseconds(20))
            taken += slow.takeSome(500_000).count
            return stage.worker.connectionCount < 2
        }
        #expect(stage.worker.connectionCount == 1)
        #expect(taken < 60_000_000, "the slow one was too fast for this test")
        try stage.until("the rest") {
            let some = slow.takeSome(1 << 20)
            taken += some.count
            return slow.isEnded || taken >= 60_000_000
        }
        #expect(!slow.isEnded)
    }

    @Test("an answer that takes its time is not hurried")
    func slowAnswer() throws {
        var exchange: HTTPExchange?
        let stage = try TestServer(limits: {
            $0.requestHeadTimeout = .milliseconds(50)
            $0.bodyTimeout = .milliseconds(50)
            $0.keepAliveTimeout = .milliseconds(50)
        }) { $0.http(.get, at: "/late") { exchange = $0 } }
        let client = try stage.client()
        client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.serve(for: .milliseconds(200))
        exchange?.respond(text: "at last")
        #expect(try client.response().text == "at last")
    }
}
