import ApusCodec
import Testing

@Suite("RFC 3986 §5.2.4, RFC 9112 §3.2 request target")
struct RequestTargetTests {
    @Test(
        "a path is decoded once and normalised",
        arguments: [
            ("/", "/"), ("/a/./b", "/a/b"), ("/a/x/../b", "/a/b"), ("/a/b/c/./../../g", "/a/g"), ("/a/.", "/a/"), ("/a/..", "/"),
            ("/a/b/..", "/a/"), ("/.", "/"), ("/./a", "/a"), ("/a//b", "/a//b"), ("/a/", "/a/"), ("/...", "/..."), ("/.a", "/.a"),
            ("/a..", "/a.."), ("/%61%2e/x", "/a./x"), ("/a/%2e%2E/b", "/b"), ("/a/.%2e", "/"), ("/a/%2e/b", "/a/b"),
            ("/%252e%252e/x", "/%2e%2e/x"), ("/%25zz", "/%zz"), ("/%20%3f%23", "/ ?#"), ("/a+b", "/a+b"), ("/%C3%A4", "/ä"),
            ("/a|{b}", "/a|{b}"), ("/a;b=c", "/a;b=c"), ("/%7Euser", "/~user"), ("//a", "//a"),
        ])
    func decodes(raw: String, path: String) throws {
        let target = try RequestTarget(parsing: raw)
        #expect(target.path == path)
        #expect(!target.segments.contains("..") && !target.segments.contains("."))
    }

    @Test(
        "a path that leaves the root or contains an unsafe byte is refused",
        arguments: [
            ("/..", HTTPViolation.TargetFault.leavesRoot), ("/../", .leavesRoot), ("/../etc/passwd", .leavesRoot),
            ("/a/../../b", .leavesRoot), ("/%2e%2e/", .leavesRoot), ("/.%2E/x", .leavesRoot), ("/./../x", .leavesRoot),
            ("/%2e%2e%2f", .encodedSlash), ("/a%2Fb", .encodedSlash), ("/%c0%ae%c0%ae/", .notUTF8), ("/%ff", .notUTF8),
            ("/%ed%a0%80", .notUTF8), ("/..\\", .backslash), ("/a\\b", .backslash), ("/..%5c", .backslash),
            ("/%00", .encodedNull),
            ("/a%00.html", .encodedNull), ("/%zz", .percentEncodingMalformed), ("/%", .percentEncodingMalformed),
            ("/%4", .percentEncodingMalformed), ("/%4/a", .percentEncodingMalformed), ("/%-1", .percentEncodingMalformed),
            ("", .empty), ("a/b", .formNotAllowed), ("http:/a", .formNotAllowed), ("/a?b#c", .invalidByte(0x23)),
            ("/a?b c", .invalidByte(0x20)), ("/a\u{7F}", .invalidByte(0x7F)), ("http://a/../b", .leavesRoot),
        ])
    func refuses(raw: String, fault: HTTPViolation.TargetFault) {
        #expect(throws: HTTPViolation.targetMalformed(fault)) { _ = try RequestTarget(parsing: raw) }
        #expect(HTTPViolation.targetMalformed(fault).status == .badRequest)
    }

    @Test("segments omit empty ones")
    func segments() throws {
        #expect(try RequestTarget(parsing: "//a/%20/./b/").segments == ["a", " ", "b"])
        #expect(try RequestTarget(parsing: "/").segments.isEmpty)
    }

    @Test(
        "a query is split and decoded",
        arguments: [
            ("/", nil, []), ("/?", "", []), ("/?a", "a", ["a="]), ("/?a=b=c&&d=%20+e", "a=b=c&&d=%20+e", ["a=b=c", "d=  e"]),
            ("/?=x", "=x", ["=x"]), ("/?%zz=%", "%zz=%", ["%zz=%"]), ("/?%C3%A4=%FF", "%C3%A4=%FF", ["ä=\u{FFFD}"]),
            ("/?/?../x", "/?../x", ["/?../x="]), ("/?a=%26", "a=%26", ["a=&"]), ("http://h?a=1", "a=1", ["a=1"]),
        ] as [(String, String?, [String])])
    func query(raw: String, text: String?, pairs: [String]) throws {
        let target = try RequestTarget(parsing: raw)
        #expect(target.queryString == text)
        #expect(target.query.map { "\($0.name)=\($0.value)" } == pairs)
        #expect(target.path == "/")
    }

    @Test("ten thousand dot segments take linear time")
    func manyDots() throws {
        #expect(try RequestTarget(parsing: String(repeating: "/a/..", count: 10_000)).path == "/")
    }
}
