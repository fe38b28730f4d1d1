import ApusCodec
import Testing

@Suite("RFC 9112 §3, §4, §7.1 HTTP encoder")
struct EncoderTests {
    static func response(
        _ status: HTTPStatus, _ fields: KeyValuePairs<String, String> = [:], _ framing: HTTPBodyFraming = .none,
        _ persistence: HTTPEncoder.Persistence = .implied, date: String = ""
    ) throws -> String {
        var output: [UInt8] = []
        HTTPEncoder.appendResponseHead(
            status: status, fields: try HTTPFields(fields), framing: framing, persistence: persistence,
            date: Array(date.utf8).span,
            to: &output)
        return String(decoding: output, as: UTF8.self)
    }

    @Test("a response head is written")
    func responseHead() throws {
        #expect(
            try Self.response(.ok, ["Content-Type": "text/plain"], .counted(1204), .keepAlive, date: "now")
                == "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\nContent-Length: 1204\r\nConnection: keep-alive\r\n\r\n"
        )
        #expect(try Self.response(.ok, [:], .counted(0)) == "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(
            try Self.response(.ok, [:], .chunked, .close)
                == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        #expect(try Self.response(HTTPStatus(code: 299), ["DATE": "x"], date: "now") == "HTTP/1.1 299 \r\nDATE: x\r\n\r\n")
    }

    @Test("framing fields of the application are left out")
    func framing() throws {
        let fields: KeyValuePairs = [
            "content-length": "9", "Transfer-Encoding": "gzip", "CONNECTION": "x", "Keep-Alive": "y", "A": "b",
        ]
        #expect(try Self.response(.ok, fields, .counted(1)) == "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\n")
        #expect(try Self.response(.noContent, [:], .counted(0)) == "HTTP/1.1 204 No Content\r\n\r\n")
        #expect(try Self.response(.continue, [:], .chunked) == "HTTP/1.1 100 Continue\r\n\r\n")
        #expect(try Self.response(.notModified, [:], .counted(5)) == "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
        #expect(
            try Self.response(.upgradeRequired, ["Upgrade": "websocket"], .none, .close)
                == "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n\r\n")
    }

    @Test("a request head is written")
    func requestHead() throws {
        var output: [UInt8] = []
        try HTTPEncoder.appendRequestHead(
            method: .connect, target: "a:443", host: "a:443", fields: try HTTPFields(["A": "b"]), to: &output)
        #expect(String(decoding: output, as: UTF8.self) == "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nA: b\r\n\r\n")
    }

    @Test(
        "invalid values in a request head throw, and nothing is written",
        arguments: [
            ("G T", "/", "a", HTTPFieldError.invalidMethod("G T")), ("", "/", "a", .invalidMethod("")),
            ("GET", "/\r\nA: b", "a", .invalidTarget("/\r\nA: b")), ("GET", "/ HTTP/1.1", "a", .invalidTarget("/ HTTP/1.1")),
            ("GET", "", "a", .invalidTarget("")), ("GET", "/\0", "a", .invalidTarget("/\0")),
            ("GET", "/ä", "a", .invalidTarget("/ä")),
            ("CONNECT", "a:1\n", "a", .invalidTarget("a:1\n")), ("GET", "/", "a\r\nB: c", .invalidHost("a\r\nB: c")),
            ("GET", "/", "", .invalidHost("")),
        ])
    func refuses(method: String, target: String, host: String, error: HTTPFieldError) {
        var output: [UInt8] = []
        #expect(throws: error) {
            try HTTPEncoder.appendRequestHead(
                method: HTTPMethod(rawValue: method), target: target, host: host, fields: HTTPFields(), to: &output)
        }
        #expect(output.isEmpty)
    }

    @Test("fields that the encoder writes are refused", arguments: ["Host", "content-length", "Transfer-Encoding", "Connection"])
    func reserved(name: String) throws {
        var output: [UInt8] = []
        var fields = HTTPFields()
        try fields.append(name, "1")
        #expect(throws: HTTPFieldError.reservedName(name)) {
            try HTTPEncoder.appendRequestHead(method: .get, target: "/", host: "a", fields: fields, to: &output)
        }
        #expect(output.isEmpty)
    }

    @Test("chunks are written and decoded", arguments: Feed.allCases)
    func chunks(feed: Feed) throws {
        var output: [UInt8] = []
        HTTPEncoder.appendChunk([UInt8](repeating: 0x61, count: 26).span, to: &output)
        HTTPEncoder.appendChunk([UInt8]().span, to: &output)
        HTTPEncoder.appendLastChunk(to: &output)
        #expect(String(decoding: output, as: UTF8.self) == "1a\r\naaaaaaaaaaaaaaaaaaaaaaaaaa\r\n0\r\n\r\n")
        #expect(try decodeBody(output, .chunked, feed: feed).content.count == 26)
    }
}
