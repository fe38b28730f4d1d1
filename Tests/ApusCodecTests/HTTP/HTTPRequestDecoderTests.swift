import ApusCodec
import Testing

/// A request that is refused: name, bytes and violation.
struct RefusedRequest: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let bytes: [UInt8]
    let violation: HTTPViolation

    init(_ name: String, _ text: String, _ violation: HTTPViolation) {
        self.init(name, bytes: Array(text.utf8), violation)
    }

    init(_ name: String, bytes: [UInt8], _ violation: HTTPViolation) {
        testDescription = name
        self.bytes = bytes
        self.violation = violation
    }

    /// A request with the given fields besides Host.
    static func fields(_ name: String, _ fields: String, _ violation: HTTPViolation) -> RefusedRequest {
        RefusedRequest(name, "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n\r\n", violation)
    }
}

@Suite("RFC 9112 §2, §3 request line")
struct RequestLineTests {
    @Test(
        "a request is decoded",
        arguments: Feed.allCases)
    func decodes(feed: Feed) throws {
        let bytes = Array(
            "GET /where?q=now HTTP/1.1\r\nHost: www.example.com\r\nAccept:  \t text/html \t\r\nX:\r\nx: b\r\n\r\n".utf8)
        let head = try #require(try HTTPRequestDecoder.feed(bytes, feed))
        #expect(head.method == .get)
        #expect(head.target == "/where?q=now")
        #expect(head.path == "/where")
        #expect(head.queryString == "q=now")
        #expect(head.version == .http11)
        #expect(head.fields.map { "\($0.name)=\($0.value)" } == ["Host=www.example.com", "Accept=text/html", "X=", "x=b"])
        #expect(head.fields["X"] == ", b")
        #expect(head.host == "www.example.com")
        #expect(head.bodyFraming == .none)
        #expect(head.keepsAlive)
        #expect(!head.wantsUpgradeToWebSocket)
    }

    @Test("one empty line before the request line is skipped, and the decoder stays idle", arguments: Feed.allCases)
    func emptyLine(feed: Feed) throws {
        let head = try #require(try HTTPRequestDecoder.feed(Array("\r\nM-SEARCH / HTTP/1.0\r\n\r\n".utf8), feed))
        #expect(head.method.rawValue == "M-SEARCH")
        var decoder = HTTPRequestDecoder()
        var consumed = 0
        #expect(try decoder.decode(Array("\r\n".utf8).span, consumed: &consumed) == nil)
        #expect(consumed == 2)
        #expect(decoder.isIdle)
    }

    static let refused: [RefusedRequest] = [
        RefusedRequest("TLS hello", bytes: [0x16, 0x03, 0x01], .controlCharacter(0x16)),
        RefusedRequest("first byte above ASCII", bytes: [0x80], .malformedRequestLine),
        RefusedRequest("first byte a space", " GET / HTTP/1.1\r\n", .malformedRequestLine),
        RefusedRequest("two empty lines", "\r\n\r\n", .tooManyEmptyLines),
        RefusedRequest("bare LF first", "\n", .bareLineFeed),
        RefusedRequest("bare LF ends the line", "GET / HTTP/1.1\n", .bareLineFeed),
        RefusedRequest("bare CR", "GET /\rx", .bareCarriageReturn),
        RefusedRequest("CR CR LF", "GET / HTTP/1.1\r\r\n", .bareCarriageReturn),
        RefusedRequest("NUL", "GET /\0", .controlCharacter(0)),
        RefusedRequest("HTTP/0.9", "GET /\r\n", .versionMissing),
        RefusedRequest("HTTP/0.9 written out", "GET / HTTP/0.9\r\n", .versionMissing),
        RefusedRequest("HTTP/2 preface", "PRI * HTTP/2.0\r\n", .versionNotSupported(HTTPVersion(major: 2, minor: 0))),
        RefusedRequest("HTTP/3", "GET / HTTP/3.1\r\n", .versionNotSupported(HTTPVersion(major: 3, minor: 1))),
        RefusedRequest("lower-case version", "GET / http/1.1\r\n", .malformedRequestLine),
        RefusedRequest("short version", "GET / HTTP/1\r\n", .malformedRequestLine),
        RefusedRequest("long version", "GET / HTTP/1.10\r\n", .malformedRequestLine),
        RefusedRequest("two spaces", "GET  / HTTP/1.1\r\n", .malformedRequestLine),
        RefusedRequest("space at the end", "GET / HTTP/1.1 \r\n", .malformedRequestLine),
        RefusedRequest("tabs", "GET\t/\tHTTP/1.1\r\n", .malformedRequestLine),
        RefusedRequest("space in the target", "GET /a b HTTP/1.1\r\n", .malformedRequestLine),
        RefusedRequest("one word", "GET\r\n", .malformedRequestLine),
        RefusedRequest("method is not a token", "GE(T / HTTP/1.1\r\n", .malformedRequestLine),
        RefusedRequest("method too long", String(repeating: "A", count: 33) + " / HTTP/1.1\r\n", .methodTooLong(limit: 32)),
        RefusedRequest("asterisk with GET", "GET * HTTP/1.1\r\n", .targetMalformed(.formNotAllowed)),
        RefusedRequest("authority with GET", "GET a:80 HTTP/1.1\r\n", .targetMalformed(.formNotAllowed)),
        RefusedRequest("path with CONNECT", "CONNECT / HTTP/1.1\r\n", .targetMalformed(.authorityMalformed)),
        RefusedRequest("byte above ASCII in the target", "GET /ä HTTP/1.1\r\n", .targetMalformed(.invalidByte(0xC3))),
        RefusedRequest("fragment", "GET /a#b HTTP/1.1\r\n", .targetMalformed(.invalidByte(0x23))),
    ]

    @Test("an invalid request line is refused", arguments: refused)
    func refuses(request: RefusedRequest) {
        #expect(HTTPRequestDecoder.violation(request.bytes) == request.violation)
    }

    @Test(
        "the status of the response",
        arguments: [
            ("GET /\r\n", 400), ("PRI * HTTP/2.0\r\n", 505),
            ("GET /" + String(repeating: "a", count: 8192) + " HTTP/1.1\r\n", 414),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n", 501), ("\u{16}", 400),
        ])
    func status(text: String, code: UInt16) {
        #expect(HTTPRequestDecoder.violation(Array(text.utf8))?.status.code == code)
    }

    @Test(
        "HEAD is recognised although the head is refused or incomplete",
        arguments: [
            "HEAD / HTTP/1.1\n", "HEAD / HTTP/1.1\r\n\r\n", "HEAD / HTTP/2.0\r\n", "HEAD /a#b HTTP/1.1\r\n", "HEAD /\0",
            "HEAD / HTTP/1.1\r\nHost : a\r\n", "HEAD /" + String(repeating: "a", count: 9000), "HEAD / HTTP/1.1\r\nHost:",
            "\r\nHEAD /", "HEAD ",
        ], Feed.allCases)
    func headMethod(text: String, feed: Feed) {
        for (method, isHead) in [("HEAD", true), ("GET", false), ("HEADS", false), ("head", false)] {
            var decoder = HTTPRequestDecoder()
            let bytes = Array(text.utf8)
            let start = bytes.starts(with: [0x0D]) ? 2 : 0
            let request = Array(bytes[..<start]) + Array(method.utf8) + Array(bytes[(start + 4)...])
            var rest = request[...]
            do throws(HTTPViolation) {
                while !rest.isEmpty {
                    var consumed = 0
                    let piece = feed == .whole ? Array(rest) : Array(rest.prefix(1))
                    _ = try decoder.decode(piece.span, consumed: &consumed)
                    rest = rest.dropFirst(consumed)
                }
            } catch {}
            #expect(decoder.isHeadMethod == isHead, "\(method)")
        }
    }

    @Test("every form of target is decoded", arguments: Feed.allCases)
    func forms(feed: Feed) throws {
        let options = try #require(try HTTPRequestDecoder.feed(Array("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".utf8), feed))
        #expect(options.path == "*")
        #expect(options.requestTarget.form == .asterisk)
        let connect = try #require(try HTTPRequestDecoder.feed(Array("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".utf8), feed))
        #expect(connect.requestTarget.authority == "a:443")
        #expect(connect.path.isEmpty)
        let absolute = try #require(
            try HTTPRequestDecoder.feed(Array("GET http://A.b:80/p?q HTTP/1.1\r\nHost: a.B\r\n\r\n".utf8), feed))
        #expect(absolute.path == "/p")
        #expect(absolute.queryString == "q")
        #expect(absolute.requestTarget.form == .absolute)
    }

    @Test("a later minor version counts as HTTP/1.1")
    func minor() throws {
        let head = try HTTPRequestDecoder.head("GET / HTTP/1.9\r\nHost: a\r\n\r\n")
        #expect(head.version == HTTPVersion(major: 1, minor: 9))
        #expect(head.keepsAlive)
    }

    @Test("a hundred pipelined requests are decoded in order")
    func pipelined() throws {
        let text = (0..<100).map { "GET /\($0) HTTP/1.1\r\nHost: a\r\n\r\n" }.joined()
        var rest = Array(text.utf8)
        var decoder = HTTPRequestDecoder()
        for index in 0..<100 {
            var consumed = 0
            let head = try decoder.decode(rest.span, consumed: &consumed)
            #expect(head?.path == "/\(index)")
            rest.removeFirst(consumed)
            #expect(decoder.isIdle)
        }
        #expect(rest.isEmpty)
    }
}

@Suite("RFC 9112 §3 limits of the head")
struct HeadLimitTests {
    static let limits = HTTPHeadLimits(maxHeadBytes: 100, maxTargetBytes: 20, maxFields: 3)

    static let refused: [RefusedRequest] = [
        RefusedRequest("target", "GET /" + String(repeating: "a", count: 20) + " HTTP/1.1\r\n", .targetTooLong(limit: 20)),
        RefusedRequest("target without end", "GET /" + String(repeating: "a", count: 100), .targetTooLong(limit: 20)),
        RefusedRequest("method without end", String(repeating: "a", count: 100), .methodTooLong(limit: 32)),
        RefusedRequest("field", "GET / HTTP/1.1\r\nA: " + String(repeating: "a", count: 100), .headTooLarge(limit: 100)),
        RefusedRequest("fields", "GET / HTTP/1.1\r\n" + String(repeating: "A:\r\n", count: 4), .tooManyFields(limit: 3)),
    ]

    @Test("a head over a limit is refused", arguments: refused)
    func refuses(request: RefusedRequest) {
        #expect(HTTPRequestDecoder.violation(request.bytes, limits: Self.limits) == request.violation)
    }

    /// A head of exactly `count` bytes.
    static func head(_ count: Int) -> [UInt8] {
        let start = Array("GET / HTTP/1.1\r\nHost: a\r\nB: ".utf8)
        return start + [UInt8](repeating: 0x62, count: count - start.count - 4) + Array("\r\n\r\n".utf8)
    }

    @Test("a head at the limit is accepted, one byte more is refused", arguments: Feed.allCases)
    func edge(feed: Feed) throws {
        #expect(try HTTPRequestDecoder.feed(Self.head(100), feed, limits: Self.limits) != nil)
        #expect(HTTPRequestDecoder.violation(Self.head(101), limits: Self.limits) == .headTooLarge(limit: 100))
        let target = Array("GET /\(String(repeating: "a", count: 19)) HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        #expect(try HTTPRequestDecoder.feed(target, feed, limits: Self.limits) != nil)
    }

    @Test("no more bytes than the limit are consumed")
    func bounded() {
        let line = Array("GET / HTTP/1.1\r\nHost: a\r\nB: ".utf8)
        let bytes = line + [UInt8](repeating: 0x62, count: 1_000_000)
        var decoder = HTTPRequestDecoder()
        var consumed = 0
        #expect(throws: HTTPViolation.headTooLarge(limit: 16_384)) { _ = try decoder.decode(bytes.span, consumed: &consumed) }
        #expect(consumed == 16_384)
    }

    @Test("each byte is consumed once")
    func linear() throws {
        // Fed in pieces, the consumed bytes add up to the input; a decoder that scanned again would
        // leave some.
        let bytes = Self.head(16_000)
        for piece in [1, 7, 1000, 16_000] {
            var decoder = HTTPRequestDecoder()
            var taken = 0
            var isComplete = false
            while taken < bytes.count {
                var consumed = 0
                let part = Array(bytes[taken..<min(taken + piece, bytes.count)])
                isComplete = try decoder.decode(part.span, consumed: &consumed) != nil
                #expect(consumed == part.count)
                taken += consumed
            }
            #expect(isComplete)
        }
    }
}
