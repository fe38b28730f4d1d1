import Apus
import ApusPlatform
import Testing

@Suite("How WebSockets open")
struct WebSocketOpeningTests {
    struct Choice: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let fields: String
        /// The protocol that serves; nil when the handshake is refused with 400.
        let served: String?
        /// What the response says.
        var said: String?
    }

    static let choices: [Choice] = [
        Choice(testDescription: "none asked: the path's first, unsaid", fields: "", served: "first"),
        Choice(testDescription: "the first", fields: "Sec-WebSocket-Protocol: first\r\n", served: "first", said: "first"),
        Choice(testDescription: "the second", fields: "Sec-WebSocket-Protocol: second\r\n", served: "second", said: "second"),
        Choice(
            testDescription: "both: the client's order counts", fields: "Sec-WebSocket-Protocol: second, first\r\n",
            served: "second", said: "second"),
        Choice(
            testDescription: "an unknown one before a known one", fields: "Sec-WebSocket-Protocol: other, first\r\n",
            served: "first", said: "first"),
        Choice(
            testDescription: "in two fields", fields: "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: second\r\n",
            served: "second",
            said: "second"),
        Choice(testDescription: "only unknown ones", fields: "Sec-WebSocket-Protocol: other\r\n", served: nil),
        Choice(testDescription: "names differ by case", fields: "Sec-WebSocket-Protocol: FIRST\r\n", served: nil),
    ]

    @Test("the subprotocol", arguments: choices)
    func subprotocol(choice: Choice) throws {
        var served: String?
        var socket: WebSocket?
        let stage = try TestServer {
            for name in ["first", "second"] {
                $0.webSocket(name, at: "/") { _ in
                    let script = RecordingHandler()
                    script.whenOpened = { (served, socket) = ($0.webSocketProtocol.name, $0) }
                    return script
                }
            }
        }
        let client = try stage.client()
        client.send(Client.handshake(fields: choice.fields))
        let response = try client.response()
        #expect(response.status == (choice.served == nil ? 400 : 101))
        #expect(served == choice.served)
        #expect(response["sec-websocket-protocol"] == choice.said)
        #expect(socket?.subprotocol == choice.said)
        #expect(response["sec-websocket-extensions"] == nil)
    }

    @Test("the whole list is echoed to clients that insist on it, when asked for")
    func echoedList() throws {
        let stage = try TestServer {
            $0.webSocket("b", at: "/") { _ in RecordingHandler() }
            $0.echoesSubprotocolList = true
        }
        let client = try stage.client()
        client.send(Client.handshake(fields: "Sec-WebSocket-Protocol: a, b\r\n"))
        #expect(try client.response()["sec-websocket-protocol"] == "a, b")
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let request: String
        let status: Int
        var field: (name: String, value: String)?
    }

    static func opening(_ line: String = "GET / HTTP/1.1", replacing old: String = "", by new: String = "", adding: String = "")
        -> String
    {
        let fields =
            "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        return "\(line)\r\n\(replace(fields, old, new))\(adding)\r\n"
    }

    private static func replace(_ text: String, _ old: String, _ new: String) -> String {
        guard !old.isEmpty, let range = text.range(of: old) else { return text }
        return text[..<range.lowerBound] + new + text[range.upperBound...]
    }

    static let refusals: [Refusal] = [
        Refusal(
            testDescription: "version 12", request: opening(replacing: "Version: 13", by: "Version: 12"), status: 426,
            field: ("sec-websocket-version", "13")),
        Refusal(
            testDescription: "no version", request: opening(replacing: "Sec-WebSocket-Version: 13\r\n"), status: 426,
            field: ("sec-websocket-version", "13")),
        Refusal(
            testDescription: "no key", request: opening(replacing: "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), status: 400
        ),
        Refusal(
            testDescription: "two keys", request: opening(adding: "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), status: 400),
        Refusal(testDescription: "a short key", request: opening(replacing: "dGhlIHNhbXBsZSBub25jZQ==", by: "YQ=="), status: 400),
        Refusal(
            testDescription: "no Connection: Upgrade",
            request: opening(replacing: "Connection: Upgrade", by: "Connection: close"), status: 400),
        Refusal(testDescription: "HTTP/1.0", request: opening("GET / HTTP/1.0"), status: 426),
        Refusal(testDescription: "POST", request: opening("POST / HTTP/1.1"), status: 405, field: ("allow", "GET")),
        Refusal(testDescription: "a foreign origin", request: opening(adding: "Origin: http://evil.example\r\n"), status: 403),
        Refusal(
            testDescription: "no Upgrade at all", request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", status: 426,
            field: ("upgrade", "websocket")),
        Refusal(testDescription: "another path", request: opening("GET /elsewhere HTTP/1.1"), status: 404),
        Refusal(
            testDescription: "rejected by the application", request: opening("GET /locked HTTP/1.1"), status: 401,
            field: ("www-authenticate", "Basic")),
        Refusal(testDescription: "rejected with 503", request: opening("GET /full HTTP/1.1"), status: 503),
        Refusal(testDescription: "the factory fails", request: opening("GET /broken HTTP/1.1"), status: 500),
    ]

    struct Broken: Error {}

    @Test("refused handshakes", arguments: refusals)
    func refused(refusal: Refusal) throws {
        let script = RecordingHandler()
        let locked = try HTTPFields(["WWW-Authenticate": "Basic"])
        let stage = try TestServer {
            $0.webSocket("chat", at: "/") { _ in script }
            $0.webSocket("chat", at: "/locked") { _ in throw Rejection(.unauthorized, "who are <you>?", fields: locked) }
            $0.webSocket("chat", at: "/full") { _ in throw Rejection(.serviceUnavailable) }
            $0.webSocket("chat", at: "/broken") { _ in throw Broken() }
        }
        let client = try stage.client()
        client.send(refusal.request)
        let response = try client.response()
        #expect(response.status == refusal.status)
        if let field = refusal.field { #expect(response[field.name] == field.value) }
        if refusal.status == 401 { #expect(response.text.contains("who are &lt;you&gt;?")) }
        #expect(script.events.isEmpty)
    }

    static let acceptable = [
        opening(replacing: "Connection: Upgrade", by: "Connection: keep-alive, UPGRADE"),
        opening(replacing: "Upgrade: websocket", by: "Upgrade: WebSocket"), opening(adding: "Sec-WebSocket-Extensions:\r\n"),
        opening(adding: "Sec-WebSocket-Extensions: permessage-unheard-of\r\n"), opening(adding: "Origin: http://a\r\n"),
        opening("GET http://a/ HTTP/1.1"), opening("GET /?query=1 HTTP/1.1"),
    ]

    @Test("what is accepted beside the usual", arguments: acceptable)
    func accepted(handshake: String) throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.client()
        client.send(handshake)
        #expect(try client.response().status == 101)
        #expect(script.events == ["opened"])
    }

    @Test("other origins can be allowed")
    func origins() throws {
        let stage = try TestServer {
            $0.webSocket("chat", at: "/") { _ in RecordingHandler() }
            $0.origins = .any
        }
        _ = try stage.webSocket(fields: "Origin: http://elsewhere.example\r\n")
    }

    @Test("the request is there in opened and in the factory, and let go after")
    func requestIsLent() throws {
        var seen: [String] = []
        let script = RecordingHandler()
        script.whenOpened = { seen.append($0.request?.query.first?.value ?? "") }
        let stage = try TestServer {
            $0.webSocket("chat", at: "/a") { request in
                seen.append(request.fields["x"] ?? "")
                return script
            }
        }
        let client = try stage.webSocket("/a?name=n%20m", fields: "X: y\r\n")
        #expect(seen == ["y", "n m"])
        let socket = try #require(script.socket)
        #expect(socket.request == nil)
        #expect(socket.peer == (try Socket.localAddress(of: client.descriptor)))
        #expect(socket.isOpen)
        #expect(socket.worker === stage.worker)
    }

    @Test("a WebSocket after other requests on the same connection, and requests before it in one arrival")
    func afterRequests() throws {
        let script = RecordingHandler.echo()
        let stage = try TestServer {
            $0.webSocket("chat", at: "/") { _ in script }
            $0.http(.get, at: "/page") { $0.respond(text: "page") }
        }
        let client = try stage.client()
        #expect(try client.request("GET /page").text == "page")
        client.send("GET /page HTTP/1.1\r\nHost: a\r\n\r\n" + Client.handshake())
        client.send(.text, "hello")
        #expect(try client.response().text == "page")
        #expect(try client.response().status == 101)
        #expect(try client.frame() == .text("hello"))
    }
}

extension String {
    /// The first place of `part`.
    func range(of part: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(part) { return start..<index(start, offsetBy: part.count) }
            start = index(after: start)
        }
        return nil
    }
}
