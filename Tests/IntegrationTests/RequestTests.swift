import TestSupport
import Testing

extension Integration {
    @Suite("HTTP/1.1 requests that are none")
    struct Requests {
        private let server: ApusServer

        init() throws { server = try ApusServer() }

        struct Bad: Sendable, CustomTestStringConvertible {
            let head: String
            var testDescription: String { head.count > 80 ? "\(head.prefix(80))…" : head }
            init(_ head: String) { self.head = head }
        }

        /// Heads without their last empty line; `\r\n` stands between lines.
        static let bad: [Bad] =
            [
                "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5",
                "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5, 5", "Content-Length: +5", "Content-Length: -1",
                "Content-Length: 0x10", "Content-Length:", "Content-Length: 18446744073709551616", "Transfer-Encoding: gzip",
                "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: xchunked",
                "X: a\rb", "X: a\0b", "X: a\r\n folded", "X : a", ": a", "no colon", "X\u{e9}: a", "X: a\nY: b", "Host: other",
            ].map { Bad("POST / HTTP/1.1\r\nHost: h\r\n" + $0) }
            + [
                "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a b",
                "GET / HTTP/1.1\r\nHost: a@b", "GET http://a/ HTTP/1.1", "GET /", "PRI * HTTP/2.0",
                "GET / HTTP/2.0\r\nHost: h",
                "GET  / HTTP/1.1\r\nHost: h", "GET / HTTP/1.1 \r\nHost: h", "G@T / HTTP/1.1\r\nHost: h",
                "GET /a b HTTP/1.1\r\nHost: h",
                "GET / HTTP/1.1\nHost: h",
            ].map(Bad.init)

        @Test("gets one answer of 400, 431, 501 or 505, and the end", arguments: bad)
        func refused(_ bad: Bad) throws {
            let client = try server.connect()
            try client.send(bad.head + "\r\n\r\n0\r\n\r\nGET /worker HTTP/1.1\r\nHost: h\r\n\r\n")
            let answer = String(decoding: try client.receiveToEnd(), as: UTF8.self)
            #expect([400, 431, 501, 505].contains { answer.hasPrefix("HTTP/1.1 \($0) ") }, "\(answer)")
            #expect(answer.contains("Connection: close\r\n"))
            #expect(answer.answers == 1, "more than one answer: \(answer)")
        }

        @Test(
            "chunks that are none end the connection",
            arguments: [
                "", "1;", "1;a=\"b", "1;a ", "-1", "0x1", "1 ", " 1", "1_0", "g", "10000000000000000",
                "1;" + String(repeating: "x", count: 5000), "1\n",
                "+1",
            ])
        func badChunk(size: String) throws {
            let client = try server.connect()
            try client.send(
                "POST /worker HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\(size)\r\nx\r\n0\r\n\r\nGET /worker HTTP/1.1\r\nHost: h\r\n\r\n"
            )
            let answer = String(decoding: try client.receiveToEnd(), as: UTF8.self)
            #expect(answer.hasPrefix("HTTP/1.1 400 "), "\(answer)")
            #expect(answer.answers == 1, "more than one answer: \(answer)")
        }

        @Test(
            "a head over the limit is answered 431, for at most 10 ms of CPU",
            arguments: [
                "X: " + String(repeating: "x", count: 20_000), String(repeating: "X:\r\n", count: 5000),
                String(repeating: ", ", count: 9000),
            ])
        func headTooLarge(fields: String) throws {
            let worker = server.workers[0]
            // The first of everything is not what a head costs.
            #expect(try server.connect().request("GET /worker", fields).status >= 400)
            let before = try ProcessTable.processorTime(worker)
            let count = 20
            for index in 0..<count {
                let client = try server.connect()
                try client.send("GET /worker HTTP/1.1\r\nHost: h\r\nConnection: \(fields)")
                // It is answered before it ends.
                let answer = try client.response()
                #expect(answer.status == 431, "\(index): \(answer)")
            }
            let spent = (try ProcessTable.processorTime(worker) - before) / count
            print("a head over the limit: \(spent) of CPU")
            #expect(spent <= .milliseconds(10))
        }

        @Test("a body over the limit is answered 413, declared or chunked")
        func bodyTooLarge() throws {
            let declared = try server.connect()
            #expect(try declared.request("POST /worker", "Content-Length: 1048577").status == 413)
            let chunked = try server.connect()
            let chunk = "80000\r\n" + String(repeating: "x", count: 0x80000) + "\r\n"
            try chunked.send(
                "POST /worker HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk + "1\r\nx\r\n0\r\n\r\n")
            #expect(try chunked.response().status == 413)
        }

        @Test("a good body is read to its end, and the next request is served")
        func bodies() throws {
            let client = try server.connect()
            #expect(try client.request("POST /worker", "Content-Length: 5", body: "GET /").status == 405)
            #expect(
                try client.request("POST /worker", "Transfer-Encoding: chunked", body: "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n")
                    .status == 405)
            #expect(try client.request("GET /worker").status == 200)
            #expect(try client.request("GET /worker", "Connection: close").status == 200)
            #expect(try client.receiveToEnd() == [])
        }

        @Test("Expect: 100-continue for a path that takes no body is answered without it")
        func expectContinue() throws {
            let client = try server.connect()
            try client.send("POST /worker HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            let answer = try client.response()
            #expect(answer.status == 405 && answer["connection"] == "close")
        }
    }
}

extension String {
    /// How many responses it holds.
    fileprivate var answers: Int { matches(of: #/HTTP/1\.1 \d{3} /#).count }
}
