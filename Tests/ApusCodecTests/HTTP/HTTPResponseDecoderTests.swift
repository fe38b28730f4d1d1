import ApusCodec
import Testing

@Suite("RFC 9112 §4 response decoder")
struct ResponseTests {
    @Test("a response is decoded", arguments: Feed.allCases)
    func decodes(feed: Feed) throws {
        let bytes = Array("HTTP/1.1 404 Not  Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\n".utf8)
        let head = try #require(try HTTPResponseDecoder.feed(bytes, feed))
        #expect(head.status == .notFound)
        #expect(head.reason == "Not  Found")
        #expect(head.version == .http11)
        #expect(head.fields.count == 2)
        #expect(!head.keepsAlive)
        #expect(head.bodyFraming(for: .get) == .counted(5))
    }

    @Test(
        "an empty reason, and the space before it, may be missing", arguments: ["HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"])
    func noReason(text: String) throws {
        let head = try HTTPResponseDecoder.head(text)
        #expect(head.status == .ok && head.reason.isEmpty)
    }

    static let refused: [RefusedRequest] = [
        RefusedRequest("first byte", "X", .malformedStatusLine),
        RefusedRequest("empty line first", "\r\n", .malformedStatusLine),
        RefusedRequest("ICY", "ICY 200 OK\r\n", .malformedStatusLine),
        RefusedRequest("two digits", "HTTP/1.1 20 OK\r\n", .malformedStatusLine),
        RefusedRequest("four digits", "HTTP/1.1 2000\r\n", .malformedStatusLine),
        RefusedRequest("below 100", "HTTP/1.1 099 A\r\n", .malformedStatusLine),
        RefusedRequest("letters", "HTTP/1.1 2x0 A\r\n", .malformedStatusLine),
        RefusedRequest("two spaces", "HTTP/1.1  200 A\r\n", .malformedStatusLine),
        RefusedRequest("short", "HTTP/1.1\r\n", .malformedStatusLine),
        RefusedRequest("HTTP/2", "HTTP/2.0 200 OK\r\n", .versionNotSupported(HTTPVersion(major: 2, minor: 0))),
        RefusedRequest("bare LF", "HTTP/1.1 200 OK\n", .bareLineFeed),
        RefusedRequest("NUL in the reason", "HTTP/1.1 200 O\0\r\n", .controlCharacter(0)),
        RefusedRequest(
            "length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            .contentLengthWithTransferEncoding),
        RefusedRequest("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", .contentLengthRepeated),
        RefusedRequest(
            "head too large", "HTTP/1.1 200 OK\r\nA: " + String(repeating: "a", count: 16_384), .headTooLarge(limit: 16_384)),
    ]

    @Test("a malformed response is refused", arguments: refused)
    func refuses(response: RefusedRequest) {
        #expect(HTTPResponseDecoder.violation(response.bytes) == response.violation)
    }

    @Test(
        "RFC 9112 §6.3: framing depends on method and status",
        arguments: [
            ("HEAD", "200 OK", "Content-Length: 5\r\n", HTTPBodyFraming.none), ("GET", "304 A", "Content-Length: 5\r\n", .none),
            ("GET", "204 A", "Transfer-Encoding: chunked\r\n", .none), ("GET", "101 A", "", .none),
            ("GET", "200 A", "Transfer-Encoding: chunked\r\n", .chunked), ("GET", "200 A", "Content-Length: 0\r\n", .none),
            ("GET", "200 A", "", .untilClose), ("CONNECT", "200 A", "Content-Length: 5\r\n", .none),
            ("CONNECT", "200 A", "Transfer-Encoding: chunked\r\n", .none), ("CONNECT", "407 A", "Content-Length: 5\r\n", .counted(5)),
            ("GET", "101 A", "Content-Length: 0\r\n", .none), ("GET", "101 A", "Transfer-Encoding: chunked\r\n", .none),
            ("CONNECT", "407 A", "Transfer-Encoding: chunked\r\n", .chunked),
        ])
    func framing(method: String, status: String, field: String, framing: HTTPBodyFraming) throws {
        let head = try HTTPResponseDecoder.head("HTTP/1.1 \(status)\r\n\(field)\r\n")
        #expect(head.bodyFraming(for: HTTPMethod(rawValue: method)) == framing)
    }

    @Test("a folded field is unfolded, however it is cut", arguments: Feed.allCases)
    func folded(feed: Feed) throws {
        let text = "HTTP/1.1 200 OK\r\nX-Long: one\r\n two\r\n\t three \r\nTransfer-Encoding:\r\n chunked\r\nA: b\r\n \r\n\r\n"
        let head = try #require(try HTTPResponseDecoder.feed(Array(text.utf8), feed))
        #expect(head.fields["x-long"] == "one   two  \t three" && head.fields["a"] == "b" && head.fields.count == 3)
        #expect(head.bodyFraming(for: .get) == .chunked)
    }

    @Test("a folded line needs a field before it, and the unfolded field is validated")
    func foldedWrong() {
        let cases: [(String, HTTPViolation)] = [
            (" a: b\r\n", .foldedLine), ("Content-Length: 1\r\n 2\r\n\r\n", .contentLengthMalformed),
            ("Content-Length: 1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", .contentLengthWithTransferEncoding),
        ]
        for (fields, violation) in cases {
            #expect(HTTPResponseDecoder.violation(Array("HTTP/1.1 200 OK\r\n\(fields)".utf8)) == violation, "\(fields)")
        }
    }

    @Test("an interim response is followed by the final one")
    func interim() throws {
        let bytes = Array("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".utf8)
        var decoder = HTTPResponseDecoder()
        var consumed = 0
        #expect(try decoder.decode(bytes.span, consumed: &consumed)?.status == .continue)
        #expect(try decoder.decode(Array(bytes[consumed...]).span, consumed: &consumed)?.status == .ok)
    }
}
