import Apus
import ApusCodec
import Logging
import Testing

/// Keeps what is logged.
private final class Log {
    var lines: [(level: Logger.Level, text: String)] = []
}

private struct KeepingHandler: LogHandler, @unchecked Sendable {
    let log: Log
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { log.lines.append((event.level, "\(event.message)")) }
}

@Suite("Exchanges end")
struct ExchangeEndTests {
    struct Broken: Error {}

    private static func stage(_ log: Log, answerTimeout: Duration = .seconds(30), _ configure: (inout Server) -> Void) throws -> TestServer
    {
        try TestServer(limits: { $0.answerTimeout = answerTimeout }) { server in
            server.logger = Logger(label: "test") { _ in KeepingHandler(log: log) }
            server.http(.get, at: "/hello") { $0.respond(text: "hello") }
            configure(&server)
        }
    }

    @Test("one that is released unanswered is answered 500, logged once, and the connection goes on", arguments: ["GET", "HEAD"])
    func released(method: String) throws {
        let log = Log()
        let stage = try Self.stage(log) { $0.http(.get, at: "/never") { _ in } }
        let client = try stage.client()
        for count in 1...2 {
            let answer = try client.request("\(method) /never")
            #expect(answer.status == 500)
            #expect(log.lines.count == count)
        }
        #expect(log.lines.allSatisfy { $0.level == .error && $0.text.contains("\(method) \"/never\"") }, "\(log.lines)")
        #expect(try client.request("GET /hello").text == "hello")
    }

    @Test("one that is kept and released later is answered then, and what is pipelined behind it after it")
    func releasedLater() throws {
        let log = Log()
        var kept: [HTTPExchange] = []
        let stage = try Self.stage(log) { $0.http(.get, at: "/kept") { kept.append($0) } }
        let client = try stage.client()
        client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.until("the exchange") { !kept.isEmpty }
        try stage.settle()
        #expect(client.isSilent && log.lines.isEmpty)
        kept = []
        #expect(try client.response().status == 500)
        #expect(try client.response().text == "hello")
        #expect(log.lines.count == 1)
    }

    @Test("one that is answered, or whose peer has gone, is released in silence")
    func silent() throws {
        let log = Log()
        var kept: HTTPExchange?
        let stage = try Self.stage(log) { $0.http(.get, at: "/kept") { kept = $0 } }
        let client = try stage.client()
        client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")
        try stage.until("the exchange") { kept != nil }
        client.reset()
        try stage.until("the reset") { stage.worker.connectionCount == 0 }
        kept = nil
        #expect(try stage.client().request("GET /hello").text == "hello")
        #expect(log.lines.isEmpty)
    }

    @Test("one that is not answered in time is answered 504 and logged once; the late answer is harmless")
    func timeout() throws {
        let log = Log()
        var kept: [HTTPExchange] = []
        let stage = try Self.stage(log, answerTimeout: .milliseconds(100)) { $0.http(.get, at: "/slow") { kept.append($0) } }
        let client = try stage.client()
        let start = ContinuousClock.now
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try client.response().status == 504)
        #expect(start.duration(to: .now) > .milliseconds(90))
        try stage.until("the second") { kept.count == 2 }
        #expect(!kept[0].isOpen && kept[1].isOpen)
        kept[0].respond(text: "late")
        kept[1].respond(text: "second")
        #expect(try client.response().text == "second")
        kept = []
        #expect(try client.request("GET /hello").text == "hello")
        #expect(log.lines.count == 1)
        #expect(log.lines.allSatisfy { $0.level == .error && $0.text.contains("\"/slow\"") }, "\(log.lines)")
    }

    @Test("what a handler throws is the answer: a rejection's status, or 500 and one line")
    func throwing() throws {
        let log = Log()
        let stage = try Self.stage(log) {
            $0.http(.get, at: "/rejected") { _ in
                throw Rejection(.unauthorized, "who?", fields: try HTTPFields(["WWW-Authenticate": "Basic", "Content-Type": "x/y"]))
            }
            $0.http(.get, at: "/broken") { _ in throw Broken() }
            $0.http(.get, at: "/informational") { _ in throw Rejection(.continue) }
            $0.http(.get, at: "/empty") { _ in throw Rejection(.noContent) }
            $0.http(.get, at: "/answered") {
                $0.respond(text: "answered")
                throw Broken()
            }
        }
        let client = try stage.client()
        let rejected = try client.request("GET /rejected")
        #expect(rejected.status == 401 && rejected["www-authenticate"] == "Basic" && rejected.text.contains("who?"))
        #expect(rejected["content-type"] == "text/html; charset=utf-8")
        #expect(log.lines.isEmpty)
        #expect(try client.request("GET /broken").status == 500)
        #expect(log.lines.count == 1 && log.lines[0].level == .error && log.lines[0].text.contains("\"/broken\""))
        #expect(try client.request("GET /answered").text == "answered")
        #expect(log.lines.count == 2)
        #expect(try client.request("GET /informational").status == 500)
        #expect(log.lines.count == 3)
        #expect(try client.request("GET /empty").status == 204)
        #expect(try client.request("GET /hello").text == "hello")
    }

    @Test("what a WebSocket factory throws is the answer, of any status", arguments: [100, 101, 204, 304, 403, 999])
    func factory(code: Int) throws {
        let log = Log()
        let stage = try Self.stage(log) {
            $0.webSocket("rejected", at: "/rejected") { _ in throw Rejection(HTTPStatus(code: UInt16(code))) }
            $0.webSocket("broken", at: "/broken") { _ in throw Broken() }
        }
        for (path, status) in [("/rejected", code < 200 ? 500 : code), ("/broken", 500)] {
            let client = try stage.client()
            client.send(Client.handshake(path))
            #expect(try client.response().status == status)
            #expect(try client.end().isEmpty)
        }
        #expect(log.lines.count { $0.text.contains("/broken") } == 1)
        #expect(try stage.client().request("GET /hello").text == "hello")
    }
}
