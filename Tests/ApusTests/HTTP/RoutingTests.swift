import Apus
import ApusCodec
import Testing

private struct Broken: Error {}

@Suite("Routes")
struct RoutingTests {
    private static func server(_ more: (inout Server) -> Void = { _ in }) throws -> TestServer {
        try TestServer { server in
            server.get("/items") { _ in .text("list") }
            server.get("/items/:id") { .text("item \(try $0.parameter("id", as: Int.self))") }
            server.get("/items/first") { _ in .text("the first") }
            server.get("/items/:id/parts/:part") { .text("\($0.parameters["id"] ?? "") \($0.parameters["part"] ?? "")") }
            server.post("/items") { .text($0.text, .created, fields: ["Location": "/items/7"]) }
            server.delete("/items/:id") { _ in .empty() }
            server.get("/all/*") { .text($0.parameters["*"] ?? "none") }
            server.get("/query") { .text("\(try $0.query("n", as: Int.self) ?? -1)") }
            server.get("/old") { _ in .redirect("/items", permanent: true) }
            server.get("/forbidden") { _ in throw Rejection(.forbidden, "not you", fields: ["X-Why": "no"]) }
            server.get("/broken") { _ in throw Broken() }
            server.get("/misspelt/:id") { .text(try $0.parameter("ID")) }
            server.get("/token") { .text($0.bearerToken ?? "none") }
            server.get("/close") { _ in .text("bye", fields: ["Connection": "close"]) }
            more(&server)
        }
    }

    struct Case: CustomTestStringConvertible, Sendable {
        let line: String
        var fields = ""
        var status = 200
        var text: String?
        var field: (name: String, value: String)?
        var testDescription: String { line }
    }

    static let cases: [Case] = [
        Case(line: "GET /items", text: "list"),
        Case(line: "GET /items/12", text: "item 12"),
        Case(line: "GET /items/first", text: "the first"),
        Case(line: "GET /items/12/parts/a%20b", text: "12 a b"),
        Case(line: "GET /items/x", status: 400),
        Case(line: "GET /misspelt/7", status: 500),
        Case(line: "GET /items/", status: 404),
        Case(line: "GET /items/1/parts", status: 404),
        Case(line: "HEAD /items/12", text: "", field: ("content-length", "7")),
        Case(line: "OPTIONS /items", status: 204, field: ("allow", "GET, POST, HEAD, OPTIONS")),
        Case(line: "OPTIONS /items/3", status: 204, field: ("allow", "GET, DELETE, HEAD, OPTIONS")),
        Case(line: "PATCH /items/3", status: 405, field: ("allow", "GET, DELETE, HEAD, OPTIONS")),
        Case(line: "FOO /items/3", status: 501),
        Case(line: "DELETE /items/3", status: 204),
        Case(line: "GET /all/", text: ""),
        Case(line: "GET /all/a/b%20c", text: "a/b c"),
        Case(line: "GET /query?n=5", text: "5"),
        Case(line: "GET /query", text: "-1"),
        Case(line: "GET /query?n=five", status: 400),
        Case(line: "GET /old", status: 308, field: ("location", "/items")),
        Case(line: "GET /forbidden", status: 403, field: ("x-why", "no")),
        Case(line: "GET /broken", status: 500),
        Case(line: "GET /token", fields: "Authorization: bearer  abc\r\n", text: "abc"),
        Case(line: "GET /token", fields: "Authorization: Basic abc\r\n", text: "none"),
        Case(line: "GET /nowhere", status: 404),
    ]

    @Test("are found by path and method", arguments: cases)
    func found(_ expected: Case) throws {
        let server = try Self.server()
        let client = try server.client()
        let response = try client.request(expected.line, expected.fields)
        #expect(response.status == expected.status)
        if let text = expected.text { #expect(response.text == text) }
        if let (name, value) = expected.field { #expect(response[name] == value) }
        // Whatever was answered, the connection persists.
        #expect(try client.request("GET /items").text == "list")
    }

    @Test("get a body, and answer with a status and fields")
    func created() throws {
        let server = try Self.server()
        let response = try server.client().request("POST /items", "Content-Length: 5\r\n", body: "seven")
        #expect(response.status == 201 && response.text == "seven" && response["location"] == "/items/7")
    }

    @Test("have a fallback, for all methods")
    func fallback() throws {
        let server = try Self.server { $0.fallback { .text("no \($0.path)", .notFound) } }
        let client = try server.client()
        for line in ["GET /nowhere", "POST /nowhere"] {
            let response = try client.request(line)
            #expect(response.status == 404 && response.text == "no /nowhere")
        }
        #expect(try client.request("GET /items").text == "list")
    }

    @Test("are behind filters, which see opening handshakes too")
    func filters() throws {
        let server = try Self.server { server in
            server.filter { $0.path == "/items/13" ? .text("unlucky", .notFound) : nil }
            server.filter { if $0.fields["x-key"] == nil { throw Rejection(.unauthorized, "no key") } else { nil } }
            server.webSocket("echo", at: "/socket") { _ in Silent() }
        }
        let client = try server.client()
        #expect(try client.request("GET /items/13").text == "unlucky")
        #expect(try client.request("GET /items").status == 401)
        #expect(try client.request("GET /nowhere").status == 401)
        #expect(try client.request("GET /items", "X-Key: 1\r\n").text == "list")
        client.send(Client.handshake("/socket"))
        #expect(try client.response().status == 401)
        client.send(Client.handshake("/socket", fields: "X-Key: 1\r\n"))
        #expect(try client.response().status == 101)
    }

    @Test("have their responses amended, pages and files too")
    func amendments() throws {
        let server = try Self.server { server in
            server.amend { $1.fields.append(contentsOf: ["X-Path": $0.path]) }
            server.amend { if $1.status == .notFound { $1 = .text("nothing here", .notFound) } }
        }
        let client = try server.client()
        #expect(try client.request("GET /items")["x-path"] == "/items")
        #expect(try client.request("GET /nowhere").text == "nothing here")
        #expect(try client.request("GET /broken")["x-path"] == "/broken")
    }

    @Test("with a WebSocket at a pattern give it the parameters, and its 101 own fields")
    func webSocket() throws {
        let server = try Self.server { server in
            server.webSocket("chat", at: "/rooms/:room") { request in
                request.upgradeFields = ["Set-Cookie": "room=\(try request.parameter("room", as: Int.self))", "Connection": "close"]
                return Silent()
            }
        }
        let client = try server.client()
        client.send(Client.handshake("/rooms/5"))
        let response = try client.response()
        #expect(response.status == 101 && response["set-cookie"] == "room=5" && response["connection"] == "Upgrade")
        let refused = try server.client()
        refused.send(Client.handshake("/rooms/x"))
        #expect(try refused.response().status == 400)
        #expect(try server.client().request("GET /rooms/5").status == 426)
    }

    @Test("cannot be made to inject a field")
    func injection() throws {
        let server = try Self.server { $0.get("/echo") { .text("x", fields: ["X-Echo": try $0.query("v") ?? ""]) } }
        let client = try server.client()
        #expect(try client.request("GET /echo?v=a")["x-echo"] == "a")
        let response = try client.request("GET /echo?v=a%0d%0aSet-Cookie:%20b")
        #expect(response.status == 500 && response["set-cookie"] == nil)
    }

    @Test("close the connection if a response has that field")
    func close() throws {
        let server = try Self.server()
        let client = try server.client()
        #expect(try client.request("GET /close")["connection"] == "close")
        #expect(try client.end().isEmpty)
    }

    @Test("refuse a body before it is sent: 100-continue only for a route that takes it")
    func expectation() throws {
        let server = try Self.server { $0.post("/small", maxBodyBytes: 10) { .text($0.text) } }
        for (line, fields, status) in [
            ("POST /nowhere", "Content-Length: 5\r\n", 404), ("POST /all/x", "Content-Length: 5\r\n", 405),
            ("POST /small", "Content-Length: 11\r\n", 413),
        ] {
            let client = try server.client()
            let response = try client.request(line, fields + "Expect: 100-continue\r\n")
            // The client may send the body or not, so the connection cannot go on.
            #expect(response.status == status && response["connection"] == "close")
            #expect(try client.end().isEmpty)
        }
        let client = try server.client()
        #expect(try client.request("POST /small", "Content-Length: 5\r\nExpect: 100-continue\r\n").status == 100)
        client.send("12345")
        #expect(try client.response().text == "12345")
    }

    @Test("answer a client that has shut down its sending side, and close")
    func halfClosed() throws {
        let server = try Self.server()
        let client = try server.client()
        client.send("GET /items HTTP/1.1\r\nHost: a\r\n\r\n")
        client.shutdownWrite()
        let response = try client.response()
        #expect(response.text == "list")
        #expect(try client.end().isEmpty)
    }
}

private final class Silent: WebSocketHandler {}
