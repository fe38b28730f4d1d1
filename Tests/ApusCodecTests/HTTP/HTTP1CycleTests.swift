import ApusCodec
import Testing

@Suite("RFC 9112 §9 exchanges, one after the other")
struct HTTP1CycleTests {
    struct Script: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let text: String
        let reaction: Reaction
        let items: [String]
        /// Bytes at the end that are not used; trailing bytes count where nothing more is decoded.
        let left: String

        init(_ description: String, _ text: String, _ reaction: Reaction, _ items: [String], left: String = "") {
            (testDescription, self.text, self.reaction, self.items, self.left) = (description, text, reaction, items, left)
        }

        init(_ description: String, _ text: String, _ items: [String], left: String = "") {
            self.init(description, text, .none, items, left: left)
        }

        /// Whether bytes behind the text belong to something else.
        var isPaused: Bool { items.last == "paused" || items.last == "over" }
    }

    static let get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    static let post = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    static let chunkedHead = "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    static let chunked = chunkedHead + "3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n"
    static let upgrade = "GET /w HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    static let connect = "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
    static let last = "GET /z HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    static let expecting = "POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    static let old = "GET /o HTTP/1.0\r\n\r\n"
    static let oldKept = "GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

    static let requests: [Script] = [
        Script("a request without a body ends at once", get, ["request GET /a", "end", "paused"]),
        Script("a counted body", post, ["request POST /b", "body hello", "end", "paused"]),
        Script("a chunked body with a trailer", chunked, ["request PUT /c", "body hello", "end", "paused"]),
        Script("a further request waits for the response", get + post, ["request GET /a", "end", "paused"], left: post),
        Script(
            "requests follow one another when they are answered", [get, post, chunked, "\r\n", get].joined(), .answer,
            [
                "request GET /a", "end", "request POST /b", "body hello", "end", "request PUT /c", "body hello", "end", "request GET /a",
                "end",
            ]),
        Script(
            "the rest of a request that was answered early is dropped", [post, chunked, get].joined(), .answerEarly,
            ["request POST /b", "request PUT /c", "request GET /a"]),
        Script("a request that was refused early is not read", post + get, .refuseEarly, ["request POST /b", "over"], left: "hello" + get),
        Script("nothing follows Connection: close", last + get, .answer, ["request GET /z", "end", "over"], left: get),
        Script("nothing follows HTTP/1.0", old + get, .answer, ["request GET /o", "end", "over"], left: get),
        Script(
            "HTTP/1.0 is kept alive when the client requests it", oldKept + get, .answer,
            ["request GET /k", "end", "request GET /a", "end"]),
        Script("an upgrade waits for the decision", upgrade + "ab", ["request GET /w", "end", "paused"], left: "ab"),
        Script(
            "behind an upgrade the bytes are another protocol's", upgrade + "ab", .acceptSwitch, ["request GET /w", "end", "over"],
            left: "ab"),
        Script(
            "behind CONNECT the bytes are the tunnel's", connect + "ab", .acceptSwitch, ["request CONNECT a:1", "end", "over"], left: "ab"),
        Script("an upgrade may be answered like any request", upgrade + get, .answer, ["request GET /w", "end", "request GET /a", "end"]),
        Script("a body that is agreed to", expecting + "ok", .agree, ["request POST /e", "body ok", "end", "paused"]),
        Script("a client need not wait for 100 Continue", expecting + "ok", ["request POST /e", "body ok", "end", "paused"]),
        Script(
            "behind a final response instead of 100 Continue nothing is read", expecting + get, .answerEarly, ["request POST /e", "over"],
            left: get),
        Script("a malformed request", "GET /\r\n", ["violation 400"]),
        Script("a malformed request behind another", get + "GET /\r\n", .answer, ["request GET /a", "end", "violation 400"]),
        Script("a malformed chunk", chunkedHead + "3x", ["request PUT /c", "violation 400"]),
    ]

    @Test("a server's cycle reads requests", arguments: requests, Feed.allCases)
    func server(script: Script, feed: Feed) {
        var feeder = CycleFeeder(HTTP1Cycle(role: .server, now: .at(0)), script.reaction)
        // What follows is the start of a further request: no event, unless it is not looked at.
        let trailing = script.items.last?.hasPrefix("violation") == true ? "" : "GE"
        feeder.feed(script.text, feed, trailing: trailing)
        #expect(feeder.items == script.items)
        let isTrailed = script.isPaused && feed == .withTrailingBytes
        #expect(String(decoding: feeder.left, as: UTF8.self) == script.left + (isTrailed ? trailing : ""))
    }

    struct Answer: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let method: HTTPMethod
        let wish: HTTP1RequestWish
        let text: String
        let items: [String]
        let names: String

        init(
            _ description: String, _ method: HTTPMethod, _ wish: HTTP1RequestWish, _ text: String, _ items: [String], _ names: String
        ) {
            (testDescription, self.method, self.wish) = (description, method, wish)
            (self.text, self.items, self.names) = (text, items, names)
        }

        init(_ description: String, _ text: String, _ items: [String], _ names: String) {
            self.init(description, .get, .keepAlive, text, items, names)
        }
    }

    static let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    static let okHello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    static let interim = "HTTP/1.1 100 A\r\n\r\nHTTP/1.1 103 A\r\n\r\n"
    static let idle = "idle × idle"
    static let ended = "mustClose × mustClose"

    static let answers: [Answer] = [
        Answer("a counted body", okHello, ["response 200", "body hello", "end"], idle),
        Answer(
            "a chunked body", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
            ["response 200", "body hello", "end"], idle),
        Answer("no content", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ["response 200", "end"], idle),
        Answer("HEAD has no body, whatever its length", .head, .keepAlive, ok, ["response 200", "end"], idle),
        Answer("204 has no body", "HTTP/1.1 204 No Content\r\n\r\n", ["response 204", "end"], idle),
        Answer("304 has no body", "HTTP/1.1 304 A\r\nContent-Length: 5\r\n\r\n", ["response 304", "end"], idle),
        Answer(
            "interim responses precede the final one", interim + okHello,
            ["informational 100", "informational 103", "response 200", "body hello", "end"], idle),
        Answer("one exchange was asked for", .get, .close, okHello, ["response 200", "body hello", "end", "over"], ended),
        Answer(
            "the server closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
            ["response 200", "body x", "end", "over"], ended),
        Answer(
            "HTTP/1.0 is not kept alive", "HTTP/1.0 200 A\r\nContent-Length: 1\r\n\r\nx", ["response 200", "body x", "end", "over"], ended),
        Answer(
            "the end of the connection is the body's", "HTTP/1.1 200 A\r\n\r\nxyz", ["response 200", "body xyz"], "done × receivingBody"),
        Answer("a switch", .get, .upgrade, "HTTP/1.1 101 A\r\n\r\n", ["response 101", "over"], "switched × switched"),
        Answer("a switch that is refused", .get, .upgrade, okHello, ["response 200", "body hello", "end"], idle),
        Answer(
            "a tunnel", .connect, .keepAlive, "HTTP/1.1 200 A\r\nContent-Length: 9\r\n\r\n", ["response 200", "over"], "switched × switched"
        ),
        Answer(
            "a tunnel that is refused", .connect, .keepAlive, "HTTP/1.1 407 A\r\nContent-Length: 1\r\n\r\nx",
            ["response 407", "body x", "end"], idle),
        Answer("a switch that was not proposed", "HTTP/1.1 101 A\r\n\r\n", ["violation 400"], "failed × failed"),
        Answer("101 is no answer to CONNECT", .connect, .keepAlive, "HTTP/1.1 101 A\r\n\r\n", ["violation 400"], "failed × failed"),
        Answer("what is no response", "I", ["violation 400"], "failed × failed"),
        Answer(
            "a response without a request", okHello + "H", ["response 200", "body hello", "end", "violation 400"],
            "failed × failed"),
    ]

    @Test("a client's cycle reads responses", arguments: answers, Feed.allCases)
    func client(answer: Answer, feed: Feed) {
        var cycle = HTTP1Cycle(role: .client, now: .at(0))
        cycle.startRequest(answer.method, framing: .none, wish: answer.wish, now: .at(0))
        var feeder = CycleFeeder(cycle)
        let isOver = answer.items.last == "over"
        feeder.feed(answer.text, feed, trailing: isOver ? "\u{1}\u{7F}" : "")
        // A byte by byte reader asks again behind the last byte, when nothing is left of it.
        #expect(feeder.items == answer.items)
        #expect(feeder.cycle.names == answer.names)
        #expect(feeder.left.count == (isOver && feed == .withTrailingBytes ? 2 : 0))
    }

    @Test("more interim responses than 16 are too many", arguments: Feed.allCases)
    func tooManyInterim(feed: Feed) {
        var cycle = HTTP1Cycle(role: .client, now: .at(0))
        cycle.startRequest(.get, framing: .none, wish: .keepAlive, now: .at(0))
        var feeder = CycleFeeder(cycle)
        feeder.feed(String(repeating: "HTTP/1.1 102 A\r\n\r\n", count: 17), feed)
        #expect(feeder.items == Array(repeating: "informational 102", count: 16) + ["violation 400"])
        #expect(HTTPViolation.tooManyInterimResponses(limit: 16).description == "more than 16 interim answers")
    }

    @Test("a body over the limit is refused before its first byte, and each body may have its own limit", arguments: Feed.allCases)
    func bodyLimit(feed: Feed) {
        var feeder = CycleFeeder(HTTP1Cycle(role: .server, now: .at(0)))
        feeder.limits.maxBodyBytes = 4
        feeder.feed(String(Self.post.dropLast(5)), feed)
        #expect(feeder.items == ["request POST /b", "violation 413"])
        #expect(feeder.cycle.permits(.startResponse))
        var cycle = HTTP1Cycle(role: .server, now: .at(0))
        var position = 0
        let bytes = Array(Self.post.utf8)
        _ = try? cycle.event(bytes.span, from: &position, now: .at(0), limits: feeder.limits)
        cycle.limitBody(to: 5)
        guard case .data = try? cycle.event(bytes.span, from: &position, now: .at(0), limits: feeder.limits) else {
            Issue.record("the body was refused")
            return
        }
    }

    @Test("a response to a refused HEAD has no content, and ends the connection", arguments: Feed.allCases)
    func refusedHead(feed: Feed) {
        for (text, hasContent) in [("HEAD / HTTP/1.1\r\nA\r\n", false), ("GET / HTTP/1.1\r\nA\r\n", true)] {
            var feeder = CycleFeeder(HTTP1Cycle(role: .server, now: .at(0)))
            feeder.feed(text, feed)
            #expect(feeder.items == ["violation 400"])
            let start = feeder.cycle.startResponse(.badRequest, framing: .counted(3), keepsAlive: true)
            #expect(start.hasContent == hasContent && start.persistence == .close)
            #expect(feeder.cycle.endResponse(.drained, now: .at(0)) == .closeAfterOutput)
        }
    }

    struct Start: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let request: String
        var status = HTTPStatus.ok
        var framing = HTTPBodyFraming.counted(5)
        var keepsAlive = true
        let persistence: HTTPEncoder.Persistence
        var sentFraming = HTTPBodyFraming.counted(5)
        var hasContent = true
        let next: HTTP1Next
    }

    static let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"

    static let starts: [Start] = [
        Start(testDescription: "HTTP/1.1", request: get, persistence: .implied, next: .nextMessage),
        Start(testDescription: "HTTP/1.0 that is kept alive", request: oldKept, persistence: .keepAlive, next: .nextMessage),
        Start(testDescription: "HTTP/1.0", request: old, persistence: .close, next: .closeAfterOutput),
        Start(testDescription: "the client closes", request: last, persistence: .close, next: .closeAfterOutput),
        Start(testDescription: "this side closes", request: get, keepsAlive: false, persistence: .close, next: .closeAfterOutput),
        Start(
            testDescription: "chunks", request: get, framing: .chunked, persistence: .implied, sentFraming: .chunked, next: .nextMessage),
        Start(
            testDescription: "HTTP/1.0 understands no chunks", request: oldKept, framing: .chunked, persistence: .close,
            sentFraming: .untilClose, next: .closeAfterOutput),
        Start(
            testDescription: "a body until close", request: get, framing: .untilClose, persistence: .close, sentFraming: .untilClose,
            next: .closeAfterOutput),
        Start(testDescription: "HEAD", request: head, persistence: .implied, hasContent: false, next: .nextMessage),
        Start(
            testDescription: "HEAD of a body until close", request: head, framing: .untilClose, persistence: .implied,
            sentFraming: .untilClose, hasContent: false, next: .nextMessage),
        Start(testDescription: "204", request: get, status: .noContent, persistence: .implied, hasContent: false, next: .nextMessage),
        Start(testDescription: "304", request: get, status: .notModified, persistence: .implied, hasContent: false, next: .nextMessage),
        Start(testDescription: "a body is awaited", request: expecting, persistence: .close, next: .closeAfterOutput),
        Start(testDescription: "a body arrives", request: String(post.dropLast(2)), persistence: .implied, next: .awaitPeer),
        Start(
            testDescription: "a body arrives, and this side closes", request: String(post.dropLast(2)), keepsAlive: false,
            persistence: .close, next: .closeAfterOutput),
    ]

    @Test("a response's head depends on its request", arguments: starts, Feed.allCases)
    func start(of start: Start, feed: Feed) {
        var feeder = CycleFeeder(HTTP1Cycle(role: .server, now: .at(0)))
        feeder.feed(start.request, feed)
        let made = feeder.cycle.startResponse(start.status, framing: start.framing, keepsAlive: start.keepsAlive)
        #expect(made.persistence == start.persistence)
        #expect(made.framing == start.sentFraming)
        #expect(made.hasContent == start.hasContent)
        #expect(feeder.cycle.endResponse(.drained, now: .at(0)) == start.next)
    }

    @Test("an upgrade is decided when the request's body has come", arguments: Feed.allCases)
    func upgradeWithBody(feed: Feed) {
        var feeder = CycleFeeder(HTTP1Cycle(role: .server, now: .at(0)))
        let head = String(Self.upgrade.dropLast()) + "Content-Length: 2\r\n\r\n"
        feeder.feed(head + "a", feed)
        #expect(!feeder.cycle.permits(.acceptSwitch))
        feeder.take(Array("b".utf8))
        #expect(feeder.items == ["request GET /w", "body ab", "end", "paused"])
        #expect(feeder.cycle.permits(.acceptSwitch))
    }

    @Test("a client may be answered before its request is complete")
    func earlyResponse() {
        for (text, next) in [
            (Self.okHello, HTTP1Next.nextMessage),
            ("HTTP/1.1 413 A\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", .closeAfterOutput),
        ] {
            var cycle = HTTP1Cycle(role: .client, now: .at(0))
            #expect(cycle.startRequest(.put, framing: .chunked, wish: .keepAlive, now: .at(0)) == .implied)
            cycle.sendContent(.drained, now: .at(0))
            var feeder = CycleFeeder(cycle)
            feeder.feed(text, .whole)
            #expect(feeder.items.contains("end"))
            #expect(feeder.cycle.endRequest(now: .at(0)) == next)
        }
        var cycle = HTTP1Cycle(role: .client, now: .at(0))
        cycle.startRequest(.put, framing: .chunked, wish: .upgrade, now: .at(0))
        var feeder = CycleFeeder(cycle)
        feeder.feed("HTTP/1.1 101 A\r\n\r\nxy", .whole)
        #expect(feeder.items == ["response 101", "over"] && feeder.left.count == 2)
        #expect(feeder.cycle.endRequest(now: .at(0)) == .switchProtocol)
    }

    @Test("a refusal from outside is answered as if it had been read")
    func refusal() {
        var cycle = HTTP1Cycle(role: .server, now: .at(0))
        cycle.refuse(.head)
        #expect(cycle.startResponse(.badRequest, framing: .counted(1), keepsAlive: true).hasContent == false)
        #expect(cycle.endResponse(.drained, now: .at(0)) == .closeAfterOutput)
    }

    @Test("an idle cycle owns no heap memory, and is small")
    func size() {
        #expect(MemoryLayout<HTTP1Cycle>.size <= 96)
    }
}
