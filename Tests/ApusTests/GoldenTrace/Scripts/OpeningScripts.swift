import Apus
import ApusCodec

extension GoldenScripts {
    /// A server of one protocol whose handlers send back what comes.
    static func echoServer(
        _ trace: Trace, on transport: TracedServer.Transport = .unix, delivery: Delivery = .messages,
        limits: (inout Limits) -> Void = { _ in }
    ) throws -> TracedServer {
        try TracedServer.chat(trace, on: transport, delivery: delivery, limits: limits) { _ = $0.echoes() }
    }

    /// A script with one raw peer of a server of one protocol.
    static func withPeer(
        _ name: String, delivery: Delivery = .messages, limits: @escaping @Sendable (inout Limits) -> Void = { _ in },
        prepare: @escaping @Sendable (TracedHandler) -> Void = { _ in },
        _ body: @escaping @Sendable (TracedServer, TracedPeer) throws -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try TracedServer.chat(trace, delivery: delivery, limits: limits, prepare: prepare)
            let peer = try server.peer()
            try body(server, peer)
            try server.finish()
        }
    }

    // MARK: The opening handshake

    static let opening: [GoldenScript] =
        [
            withPeer("opened, and the peer leaves") { server, peer in
                peer.sendHandshake()
                try server.settle()
            },
            withPeer("the handshake byte by byte") { server, peer in
                try peer.sendByteByByte(Array(Client.handshake().utf8))
                try server.settle()
            },
            withPeer("frames in one segment with the handshake, the last one cut", prepare: { _ = $0.echoes() }) { server, peer in
                let cut = RawFrame.client(1, "cut")
                peer.send(Client.handshake(), andFrames: RawFrame.client(1, "at once") + cut.dropLast(2))
                try server.settle()
                peer.sendPart(Array(cut.suffix(2)))
                try server.settle()
            },
            GoldenScript("a request, an upgrade and a message in one segment") { trace in
                let server = try TracedServer(trace) { server in
                    server.webSocket("chat", at: "/") { _ in TracedHandler(trace).echoes() }
                    server.http(.get, at: "/page") { exchange in
                        trace.add(.callback, "GET /page")
                        exchange.respond(text: "page")
                    }
                }
                let peer = try server.peer()
                peer.send("GET /page HTTP/1.1\r\nHost: a\r\n\r\n" + Client.handshake(), andFrames: RawFrame.client(1, "hello"))
                try server.settle()
                try server.finish()
            },
            withPeer(
                "what opened sends follows the answer",
                prepare: {
                    $0.whenOpened = { socket in
                        socket.send(text: "welcome")
                        socket.ping(Array("p".utf8))
                        socket.send(binary: [1, 2, 3])
                    }
                }
            ) { server, peer in
                peer.sendHandshake()
                try server.settle()
            },
            withPeer("opened closes", prepare: { $0.whenOpened = { $0.close(code: .goingAway, reason: "not now") } }) { server, peer in
                peer.sendHandshake()
                try server.settle()
                peer.send(RawFrame.close(1001))
                try server.settle()
            },
            withPeer("opened terminates", prepare: { $0.whenOpened = { $0.terminate() } }) { server, peer in
                peer.sendHandshake()
                try server.settle()
            },
            subprotocols("subprotocol: none asked", ""),
            subprotocols("subprotocol: the second, by the client's order", "Sec-WebSocket-Protocol: other, second, first\r\n"),
            subprotocols("subprotocol: in two fields", "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: first\r\n"),
            subprotocols("subprotocol: only unknown ones", "Sec-WebSocket-Protocol: other\r\n"),
            deflate("permessage-deflate: agreed", offers: "permessage-deflate; client_max_window_bits"),
            deflate(
                "permessage-deflate: the second offer",
                offers: "permessage-deflate; unknown=1, permessage-deflate; server_max_window_bits=10"),
            deflate("permessage-deflate: not agreed", offers: "permessage-unheard-of"),
        ] + refusals

    private static func subprotocols(_ name: String, _ fields: String) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try TracedServer(trace) { server in
                for name in ["first", "second"] {
                    server.webSocket(name, at: "/") { _ in
                        trace.add(.callback, "factory of \(name)")
                        return TracedHandler(trace)
                    }
                }
            }
            let peer = try server.peer()
            peer.sendHandshake(fields: fields)
            try server.settle()
            try server.finish()
        }
    }

    private static func deflate(_ name: String, offers: String) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try TracedServer(trace) { server in
                server.webSocket("chat", at: "/") { _ in TracedHandler(trace).echoes() }
                server.extensions = [PerMessageDeflate.always()]
            }
            let peer = try server.peer()
            peer.sendHandshake(fields: "Sec-WebSocket-Extensions: \(offers)\r\n")
            try server.settle()
            peer.send(RawFrame.client(1, "Hello"))
            try server.settle()
            // RFC 7692 §7.2.3.1 and §7.2.3.2: one frame, and two with a ping between them. Without
            // an agreement RSV1 is a violation.
            peer.send(RawFrame.client(1, helloDeflated, bits: 0x40))
            try server.settle()
            peer.send(
                RawFrame.client(1, Array(helloDeflated[..<3]), fin: false, bits: 0x40) + RawFrame.client(9, "p")
                    + RawFrame.client(0, Array(helloDeflated[3...])))
            try server.settle()
            peer.send(RawFrame.client(2, [UInt8](repeating: 0x61, count: 1000)))
            try server.settle()
            try server.finish()
        }
    }

    // MARK: Refused handshakes

    private struct Broken: Error {}

    private static var refusals: [GoldenScript] {
        let requests: [(name: String, request: String)] = [
            ("version 12", WebSocketOpeningTests.opening(replacing: "Version: 13", by: "Version: 12")),
            ("no version", WebSocketOpeningTests.opening(replacing: "Sec-WebSocket-Version: 13\r\n")),
            ("no key", WebSocketOpeningTests.opening(replacing: "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")),
            ("two keys", WebSocketOpeningTests.opening(adding: "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")),
            ("a short key", WebSocketOpeningTests.opening(replacing: "dGhlIHNhbXBsZSBub25jZQ==", by: "YQ==")),
            ("no Connection: Upgrade", WebSocketOpeningTests.opening(replacing: "Connection: Upgrade", by: "Connection: close")),
            ("HTTP/1.0", WebSocketOpeningTests.opening("GET / HTTP/1.0")),
            ("POST", WebSocketOpeningTests.opening("POST / HTTP/1.1")),
            ("HEAD", WebSocketOpeningTests.opening("HEAD / HTTP/1.1")),
            ("a foreign origin", WebSocketOpeningTests.opening(adding: "Origin: http://evil.example\r\n")),
            ("a malformed list of extensions", WebSocketOpeningTests.opening(adding: "Sec-WebSocket-Extensions: ;;\r\n")),
            ("no Upgrade at all", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("another path", WebSocketOpeningTests.opening("GET /elsewhere HTTP/1.1")),
            ("the factory throws a Rejection", WebSocketOpeningTests.opening("GET /locked HTTP/1.1")),
            ("the factory throws a Rejection with 1xx", WebSocketOpeningTests.opening("GET /informational HTTP/1.1")),
            ("the factory throws something else", WebSocketOpeningTests.opening("GET /broken HTTP/1.1")),
        ]
        return requests.map { name, request in
            GoldenScript("refused: \(name)") { trace in
                let locked = try HTTPFields(["WWW-Authenticate": "Basic"])
                let server = try TracedServer(trace) { server in
                    server.webSocket("chat", at: "/") { _ in TracedHandler(trace) }
                    server.webSocket("chat", at: "/locked") { _ in throw Rejection(.unauthorized, "who are <you>?", fields: locked) }
                    server.webSocket("chat", at: "/informational") { _ in throw Rejection(.continue) }
                    server.webSocket("chat", at: "/broken") { _ in throw Broken() }
                }
                let peer = try server.peer()
                // What follows a refused handshake is discarded.
                peer.send(request)
                peer.send(RawFrame.client(1, "too early"))
                try server.settle()
                try server.finish()
            }
        }
    }
}
