import ApusCodec
import TestSupport
import Testing

/// The events of a body as text, with the content of each part joined.
private func decode(_ pieces: [[UInt8]], boundary: String = "b", limits: MultipartDecoder.Limits = .init()) throws -> [String] {
    var decoder = MultipartDecoder(boundary: try MultipartBoundary(boundary), limits: limits)
    var items: [String] = []
    var content: [UInt8] = []
    for piece in pieces {
        var offset = 0
        while let event = try decoder.next(piece.span, from: &offset) {
            switch event {
            case .part(let part):
                items.append("part \(part.name)\(part.filename.map { " file " + $0 } ?? "")\(part.contentType.map { " type " + $0 } ?? "")")
            case .data(let range):
                #expect(!range.isEmpty)
                content += piece[range]
            case .heldBack(let bytes):
                #expect((1...73).contains(bytes.count))
                content += bytes
            case .endOfPart:
                items.append("content " + String(decoding: content, as: UTF8.self))
                content = []
            case .end:
                #expect(decoder.isComplete)
                items.append("end")
            }
        }
        #expect(offset == piece.count)
    }
    #expect(content.isEmpty || items.last != "end")
    try decoder.finish()
    return items
}

@Suite("RFC 7578: multipart/form-data")
struct MultipartDecoderTests {
    static func head(_ parameters: String) -> String { "Content-Disposition: form-data; \(parameters)\r\n" }

    struct Body: CustomTestStringConvertible, Sendable {
        let testDescription: String
        var boundary = "b"
        let text: String
        let items: [String]
    }

    static let bodies = [
        Body(testDescription: "no parts", text: "--b--\r\n", items: ["end"]),
        Body(testDescription: "no line end after the last boundary", text: "--b--", items: ["end"]),
        Body(
            testDescription: "a browser", boundary: "----WebKitFormBoundaryAbC",
            text: """
                ------WebKitFormBoundaryAbC\r
                Content-Disposition: form-data; name="text"\r
                \r
                gr\u{FC}\u{DF}e\r
                second line\r
                ------WebKitFormBoundaryAbC\r
                Content-Disposition: form-data; name="a%22b"; filename="c%22%0D%0A%41\\ d.txt"\r
                Content-Type: text/plain\r
                \r
                content\r
                ------WebKitFormBoundaryAbC\r
                Content-Disposition: form-data; name="none"; filename=""\r
                Content-Type: application/octet-stream\r
                \r
                \r
                ------WebKitFormBoundaryAbC--\r

                """,
            items: [
                "part text", "content grüße\r\nsecond line", "part a\"b file c\"\r\n%41\\ d.txt type text/plain", "content content",
                "part none file  type application/octet-stream", "content ", "end",
            ]),
        Body(
            testDescription: "Python's email", boundary: "===============7947382952000417615==",
            text: """
                --===============7947382952000417615==\r
                Content-Type: application/octet-stream\r
                MIME-Version: 1.0\r
                Content-Disposition: form-data; name="f"; filename="a\\"b.bin"\r
                \r
                \u{0}\r
                x\r
                --===============7947382952000417615==\r
                Content-Type: text/plain; charset="us-ascii"\r
                Content-Transfer-Encoding: 7bit\r
                Content-Disposition: form-data; name="e"\r
                \r
                \r
                --===============7947382952000417615==--\r

                """,
            items: [
                "part f file a\"b.bin type application/octet-stream", "content \0\r\nx", "part e type text/plain; charset=\"us-ascii\"",
                "content ", "end",
            ]),
        Body(
            testDescription: "requests", boundary: "0123",
            text: "--0123\r\n" + head("name=\"field\"") + "\r\nv\r\n--0123\r\n"
                + head("name=\"file\"; filename=\"na%22me\\x \u{FC}%0D%0A.txt\"") + "Content-Type: text/plain\r\n\r\ndata\r\n--0123--\r\n",
            items: ["part field", "content v", "part file file na\"me\\x ü\r\n.txt type text/plain", "content data", "end"]),
        Body(
            testDescription: "tokens, other case and order, a filename* to ignore",
            text: "--b\r\ncontent-disposition:FORM-DATA;filename*=UTF-8''x;filename=f;NAME=n;\r\n\r\n1\r\n--b--",
            items: ["part n file f", "content 1", "end"]),
        Body(
            testDescription: "backslashes", text: "--b\r\n" + head(#"name="a\\b"; filename="C:\dir\f""#) + "\r\n\r\n--b--",
            items: [#"part a\b file C:\dir\f"#, "content ", "end"]),
        Body(
            testDescription: "preamble, padding and epilogue",
            text: "ignored --b\r\n-b\r\n--b \t \r\n" + head("name=a") + "\r\n1\r\n--b--  \r\nignored\r\n--b\r\nalso",
            items: ["part a", "content 1", "end"]),
        Body(
            testDescription: "the empty line ends the part",
            text: "--b\r\n" + head("name=a") + "\r\n--b\r\n" + head("name=b") + "\r\n\r\n--b--",
            items: ["part a", "content ", "part b", "content ", "end"]),
        Body(
            testDescription: "what looks like a boundary", boundary: "bb",
            text: "--bb\r\n" + head("name=a") + "\r\n--b\r\n--b\r\r\n\r\n--\r\n-\n--bb\r--bb--bb\r\n -bb\r\r\n--bb--",
            items: ["part a", "content --b\r\n--b\r\r\n\r\n--\r\n-\n--bb\r--bb--bb\r\n -bb\r", "end"]),
        Body(
            testDescription: "content that ends in CRLF", text: "--b\r\n" + head("name=a") + "\r\n\r\n\r\n\r\n--b--",
            items: ["part a", "content \r\n\r\n", "end"]),
        Body(
            testDescription: "same names", text: "--b\r\n" + head("name=a") + "\r\n1\r\n--b\r\n" + head("name=a") + "\r\n2\r\n--b--",
            items: ["part a", "content 1", "part a", "content 2", "end"]),
        Body(
            testDescription: "an empty name",
            text: "--b\r\n" + head("name=\"\"") + "\r\n1\r\n--b--", items: ["part ", "content 1", "end"]),
    ]

    @Test("bodies, whole and byte by byte", arguments: bodies)
    func decodes(body: Body) throws {
        let bytes = Array(body.text.utf8)
        #expect(try decode([bytes], boundary: body.boundary) == body.items)
        #expect(try decode(bytes.map { [$0] }, boundary: body.boundary) == body.items)
        #expect(try decode([bytes, Array("\r\n--b\r\n".utf8)], boundary: body.boundary) == body.items)
    }

    @Test("bodies in random pieces", arguments: 0..<30 as Range<UInt64>)
    func randomPieces(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for body in Self.bodies {
            var rest = Array(body.text.utf8)[...]
            var pieces: [[UInt8]] = []
            while !rest.isEmpty {
                let piece = rest.prefix(Int.random(in: 1...20, using: &generator))
                pieces.append(Array(piece))
                rest = rest.dropFirst(piece.count)
            }
            #expect(try decode(pieces, boundary: body.boundary) == body.items, "\(body) of seed \(seed)")
        }
    }

    @Test("random content of the boundary's characters is kept", arguments: 0..<30 as Range<UInt64>)
    func randomContent(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<50 {
            let count = Int.random(in: 0...60, using: &generator)
            let content = (0..<count).map { _ in ["\r", "\n", "-", "-", "b", "\r\n--b", "x"].randomElement(using: &generator) ?? "" }
                .joined()
            // A client must not choose a boundary that the content contains.
            if ("\r\n" + content).contains("\r\n--bbb") { continue }
            let text = "--bbb\r\n" + Self.head("name=a") + "\r\n\(content)\r\n--bbb--"
            let bytes = Array(text.utf8)
            let items = ["part a", "content \(content)", "end"]
            #expect(try decode([bytes], boundary: "bbb") == items)
            #expect(try decode(bytes.map { [$0] }, boundary: "bbb") == items)
            let cut = Int.random(in: 0...bytes.count, using: &generator)
            #expect(try decode([Array(bytes[..<cut]), Array(bytes[cut...])], boundary: "bbb") == items)
        }
    }

    static let refused: [(String, MultipartViolation)] = [
        ("", .cutShort), ("--b", .cutShort), ("--b-", .cutShort), ("--b\r\n", .cutShort),
        ("--b\r\n" + head("name=a"), .cutShort), ("--b\r\n" + head("name=a") + "\r\nx\r\n--b", .cutShort), ("x", .cutShort),
        ("\n--b--", .cutShort), ("--bx", .boundaryNotTerminated), ("--b\n", .boundaryNotTerminated), ("--b -", .boundaryNotTerminated),
        ("--b\rx", .boundaryNotTerminated), ("--b-x", .boundaryNotTerminated), ("--b\r\n\r\nx\r\n--b--", .dispositionMissing),
        ("--b\r\nContent-Type: a/b\r\n\r\n", .dispositionMissing),
        ("--b\r\nContent-Disposition: attachment; name=a\r\n\r\n", .dispositionMalformed),
        ("--b\r\nContent-Disposition: form-data\r\n\r\n", .dispositionMalformed),
        ("--b\r\n" + head("name") + "\r\n", .dispositionMalformed),
        ("--b\r\n" + head("name=\"a") + "\r\n", .dispositionMalformed), ("--b\r\n" + head("name=\"a\"x") + "\r\n", .dispositionMalformed),
        ("--b\r\n" + head("name=a; name=b") + "\r\n", .dispositionMalformed),
        ("--b\r\n" + head("name=a; filename=b; filename=c") + "\r\n", .dispositionMalformed),
        ("--b\r\n" + head("name=a") + head("name=a") + "\r\n", .dispositionMalformed),
        ("--b\r\n" + head("filename=a") + "\r\n", .dispositionMalformed),
        ("--b\r\n" + head("name=a") + "Content-Transfer-Encoding: Base64\r\n\r\n", .transferEncodingNotSupported),
        ("--b\r\nno colon\r\n", .headMalformed(.fieldWithoutColon)), ("--b\r\nA: b\n", .headMalformed(.bareLineFeed)),
        ("--b\r\nA: b\0", .headMalformed(.controlCharacter(0))), ("--b\r\nA: b\r\n c\r\n", .headMalformed(.foldedLine)),
        ("--b\r\nA: b\rc", .headMalformed(.bareCarriageReturn)),
    ]

    @Test("malformed bodies", arguments: refused)
    func refuses(text: String, violation: MultipartViolation) {
        let bytes = Array(text.utf8)
        #expect(throws: violation) { try decode([bytes]) }
        #expect(throws: violation) { try decode(bytes.map { [$0] }) }
        #expect(violation.status == .badRequest)
        #expect(!violation.description.isEmpty)
    }

    @Test("limits of parts, of their heads and of what precedes them")
    func limits() throws {
        let limits = MultipartDecoder.Limits(maxParts: 2, maxHeadBytes: 64, maxFields: 2)
        func refusal(_ text: String) -> MultipartViolation? {
            var found: [MultipartViolation?] = []
            for pieces in [[Array(text.utf8)], text.utf8.map { [$0] }] {
                do {
                    _ = try decode(pieces, limits: limits)
                    found.append(nil)
                } catch { found.append(error as? MultipartViolation) }
            }
            #expect(found[0] == found[1], "depends on the feed")
            return found[0]
        }
        let part = "--b\r\n" + Self.head("name=a") + "\r\n1\r\n"
        #expect(refusal(part + part + "--b--") == nil)
        #expect(refusal(part + part + part + "--b--") == .tooManyParts(limit: 2))
        #expect(MultipartViolation.tooManyParts(limit: 2).status == .contentTooLarge)
        // With the CRLF of the empty line, 64 bytes.
        let filler = String(repeating: "x", count: 64 - Self.head("name=a").utf8.count - 2)
        #expect(refusal("--b\r\n" + Self.head("name=a\(filler)") + "\r\n1\r\n--b--") == nil)
        #expect(refusal("--b\r\n" + Self.head("name=ax\(filler)") + "\r\n1\r\n--b--") == .headTooLarge(limit: 64))
        #expect(refusal("--b\r\n" + Self.head("name=a") + "A:1\r\nB:2\r\n\r\n1\r\n--b--") == .headMalformed(.tooManyFields(limit: 2)))
        #expect(refusal(String(repeating: "-", count: 64) + "\r\n--b--") == nil)
        #expect(refusal(String(repeating: "-", count: 65) + "\r\n--b--") == .boundaryNotFound(limit: 64))
        #expect(refusal(String(repeating: "\r\n--", count: 17) + "\r\n--b--") == .boundaryNotFound(limit: 64))
    }

    @Test(
        "boundaries",
        arguments: [
            ("multipart/form-data; boundary=abc", "abc"), ("Multipart/Form-Data;charset=utf-8; BOUNDARY=\"a b\"", "a b"),
            ("multipart/form-data; boundary=\"----=_x:?/\"; ", "----=_x:?/"), ("multipart/form-data;boundary=\"a\\'b\"", "a'b"),
            ("multipart/form-data; boundary=" + String(repeating: "a", count: 70), String(repeating: "a", count: 70)),
        ])
    func boundary(field: String, expected: String) throws {
        #expect(try MultipartBoundary(contentType: field).description == expected)
        #expect(try MultipartBoundary(expected).description == expected)
    }

    @Test(
        "boundaries that are refused",
        arguments: [
            (nil, .notFormData), ("", .notFormData), ("text/plain", .notFormData), ("multipart/mixed; boundary=a", .notFormData),
            ("multipart/form-data2; boundary=a", .notFormData), ("multipart/form-data", .boundaryMissing),
            ("multipart/form-data; charset=a", .boundaryMissing), ("multipart/form-data; boundary=", .boundaryMalformed),
            ("multipart/form-data; boundary=\"\"", .boundaryMalformed), ("multipart/form-data; boundary=\"a ", .boundaryMalformed),
            ("multipart/form-data; boundary=\"a \"", .boundaryMalformed), ("multipart/form-data; boundary=a*", .boundaryMalformed),
            ("multipart/form-data; boundary=ü", .boundaryMalformed), ("multipart/form-data boundary=a", .boundaryMalformed),
            ("multipart/form-data; boundary=a; boundary=b", .boundaryMalformed), ("multipart/form-data; boundary = a", .boundaryMalformed),
            ("multipart/form-data; boundary=\"a\r\n\"", .boundaryMalformed),
            ("multipart/form-data; boundary=" + String(repeating: "a", count: 71), .boundaryMalformed),
        ] as [(String?, MultipartViolation)])
    func refusedBoundary(field: String?, violation: MultipartViolation) {
        #expect(throws: violation) { try MultipartBoundary(contentType: field) }
        #expect(violation.status == (violation == .notFormData ? .unsupportedMediaType : .badRequest))
    }

    @Test("bytes that are not UTF-8 in names become U+FFFD, and all bytes are content")
    func bytes() throws {
        let all = (0...255).map { UInt8($0) }
        let body =
            Array("--b\r\nContent-Disposition: form-data; name=\"".utf8) + [0xFF] + Array("\"\r\n\r\n".utf8) + all + Array("\r\n--b--".utf8)
        var decoder = MultipartDecoder(boundary: try MultipartBoundary("b"))
        var offset = 0
        guard case .part(let part)? = try decoder.next(body.span, from: &offset) else { throw MultipartViolation.cutShort }
        #expect(part.name == "\u{FFFD}")
        #expect(part.fields.count == 1)
        guard case .data(let range)? = try decoder.next(body.span, from: &offset) else { throw MultipartViolation.cutShort }
        #expect(Array(body[range]) == all)
    }
}
