import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("HTTP/1.1 and files")
    struct HTTPFiles {
        /// A directory to serve, beside a secret that must never be.
        private let place: TemporaryDirectory
        private var root: String { place.path + "/public" }
        private let server: ApusServer

        private static let page = "<!doctype html><title>Grüße</title>\n"
        private static let bigBytes = 20 << 20

        init() throws {
            place = try TemporaryDirectory()
            let root = place.path + "/public"
            guard mkdir(root, 0o755) == 0, mkdir(root + "/deep", 0o755) == 0 else { throw TestFailure.call("mkdir") }
            try Files.write(Self.page.utf8, to: root + "/index.html")
            try Files.write("deep".utf8, to: root + "/deep/index.html")
            try Files.write("SECRET".utf8, to: place.path + "/secret")
            guard symlink("../secret", root + "/leak") == 0, symlink("/etc/passwd", root + "/passwd") == 0,
                symlink("index.html", root + "/inside") == 0
            else { throw TestFailure.call("symlink") }
            server = try ApusServer(workers: 1, "--root", root)
        }

        /// Makes a file of 20 MiB, `big.bin`, and gives its content.
        private func makeBigFile() throws -> [UInt8] {
            var state: UInt64 = 42
            let bytes = (0..<Self.bigBytes).map { _ -> UInt8 in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return UInt8(truncatingIfNeeded: state >> 56)
            }
            try Files.write(bytes, to: root + "/big.bin")
            return bytes
        }

        private func url(_ path: String) -> String { "http://127.0.0.1:\(server.port)\(path)" }

        @Test("curl: a page, its head, its validator, a directory, and what is not there")
        func curl() throws {
            #expect(try run(["curl", "-sSf", url("/")]) == Self.page)
            #expect(try run(["curl", "-sSf", url("/inside")]) == Self.page)
            let head = try run(["curl", "-sSI", url("/index.html")])
            #expect(head.hasPrefix("HTTP/1.1 200"))
            #expect(head.contains("Content-Length: \(Self.page.utf8.count)\r\n"))
            #expect(head.contains("Content-Type: text/html"))
            let line = try #require(head.split(separator: "\r\n").first { $0.hasPrefix("ETag: ") })
            let status = ["-o", "/dev/null", "-w", "%{http_code} %{size_download} %{num_connects}\n"]
            #expect(try run(["curl", "-sS"] + status + ["-H", "If-None-Match: \(line.dropFirst(6))", url("/")]) == "304 0 1\n")
            #expect(try run(["curl", "-sS"] + status + ["-H", "If-None-Match: \"other\"", url("/")]).hasPrefix("200 "))
            #expect(try run(["curl", "-sS"] + status + [url("/nothing")]).hasPrefix("404 "))
            #expect(try run(["curl", "-sSL"] + status + [url("/deep")]).hasPrefix("200 4"))
            #expect(try run(["curl", "-sS", "-X", "DELETE"] + status + [url("/")]).hasPrefix("405 "))
            // Two requests, one connection.
            let two = try run(["curl", "-sS"] + status + [url("/"), "-o", "/dev/null", url("/")])
            #expect(two.split(separator: "\n").map { $0.last } == ["1", "0"])
        }

        @Test("a file of 20 MiB arrives whole, four times at once and to a slow reader")
        func bigFile() async throws {
            let expected = try makeBigFile()
            let port = server.port
            let bodies = try await Threads.run(4) { _ in
                try RawClient(port: port, timeout: .seconds(30)).request("GET /big.bin").body == expected
            }
            #expect(bodies == [true, true, true, true])
            let copy = place.path + "/copy"
            try run(["curl", "-sSf", "--limit-rate", "12M", "-o", copy, url("/big.bin")])
            #expect(Files.bytes(copy) == expected)
        }

        @Test("100 pipelined requests get 100 answers in order")
        func pipelining() throws {
            for index in 0..<100 { try Files.write("answer \(index)".utf8, to: root + "/\(index).txt") }
            let client = try server.connect()
            try client.send((0..<100).map { "GET /\($0).txt HTTP/1.1\r\nHost: h\r\n\r\n" }.joined())
            for index in 0..<100 {
                let response = try client.response()
                #expect(response.status == 200 && response.text == "answer \(index)")
            }
        }

        @Test("pipelined requests for large files get whole answers in order")
        func pipelinedLargeFiles() throws {
            let expected = try makeBigFile()
            let client = try server.connect(timeout: .seconds(30))
            for _ in 0..<2 { try client.send("GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n") }
            for _ in 0..<2 {
                #expect(try client.response().body == expected)
                #expect(try client.response().text == Self.page)
            }
        }

        @Test(
            "no path leads out of the root",
            arguments: [
                "/../secret", "/..%2fsecret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/.%2e/secret", "/deep/../../secret",
                "/deep/%2e%2e/%2e%2e/secret", "/%252e%252e/secret", "/%c0%ae%c0%ae/secret", "/..\\secret", "/..%5csecret",
                "//../secret",
                "/index.html%00", "/%00", "/%zz", "/%2", "/leak", "/passwd", "/etc/passwd", "//etc/passwd", "/./../secret",
                "/deep/..%2f..%2fsecret",
            ])
        func traversal(path: String) throws {
            let client = try server.connect()
            let response = try client.request("GET \(path)")
            #expect([400, 403, 404].contains(response.status), "\(path) is answered \(response)")
            #expect(!response.text.contains("SECRET") && !response.text.contains("root:"))
        }

        @Test(
            "5,000 ranges, or one beyond all numbers, get one whole answer or 416",
            arguments: [
                "0-18446744073709551616", "18446744073709551616-", "5-2", "-0",
                [String](repeating: "-1", count: 5000).joined(separator: ","),
            ])
        func ranges(ranges: String) throws {
            let client = try server.connect()
            let answer = try client.request("GET /index.html", "Range: bytes=\(ranges)")
            #expect(answer.status == 416 || [200, 206].contains(answer.status) && answer.text == Self.page, "\(answer)")
            #expect(try client.request("GET /index.html").text == Self.page)
        }

        @Test("in the sandbox an absolute link within the root is served, others and dot files are not")
        func absoluteLinks() throws {
            let real = try run(["realpath", root]).filter { !$0.isNewline }
            for (name, target) in [
                ("absolute.html", real + "/index.html"), ("chained.html", real + "/absolute.html"), ("folder", real + "/deep"),
                ("out", place.path + "/secret"), ("beside", real + "/../secret"), ("sibling", real + "x/secret"),
            ] where symlink(target, root + "/" + name) != 0 { throw TestFailure.call("symlink") }
            guard mkdir(root + "/.git", 0o755) == 0, mkdir(root + "/.well-known", 0o755) == 0 else { throw TestFailure.call("mkdir") }
            try Files.write("SECRET".utf8, to: root + "/.git/config")
            try Files.write("SECRET".utf8, to: root + "/.env")
            try Files.write("known".utf8, to: root + "/.well-known/security.txt")
            let client = try server.connect()
            for (path, text) in [
                ("/absolute.html", Self.page), ("/chained.html", Self.page), ("/folder/index.html", "deep"), ("/folder/", "deep"),
                ("/.well-known/security.txt", "known"),
            ] {
                let answer = try client.request("GET \(path)")
                #expect(answer.status == 200 && answer.text == text, "\(path)")
            }
            for path in ["/out", "/beside", "/sibling", "/.git/config", "/.env", "/.git", "/.git/"] {
                #expect(try client.request("GET \(path)").status == 404, "\(path)")
            }
        }

        @Test("a symbolic link that is swapped during 100,000 requests leads nowhere")
        func swappedLink() async throws {
            let (root, port, place) = (root, server.port, place.path)
            let stop = Flag()
            async let swaps: Void = onThread {
                while !stop.isSet {
                    for target in ["index.html", "../secret", root + "/index.html", place + "/secret"] {
                        symlink(target, root + "/next")
                        rename(root + "/next", root + "/swapped")
                    }
                }
            }
            let texts = try await onThread {
                let client = try RawClient(port: port)
                let batch = [String](repeating: "GET /swapped HTTP/1.1\r\nHost: h\r\n\r\n", count: 100).joined()
                var texts: [String: Int] = [:]
                for _ in 0..<1000 {
                    try client.send(batch)
                    for _ in 0..<100 { texts[try client.response().text, default: 0] += 1 }
                }
                return texts
            }
            stop.set()
            try await swaps
            #expect(texts.values.reduce(0, +) == 100_000)
            #expect(texts[Self.page, default: 0] > 0)
            #expect(!texts.keys.contains { $0.contains("SECRET") })
            print("files: a link swapped during 100,000 requests led to the page \(texts[Self.page, default: 0]) times")
        }
    }
}
