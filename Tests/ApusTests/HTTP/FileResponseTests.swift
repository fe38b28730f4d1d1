import Apus
import Testing
import TestSupport

@Suite("Files in responses")
struct FileResponseTests {
    private let place: TemporaryDirectory
    private let server: TestServer

    init() throws {
        let place = try TemporaryDirectory()
        try place.file("page.html", "0123456789")
        try place.file("page.html.gz", "zipped")
        try place.file("page.html.br", "squeezed")
        try place.file("large.bin", [UInt8](repeating: 0x61, count: 100_000))
        try place.directory("sub")
        try place.file("sub/index.html", "front")
        self.place = place
        server = try TestServer { server in
            server.fileDirectory = place.path
            server.get("/report") { _ in .file("page.html", fields: ["Content-Disposition": "attachment"]) }
            server.get("/missing") { _ in .file("nothing") }
            server.get("/outside") { _ in .file("../../etc/passwd") }
            server.get("/directory") { _ in .file("sub") }
            server.post("/report") { _ in .file("page.html", .created) }
            server.fallback { _ in .file("page.html", .notFound) }
            server.files(at: "/site", in: place.path, cacheControl: "max-age=60", isPrecompressed: true)
        }
    }

    private func get(_ path: String, _ fields: String = "", method: String = "GET") throws -> Response {
        try server.client().request("\(method) \(path)", fields)
    }

    @Test("a handler responds with a file, its type and its own fields")
    func file() throws {
        let response = try get("/report")
        #expect(response.text == "0123456789" && response["content-disposition"] == "attachment")
        #expect(response["content-type"] == "text/html; charset=utf-8")
        let tag = try #require(response["etag"])
        #expect(try get("/report", "If-None-Match: \(tag)\r\n").status == 304)
        #expect(try get("/report", "Range: bytes=2-3\r\n").text == "23")
    }

    @Test("another status has the whole file, without validators")
    func status() throws {
        let response = try get("/nowhere", "Range: bytes=2-3\r\n")
        #expect(response.status == 404 && response.text == "0123456789" && response["etag"] == nil)
        #expect(try get("/report", method: "POST").status == 201)
    }

    @Test("what is not below the directory, or no file, is not found", arguments: ["/missing", "/outside", "/directory"])
    func missing(path: String) throws { #expect(try get(path).status == 404) }

    @Test("several ranges are parts of one answer", arguments: ["/site/large.bin"])
    func ranges(path: String) throws {
        let response = try get(path, "Range: bytes=0-4,50000-50002,-2\r\n")
        #expect(response.status == 206 && response["content-range"] == nil)
        let type = try #require(response["content-type"])
        #expect(type.hasPrefix("multipart/byteranges; boundary="))
        let boundary = type.split(separator: "=").last ?? ""
        let head = { (range: String) in
            "\r\n--\(boundary)\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes \(range)/100000\r\n\r\n"
        }
        #expect(response.text == "\(head("0-4"))aaaaa\(head("50000-50002"))aaa\(head("99998-99999"))aa\r\n--\(boundary)--\r\n")
        #expect(try get(path, "Range: bytes=5-2\r\n").status == 200)
        #expect(try get(path, "Range: bytes=0-1,1-2\r\n")["content-range"] == "bytes 0-2/100000")
    }

    @Test("the compressed file that the client prefers; the type is the file's")
    func precompressed() throws {
        for (accepted, text, coding) in [
            ("gzip, br", "squeezed", "br"), ("gzip", "zipped", "gzip"), ("br;q=0.1, gzip", "zipped", "gzip"), ("zstd", "0123456789", nil),
            ("identity", "0123456789", nil), ("gzip;q=0", "0123456789", nil),
        ] as [(String, String, String?)] {
            let response = try get("/site/page.html", "Accept-Encoding: \(accepted)\r\n")
            #expect(response.text == text && response["content-encoding"] == coding, "\(accepted)")
            #expect(response["vary"] == "Accept-Encoding" && response["content-type"] == "text/html; charset=utf-8")
            #expect(response["cache-control"] == "max-age=60")
        }
    }

    @Test("a mount without its slash is redirected to it")
    func root() throws {
        let response = try get("/site?a=b")
        #expect(response.status == 301 && response["location"] == "/site/?a=b")
    }
}
