import Apus
import ApusCodec

extension GoldenScripts {
    /// How WebSockets end.
    static let closing: [GoldenScript] =
        peerCloses + [
            serverCloses("close from the server, answered with the same code", [RawFrame.close(1008)]) {
                $0.close(code: .policyViolation, reason: "because")
            },
            serverCloses("close from the server, answered with another code", [RawFrame.close(1000, "all right")]) {
                $0.close(code: .policyViolation, reason: "because")
            },
            serverCloses("close from the server without arguments", [RawFrame.close(1000)]) { $0.close() },
            serverCloses("close from the server without a code", [RawFrame.client(8)]) { $0.close(code: .noStatus, reason: "not sent") },
            serverCloses("close from the server with a code that must not be sent", [RawFrame.close(1011)]) { $0.close(code: .abnormal) },
            serverCloses("close from the server with a reason of more than 123 bytes", [RawFrame.close(1000)]) {
                $0.close(reason: String(repeating: "ü", count: 100))
            },
            serverCloses("close from the server twice: the first counts", [RawFrame.close(1001)]) {
                $0.close(code: .goingAway, reason: "first")
                $0.close(code: .normal, reason: "second")
            },
            serverCloses(
                "close from the server: messages, pings and pongs are dropped until the answer",
                [
                    RawFrame.client(1, "late"), RawFrame.client(9, "p"), RawFrame.client(10, "q"), RawFrame.client(1, "fr", fin: false),
                    RawFrame.close(1000),
                ]
            ) { $0.close() },
            serverCloses("close from the server, answered by a violation", [RawFrame.server(1)]) { $0.close() },
            GoldenScript("close from the server, answered by FIN") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler)
                let peer = try server.webSocket()
                server.call("close") { handler.socket?.close() }
                try server.settle()
                peer.shutdownWrite()
                try server.settle()
                try server.finish()
            },
            GoldenScript("close from the server, never answered") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler) { $0.closingTimeout = .milliseconds(50) }
                let peer = try server.webSocket()
                server.call("close 1001") { handler.socket?.close(code: .goingAway) }
                peer.send(RawFrame.client(1, "not an answer"))
                try server.wait(for: "closed")
                try server.finish()
            },
            GoldenScript("close from both sides, crossing") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler)
                let peer = try server.webSocket()
                peer.send(RawFrame.close(1001, "from the client"))
                server.call("close 1000") { handler.socket?.close(reason: "from the server") }
                try server.settle()
                try server.finish()
            },
            withPeer(
                "close in a callback with frames behind it in the segment",
                prepare: {
                    $0.whenReceived = { socket, _ in
                        socket.send(text: "before")
                        socket.close(code: .goingAway, reason: "enough")
                        socket.send(text: "never")
                    }
                }
            ) { server, peer in
                try peer.open()
                peer.send(RawFrame.client(1, "one") + RawFrame.client(1, "two") + RawFrame.client(9, "p") + RawFrame.close(1000))
                try server.settle()
            },
            GoldenScript("send, ping and fragments after close and after the end") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler)
                let peer = try server.webSocket()
                guard let socket = handler.socket else { return }
                func sendAll() {
                    server.send("send") { socket.send(text: "late") }
                    server.send("ping") { socket.ping() }
                    server.send("sendFragment") { socket.sendFragment(binary: [1], isLast: true) }
                    server.send("send an EncodedMessage") { socket.send(EncodedMessage([1], as: .binary)) }
                    socket.requestWritable()
                }
                server.call("close") { socket.close() }
                sendAll()
                try server.settle()
                sendAll()
                peer.send(RawFrame.close(1000))
                try server.settle()
                sendAll()
                server.call("close, terminate, pauseReceiving, resumeReceiving") {
                    socket.close()
                    socket.terminate()
                    socket.pauseReceiving()
                    socket.resumeReceiving()
                }
                try server.settle()
                try server.finish()
            },
            GoldenScript("terminate outside of callbacks") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler)
                _ = try server.webSocket()
                server.call("terminate") { handler.socket?.terminate() }
                server.send("send") { handler.socket?.send(text: "never") ?? .closed }
                try server.settle()
                try server.finish()
            },
            withPeer(
                "terminate in a callback with frames behind it in the segment",
                prepare: {
                    $0.whenReceived = { socket, _ in
                        socket.send(text: "dropped")
                        socket.terminate()
                    }
                }
            ) { server, peer in
                try peer.open()
                peer.send(RawFrame.client(1, "one") + RawFrame.client(1, "two") + RawFrame.close(1000))
                try server.settle()
            },
            GoldenScript("close, then terminate") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler)
                _ = try server.webSocket()
                server.call("close, terminate") {
                    handler.socket?.close()
                    handler.socket?.terminate()
                }
                try server.settle()
                try server.finish()
            },
            GoldenScript("a deadline") { trace in
                let handler = TracedHandler(trace)
                let server = try serve(trace, handler)
                let peer = try server.webSocket()
                server.call("setDeadline") { handler.socket?.setDeadline(after: .zero, code: .tryAgainLater, reason: "too slow") }
                try server.wait("the close frame") { peer.framesReceived == 1 }
                peer.send(RawFrame.close(1013))
                try server.settle()
                try server.finish()
            },
            GoldenScript("a silent peer is pinged, then given up") { trace in
                let server = try serve(trace, TracedHandler(trace)) {
                    $0.pingInterval = .milliseconds(50)
                    // Far more, so that the ping is sent on a busy machine, too.
                    $0.silenceTimeout = .milliseconds(1000)
                }
                let peer = try server.peer()
                peer.sendHandshake()
                try server.wait(for: "closed")
                try server.finish()
            },
        ] + endings

    private static let peerCloses: [GoldenScript] = [
        ("no payload", RawFrame.client(8)), ("a code", RawFrame.close(1001)),
        ("a code and a reason", RawFrame.close(1000, "bye, für immer")),
        ("a private code", RawFrame.close(4321)), ("a payload of one byte", RawFrame.client(8, [3])),
        ("the code 1005", RawFrame.close(1005)),
        ("the code 999", RawFrame.close(999)), ("the code 5000", RawFrame.close(5000)),
        ("a reason that is not UTF-8", RawFrame.client(8, [0x03, 0xE8, 0x61, 0xFF])),
        (
            "a message before it and frames behind it",
            RawFrame.client(1, "a") + RawFrame.close(1000) + RawFrame.client(9) + RawFrame.close(1001)
        ),
        ("half of a message before it", RawFrame.client(1, "a", fin: false) + RawFrame.close(1000)),
    ]
    .map { name, bytes in
        withPeer("close from the client: \(name)") { server, peer in
            try peer.open()
            peer.send(bytes)
            try server.settle()
        }
    }

    /// - Parameter answers: sent one after the other, each alone.
    private static func serverCloses(
        _ name: String, _ answers: [[UInt8]], _ close: @escaping @Sendable (WebSocket) -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            server.call("close") { if let socket = handler.socket { close(socket) } }
            try server.settle()
            for answer in answers {
                peer.send(answer)
                try server.settle()
            }
            try server.finish()
        }
    }

    /// Connections that end without a closing handshake.
    private static var endings: [GoldenScript] {
        let states: [(name: String, bytes: [UInt8])] = [
            ("idle", []), ("inside a header", Array(RawFrame.client(1, "Hello")[..<3])),
            ("inside a payload", Array(RawFrame.client(1, "Hello")[..<8])), ("inside a message", RawFrame.client(1, "Hel", fin: false)),
            ("behind a message", RawFrame.client(1, "Hello")),
        ]
        return states.flatMap { name, bytes in
            [
                withPeer("\(name): FIN", prepare: { _ = $0.echoes() }) { server, peer in
                    try peer.open()
                    if !bytes.isEmpty { peer.sendPart(bytes) }
                    peer.shutdownWrite()
                    try server.settle()
                },
                GoldenScript("\(name): RST") { trace in
                    // Only TCP has it.
                    let server = try echoServer(trace, on: .tcp)
                    let peer = try server.peer()
                    peer.sendHandshake()
                    try server.wait("the answer") { peer.isUpgraded }
                    // Whether bytes in front of a reset are received is up to the kernel: these
                    // are, before it comes.
                    if !bytes.isEmpty { peer.sendPart(bytes) }
                    if name == "behind a message" { try server.wait("the echo") { peer.framesReceived == 1 } }
                    peer.reset()
                    try server.wait(for: "closed")
                    try server.finish()
                },
            ]
        }
    }

    // MARK: Violations

    /// Frames that break the protocol.
    static let violations: [GoldenScript] = [
        ("an unmasked frame", RawFrame.server(1, "a")), ("an unmasked frame's first two bytes", Array(RawFrame.server(1, "a")[..<2])),
        ("RSV1", RawFrame.client(1, "a", bits: 0x40)), ("RSV2", RawFrame.client(1, "a", bits: 0x20)),
        ("RSV3", RawFrame.client(9, "a", bits: 0x10)),
        ("opcode 3", RawFrame.client(3)), ("opcode 11", RawFrame.client(11)),
        ("a message, then opcode 7", RawFrame.client(2, [1, 2]) + RawFrame.client(7)),
        ("a ping of 126 bytes", RawFrame.client(9, [UInt8](repeating: 0x61, count: 126))),
        ("a fragmented ping", RawFrame.client(9, fin: false)),
        ("a fragmented close", RawFrame.client(8, fin: false)), ("a continuation of nothing", RawFrame.client(0, "a")),
        ("a message inside a message", RawFrame.client(1, "a", fin: false) + RawFrame.client(1, "b")),
        ("a length of 5 in two bytes", [0x81, 0xFE, 0, 5] + RawFrame.client(1, "Hello")[2...]),
        ("a length of 5 in eight bytes", [0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5] + RawFrame.client(1, "Hello")[2...]),
        ("a length over 2^63", [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        ("a message over the limit, at its header", [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]),
        ("a message of one byte over the limit", RawFrame.client(2, [UInt8](repeating: 0x61, count: 1001))),
        (
            "fragments over the limit in sum",
            RawFrame.client(2, [UInt8](repeating: 0x61, count: 600), fin: false) + RawFrame.client(0, [UInt8](repeating: 0x62, count: 401))
        ),
        ("text that is not UTF-8", RawFrame.client(1, [0x61, 0xFF])), ("text cut inside a character", RawFrame.client(1, [0x61, 0xC3])),
        ("text that is not UTF-8 early in a fragment", RawFrame.client(1, [0x61, 0xC0], fin: false)),
        (
            "text that is not UTF-8 in the first arrival of a frame",
            Array(RawFrame.client(1, [0x61, 0xFF] + [UInt8](repeating: 0x62, count: 100))[..<10])
        ),
        ("a character cut by fragments and broken", RawFrame.client(1, [0xE2, 0x82], fin: false) + RawFrame.client(0, [0x61], fin: false)),
        ("a surrogate in UTF-8", RawFrame.client(1, [0xED, 0xA0, 0x80])),
        ("behind a violation nothing is received", RawFrame.client(3) + RawFrame.client(1, "a") + RawFrame.close(1000)),
    ]
    .flatMap { name, bytes in
        [Delivery.messages, .fragments].map { delivery in
            withPeer(
                "\(name)\(delivery == .fragments ? ", delivery in fragments" : "")", delivery: delivery,
                limits: { $0.maxMessageBytes = 1000 }
            ) {
                server, peer in
                try peer.open()
                peer.send(bytes)
                try server.settle()
            }
        }
    }
}
