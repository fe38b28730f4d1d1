import Apus
import ApusCodec
import ApusPlatform
import Testing

extension GoldenScripts {
    /// A script with a client of the engine's and the raw server to which it is connected.
    private static func connected(
        _ name: String, subprotocols: [String] = [], delivery: Delivery = .messages,
        options: @escaping @Sendable (inout ClientOptions) -> Void = { _ in },
        limits: @escaping @Sendable (inout Limits) -> Void = { _ in }, refusal: Rejection? = nil,
        _ body: @escaping @Sendable (TracedServer, TracedClient, TracedPeer) throws -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try TracedServer(trace, on: .none, limits: limits) { _ in }
            let listener = try server.listener()
            let client = TracedClient(server, delivery: delivery)
            client.refusal = refusal
            client.connect(listener.url("/path?query"), subprotocols: subprotocols, options)
            let peer = try server.accept(listener)
            try body(server, client, peer)
            try server.finish()
            server.call("the connection is over: \(client.connection?.isOver ?? true)") {}
        }
    }

    /// The same, when the raw server has received the request.
    private static func client(
        _ name: String, subprotocols: [String] = [], options: @escaping @Sendable (inout ClientOptions) -> Void = { _ in },
        refusal: Rejection? = nil, _ body: @escaping @Sendable (TracedServer, TracedClient, TracedPeer) throws -> Void
    ) -> GoldenScript {
        connected(name, subprotocols: subprotocols, options: options, refusal: refusal) { server, client, peer in
            try peer.receiveRequest()
            try body(server, client, peer)
        }
    }

    /// The same with a WebSocket that is open.
    private static func opened(
        _ name: String, delivery: Delivery = .messages, limits: @escaping @Sendable (inout Limits) -> Void = { _ in },
        _ body: @escaping @Sendable (TracedServer, TracedClient, TracedPeer) throws -> Void
    ) -> GoldenScript {
        connected(name, delivery: delivery, limits: limits) { server, client, peer in
            try peer.acceptOpening()
            try body(server, client, peer)
        }
    }

    private static let ok = "Upgrade: websocket\r\nConnection: Upgrade\r\n"

    /// WebSockets that the engine opens.
    static let client: [GoldenScript] =
        [
            client("opened, and the server leaves") { server, _, peer in
                try peer.acceptWebSocket()
                try server.settle()
            },
            opened("messages of all sizes in both directions") { server, client, peer in
                client.handler.whenReceived = { socket, message in
                    if case .binary(let bytes) = message { socket.send(binary: bytes) }
                }
                for count in [0, 1, 125, 126, 65_535, 65_536] {
                    peer.send(RawFrame.server(2, [UInt8](repeating: 0x61, count: count)))
                    try server.settle()
                }
                server.send("text") { client.handler.socket?.send(text: "Grüße") ?? .closed }
                server.send("100000 bytes") { client.handler.socket?.send(binary: [UInt8](repeating: 0x62, count: 100_000)) ?? .closed }
                try server.settle()
            },
            client("the answer and a message in one segment, and interim answers before it") { server, _, peer in
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
                try server.settle()
                try peer.acceptWebSocket(andFrames: RawFrame.server(1, "early"))
                try server.settle()
            },
            opened("fragments, pings and pongs in both directions") { server, client, peer in
                peer.send(
                    RawFrame.server(1, "Hel", fin: false) + RawFrame.server(9, "p") + RawFrame.server(0, "lo") + RawFrame.server(10, "q"))
                try server.settle()
                client.handler.whenReceived = { socket, _ in
                    socket.sendFragment(Array("fr".utf8).span.bytes, as: .text, isLast: false)
                    socket.ping(Array("r".utf8))
                    socket.sendFragment(Array("agments".utf8).span.bytes, as: .text, isLast: true)
                    socket.send(EncodedMessage([1, 2], as: .binary))
                }
                peer.send(RawFrame.server(1, "go"))
                try server.settle()
            },
            opened("delivery in fragments", delivery: .fragments) { server, _, peer in
                peer.send(RawFrame.server(1, "Hel", fin: false) + RawFrame.server(0, "lo"))
                try server.settle()
            },
            opened("the server closes: the client answers and waits for its end") { server, _, peer in
                peer.send(RawFrame.server(8, RawFrame.closePayload(1001, "bye")))
                try server.settle()
            },
            opened("the server closes without a code") { server, _, peer in
                peer.send(RawFrame.server(8))
                try server.settle()
            },
            opened("the client closes") { server, client, peer in
                server.call("close 1001") { client.handler.socket?.close(code: .goingAway, reason: "enough") }
                try server.settle()
                peer.send(RawFrame.server(1, "late") + RawFrame.server(8, RawFrame.closePayload(1001)))
                try server.settle()
            },
            opened("the client cancels an open connection") { server, client, peer in
                server.call("cancel") { client.connection?.cancel() }
                try server.settle()
                peer.send(RawFrame.server(8, RawFrame.closePayload(1000)))
                try server.settle()
            },
            opened("both close, crossing") { server, client, peer in
                peer.send(RawFrame.server(8, RawFrame.closePayload(1001, "from the server")))
                server.call("close") { client.handler.socket?.close(reason: "from the client") }
                try server.settle()
            },
            opened("the client terminates") { server, client, _ in
                server.call("terminate") { client.handler.socket?.terminate() }
                try server.settle()
            },
            opened("the server ends with FIN inside a message") { server, _, peer in
                peer.send(RawFrame.server(1, "Hel", fin: false))
                peer.shutdownWrite()
                try server.settle()
            },
            GoldenScript("the server resets: before it answers, and then inside a message") { trace in
                let server = try TracedServer(trace, on: .none) { _ in }
                // Only TCP has a reset.
                let listener = try RawServer(server.stage)
                let first = TracedClient(server, label: "first")
                first.connect(listener.url)
                let early = try server.peer(accepted: listener.accept(), "first")
                try early.receiveRequest()
                early.reset()
                try server.wait(for: "first* failed")
                let second = TracedClient(server, label: "second")
                second.connect(listener.url)
                let late = try server.peer(accepted: listener.accept(), "second")
                try late.receiveRequest()
                try late.acceptWebSocket()
                try server.wait(for: "second* opened")
                late.send(RawFrame.server(1, "Hel", fin: false))
                late.reset()
                try server.wait(for: "second* closed")
                try server.finish()
            },
            opened("a masked frame") { server, _, peer in
                peer.send(RawFrame.client(1, "a"))
                try server.settle()
            },
            opened("a reserved opcode, with a message before it and one behind it") { server, _, peer in
                peer.send(RawFrame.server(1, "a") + RawFrame.server(3) + RawFrame.server(1, "b"))
                try server.settle()
            },
            opened("text that is not UTF-8") { server, _, peer in
                peer.send(RawFrame.server(1, [0x61, 0xFF]))
                try server.settle()
            },
            opened("a message over the limit", limits: { $0.maxMessageBytes = 10 }) { server, _, peer in
                peer.send(RawFrame.server(1, "eleven byte"))
                try server.settle()
            },
            opened("paused and resumed") { server, client, peer in
                server.call("pauseReceiving") { client.handler.socket?.pauseReceiving() }
                peer.send(RawFrame.server(1, "one") + RawFrame.server(1, "two"))
                try server.settle()
                server.call("resumeReceiving") { client.handler.socket?.resumeReceiving() }
                try server.settle()
            },
            opened("requestWritable, a subscription and a publication") { server, client, _ in
                guard let socket = client.handler.socket else { return }
                server.call("requestWritable, subscribe to t, publish to t") {
                    socket.requestWritable()
                    socket.subscribe(to: "t")
                    server.worker.publish(Array("published".utf8), as: .text, to: "t")
                }
                try server.settle()
                server.call("signal") { server.worker.signal(all: socket.webSocketProtocol, 9) }
                try server.settle()
            },
            client("a subprotocol is agreed on", subprotocols: ["one", "two"]) { server, _, peer in
                try peer.acceptWebSocket(fields: "Sec-WebSocket-Protocol: two\r\n")
                try server.settle()
            },
            client("permessage-deflate is agreed on", options: { $0.extensions = [PerMessageDeflate.always()] }) { server, client, peer in
                try peer.acceptWebSocket(
                    fields: "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n")
                try server.settle()
                peer.send(RawFrame.server(1, helloDeflated, bits: 0x40))
                try server.settle()
                server.send("text") { client.handler.socket?.send(text: "Hello") ?? .closed }
                try server.settle()
            },
            client("the handler is refused by the application", refusal: Rejection(.forbidden, "not this server")) { server, _, peer in
                try peer.acceptWebSocket()
                try server.settle()
            },
            client("the server ends before it answers") { server, _, peer in
                peer.send("HTTP/1.1 101 Sw")
                peer.shutdownWrite()
                try server.wait(for: "failed")
            },
            // The request is traced with the rest: its time may pass before anything else.
            connected("no answer in time", options: { $0.timeouts.answer = .milliseconds(50) }) { server, _, _ in
                try server.wait(for: "failed")
            },
            client("cancelled before the answer") { server, client, _ in
                server.call("cancel") { client.connection?.cancel() }
                try server.wait(for: "failed")
            },
            GoldenScript("a redirection is followed") { trace in
                let server = try TracedServer(trace, on: .none) { _ in }
                let listener = try server.listener()
                let client = TracedClient(server)
                client.connect(listener.url("/a/b")) { $0.maxRedirects = 1 }
                let first = try server.accept(listener, "first")
                try first.receiveRequest()
                first.send("HTTP/1.1 302 Found\r\nLocation: ../c?d\r\nContent-Length: 0\r\n\r\n")
                let second = try server.accept(listener, "second")
                try second.receiveRequest()
                try second.acceptWebSocket()
                try server.settle()
                try server.finish()
            },
            GoldenScript("reconnected after the server has gone, until it is cancelled") { trace in
                let server = try TracedServer(trace, on: .none) { _ in }
                let listener = try server.listener()
                let client = TracedClient(server)
                client.connect(listener.url()) {
                    var policy = ReconnectPolicy()
                    policy.baseDelay = .milliseconds(2)
                    policy.maxDelay = .milliseconds(8)
                    $0.reconnect = policy
                }
                let first = try server.accept(listener, "first")
                try first.receiveRequest()
                try first.acceptWebSocket()
                try server.settle()
                first.send(RawFrame.server(8, RawFrame.closePayload(1001)))
                let second = try server.accept(listener, "second")
                try second.receiveRequest()
                second.send("HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n")
                let third = try server.accept(listener, "third")
                try third.receiveRequest()
                server.call("cancel") { client.connection?.cancel() }
                try server.wait(for: "failed")
                try server.finish()
            },
            GoldenScript("addresses and names that cannot be used, and nobody listens") { trace in
                let server = try TracedServer(trace, on: .none) { _ in }
                let listener = try server.listener()
                for (index, url) in ["http://127.0.0.1/", "nonsense", "ws://[127.0.0.1]:1/"].enumerated() {
                    let client = TracedClient(server, label: "\(index)")
                    client.connect(url)
                    try server.wait(for: "\(index)* failed")
                }
                let client = TracedClient(server, label: "named")
                client.connect(listener.url(), subprotocols: ["a b"])
                try server.wait(for: "named* failed")
                // Bound, but nothing listens.
                let any = try #require(SocketAddress(numericHost: "127.0.0.1", port: 0))
                let bound = try Socket.stream(for: any)
                try Socket.bind(bound.rawValue, to: any)
                let port = try #require(try Socket.localAddress(of: bound.rawValue).port)
                let refused = TracedClient(server, label: "refused")
                refused.connect("ws://127.0.0.1:\(port)/")
                try server.wait(for: "refused* failed")
                let missing = TracedClient(server, label: "missing")
                missing.connect("ws+unix://\(listener.path)-missing:/")
                try server.wait(for: "missing* failed")
                try server.finish()
            },
        ] + refusedAnswers

    private static let refusedAnswers: [GoldenScript] =
        [
            ("a wrong Accept", "HTTP/1.1 101 X\r\n\(ok)Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"),
            ("no Accept", "HTTP/1.1 101 X\r\n\(ok)\r\n"), ("101 without Upgrade", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n"),
            ("101 without Connection", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"), ("HTTP/1.0", "HTTP/1.0 101 X\r\n\(ok)\r\n"),
            ("200 with content", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            ("401", "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n"),
            ("302 without leave", "HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n"), ("not HTTP", "SSH-2.0-x\r\n"),
            ("bare line feeds", "HTTP/1.1 101 X\nUpgrade: websocket\n\n"),
            ("too many interim answers", String(repeating: "HTTP/1.1 103 E\r\n\r\n", count: 17)),
        ]
        .map { name, answer in
            client("refused answer: \(name)") { server, _, peer in
                peer.send(answer)
                try server.wait(for: "failed")
            }
        }
        + [
            ("a subprotocol that was not offered", "Sec-WebSocket-Protocol: other\r\n"),
            ("an extension that was not offered", "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        ]
        .map { name, fields in
            client("refused answer: \(name)", subprotocols: ["chat"]) { server, _, peer in
                try peer.acceptWebSocket(fields: fields)
                try server.wait(for: "failed")
            }
        }

    // MARK: Requests

    /// A script with a request of the engine's and the raw server that has received it.
    private static func request(
        _ name: String, _ method: HTTPMethod = .get, content: String = "",
        options: @escaping @Sendable (inout ClientOptions) -> Void = { _ in },
        prepare: @escaping @Sendable (TracedResponseHandler) -> Void = { _ in },
        _ body: @escaping @Sendable (TracedServer, ClientExchange, TracedPeer) throws -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try TracedServer(trace, on: .none) { _ in }
            let listener = try server.listener()
            let handler = TracedResponseHandler(trace)
            prepare(handler)
            var chosen = ClientOptions()
            chosen.maxResponseBodyBytes = 100
            options(&chosen)
            let headers = try HTTPFields(["X-One": "1"])
            let exchange = server.worker.request(
                listener.httpURL("/path?query"), method: method, headers: headers, body: Array(content.utf8), options: chosen,
                handler: handler)
            let peer = try server.accept(listener)
            try peer.receiveRequest(bodyCount: content.utf8.count)
            try body(server, exchange, peer)
            try server.wait("the end") { exchange.isOver }
            try server.finish()
        }
    }

    /// HTTP requests that the engine sends.
    static let clientRequests: [GoldenScript] =
        [
            request("HEAD", .head) { _, _, peer in peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") },
            request("POST", .post, content: "data") { _, _, peer in peer.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok") },
            request("DELETE", .delete) { _, _, peer in peer.send("HTTP/1.1 204 No Content\r\n\r\n") },
            request("content in three arrivals") { server, _, peer in
                for part in ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "Hello", "World"] {
                    peer.send(part)
                    try server.settle()
                }
            },
            request("paused in the content and resumed", prepare: { $0.whenContent = { $0.pauseReceiving() } }) { server, exchange, peer in
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nHe\r\n3\r\nllo\r\n0\r\n\r\n")
                for _ in 0..<2 {
                    try server.settle()
                    server.call("resumeReceiving") { exchange.resumeReceiving() }
                }
            },
            request("cancelled before the answer") { server, exchange, _ in server.call("cancel") { exchange.cancel() } },
            request("cancelled in the content", prepare: { $0.whenContent = { $0.cancel() } }) { _, _, peer in
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello")
            },
            request("the content stalls", options: { $0.timeouts.body = .milliseconds(50) }) { _, _, peer in
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello")
            },
            redirected("303: POST becomes GET", 303), redirected("307: POST stays", 307),
            GoldenScript("the whole answer at once") { trace in
                let server = try TracedServer(trace, on: .none) { _ in }
                let listener = try server.listener()
                server.worker.request(listener.httpURL()) { result in
                    switch result {
                    case .success(let response):
                        trace.add(.callback, "whenDone \(response.status) \(response.body.count)\(PayloadText.after(response.body))")
                    case .failure(let error): trace.add(.callback, "whenDone failed \(error.traceText)")
                    }
                }
                let peer = try server.accept(listener)
                try peer.receiveRequest()
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nHe\r\n3\r\nllo\r\n0\r\n\r\n")
                try server.wait(for: "whenDone")
                try server.finish()
            },
        ]
        + [
            ("Content-Length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello", false),
            ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nHe\r\n3;x=y\r\nllo\r\n0\r\nT: x\r\n\r\n", false),
            ("until the end", "HTTP/1.1 200 OK\r\n\r\nHello", true), ("HTTP/1.0 until the end", "HTTP/1.0 200 OK\r\n\r\nHello", true),
            ("204", "HTTP/1.1 204 No\r\n\r\n", false), ("404 with content", "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", false),
            ("an interim answer", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("more than was promised", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHelloHello", false),
            ("cut short", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello", true),
            ("chunks cut short", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n", true),
            ("broken chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\nx\r\n", false),
            ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nHello", false),
            ("too large", "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\nHello", false),
            ("101", "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", false),
            ("302 without leave", "HTTP/1.1 302 Go\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n", false), ("nothing", "", true),
        ]
        .flatMap { name, answer, ends in
            [false, true].map { isCut in
                request("GET: \(name)\(isCut ? ", byte by byte" : "")") { server, _, peer in
                    if isCut { try peer.sendByteByByte(Array(answer.utf8)) } else if !answer.isEmpty { peer.send(answer) }
                    if ends { peer.shutdownWrite() }
                    try server.settle()
                }
            }
        }

    private static func redirected(_ name: String, _ status: Int) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try TracedServer(trace, on: .none) { _ in }
            let listener = try server.listener()
            var options = ClientOptions()
            options.maxRedirects = 1
            let handler = TracedResponseHandler(trace)
            server.worker.request(listener.httpURL(), method: .post, body: Array("data".utf8), options: options, handler: handler)
            let first = try server.accept(listener, "first")
            try first.receiveRequest(bodyCount: 4)
            first.send("HTTP/1.1 \(status) Go\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")
            let second = try server.accept(listener, "second")
            try second.receiveRequest(bodyCount: status == 303 ? 0 : 4)
            second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            try server.wait(for: "ended")
            try server.finish()
        }
    }
}
