import ApusCodec
import Testing

@Suite("RFC 6455 §4.1 opening handshake, client")
struct ClientHandshakeTests {
    static let key = Array("dGhlIHNhbXBsZSBub25jZQ==".utf8)

    @Test("the server accepts the client's request")
    func request() throws {
        var output: [UInt8] = []
        try Handshake.appendRequest(
            host: "a:81", target: "/b?c", key: Self.key.span, subprotocols: ["x", "y"], extensions: "permessage-deflate",
            origin: "http://a:81", fields: try HTTPFields(["Cookie": "d=e"]), to: &output)
        let head = try #require(try HTTPRequestDecoder.feed(output, .whole))
        let client = try Handshake.validate(head)
        #expect(client.key == Self.key)
        #expect(client.subprotocols == ["x", "y"])
        #expect(client.extensions == "permessage-deflate")
        #expect(client.origin == "http://a:81")
        #expect(head.host == "a:81" && head.target == "/b?c" && head.fields["cookie"] == "d=e")
    }

    @Test("the key of the example is made from its nonce")
    func nonce() {
        #expect(Handshake.makeKey(nonce: Array("the sample nonce".utf8).span) == Self.key)
    }

    @Test("invalid values throw, and nothing is written")
    func refuses() throws {
        func attempt(
            host: String = "a", target: String = "/", subprotocols: [String] = [], origin: String? = nil,
            fields: KeyValuePairs<String, String> = [:]
        ) -> HTTPFieldError? {
            var output: [UInt8] = []
            do throws(HTTPFieldError) {
                try Handshake.appendRequest(
                    host: host, target: target, key: Self.key.span, subprotocols: subprotocols, origin: origin,
                    fields: try HTTPFields(fields), to: &output)
                return nil
            } catch {
                #expect(output.isEmpty)
                return error
            }
        }
        #expect(attempt() == nil)
        #expect(attempt(host: "a\r\n") == .invalidHost("a\r\n"))
        #expect(attempt(target: "/\r\nX: y") == .invalidTarget("/\r\nX: y"))
        #expect(attempt(target: "b") == .invalidTarget("b"))
        #expect(attempt(subprotocols: ["a b"]) == .invalidSubprotocol("a b"))
        #expect(attempt(subprotocols: ["a", "a"]) == .invalidSubprotocol("a"))
        #expect(attempt(origin: "a\n") == .invalidValue(name: "Origin", byte: 10))
        #expect(attempt(fields: ["sec-websocket-protocol": "a"]) == .reservedName("sec-websocket-protocol"))
        #expect(attempt(fields: ["Host": "a"]) == .reservedName("Host"))
        #expect(attempt(origin: "http://a", fields: ["origin": "http://b"]) == .reservedName("Origin"))
    }

    static let good =
        "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

    @Test("a valid response is accepted")
    func accepts() throws {
        let head = try HTTPResponseDecoder.head(
            "HTTP/1.1 101 X\r\n\(Self.good)Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: c\r\n\r\n")
        let answer = try Handshake.validateResponse(head, key: Self.key.span, offeredSubprotocols: ["a", "b"])
        #expect(answer.subprotocol == "b")
        #expect(answer.extensions == "c")
        let plain = try HTTPResponseDecoder.head("HTTP/1.1 101 X\r\n\(Self.good)\r\n")
        let none = try Handshake.validateResponse(plain, key: Self.key.span, offeredSubprotocols: ["a"])
        #expect(none.subprotocol == nil && none.extensions == nil)
    }

    @Test(
        "an invalid response fails the connection",
        arguments: [
            ("HTTP/1.1 200 OK\r\n" + good, ClientHandshakeError.status(.ok)),
            ("HTTP/1.1 407 A\r\n", .status(.proxyAuthenticationRequired)),
            ("HTTP/1.0 101 A\r\n" + good, .httpVersion(.http10)), ("HTTP/1.1 101 A\r\nConnection: Upgrade\r\n", .upgradeMissing),
            ("HTTP/1.1 101 A\r\nUpgrade: h2c\r\n", .upgradeMissing),
            ("HTTP/1.1 101 A\r\nUpgrade: websocket\r\n", .connectionMissing),
            ("HTTP/1.1 101 A\r\n" + good + "Upgrade: websocket\r\n", .upgradeMissing),
            ("HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", .acceptMissing),
            (
                "HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n",
                .acceptWrong
            ),
            (
                "HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: S3PPLMBITXAQ9KYGZZHZRBK+XOO=\r\n",
                .acceptWrong
            ),
            ("HTTP/1.1 101 A\r\n" + good + "Sec-WebSocket-Accept: x\r\n", .fieldRepeated("Sec-WebSocket-Accept")),
            ("HTTP/1.1 101 A\r\n" + good + "Sec-WebSocket-Protocol: z\r\n", .subprotocolNotOffered("z")),
            ("HTTP/1.1 101 A\r\n" + good + "Sec-WebSocket-Protocol: a, b\r\n", .subprotocolNotOffered("a, b")),
            (
                "HTTP/1.1 101 A\r\n" + good + "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n",
                .fieldRepeated("Sec-WebSocket-Protocol")
            ),
        ])
    func refuses(text: String, error: ClientHandshakeError) throws {
        let head = try HTTPResponseDecoder.head(text + "\r\n")
        #expect(throws: error) { _ = try Handshake.validateResponse(head, key: Self.key.span, offeredSubprotocols: ["a"]) }
    }

    @Test(
        "a 1xx response ends at the empty line, whatever its framing fields",
        arguments: ["Content-Length: 0", "Content-Length: 7", "Transfer-Encoding: chunked"])
    func bodiless(field: String) throws {
        let text = "HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        let head = try HTTPResponseDecoder.head(text + field + "\r\n\r\n")
        #expect(try Handshake.validateResponse(head, key: Self.key.span, offeredSubprotocols: []).subprotocol == nil)
    }
}
