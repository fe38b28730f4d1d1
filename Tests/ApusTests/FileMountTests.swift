import Apus
import Glibc
import Testing
import TestSupport

@Suite("Files served")
struct FileMountTests {
    /// A mount at `/files/` with what the tests ask for, and one at `/` beneath it.
    final class Site {
        let outside: TemporaryDirectory
        let root: TemporaryDirectory
        let stage: TestServer
        let client: Client

        static let big = WebSocketFlowTests.big(3_000_001)
        static let changed = 1_700_000_000

        init() throws {
            outside = try TemporaryDirectory()
            root = try TemporaryDirectory()
            try outside.file("secret.txt", "secret")
            try outside.directory("private")
            try outside.file("private/secret.txt", "secret")
            try root.file("index.html", "<p>front")
            try root.file("page.html", "<p>page")
            try root.file("empty.txt", "")
            try root.file("no extension", "data")
            try root.file("big.bin", Self.big)
            try root.file("edge.bin", Array(Self.big[..<32_768]))
            try root.file("over.bin", Array(Self.big[..<32_769]))
            try root.directory("sub")
            try root.file("sub/index.html", "<p>sub")
            try root.directory("bare")
            try root.directory("sub dir")
            try root.link("inside.html", to: "page.html")
            try root.link("up.html", to: "sub/../page.html")
            try root.link("out.txt", to: "\(outside.path)/secret.txt")
            try root.link("relative-out.txt", to: "../\(outside.path.split(separator: "/").last ?? "")/secret.txt")
            try root.link("outside", to: outside.path)
            try root.link("loop", to: "loop")
            try root.touch("page.html", at: Self.changed)
            stage = try TestServer { [root] server in server.files(at: "/files", in: root.path) }
            client = try stage.client()
        }

        func get(_ path: String, _ fields: String = "", method: String = "GET") throws -> Response {
            try client.request("\(method) \(path)", fields)
        }
    }

    struct File: CustomTestStringConvertible, Sendable {
        let path: String
        let type: String
        let text: String
        var testDescription: String { path }
    }

    @Test(
        "files with their types",
        arguments: [
            File(path: "/files/page.html", type: "text/html; charset=utf-8", text: "<p>page"),
            File(path: "/files/", type: "text/html; charset=utf-8", text: "<p>front"),
            File(path: "/files/index.html", type: "text/html; charset=utf-8", text: "<p>front"),
            File(path: "/files/sub/", type: "text/html; charset=utf-8", text: "<p>sub"),
            File(path: "/files/empty.txt", type: "text/plain; charset=utf-8", text: ""),
            File(path: "/files/no%20extension", type: "application/octet-stream", text: "data"),
            File(path: "/files/inside.html", type: "text/html; charset=utf-8", text: "<p>page"),
            File(path: "/files/up.html", type: "text/html; charset=utf-8", text: "<p>page"),
            File(path: "/files/sub/./../page.html?query", type: "text/html; charset=utf-8", text: "<p>page"),
        ])
    func types(file: File) throws {
        let site = try Site()
        let response = try site.get(file.path)
        #expect(response.status == 200)
        #expect(response["content-type"] == file.type)
        #expect(response["x-content-type-options"] == "nosniff")
        #expect(response.text == file.text)
        let head = try site.get(file.path, method: "HEAD")
        #expect(head["content-length"] == "\(file.text.utf8.count)")
        #expect(head["etag"] == response["etag"])
        #expect(head.body.isEmpty)
        #expect(try site.get("/files/page.html").text == "<p>page")
    }

    @Test("files of every size are byte-exact", arguments: [("edge.bin", 32_768), ("over.bin", 32_769), ("big.bin", 3_000_001)])
    func bytes(name: String, count: Int) throws {
        let site = try Site()
        // Pipelined: heads, file pieces and small answers keep their order.
        let request = "GET /files/\(name) HTTP/1.1\r\nHost: a\r\n\r\n"
        site.client.send(
            request + "HEAD /files/\(name) HTTP/1.1\r\nHost: a\r\n\r\n" + request
                + "GET /files/page.html HTTP/1.1\r\nHost: a\r\n\r\n")
        let expected = Array(Site.big[..<count])
        let first = try site.client.response()
        #expect(first.body == expected)
        let head = try site.client.response(hasBody: false)
        #expect(head["content-length"] == "\(count)")
        #expect(try site.client.response().body == expected)
        #expect(try site.client.response().text == "<p>page")
    }

    @Test(
        "what is not there, or not beneath the root",
        arguments: [
            "/files/nothing", "/files/page.html/", "/files/page.html/more", "/files/bare/", "/files/sub/nothing",
            "/files/out.txt",
            "/files/relative-out.txt", "/files/outside/secret.txt", "/files/outside/private/secret.txt", "/files/outside",
            "/files/outside/",
            "/files/loop", "/files//etc/passwd", "/files//page.html", "/files/%252e%252e/secret.txt",
            "/files/" + String(repeating: "x", count: 300), "/page.html", "/filesystem",
        ])
    func missing(path: String) throws {
        let site = try Site()
        let response = try site.get(path)
        #expect(response.status == 404)
        #expect(!response.text.contains("secret"))
        #expect(try site.get("/files/page.html").status == 200, "the connection persists")
    }

    @Test(
        "paths that try to leave are refused, and nothing from outside is shown",
        arguments: [
            "/files/../../../../etc/passwd", "/files/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/files/%2e%2e%2f%2e%2e%2fetc/passwd",
            "/files/..%2f..%2f..%2fetc/passwd", "/files/..\\..\\etc\\passwd", "/files/%c0%ae%c0%ae/etc/passwd",
            "/files/page.html%00.txt",
            "/files/%zz", "/../etc/passwd",
        ])
    func traversal(path: String) throws {
        let site = try Site()
        let response = try site.get(path)
        #expect(response.status == 400 || response.status == 404, "\(response.status)")
        #expect(!response.text.contains("root:"))
    }

    @Test(
        "a directory without its slash is redirected",
        arguments: [
            ("/files/sub", "/files/sub/"), ("/files/sub%20dir", "/files/sub%20dir/"), ("/files/bare", "/files/bare/"),
            ("/files/sub%20dir?x=1&y=%20", "/files/sub%20dir/?x=1&y=%20"),
        ])
    func redirect(path: String, location: String) throws {
        let site = try Site()
        let response = try site.get(path)
        #expect(response.status == 301)
        #expect(response["location"] == location)
    }

    struct Part: CustomTestStringConvertible, Sendable {
        let range: String
        /// `TAG` stands for the entity tag.
        var condition = ""
        /// Nil: the whole.
        var part: Range<Int>?
        var testDescription: String { range + condition }
    }

    @Test(
        "a part of a file, of the right version only", arguments: ["edge.bin", "over.bin", "big.bin"],
        [
            Part(range: "bytes=0-4", part: 0..<5), Part(range: "bytes=32700-32767", part: 32_700..<32_768),
            Part(range: "bytes=0-1,3-4", part: 0..<5),
            Part(range: "bytes=,2-3,", part: 2..<4),
            Part(range: "bytes=2-3", condition: "If-Range: TAG\r\n", part: 2..<4),
            Part(range: "bytes=2-3", condition: "If-Range: \"other\"\r\n"), Part(range: "bytes=2-3", condition: "If-Range: W/TAG\r\n"),
        ])
    func parts(name: String, part: Part) throws {
        let site = try Site()
        let whole = try site.get("/files/\(name)")
        #expect(whole["accept-ranges"] == "bytes")
        let condition = part.condition.split(separator: "TAG", omittingEmptySubsequences: false).joined(separator: whole["etag"] ?? "")
        let response = try site.get("/files/\(name)", "Range: \(part.range)\r\n" + condition)
        #expect(response.body == (part.part.map { Array(whole.body[$0]) } ?? whole.body))
        #expect(response.status == (part.part == nil ? 200 : 206))
        #expect(
            response["content-range"] == part.part.map { "bytes \($0.lowerBound)-\($0.upperBound - 1)/\(whole.body.count)" })
        #expect(try site.get("/files/\(name)", "Range: bytes=0-1\r\n", method: "HEAD").status == 200, "HEAD has no parts")
    }

    @Test("no such part: 416 says how much there is")
    func noPart() throws {
        let site = try Site()
        for (path, range) in [("page.html", "bytes=7-"), ("empty.txt", "bytes=0-"), ("big.bin", "bytes=3000001-")] {
            let size = try site.get("/files/\(path)").body.count
            let response = try site.get("/files/\(path)", "Range: \(range)\r\n")
            #expect(response.status == 416 && response["content-range"] == "bytes */\(size)")
        }
    }

    @Test("methods that files do not take", arguments: ["POST", "PUT", "DELETE"])
    func methods(method: String) throws {
        let site = try Site()
        let response = try site.get("/files/page.html", method: method)
        #expect(response.status == 405)
        #expect(response["allow"] == "GET, HEAD, OPTIONS")
    }

    // MARK: Conditions

    @Test("the entity tag changes with the file, and only then")
    func entityTag() throws {
        let site = try Site()
        let first = try #require(try site.get("/files/page.html")["etag"])
        #expect(first.hasPrefix("\"") && first.hasSuffix("\"") && first.count > 2)
        #expect(try site.get("/files/page.html")["etag"] == first)
        try site.root.touch("page.html", at: Site.changed + 1)
        let second = try #require(try site.get("/files/page.html")["etag"])
        #expect(second != first)
        try site.root.file("page.html", "<p>longer")
        try site.root.touch("page.html", at: Site.changed + 1)
        #expect(try site.get("/files/page.html")["etag"] != second)
    }

    struct Condition: CustomTestStringConvertible, Sendable {
        let testDescription: String
        /// `TAG` stands for the entity tag.
        let fields: String
        let status: Int
    }

    static let sinceSame = "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    static let sinceEarlier = "If-Modified-Since: Tue, 14 Nov 2023 22:13:19 GMT\r\n"
    static let sinceLater = "If-Modified-Since: Wed, 15 Nov 2023 00:00:00 GMT\r\n"

    @Test(
        "conditions",
        arguments: [
            Condition(testDescription: "the same tag", fields: "If-None-Match: TAG\r\n", status: 304),
            Condition(testDescription: "the same tag, weak", fields: "If-None-Match: W/TAG\r\n", status: 304),
            Condition(testDescription: "in a list", fields: "If-None-Match: \"a\" , TAG,\"b\"\r\n", status: 304),
            Condition(testDescription: "in a list with empty elements", fields: "If-None-Match: , ,\"a\",,TAG,\r\n", status: 304),
            Condition(testDescription: "one tag that contains a star", fields: "If-None-Match: \"a,*,b\"\r\n", status: 200),
            Condition(testDescription: "a tag that contains commas, then this one", fields: "If-None-Match: \"a,b\", TAG\r\n", status: 304),
            Condition(testDescription: "a star in a list", fields: "If-None-Match: \"a\", *\r\n", status: 200),
            Condition(testDescription: "it must be one that contains a star", fields: "If-Match: \"a,*,b\"\r\n", status: 412),
            Condition(testDescription: "any", fields: "If-None-Match: *\r\n", status: 304),
            Condition(testDescription: "another tag", fields: "If-None-Match: \"a\"\r\n", status: 200),
            Condition(testDescription: "not a tag", fields: "If-None-Match: nonsense\r\n", status: 200),
            Condition(
                testDescription: "another tag decides before a date", fields: "If-None-Match: \"a\"\r\n" + sinceLater, status: 200
            ),
            Condition(testDescription: "the same date", fields: sinceSame, status: 304),
            Condition(testDescription: "a later date", fields: sinceLater, status: 304),
            Condition(testDescription: "an earlier date", fields: sinceEarlier, status: 200),
            Condition(testDescription: "not a date", fields: "If-Modified-Since: yesterday\r\n", status: 200),
            Condition(testDescription: "it must be this one", fields: "If-Match: \"a\", TAG\r\n", status: 200),
            Condition(testDescription: "it must be any", fields: "If-Match: *\r\n", status: 200),
            Condition(testDescription: "it must be another", fields: "If-Match: \"a\"\r\n", status: 412),
            Condition(testDescription: "weak tags do not match", fields: "If-Match: W/TAG\r\n", status: 412),
            Condition(
                testDescription: "it must not be newer", fields: "If-Unmodified-Since: Tue, 14 Nov 2023 22:13:19 GMT\r\n", status: 412),
            Condition(testDescription: "and is not", fields: "If-Unmodified-Since: Wed, 15 Nov 2023 00:00:00 GMT\r\n", status: 200),
            Condition(
                testDescription: "must be this, and is known", fields: "If-Match: TAG\r\nIf-None-Match: TAG\r\n", status: 304),
        ], ["GET", "HEAD"])
    func conditions(condition: Condition, method: String) throws {
        let site = try Site()
        let plain = try site.get("/files/page.html")
        #expect(plain["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT")
        let tag = try #require(plain["etag"])
        let parts = condition.fields.split(separator: "TAG", omittingEmptySubsequences: false)
        let response = try site.get("/files/page.html", parts.joined(separator: tag), method: method)
        #expect(response.status == condition.status)
        #expect(response["etag"] == tag)
        if condition.status == 304 { #expect(response["content-type"] == nil && response["content-length"] == nil) }
        #expect(try site.get("/files/page.html").text == "<p>page")
    }

    @Test("a special file is not there, and opening it does not hang")
    func special() throws {
        let site = try Site()
        try #require(mkfifo(site.root.path + "/pipe", 0o644) == 0)
        defer { unlink(site.root.path + "/pipe") }
        #expect(try site.get("/files/pipe").status == 404)
    }

    @Test("a file that shrinks under way ends the connection instead of lying about its length")
    func shrinks() throws {
        let site = try Site()
        let client = try site.stage.client(receiveBufferBytes: 4096)
        try site.root.file("shrinking.bin", [UInt8](repeating: 1, count: 30_000_000))
        client.send("GET /files/shrinking.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        try site.stage.settle()
        try #require(truncate(site.root.path + "/shrinking.bin", 1_000_000) == 0)
        #expect(try client.end().count < 30_000_000)
        #expect(try site.get("/files/page.html").status == 200, "others live on")
    }

    @Test("the longest prefix serves, and handlers come before files")
    func precedence() throws {
        let first = try TemporaryDirectory()
        let second = try TemporaryDirectory()
        try first.file("a.txt", "first a")
        try first.file("b.txt", "first b")
        try second.file("a.txt", "second a")
        let stage = try TestServer { server in
            server.files(at: "/", in: first.path)
            server.files(at: "/sub/", in: second.path)
            server.http(.get, at: "/b.txt") { $0.respond(text: "handler") }
        }
        let client = try stage.client()
        #expect(try client.request("GET /a.txt").text == "first a")
        #expect(try client.request("GET /sub/a.txt").text == "second a")
        #expect(try client.request("GET /b.txt").text == "handler")
    }

    @Test("a directory that is not there is a configuration error")
    func configuration() throws {
        #expect(throws: ConfigurationError.directory("/nowhere/at/all", "No such file or directory")) {
            _ = try TestServer { $0.files(at: "/", in: "/nowhere/at/all") }
        }
    }
}
