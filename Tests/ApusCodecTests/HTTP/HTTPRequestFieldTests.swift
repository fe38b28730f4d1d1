import ApusCodec
import Testing

@Suite("RFC 9112 §5 field lines")
struct FieldLineTests {
    static let refused: [RefusedRequest] = [
        .fields("folded line", "A: b\r\n c", .foldedLine),
        .fields("tab before the name", "\tA: b", .foldedLine),
        .fields("space before the colon", "A : b", .spaceBeforeColon),
        .fields("tab before the colon", "A\t: b", .spaceBeforeColon),
        .fields("empty name", ": b", .fieldNameEmpty),
        .fields("no colon", "Ab", .fieldWithoutColon),
        .fields("no colon but a space", "A b", .fieldWithoutColon),
        .fields("byte above ASCII in a name", "Ä: b", .fieldNameInvalid(0xC3)),
        .fields("separator in a name", "A(b: c", .fieldNameInvalid(0x28)),
        .fields("bare LF ends a field", "A: b\nC: d", .bareLineFeed),
        .fields("bare LF ends the head", "A: b\r\n\n", .bareLineFeed),
        .fields("bare CR in a value", "A: b\rc", .bareCarriageReturn),
        .fields("NUL in a value", "A: b\0c", .controlCharacter(0)),
        .fields("escape in a value", "A: b\u{1B}c", .controlCharacter(0x1B)),
        .fields("DEL in a value", "A: b\u{7F}c", .controlCharacter(0x7F)),
        .fields("vertical tab before chunked", "Transfer-Encoding: \u{B}chunked", .controlCharacter(0x0B)),
    ]

    @Test("a malformed field line is refused", arguments: refused)
    func refuses(request: RefusedRequest) {
        #expect(HTTPRequestDecoder.violation(request.bytes) == request.violation)
        #expect(request.violation.status == .badRequest)
    }

    @Test("bytes above 0x7F are allowed in a value", arguments: Feed.allCases)
    func obsText(feed: Feed) throws {
        let bytes = Array("GET / HTTP/1.1\r\nHost: a\r\nA: ".utf8) + [0xE4, 0xE4, 0xFF] + Array("\r\n\r\n".utf8)
        let head = try #require(try HTTPRequestDecoder.feed(bytes, feed))
        #expect(head.fields.valueBytes(at: 1).count == 3)
        #expect(head.fields["a"] == "\u{FFFD}\u{FFFD}\u{FFFD}")
    }
}

@Suite("RFC 9112 §3.2 Host")
struct HostTests {
    static func request(_ name: String, _ hosts: String..., target: String = "/", is violation: HTTPViolation) -> RefusedRequest {
        RefusedRequest(name, "GET \(target) HTTP/1.1\r\n" + hosts.map { "Host: \($0)\r\n" }.joined() + "\r\n", violation)
    }

    static let refused: [RefusedRequest] = [
        request("none", is: .hostMissing),
        request("two", "a", "a", is: .hostRepeated),
        request("empty", "", is: .hostMalformed),
        request("space", "a b", is: .hostMalformed),
        request("list", "a, b:80", is: .hostMalformed),
        request("slash", "a/b", is: .hostMalformed),
        request("user", "u@a", is: .hostMalformed),
        request("port is not a number", "a:8x", is: .hostMalformed),
        request("port too large", "a:65536", is: .hostMalformed),
        request("port too long", "a:000080", is: .hostMalformed),
        request("two ports", "a:80:80", is: .hostMalformed),
        request("port alone", ":80", is: .hostMalformed),
        request("bracket not closed", "[::1", is: .hostMalformed),
        request("bracket with a name", "[a]", is: .hostMalformed),
        request("text after a bracket", "[::1]a", is: .hostMalformed),
        request("bad escape", "a%2", is: .hostMalformed),
        request("byte above ASCII", "ä", is: .hostMalformed),
        request("absolute form without Host", target: "http://a/", is: .hostMissing),
        request("absolute form with a malformed Host", "a b", target: "http://a/", is: .hostMalformed),
        request("absolute form with a user", "a", target: "http://u@a/", is: .targetMalformed(.authorityMalformed)),
        request("absolute form without a host", "a", target: "http:///", is: .targetMalformed(.authorityMalformed)),
        request("another scheme", "a", target: "ftp://a/", is: .targetMalformed(.schemeNotSupported)),
    ]

    @Test("a missing, repeated or malformed host is refused", arguments: refused)
    func refuses(request: RefusedRequest) {
        #expect(HTTPRequestDecoder.violation(request.bytes) == request.violation)
    }

    @Test(
        "a host is accepted",
        arguments: [
            ("a", "/"), ("A.b-c_d", "/"), ("a:", "/"), ("a:0", "/"), ("127.0.0.1:65535", "/"), ("[::1]", "/"),
            ("[2001:db8::7]:80", "/"),
            ("[::ffff:1.2.3.4]", "/"), ("a%41", "/"),
        ])
    func accepts(host: String, target: String) throws {
        let head = try HTTPRequestDecoder.head("GET \(target) HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        #expect(head.host == host)
    }

    @Test(
        "RFC 9112 §3.2.2: a target in absolute form overrides Host",
        arguments: [
            ("EXAMPLE.com", "http://example.COM:80/x", "example.COM:80"), ("b", "http://a/", "a"), ("a:81", "http://a/", "a"),
            ("a:80", "https://a", "a"), ("b:1", "wss://[::1]:443/?q", "[::1]:443"),
        ])
    func absoluteForm(host: String, target: String, named: String) throws {
        let head = try HTTPRequestDecoder.head("GET \(target) HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        #expect(head.host == named)
        #expect(head.fields["host"] == host)
    }

    @Test("HTTP/1.0 requires no Host, but two are refused")
    func oldVersion() throws {
        #expect(try HTTPRequestDecoder.head("GET / HTTP/1.0\r\n\r\n").host == nil)
        #expect(HTTPRequestDecoder.violation(Array("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n".utf8)) == .hostRepeated)
    }
}

@Suite("RFC 9112 §6 framing of requests")
struct RequestFramingTests {
    static let refused: [RefusedRequest] = [
        .fields("length, then coding", "Content-Length: 5\r\nTransfer-Encoding: chunked", .contentLengthWithTransferEncoding),
        .fields("coding, then length", "Transfer-Encoding: chunked\r\nContent-Length: 5", .contentLengthWithTransferEncoding),
        .fields("two lengths", "Content-Length: 5\r\nContent-Length: 5", .contentLengthRepeated),
        .fields("list of lengths", "Content-Length: 5, 5", .contentLengthMalformed),
        .fields("plus", "Content-Length: +5", .contentLengthMalformed),
        .fields("minus", "Content-Length: -1", .contentLengthMalformed),
        .fields("hexadecimal", "Content-Length: 0x10", .contentLengthMalformed),
        .fields("empty", "Content-Length:", .contentLengthMalformed),
        .fields("space inside", "Content-Length: 1 0", .contentLengthMalformed),
        .fields("2^63", "Content-Length: 9223372036854775808", .contentLengthMalformed),
        .fields("2^64", "Content-Length: 18446744073709551616", .contentLengthMalformed),
        .fields("other coding", "Transfer-Encoding: gzip", .transferEncodingNotSupported),
        .fields("gzip, chunked", "Transfer-Encoding: gzip, chunked", .transferEncodingNotSupported),
        .fields("identity", "Transfer-Encoding: identity", .transferEncodingNotSupported),
        .fields("near miss", "Transfer-Encoding: xchunked", .transferEncodingNotSupported),
        .fields("chunked, gzip", "Transfer-Encoding: chunked, gzip", .transferEncodingMalformed),
        .fields("chunked twice", "Transfer-Encoding: chunked, chunked", .transferEncodingMalformed),
        .fields("chunked in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", .transferEncodingMalformed),
        .fields("parameter", "Transfer-Encoding: chunked;a=b", .transferEncodingMalformed),
        .fields("quoted", "Transfer-Encoding: \"chunked\"", .transferEncodingMalformed),
        .fields("no coding", "Transfer-Encoding:", .transferEncodingMalformed),
        .fields("nothing but commas", "Transfer-Encoding: , ,", .transferEncodingMalformed),
        .fields("chunked twice with an empty element between", "Transfer-Encoding: chunked,,chunked", .transferEncodingMalformed),
        RefusedRequest("HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", .transferEncodingNotAllowed),
    ]

    @Test("ambiguous framing is refused", arguments: refused)
    func refuses(request: RefusedRequest) {
        #expect(HTTPRequestDecoder.violation(request.bytes) == request.violation)
    }

    @Test(
        "framing is determined",
        arguments: [
            ("", HTTPBodyFraming.none), ("Content-Length: 0\r\n", .none), ("Content-Length: 5\r\n", .counted(5)),
            ("content-length: 007\r\n", .counted(7)), ("Content-Length: 9223372036854775807\r\n", .counted(Int.max)),
            ("Transfer-Encoding: chunked,\r\n", .chunked), ("Transfer-Encoding: , chunked\r\n", .chunked),
            ("Transfer-Encoding: chunked\r\n", .chunked), ("TRANSFER-ENCODING: Chunked\r\n", .chunked),
        ])
    func finds(field: String, framing: HTTPBodyFraming) throws {
        #expect(try HTTPRequestDecoder.head("POST / HTTP/1.1\r\nHost: a\r\n\(field)\r\n").bodyFraming == framing)
    }

    @Test(
        "100-continue is expected only with a body",
        arguments: [("1.1", "5", true), ("1.1", "0", false), ("1.0", "5", false)])
    func expects(version: String, length: String, expected: Bool) throws {
        let head = try HTTPRequestDecoder.head(
            "POST / HTTP/\(version)\r\nHost: a\r\nContent-Length: \(length)\r\nExpect: 100-Continue\r\n\r\n")
        #expect(head.expectsContinue == expected)
    }
}

@Suite("RFC 9112 §9.3 persistence")
struct PersistenceTests {
    @Test(
        "the connection persists",
        arguments: [
            ("1.1", "", true), ("1.1", "Connection: close\r\n", false), ("1.1", "Connection: foo, CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false), ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false), ("1.0", "Connection: Keep-Alive\r\n", true), ("1.0", "Connection: keep-alive, close\r\n", false),
        ])
    func keepsAlive(version: String, field: String, expected: Bool) throws {
        #expect(try HTTPRequestDecoder.head("GET / HTTP/\(version)\r\nHost: a\r\n\(field)\r\n").keepsAlive == expected)
    }
}
