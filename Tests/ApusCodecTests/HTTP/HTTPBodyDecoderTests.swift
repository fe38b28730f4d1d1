import ApusCodec
import Testing

@Suite("RFC 9112 §6, §7 body decoder")
struct BodyTests {
    struct Chunked: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let text: String
        var content = ""
        var violation: HTTPViolation?
    }

    static let accepted: [Chunked] = [
        Chunked(
            testDescription: "two chunks", text: "4\r\nWiki\r\n7\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\n\r\n",
            content: "Wikipedia in \r\nchunks."),
        Chunked(testDescription: "nothing", text: "0\r\n\r\n"),
        Chunked(testDescription: "leading zeros", text: "0000000000000001\r\na\r\n000\r\n\r\n", content: "a"),
        Chunked(
            testDescription: "both cases", text: "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            content: "01234567890123456789"),
        Chunked(testDescription: "extensions", text: "1;a\r\nx\r\n1;b=c;d=\"e ;f\"\r\ny\r\n0;end\r\n\r\n", content: "xy"),
        Chunked(
            testDescription: "extensions with white space",
            text: "1 ;a\r\nx\r\n1\t; a = b \t;c=d\r\ny\r\n1;a= \"\\\"\t\\\\;\u{e9}\" ; b\r\nz\r\n5 ;a=b\r\nhello\r\n0 ; end\r\n\r\n",
            content: "xyzhello"),
        Chunked(testDescription: "an empty string as a value", text: "1;a=\"\"\r\nx\r\n0\r\n\r\n", content: "x"),
        Chunked(testDescription: "trailers", text: "1\r\nx\r\n0\r\nExpires: never\r\nA:\r\n\r\n", content: "x"),
        Chunked(
            testDescription: "extensions at the limit", text: "1;" + String(repeating: "a", count: 4095) + "\r\nx\r\n0\r\n\r\n",
            content: "x"),
    ]

    @Test("chunks are joined", arguments: accepted, Feed.allCases)
    func joins(body: Chunked, feed: Feed) throws {
        let decoded = try decodeBody(Array(body.text.utf8), .chunked, feed: feed)
        #expect(String(decoding: decoded.content, as: UTF8.self) == body.content)
        #expect(decoded.isComplete)
        #expect(decoded.left == 0)
    }

    static func refused(_ name: String, _ text: String, _ violation: HTTPViolation) -> Chunked {
        Chunked(testDescription: name, text: text, violation: violation)
    }

    static let refused: [Chunked] = [
        refused("empty size", "\r\n", .chunkSizeMalformed),
        refused("minus", "-1\r\n", .chunkSizeMalformed),
        refused("plus", "+1\r\n", .chunkSizeMalformed),
        refused("0x", "0x1\r\n", .chunkSizeMalformed),
        refused("space behind", "1 \r\nx", .chunkSizeMalformed),
        refused("space before", " 1\r\nx", .chunkSizeMalformed),
        refused("space, then no semicolon", "1 a\r\nx", .chunkSizeMalformed),
        refused("extension without a name", "2;\r\nxy", .chunkExtensionMalformed),
        refused("semicolon at the end", "2;a;\r\nxy", .chunkExtensionMalformed),
        refused("white space at the end", "2;a \r\nxy", .chunkExtensionMalformed),
        refused("white space after the value", "2;a=b \r\nxy", .chunkExtensionMalformed),
        refused("no value", "2;a=\r\nxy", .chunkExtensionMalformed),
        refused("value without a name", "2;=b\r\nxy", .chunkExtensionMalformed),
        refused("two equals signs", "2;a==b\r\nxy", .chunkExtensionMalformed),
        refused("name in two pieces", "2;a b\r\nxy", .chunkExtensionMalformed),
        refused("quoted name", "2;\"a\"=b\r\nxy", .chunkExtensionMalformed),
        refused("string without its end", "5;a=\"b\r\nhello", .chunkExtensionMalformed),
        refused("string that ends in a backslash", "5;a=\"b\\\r\nhello", .chunkExtensionMalformed),
        refused("text after a string", "5;a=\"b\"c\r\nhello", .chunkExtensionMalformed),
        refused("no token", "5;a=(\r\nhello", .chunkExtensionMalformed),
        refused("underscore", "1_0\r\n", .chunkSizeMalformed),
        refused("seventeen digits", "00000000000000001\r\n", .chunkSizeTooLong(limit: 16)),
        refused("2^64 - 1", "ffffffffffffffff\r\n", .bodyTooLarge(limit: 1 << 20)),
        refused("over the limit", "100001\r\n", .bodyTooLarge(limit: 1 << 20)),
        refused("bare LF after the size", "1\nx", .bareLineFeed),
        refused("bare CR after the size", "1\rx", .bareCarriageReturn),
        refused("data without CRLF", "1\r\nxy", .chunkNotTerminated),
        refused("data with LF", "1\r\nx\n", .chunkNotTerminated),
        refused("data with CR only", "1\r\nx\r1", .chunkNotTerminated),
        refused("extension too long", "1;" + String(repeating: "a", count: 4096), .chunkExtensionsTooLong(limit: 4096)),
        refused(
            "extensions larger than the data",
            String(repeating: "1;" + String(repeating: "a", count: 99) + "\r\nx\r\n", count: 42),
            .chunkExtensionsTooLong(limit: 4096)),
        refused("bare LF in an extension", "1;a\nx", .bareLineFeed),
        refused("NUL in an extension", "1;\0", .controlCharacter(0)),
        refused("folded trailer", "0\r\nA: b\r\n c\r\n\r\n", .foldedLine),
        refused("trailer without a colon", "0\r\nA\r\n\r\n", .fieldWithoutColon),
        refused("bare LF ends the trailers", "0\r\n\n", .bareLineFeed),
        refused("trailers too large", "0\r\nA: " + String(repeating: "a", count: 16_384), .headTooLarge(limit: 16_384)),
        refused("too many trailers", "0\r\n" + String(repeating: "A:\r\n", count: 101), .tooManyFields(limit: 100)),
    ]

    @Test("malformed chunks are refused", arguments: refused, Feed.allCases)
    func refuses(body: Chunked, feed: Feed) {
        do throws(HTTPViolation) {
            let decoded = try decodeBody(Array(body.text.utf8), .chunked, feed: feed)
            Issue.record("accepted: \(decoded)")
        } catch {
            #expect(error == body.violation)
        }
    }

    @Test("a client accepts sizes padded with white space, and no other malformed size", arguments: Feed.allCases)
    func padding(feed: Feed) throws {
        let padded = Array("5   \r\nhello\r\n1\t;a=b\r\n!\r\n0 \r\n\r\n".utf8)
        let body = try decodeBody(padded, .chunked, toleratesPadding: true, feed: feed)
        #expect(body == DecodedBody(content: Array("hello!".utf8), isComplete: true))
        for refused in Self.refused where refused.testDescription != "space behind" {
            let violation = try #require(refused.violation)
            #expect(throws: violation, "\(refused)") {
                _ = try decodeBody(Array(refused.text.utf8), .chunked, toleratesPadding: true, feed: feed)
            }
        }
        let tooLong = Array(("5" + String(repeating: " ", count: HTTPBodyDecoder.maxChunkExtensionBytes + 1)).utf8)
        #expect(throws: HTTPViolation.chunkExtensionsTooLong(limit: HTTPBodyDecoder.maxChunkExtensionBytes)) {
            _ = try decodeBody(tooLong, .chunked, toleratesPadding: true, feed: feed)
        }
    }

    @Test("data before a violation in the same input are returned first")
    func dataFirst() throws {
        var decoder = HTTPBodyDecoder(framing: .chunked, maxBytes: 10)
        let bytes = Array("1\r\nx\r\n-".utf8)
        var offset = 0
        #expect(try decoder.next(bytes.span, from: &offset) == .data(3..<4))
        #expect(throws: HTTPViolation.chunkSizeMalformed) { _ = try decoder.next(bytes.span, from: &offset) }
    }

    @Test("many chunks with short extensions are accepted: the data outweigh them", arguments: Feed.allCases)
    func longExtensions(feed: Feed) throws {
        let chunk =
            "64;chunk-signature=" + String(repeating: "f", count: 64) + "\r\n" + String(repeating: "x", count: 100) + "\r\n"
        let body = try decodeBody(Array((String(repeating: chunk, count: 200) + "0\r\n\r\n").utf8), .chunked, feed: feed)
        #expect(body.content.count == 20_000)
    }

    @Test("a counted body ends at its length", arguments: Feed.allCases)
    func counted(feed: Feed) throws {
        let body = try decodeBody(Array("hello".utf8), .counted(5), maxBytes: 5, feed: feed)
        #expect(body == DecodedBody(content: Array("hello".utf8), isComplete: true))
    }

    @Test("an empty body ends without a byte", arguments: [HTTPBodyFraming.none, .counted(0)])
    func none(framing: HTTPBodyFraming) throws {
        #expect(try decodeBody([], framing, maxBytes: 0, feed: .whole) == DecodedBody(isComplete: true))
        #expect(try decodeBody([], framing, maxBytes: 0, feed: .withTrailingBytes) == DecodedBody(isComplete: true))
    }

    @Test("a counted body over the limit is refused before its first byte")
    func countedTooLarge() {
        #expect(throws: HTTPViolation.bodyTooLarge(limit: 5)) { _ = try decodeBody([], .counted(6), maxBytes: 5, feed: .whole) }
        #expect(HTTPViolation.bodyTooLarge(limit: 5).status == .contentTooLarge)
    }

    @Test("chunks that exceed the limit together are refused")
    func sumTooLarge() {
        #expect(throws: HTTPViolation.bodyTooLarge(limit: 5)) {
            _ = try decodeBody(Array("3\r\nabc\r\n3\r\n".utf8), .chunked, maxBytes: 5, feed: .whole)
        }
    }

    @Test("a body until close ends with the connection, and has a limit")
    func untilClose() throws {
        var decoder = HTTPBodyDecoder(framing: .untilClose, maxBytes: 5)
        var offset = 0
        #expect(try decoder.next(Array("hello".utf8).span, from: &offset) == .data(0..<5))
        offset = 0
        #expect(throws: HTTPViolation.bodyTooLarge(limit: 5)) { _ = try decoder.next([0x21].span, from: &offset) }
        var ended = HTTPBodyDecoder(framing: .untilClose, maxBytes: 5)
        try ended.finish()
        #expect(ended.isComplete)
    }

    @Test(
        "a connection that ends inside a body is noticed", arguments: ["", "3", "3\r\nab", "3\r\nabc", "0\r\n", "0\r\nA: b\r\n"])
    func cutShort(text: String) throws {
        var decoder = HTTPBodyDecoder(framing: .chunked, maxBytes: 5)
        let bytes = Array(text.utf8)
        var offset = 0
        while try decoder.next(bytes.span, from: &offset) != nil {}
        #expect(throws: HTTPViolation.bodyCutShort) { try decoder.finish() }
    }
}
