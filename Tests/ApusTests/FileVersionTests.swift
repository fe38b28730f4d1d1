import ApusCodec
import Glibc
import Testing
import TestSupport

@testable import Apus
@testable import ApusPlatform

@Suite("Versions and names of files served")
struct FileVersionTests {
    static func site(_ root: TemporaryDirectory, at prefix: String = "/", dotFiles: Server.DotFiles = .refused) throws -> TestServer {
        try TestServer { $0.files(at: prefix, in: root.path, dotFiles: dotFiles) }
    }

    static let changed = 1_700_000_000

    // MARK: Preconditions

    @Test("files of one size and one time that replace each other have different tags, and mix in no range")
    func replaced() throws {
        let root = try TemporaryDirectory()
        try root.file("page.html", "one")
        try root.file("next.html", "two")
        try root.touch("page.html", at: Self.changed)
        try root.touch("next.html", at: Self.changed)
        let stage = try Self.site(root)
        let client = try stage.client()
        let tag = try #require(try client.request("GET /page.html")["etag"])
        try #require(rename(root.path + "/next.html", root.path + "/page.html") == 0)
        #expect(try client.request("GET /page.html", "If-None-Match: \(tag)\r\n").text == "two")
        let part = try client.request("GET /page.html", "Range: bytes=1-\r\nIf-Range: \(tag)\r\n")
        #expect(part.status == 200 && part.text == "two")
    }

    @Test("a file that is rewritten in place and given its old time has another tag")
    func rewritten() throws {
        let before = FileInformation(
            kind: .regular, size: 3, modified: Self.changed, modifiedNanoseconds: 0, inode: 7, changed: Self.changed,
            changedNanoseconds: 1)
        let after = FileInformation(
            kind: .regular, size: 3, modified: Self.changed, modifiedNanoseconds: 0, inode: 7, changed: Self.changed,
            changedNanoseconds: 2)
        #expect(Preconditions(before, now: Self.changed).tag != Preconditions(after, now: Self.changed).tag)
        #expect(Preconditions(before, now: Self.changed).tag == Preconditions(before, now: Self.changed + 9).tag)
    }

    @Test("a file whose time was thrown away has no validators, and conditions on them do not hold", arguments: [0, 1])
    func timeless(time: Int) throws {
        let root = try TemporaryDirectory()
        try root.file("page.html", "page")
        try root.touch("page.html", at: time)
        let stage = try Self.site(root)
        let client = try stage.client()
        let plain = try client.request("GET /page.html")
        #expect(plain.status == 200 && plain["etag"] == nil && plain["last-modified"] == nil)
        let date = String(decoding: HTTPDate.format(secondsSince1970: time), as: UTF8.self)
        for (fields, status) in [
            ("If-Modified-Since: \(date)", 200), ("If-None-Match: \"\"", 200), ("If-None-Match: *", 304), ("If-Match: *", 200),
            ("If-Match: \"a\"", 412), ("If-Unmodified-Since: \(date)", 200), ("Range: bytes=0-1\r\nIf-Range: \(date)", 200),
            ("Range: bytes=0-1", 206),
        ] {
            #expect(try client.request("GET /page.html", fields + "\r\n").status == status, "\(fields)")
        }
    }

    @Test("a file from the future has not been changed later than now")
    func future() throws {
        let root = try TemporaryDirectory()
        try root.file("page.html", "page")
        try root.touch("page.html", at: WallClock.seconds() + 86_400)
        let stage = try Self.site(root)
        let client = try stage.client()
        let answer = try client.request("GET /page.html")
        let date = try #require(answer["date"].flatMap { HTTPDate.parse($0) })
        let modified = try #require(answer["last-modified"].flatMap { HTTPDate.parse($0) })
        #expect(modified <= date)
    }

    // MARK: Ranges

    @Test("a range of all is a part, a suffix of nothing is the whole")
    func ranges() throws {
        let root = try TemporaryDirectory()
        try root.file("page.html", "page")
        try root.file("empty.txt", "")
        let stage = try Self.site(root)
        let client = try stage.client()
        for range in ["bytes=0-", "bytes=0-99", "bytes=-4", "bytes=-99"] {
            let all = try client.request("GET /page.html", "Range: \(range)\r\n")
            #expect(all.status == 206 && all["content-range"] == "bytes 0-3/4" && all.text == "page", "\(range)")
        }
        let empty = try client.request("GET /empty.txt", "Range: bytes=-5\r\n")
        #expect(empty.status == 200 && empty["content-range"] == nil && empty["content-length"] == "0")
        #expect(try client.request("GET /empty.txt", "Range: bytes=-0\r\n").status == 416)
    }

    // MARK: Names

    @Test("dot files are not there unless they are asked for; /.well-known/ is")
    func dotFiles() throws {
        let root = try TemporaryDirectory()
        for directory in [".git", ".well-known", "sub", "sub/.svn", "sub/.well-known", ".well-known/.git"] { try root.directory(directory) }
        let hidden = [
            ".env", ".git/config", "sub/.htpasswd", "sub/.svn/entries", "sub/.well-known/a", ".well-known/.env", ".well-known/.git/a",
        ]
        for file in hidden + [".well-known/acme", "..a", "a.b"] { try root.file(file, "text") }
        let refusingStage = try Self.site(root)
        let refusing = try refusingStage.client()
        for file in hidden + ["..a", ".git", ".git/", "%2egit/config", "sub/../.env"] {
            #expect(try refusing.request("GET /\(file)").status == 404, "\(file)")
        }
        #expect(try refusing.request("GET /.well-known/acme").text == "text")
        #expect(try refusing.request("GET /a.b").text == "text")
        let servingStage = try Self.site(root, dotFiles: .served)
        let serving = try servingStage.client()
        for file in hidden + [".well-known/acme", "..a"] { #expect(try serving.request("GET /\(file)").text == "text", "\(file)") }
        let belowStage = try Self.site(root, at: "/files")
        let below = try belowStage.client()
        #expect(try below.request("GET /files/.well-known/acme").status == 404, "RFC 8615: at the root of the host")
        let mountedStage = try TestServer { $0.files(at: "/.well-known/", in: root.path + "/.well-known") }
        let mounted = try mountedStage.client()
        #expect(try mounted.request("GET /.well-known/acme").text == "text")
        #expect(try mounted.request("GET /.well-known/.env").status == 404)
    }

    @Test("absolute links are followed beneath the root, through any number of directories, and nowhere else")
    func absoluteLinks() throws {
        let (root, outside) = (try TemporaryDirectory(), try TemporaryDirectory())
        try outside.file("secret.txt", "secret")
        try root.directory("sub")
        try root.directory("sub/deep")
        try root.file("sub/deep/page.html", "page")
        try root.file("sub/index.html", "index")
        let path = root.path
        for (name, target) in [
            ("file.html", path + "/sub/deep/page.html"), ("folder", path + "/sub"), ("sub/up", path), ("self", path),
            ("relative", "folder/deep"), ("chain.html", path + "/relative/page.html"), ("dots.html", path + "/sub/deep/../deep/page.html"),
            ("out.txt", outside.path + "/secret.txt"),
            ("sneaky.txt", path + "/../\(outside.path.split(separator: "/").last ?? "")/secret.txt"),
            ("prefix.txt", path + "x/secret.txt"), ("loop", path + "/loop"), ("a", path + "/b"), ("b", path + "/a"), ("root", "/"),
        ] { try root.link(name, to: target) }
        let stage = try Self.site(root)
        let client = try stage.client()
        for name in [
            "file.html", "folder/deep/page.html", "sub/up/sub/up/file.html", "self/self/file.html", "relative/page.html", "chain.html",
            "dots.html",
        ] {
            #expect(try client.request("GET /\(name)").text == "page", "\(name)")
        }
        #expect(try client.request("GET /folder/").text == "index")
        #expect(try client.request("GET /folder")["location"] == "/folder/")
        #expect(try client.request("GET /self/folder/")["content-type"] == "text/html; charset=utf-8")
        for name in [
            "out.txt", "sneaky.txt", "prefix.txt", "loop", "a", "root", "root\(path)/file.html", "root/etc/passwd", "self/nothing",
        ] {
            let answer = try client.request("GET /\(name)")
            #expect(answer.status == 404 && !answer.text.contains("secret"), "\(name)")
        }
    }

    @Test(
        "media types",
        arguments: [
            ("a.vtt", "text/vtt; charset=utf-8"), ("a.m3u8", "application/vnd.apple.mpegurl"), ("a.wasm", "application/wasm"),
            ("a.TS", "video/mp2t"), ("a.mjs", "text/javascript; charset=utf-8"), ("a.xhtml", "application/xhtml+xml"),
            ("a.tar.gz", "application/gzip"), ("a.flac", "audio/flac"), ("a.unknown", "application/octet-stream"),
            ("html", "application/octet-stream"), ("a.html/b", "application/octet-stream"),
        ])
    func mediaTypes(name: String, type: String) { #expect(MediaType.of(name) == type) }
}
