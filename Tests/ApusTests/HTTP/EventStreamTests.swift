import Apus
import ApusCodec
import Testing

@Suite("Event streams")
struct EventStreamTests {
    private static func server(limits: (inout Limits) -> Void = { _ in }) throws -> TestServer {
        try TestServer(limits: limits) { server in
            server.get("/events") { _ in
                .stream(type: "text/event-stream") { exchange in
                    exchange.send(ServerSentEvent("hello", event: "greeting\r\ndata: x", id: "7"))
                    #expect(exchange.subscribe(to: "news/#"))
                    #expect(exchange.subscribe(to: "news/today"))
                }
            }
            server.get("/raw") { _ in .stream(type: "application/x-ndjson") { $0.subscribe(to: "news/today") } }
            server.get("/hello") { _ in .text("hello") }
        }
    }

    private static func publish(_ server: TestServer, _ text: String, to topic: String = "news/today") {
        server.worker.publish(Array(text.utf8), as: .text, to: topic)
    }

    private static func chunk(_ text: String) -> String { "\(String(text.utf8.count, radix: 16))\r\n\(text)\r\n" }

    private static func expect(_ client: Client, _ text: String) throws {
        #expect(String(decoding: try client.take(text.utf8.count), as: UTF8.self) == text)
    }

    @Test("send events, and a topic's publications, each once, line by line")
    func publications() throws {
        let server = try Self.server()
        let client = try server.client()
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try client.response()["content-type"] == "text/event-stream")
        try Self.expect(client, Self.chunk("event: greeting\nid: 7\ndata: hello\n\n"))
        Self.publish(server, "one")
        try Self.expect(client, Self.chunk("data: one\n\n"))
        Self.publish(server, "a\nb\r\nc\rd")
        Self.publish(server, "", to: "news/other")
        try server.settle()
        try Self.expect(client, Self.chunk("data: a\ndata: b\ndata: c\ndata: d\n\n"))
        try Self.expect(client, Self.chunk("data: \n\n"))
        Self.publish(server, "not for it", to: "weather")
        try server.settle()
        #expect(client.isSilent)
    }

    @Test("of HTTP/1.0 have no chunks, and other streams get payloads as they are")
    func others() throws {
        let server = try Self.server()
        let old = try server.client()
        old.send("GET /events HTTP/1.0\r\n\r\n")
        _ = try old.response()
        let raw = try server.client()
        raw.send("GET /raw HTTP/1.1\r\nHost: a\r\n\r\n")
        _ = try raw.response()
        Self.publish(server, "{}\n")
        try Self.expect(old, "event: greeting\nid: 7\ndata: hello\n\ndata: {}\ndata: \n\n")
        try Self.expect(raw, Self.chunk("{}\n"))
    }

    @Test("end with their client, which takes the subscriptions with it")
    func ends() throws {
        let server = try Self.server()
        for way in ["close", "reset", "half"] {
            let client = try server.client()
            client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            _ = try client.response()
            try server.settle()
            switch way {
            case "close": client.close()
            case "reset": client.reset()
            default: client.shutdownWrite()
            }
            try server.until("the end, \(way)") { server.worker.connectionCount == 0 }
        }
        Self.publish(server, "to nobody")
        try server.settle()
        #expect(try server.client().request("GET /hello").text == "hello")
    }

    @Test("that are not read: aborted at the limit, or they miss publications")
    func slow() throws {
        for policy in [Limits.SlowSubscribers.close, .skip] {
            let server = try Self.server(limits: {
                $0.maxBufferedBytes = 100_000
                $0.slowSubscribers = policy
            })
            let client = try server.client(receiveBufferBytes: 5_000)
            client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            try server.until("the stream") { server.worker.connectionCount == 1 }
            let text = String(repeating: "x", count: 20_000)
            for _ in 0..<500 {
                Self.publish(server, text)
                try server.turn()
            }
            #expect(server.worker.connectionCount == (policy == .close ? 0 : 1))
            #expect(server.worker.heldBytes <= 200_000)
        }
    }
}
