import Glibc
import TestSupport
import Testing

extension Integration {
    /// The programs of `Sources/Examples`, as they are, driven by curl.
    @Suite("Examples")
    struct Examples {
        /// The API, in a network of its own, where its port is free.
        private static func withAPI(_ body: @escaping @Sendable (_ place: TemporaryDirectory, _ process: ChildProcess) throws -> Void)
            async throws
        {
            try await onThread {
                let place = try TemporaryDirectory()
                for name in ["site", "uploads"] {
                    guard mkdir(place.path + "/" + name, 0o777) == 0, chmod(place.path + "/" + name, 0o777) == 0 else {
                        throw TestFailure.call("mkdir")
                    }
                }
                // The workers of a master that was started as root are nobody.
                guard chmod(place.path, 0o755) == 0 else { throw TestFailure.call("chmod") }
                try Files.write("<h1>nothing here</h1>".utf8, to: place.path + "/site/404.html")
                try Network.enterOwn()
                let process = try ChildProcess(
                    [Places.besideTests("API"), "8080", place.path + "/site", place.path + "/uploads"], in: place.path)
                guard Deadline(after: .seconds(10)).wait(until: { (try? RawClient(port: 8080)) != nil || process.hasEnded != nil }),
                    process.hasEnded == nil
                else { throw TestFailure("the API did not come up:\n\(process.standardError)") }
                try body(place, process)
                process.signal(SIGTERM)
                #expect(try process.wait(within: .seconds(5)) == .exited(0))
            }
        }

        /// The body of an answer and, in a last line, its status.
        private static func curl(_ arguments: String...) throws -> String {
            try run(
                ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}"] + arguments.dropLast() + [
                    "http://127.0.0.1:8080" + (arguments.last ?? "")
                ])
        }

        @Test("the API: JSON, parameters, a query, cookies, redirects, a token, a page for what is not there")
        func api() async throws {
            try await Self.withAPI { place, process in
                #expect(try Self.curl("/items") == "[{\"id\":1,\"name\":\"swift\"}]\n200")
                let created = try Self.curl("-i", "-d", "{\"name\":\"swallow\"}", "-H", "Content-Type: application/json", "/items")
                #expect(created.hasPrefix("HTTP/1.1 201 Created\r\n") && created.contains("\r\nLocation: /items/2\r\n"))
                #expect(created.contains("\r\nContent-Type: application/json\r\n"))
                #expect(try Self.curl("/items/2").contains("swallow"))
                #expect(try Self.curl("/items/3").hasSuffix("\n404"))
                #expect(try Self.curl("/items/three").hasSuffix("\n400"))
                #expect(try Self.curl("-d", "{\"name\":7}", "/items").contains("expected String at &quot;name&quot;"))
                #expect(try Self.curl("/search?q=wall") == "[{\"id\":2,\"name\":\"swallow\"}]\n200")
                let jar = place.path + "/jar"
                // The cookie is for TLS, and curl sends those to no other host than localhost.
                for count in 1...2 {
                    let visits = try run(["curl", "-sSi", "-b", jar, "-c", jar, "http://localhost:8080/visits"])
                    #expect(visits.contains("\r\nX-Worker: 0\r\n"))
                    #expect(visits.hasSuffix("\r\n\r\n\(count)"), "\(visits)")
                }
                #expect(try Self.curl("-L", "/old").hasSuffix("\n200"))
                #expect(try Self.curl("/secret").hasSuffix("\n401"))
                #expect(try Self.curl("-H", "Authorization: Bearer swordfish", "/secret") == "the secret\n200")
                #expect(try Self.curl("/nowhere") == "<h1>nothing here</h1>\n404")
                #expect(try Self.curl("-X", "DELETE", "/items").hasSuffix("\n405"))
                #expect(process.standardError.contains(" error ") == false, "\(process.standardError)")
            }
        }

        @Test("the API: an upload of 200 MB to the directory, in constant memory, and one that is refused")
        func upload() async throws {
            try await Self.withAPI { place, process in
                let big = place.path + "/big"
                try Files.write([], to: big)
                #expect(truncate(big, 200_000_000) == 0)
                let worker = try #require(ProcessTable.children(of: process.pid).first).pid
                let before = try ProcessTable.privateBytes(worker)
                #expect(try Self.curl("-T", big, "/files/big") == "200000000 bytes\n201")
                #expect(try ProcessTable.privateBytes(worker) - before < 4 << 20)
                var information = stat()
                #expect(stat(place.path + "/uploads/big", &information) == 0 && information.st_size == 200_000_000)
                #expect(try Self.curl("-T", big, "/files/..%2Fbig").hasSuffix("\n400"))
                // Not below the directory: a link is not followed.
                #expect(symlink("/etc/passwd", place.path + "/uploads/link") == 0)
                #expect(try Self.curl("-T", big, "/files/link").hasSuffix("\n403"))
            }
        }

        @Test("the API: events of a topic, as they are published")
        func events() async throws {
            try await Self.withAPI { _, _ in
                let curl = try ChildProcess(["curl", "-sSN", "--max-time", "20", "http://127.0.0.1:8080/events"])
                // An item that is created before curl has subscribed is no event for it.
                #expect(
                    Deadline(after: .seconds(10)).wait(until: {
                        _ = try? Self.curl("-d", "{\"name\":\"martin\"}", "/items")
                        return curl.standardOutput.contains("data: martin\n\n")
                    }))
                curl.signal(SIGTERM)
                _ = try curl.wait(within: .seconds(5))
            }
        }
    }
}
