import ApusCodec
import Testing

@Suite("RFC 6455 §4.2 opening handshake, server")
struct ServerHandshakeTests {
    static let key = "dGhlIHNhbXBsZSBub25jZQ=="

    /// The example of RFC 6455 §1.3, with `replacements` for the fields of the same names; nil
    /// removes a field.
    static func request(
        line: String = "GET /chat HTTP/1.1", _ replacements: [String: String?] = [:], extra: String = ""
    ) throws -> HTTPRequestHead {
        let fields = [
            ("Host", "server.example.com"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key),
            ("Origin", "http://example.com"), ("Sec-WebSocket-Protocol", "chat, superchat"), ("Sec-WebSocket-Version", "13"),
        ]
        var text = line + "\r\n"
        for (name, value) in fields {
            if let replacement = replacements[name] {
                if let replacement { text += "\(name): \(replacement)\r\n" }
            } else {
                text += "\(name): \(value)\r\n"
            }
        }
        return try HTTPRequestDecoder.head(text + extra + "\r\n")
    }

    @Test("the example of §1.3 is accepted")
    func example() throws {
        let head = try Self.request()
        #expect(head.wantsUpgradeToWebSocket)
        let client = try Handshake.validate(head)
        #expect(client.key == Array(Self.key.utf8))
        #expect(client.subprotocols == ["chat", "superchat"])
        #expect(client.extensions == nil)
        #expect(client.origin == "http://example.com")
        #expect(Handshake.acceptKey(for: client.key) == Array("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".utf8))
    }

    @Test(
        "variants are accepted",
        arguments: [
            ["Connection": "keep-alive, UPGRADE"], ["Upgrade": "WebSocket"], ["Upgrade": "h2c, websocket"], ["Origin": nil],
            ["Sec-WebSocket-Protocol": nil],
        ] as [[String: String?]])
    func accepts(replacements: [String: String?]) throws {
        _ = try Handshake.validate(try Self.request(replacements))
    }

    @Test("empty extensions give nil, several fields one list")
    func extensions() throws {
        #expect(try Handshake.validate(try Self.request(extra: "Sec-WebSocket-Extensions:\r\n")).extensions == nil)
        let offers = "Sec-WebSocket-Extensions: a; b\r\nsec-websocket-extensions: c\r\n"
        #expect(try Handshake.validate(try Self.request(extra: offers)).extensions == "a; b, c")
        let protocols = try Handshake.validate(try Self.request(extra: "Sec-WebSocket-Protocol: x\r\n")).subprotocols
        #expect(protocols == ["chat", "superchat", "x"])
    }

    @Test(
        "RFC 9110 §5.6.1.2: empty list elements are ignored",
        arguments: [("", []), (",", []), ("echo,", ["echo"]), (" , a,, b ,", ["a", "b"])])
    func emptyElements(list: String, names: [String]) throws {
        #expect(try Handshake.validate(try Self.request(["Sec-WebSocket-Protocol": list])).subprotocols == names)
        _ = try Handshake.validate(try Self.request(["Connection": ", Upgrade,,", "Upgrade": ",websocket ,"]))
        let head = try Self.request(extra: "Sec-WebSocket-Extensions: , ,\r\nSec-WebSocket-Extensions:\r\n")
        let offers = try #require(try Handshake.validate(head).extensions)
        #expect(try ExtensionNegotiation.answer(offers, with: [], allows: { _ in true }) == nil)
    }

    @Test("RFC 9110 §7.8: Upgrade in an HTTP/1.0 request is ignored")
    func oldVersion() throws {
        #expect(try Self.request(line: "GET /chat HTTP/1.0").wantsUpgradeToWebSocket == false)
    }

    struct Refused: CustomTestStringConvertible, Sendable {
        let testDescription: String
        var line = "GET / HTTP/1.1"
        var replacements: [String: String?] = [:]
        var extra = ""
        let violation: HandshakeViolation
        let status: UInt16
    }

    static let refused: [Refused] = [
        Refused(testDescription: "HTTP/1.0", line: "GET / HTTP/1.0", violation: .httpVersion(.http10), status: 400),
        Refused(testDescription: "POST", line: "POST / HTTP/1.1", violation: .method(.post), status: 405),
        Refused(testDescription: "body", extra: "Content-Length: 1\r\n", violation: .hasBody, status: 400),
        Refused(testDescription: "no Upgrade", replacements: ["Upgrade": nil], violation: .upgradeMissing, status: 400),
        Refused(testDescription: "other Upgrade", replacements: ["Upgrade": "h2c"], violation: .upgradeMissing, status: 400),
        Refused(testDescription: "no Connection", replacements: ["Connection": nil], violation: .connectionMissing, status: 400),
        Refused(
            testDescription: "other Connection", replacements: ["Connection": "close"], violation: .connectionMissing, status: 400
        ),
        Refused(
            testDescription: "version 8", replacements: ["Sec-WebSocket-Version": "8"], violation: .versionNotSupported("8"),
            status: 426),
        Refused(
            testDescription: "versions", replacements: ["Sec-WebSocket-Version": "13, 8"],
            violation: .versionNotSupported("13, 8"),
            status: 426),
        Refused(
            testDescription: "no version", replacements: ["Sec-WebSocket-Version": nil], violation: .versionNotSupported(nil),
            status: 426),
        Refused(
            testDescription: "two versions", extra: "Sec-WebSocket-Version: 13\r\n", violation: .versionRepeated, status: 400),
        Refused(testDescription: "no key", replacements: ["Sec-WebSocket-Key": nil], violation: .keyMissing, status: 400),
        Refused(testDescription: "two keys", extra: "Sec-WebSocket-Key: \(key)\r\n", violation: .keyRepeated, status: 400),
        Refused(testDescription: "empty key", replacements: ["Sec-WebSocket-Key": ""], violation: .keyMalformed, status: 400),
        Refused(
            testDescription: "15 bytes", replacements: ["Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"], violation: .keyMalformed,
            status: 400),
        Refused(
            testDescription: "17 bytes", replacements: ["Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQA="],
            violation: .keyMalformed,
            status: 400),
        Refused(
            testDescription: "no padding", replacements: ["Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"],
            violation: .keyMalformed,
            status: 400),
        Refused(
            testDescription: "no base 64", replacements: ["Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j_Q=="],
            violation: .keyMalformed,
            status: 400),
        Refused(
            testDescription: "padding inside", replacements: ["Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25=ZQ=="],
            violation: .keyMalformed,
            status: 400),
        Refused(
            testDescription: "no token", replacements: ["Sec-WebSocket-Protocol": "a b"], violation: .subprotocolsMalformed,
            status: 400),
        Refused(
            testDescription: "repeated subprotocol", replacements: ["Sec-WebSocket-Protocol": "a, b, a"],
            violation: .subprotocolRepeated("a"), status: 400),
        Refused(testDescription: "two origins", extra: "Origin: a\r\n", violation: .originRepeated, status: 400),
    ]

    @Test("invalid handshakes are refused", arguments: refused)
    func refuses(request: Refused) throws {
        let head = try Self.request(line: request.line, request.replacements, extra: request.extra)
        #expect(throws: request.violation) { _ = try Handshake.validate(head) }
        #expect(request.violation.status.code == request.status)
        #expect(request.violation.fields["allow"] == (request.status == 405 ? "GET" : nil))
        #expect(request.violation.fields["Sec-WebSocket-Version"] == (request.status == 426 ? "13" : nil))
    }

    @Test("the response of §1.3 is written")
    func response() throws {
        var output: [UInt8] = []
        Handshake.appendResponse(
            key: Array(Self.key.utf8).span, subprotocol: "chat", extensions: "permessage-deflate",
            fields: try HTTPFields(["A": "b", "Upgrade": "x", "Sec-WebSocket-Accept": "y", "Content-Length": "1"]), to: &output)
        #expect(
            String(decoding: output, as: UTF8.self)
                == """
                HTTP/1.1 101 Switching Protocols\r
                Upgrade: websocket\r
                Connection: Upgrade\r
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r
                Sec-WebSocket-Protocol: chat\r
                Sec-WebSocket-Extensions: permessage-deflate\r
                A: b\r
                \r\n
                """)
    }

    @Test("the client's order selects the subprotocol")
    func choose() {
        #expect(Handshake.chooseSubprotocol(client: ["a", "b", "c"], server: ["c", "b"]) == "b")
        #expect(Handshake.chooseSubprotocol(client: ["A"], server: ["a"]) == nil)
        #expect(Handshake.chooseSubprotocol(client: [], server: ["a"]) == nil)
    }

    @Test(
        "RFC 6455 §10.2: origins",
        arguments: [
            (nil, "a", OriginPolicy.sameOrigin, true), ("http://a", "a", .sameOrigin, true),
            ("https://a", "A", .sameOrigin, true),
            ("http://a:80", "a", .sameOrigin, true), ("https://a", "a:443", .sameOrigin, true),
            ("http://a:8080", "a:8080", .sameOrigin, true),
            ("http://a", "a:8080", .sameOrigin, false), ("https://a", "a:80", .sameOrigin, false),
            ("http://b", "a", .sameOrigin, false),
            ("http://a.b", "a", .sameOrigin, false), ("null", "a", .sameOrigin, false), ("null", "null", .sameOrigin, false),
            ("", "a", .sameOrigin, false), ("a", "a", .sameOrigin, false), ("ftp://a", "a", .sameOrigin, false),
            ("http://a/", "a", .sameOrigin, false), ("http://u@a", "a", .sameOrigin, false),
            ("http://[::1]:9", "[::1]:9", .sameOrigin, true),
            ("http://evil", "a", .any, true), ("http://b", "a", .list(["http://b"]), true),
            ("HTTPS://B:443", "a", .list(["https://b"]), true),
            ("http://b", "a", .list(["https://b"]), false), ("http://b", "a", .list(["b"]), true),
            ("http://a", "a", .list(["b"]), false),
            ("capacitor://localhost", "a", .list(["capacitor://localhost"]), true), ("app://x", "a", .list(["APP://X"]), true),
            ("chrome-extension://abcdef", "a", .list(["chrome-extension://abcdef"]), true),
            ("chrome-extension://abcdeg", "a", .list(["chrome-extension://abcdef"]), false), ("app://x", "a", .list(["x"]), false),
            ("app://x", "x", .sameOrigin, false), ("app://x:1", "a", .list(["app://x"]), false),
            ("https://www.example.com", "a", .list(["https://*.example.com"]), true),
            ("https://a.b.example.com:443", "a", .list(["https://*.EXAMPLE.com"]), true),
            ("https://example.com", "a", .list(["https://*.example.com"]), false),
            ("https://.example.com", "a", .list(["https://*.example.com"]), false),
            ("https://evilexample.com", "a", .list(["https://*.example.com"]), false),
            ("https://www.example.com.evil", "a", .list(["https://*.example.com"]), false),
            ("http://www.example.com", "a", .list(["https://*.example.com"]), false),
            ("http://www.example.com", "a", .list(["*.example.com"]), true),
            ("https://www.example.com:8443", "a", .list(["https://*.example.com"]), false),
            ("https://www.example.com:8443", "a", .list(["https://*.example.com:8443"]), true),
            ("https://a.example.com", "*.example.com", .sameOrigin, false),
            ("null", "a", .list(["null"]), true), ("null", "a", .list([]), false), (nil, "a", .list([]), true),
        ] as [(String?, String, OriginPolicy, Bool)])
    func origins(origin: String?, host: String, policy: OriginPolicy, expected: Bool) {
        #expect(Handshake.originIsAllowed(origin: origin, host: host, allowed: policy) == expected)
    }

    @Test(
        "an entry that no origin can match is refused",
        arguments: [
            ("https://a.test", true), ("http://a.test:8080", true), ("HTTPS://A.TEST", true), ("a.test", true), ("a.test:1", true),
            ("localhost", true), ("http://[::1]:80", true), ("null", true), ("", false), ("https://", false), ("https://a.test/", false),
            ("a.test/x", false), ("capacitor://localhost", true), ("chrome-extension://abc", true),
            ("https://*.a.test", true), ("*.a.test", true), ("https://a.*.test", false), ("https://*a.test", false),
            ("a.test,b.test", false),
            ("https://a.test,https://b.test", false), ("1a://b", false), ("://a", false), ("https://*", false), ("ftp://a.test", true),
            ("https://a.test:x", false), ("a b", false), ("*", false),
        ])
    func originEntries(entry: String, isRight: Bool) {
        #expect((OriginPolicy.problem(with: entry) == nil) == isRight)
    }
}
