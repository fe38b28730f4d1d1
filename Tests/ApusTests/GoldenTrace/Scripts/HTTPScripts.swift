import Apus
import ApusCodec
import TestSupport

extension GoldenScripts {
    /// Exchanges that a handler has not answered.
    private final class Kept { var exchanges: [HTTPExchange] = [] }

    private struct Broken: Error {}

    /// A script with one raw peer of a server with routes.
    private static func http(
        _ name: String, limits: @escaping @Sendable (inout Limits) -> Void = { _ in },
        _ body: @escaping @Sendable (TracedServer, TracedPeer, _ kept: @escaping () -> [HTTPExchange]) throws -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let kept = Kept()
            let server = try TracedServer(trace, limits: limits) { try routes(&$0, trace, kept) }
            let peer = try server.peer()
            try body(server, peer) {
                defer { kept.exchanges = [] }
                return kept.exchanges
            }
            try server.finish()
        }
    }

    private static func routes(_ server: inout Server, _ trace: Trace, _ kept: Kept) throws {
        func route(_ method: HTTPMethod, _ path: String, _ handler: @escaping (HTTPExchange) throws -> Void) {
            server.http(method, at: path) { exchange in
                let body = exchange.request.body
                let content = body.isEmpty ? "" : " body \(body.count)\(PayloadText.after(body))"
                trace.add(.callback, "\(exchange.request.method) \(exchange.request.head.target)\(content)")
                try handler(exchange)
            }
        }
        route(.get, "/hello") { $0.respond(text: "hello") }
        route(.post, "/echo") { $0.respond(body: $0.request.body) }
        route(.put, "/echo") { $0.respond(.created, fields: try HTTPFields(["Location": "/echo/1"]), body: $0.request.body) }
        route(.get, "/query") { $0.respond(text: $0.request.query.map { "\($0.name)=\($0.value)" }.joined(separator: ";")) }
        route(.get, "/empty") { $0.respond(.noContent) }
        route(.get, "/large") { $0.respond(body: [UInt8](repeating: 0x6C, count: 300_000)) }
        route(.get, "/bye") { $0.respond(fields: try HTTPFields(["Connection": "close"]), body: Array("bye".utf8)) }
        route(.get, "/later") { kept.exchanges.append($0) }
        route(.get, "/released") { _ in }
        route(.get, "/broken") { _ in throw Broken() }
        route(.get, "/rejected") { _ in
            throw Rejection(.unauthorized, "who are you?", fields: try HTTPFields(["WWW-Authenticate": "Basic"]))
        }
        route(.get, "/informational") { $0.respond(.continue) }
        route(.get, "/page") { $0.respond(page: .forbidden, "not <here>") }
        route(.get, "/twice") {
            $0.respond(text: "first")
            $0.respond(text: "second")
        }
        server.webSocket("chat", at: "/chat") { _ in TracedHandler(trace) }
    }

    private static func request(_ line: String, _ fields: String = "", _ body: String = "") -> String {
        "\(line) HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\(body)"
    }

    /// Sends requests, each after the answer to the one before.
    private static func exchange(_ server: TracedServer, _ peer: TracedPeer, _ requests: [String]) throws {
        for request in requests {
            peer.send(request)
            try server.settle()
        }
    }

    /// Requests that are answered.
    static let http: [GoldenScript] = [
        http("GET, HEAD, OPTIONS, and answers without content, on one connection") { server, peer, _ in
            try exchange(
                server, peer,
                ["GET /hello", "HEAD /hello", "GET /query?a=1&b=%20x", "GET /empty", "HEAD /empty", "OPTIONS *", "GET /page", "GET /twice"]
                    .map { request($0) })
        },
        http("a large answer, and HEAD for it") { server, peer, _ in
            try exchange(server, peer, [request("GET /large"), request("HEAD /large"), request("GET /hello")])
        },
        http("POST with Content-Length, chunks, and without content") { server, peer, _ in
            try exchange(server, peer, posts)
        },
        http("the same pipelined in one segment") { server, peer, _ in
            peer.send(posts.joined())
            try server.settle()
        },
        http("the same byte by byte") { server, peer, _ in
            try peer.sendByteByByte(Array(posts.joined().utf8))
            try server.settle()
        },
        http("a body in several arrivals") { server, peer, _ in
            peer.send(request("POST /echo", "Content-Length: 200000\r\n"))
            try server.settle()
            for letter in ["a", "b"] {
                peer.send(String(repeating: letter, count: 100_000))
                try server.settle()
            }
        },
        http("Expect: 100-continue, with and without content that comes at once") { server, peer, _ in
            peer.send(request("POST /echo", "Expect: 100-continue\r\nContent-Length: 2\r\n"))
            try server.settle()
            peer.send("hi")
            try server.settle()
            try exchange(
                server, peer,
                [
                    request("POST /echo", "Expect: 100-continue\r\nContent-Length: 2\r\n", "ho"),
                    request("POST /echo", "Expect: 100-continue\r\n"),
                    request("POST /nowhere", "Expect: 100-continue\r\nContent-Length: 2\r\n", "hm"),
                ])
        },
        http("pipelined requests") { server, peer, _ in
            peer.send(["GET /hello", "GET /nowhere", "HEAD /hello", "GET /query?n=4"].map { request($0) }.joined())
            try server.settle()
        },
        http("Connection: close of the client, with a request behind it") { server, peer, _ in
            peer.send(request("GET /hello", "Connection: close\r\n") + request("GET /hello"))
            try server.settle()
        },
        http("Connection: close of the handler, with a request behind it") { server, peer, _ in
            peer.send(request("GET /bye") + request("GET /hello"))
            try server.settle()
        },
        http("HTTP/1.0") { server, peer, _ in
            peer.send("GET /hello HTTP/1.0\r\n\r\n")
            try server.settle()
        },
        http("HTTP/1.0 with keep-alive, then without") { server, peer, _ in
            try exchange(server, peer, ["GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HEAD /hello HTTP/1.0\r\n\r\n"])
        },
        http("FIN before any request") { server, peer, _ in
            peer.shutdownWrite()
            try server.settle()
        },
        http("FIN behind the last of two requests") { server, peer, _ in
            peer.send(request("GET /hello") + request("GET /large"))
            peer.shutdownWrite()
            try server.settle()
        },
        http("FIN behind a request that is answered later") { server, peer, kept in
            peer.send(request("GET /later"))
            peer.shutdownWrite()
            try server.settle()
            server.call("respond") { kept().first?.respond(text: "later") }
            try server.settle()
        },
        http("FIN inside a head, and inside a body") { server, peer, _ in
            peer.send("GET /hello HT")
            peer.shutdownWrite()
            try server.settle()
            let other = try server.peer("b")
            other.send(request("POST /echo", "Content-Length: 5\r\n", "He"))
            other.shutdownWrite()
            try server.settle()
        },
        http("answered later, with a request behind it that waits") { server, peer, kept in
            peer.send(request("GET /later") + request("GET /hello"))
            try server.settle()
            server.call("respond") { kept().first?.respond(text: "later") }
            try server.settle()
        },
        http("answered later than the peer leaves") { server, peer, kept in
            peer.send(request("GET /later"))
            try server.settle()
            peer.close()
            try server.settle()
            let exchanges = kept()
            server.call("respond, isOpen \(exchanges.first?.isOpen ?? false)") { exchanges.first?.respond(text: "later") }
            try server.settle()
        },
        http("released unanswered, at once and later") { server, peer, kept in
            try exchange(server, peer, [request("GET /released"), request("HEAD /released"), request("GET /later")])
            server.call("release") { _ = kept() }
            try server.settle()
            try exchange(server, peer, [request("GET /hello")])
        },
        http("not answered in time", limits: { $0.answerTimeout = .milliseconds(50) }) { server, peer, _ in
            peer.send(request("GET /later"))
            try server.wait("the answer") { peer.hasReceived }
            try exchange(server, peer, [request("GET /hello")])
        },
        http("handlers that throw, and an informational answer") { server, peer, _ in
            try exchange(
                server, peer, ["GET /broken", "HEAD /broken", "GET /rejected", "GET /informational", "GET /hello"].map { request($0) })
        },
        http("a peer that does not read a large answer, and then does") { server, peer, _ in
            peer.isReadingPaused = true
            peer.send((0..<10).map { _ in request("GET /large") }.joined() + request("GET /hello"))
            try server.settle()
            server.call("the peer reads") { peer.isReadingPaused = false }
            try server.settle()
        },
        GoldenScript("files: whole, ranges, conditions, large ones") { trace in
            let directory = try TemporaryDirectory()
            try directory.file("text.txt", "0123456789")
            try directory.file("large.bin", [UInt8](repeating: 0x66, count: 100_000))
            try directory.directory("folder")
            try directory.file("folder/index.html", "<p>index")
            for name in ["text.txt", "large.bin", "folder/index.html"] { try directory.touch(name, at: 1_000_000_000) }
            let server = try TracedServer(trace) { $0.files(at: "/files", in: directory.path) }
            let peer = try server.peer()
            let requests: [(line: String, fields: String)] = [
                ("GET /files/text.txt", ""), ("HEAD /files/text.txt", ""), ("GET /files/text.txt", "Range: bytes=2-4\r\n"),
                ("GET /files/text.txt", "Range: bytes=-3\r\n"), ("GET /files/text.txt", "Range: bytes=10-\r\n"),
                ("GET /files/text.txt", "If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\n"),
                ("GET /files/text.txt", "If-Match: \"x\"\r\n"),
                ("GET /files/large.bin", ""), ("GET /files/large.bin", "Range: bytes=99990-\r\n"), ("HEAD /files/large.bin", ""),
                ("GET /files/folder?q=1", ""), ("GET /files/folder/", ""), ("GET /files/nothing", ""), ("POST /files/text.txt", ""),
            ]
            try exchange(server, peer, requests.map { request($0.line, $0.fields) })
            try server.finish()
        },
    ]

    private static let posts = [
        request("POST /echo", "Content-Length: 5\r\n", "Hello"),
        request("PUT /echo", "Transfer-Encoding: chunked\r\n", "3\r\nWik\r\n2;x=y\r\ni!\r\n0\r\nT: u\r\n\r\n"),
        request("POST /echo", "Content-Length: 0\r\n"), request("POST /echo"),
        request("POST /echo", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ]

    // MARK: Refusals

    /// Requests that are refused: by routes, by the decoder, and when their time has passed.
    static let httpRefusals: [GoldenScript] =
        [
            http("404, 405, 501 and 426 by routes: the connection goes on") { server, peer, _ in
                try exchange(
                    server, peer,
                    ["GET /nowhere", "HEAD /nowhere", "GET /echo", "DELETE /hello", "FOO /hello", "GET /chat", "GET /hello"].map {
                        request($0)
                    })
            }
        ]
        + [
            ("400, no Host", "GET /hello HTTP/1.1\r\n\r\n"), ("400, two Hosts", "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("400, a space before a colon", "GET /hello HTTP/1.1\r\nHost : a\r\n\r\n"),
            ("400, bare line feeds", "GET /hello HTTP/1.1\nHost: a\n\n"),
            ("400, no request at all", "\u{16}\u{3}\u{1}hello\r\n\r\n"),
            ("400, two lengths", request("POST /echo", "Content-Length: 5\r\nContent-Length: 6\r\n")),
            ("400, a length and chunks", request("POST /echo", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
            ("400, a bad chunk", request("POST /echo", "Transfer-Encoding: chunked\r\n", "x\r\n")),
            ("400, a dot segment too many", request("GET /../hello")),
            ("413, counted", request("POST /echo", "Content-Length: 1001\r\n")),
            ("413, counted, HEAD", request("HEAD /hello", "Content-Length: 1001\r\n")),
            ("413, chunks", request("POST /echo", "Transfer-Encoding: chunked\r\n", "3e9\r\n")),
            ("413, Expect: 100-continue", request("POST /echo", "Expect: 100-continue\r\nContent-Length: 1001\r\n")),
            ("another expectation: ignored", request("GET /hello", "Expect: something\r\n")),
            ("414, a long target", request("GET /" + String(repeating: "x", count: 600))),
            ("431, a large head", request("GET /hello", "X: " + String(repeating: "x", count: 2000) + "\r\n")),
            ("431, many fields", request("GET /hello", (0..<20).map { "X\($0): y\r\n" }.joined())),
            ("501, an unknown coding", request("POST /echo", "Transfer-Encoding: gzip\r\n")), ("501, CONNECT", request("CONNECT a:80")),
            ("505, HTTP/2", "GET /hello HTTP/2.0\r\nHost: a\r\n\r\n"),
        ]
        .map { name, bytes in
            http(
                name,
                limits: {
                    $0.maxRequestBodyBytes = 1000
                    $0.maxRequestHeadBytes = 1024
                    $0.maxRequestTargetBytes = 500
                    $0.maxRequestFields = 10
                }
            ) { server, peer, _ in
                // A good request before it and one behind it, which is served only if the
                // connection goes on.
                peer.send(request("GET /hello"))
                try server.settle()
                peer.send(bytes)
                try server.settle()
                peer.send(request("GET /hello"))
                try server.settle()
            }
        } + [
            timeout("408, a head that does not end", "GET /hello HTTP/1.1\r\nHost: "),
            timeout("408, a body that does not end", request("POST /echo", "Content-Length: 5\r\n", "He")),
            timeout("no request at all: closed without an answer", ""),
        ]

    private static func timeout(_ name: String, _ bytes: String) -> GoldenScript {
        http(
            name,
            limits: {
                $0.requestHeadTimeout = .milliseconds(50)
                $0.bodyTimeout = .milliseconds(50)
            }
        ) { server, peer, _ in
            if !bytes.isEmpty { peer.send(bytes) }
            try server.wait("the end") { peer.hasEnded }
        }
    }
}
