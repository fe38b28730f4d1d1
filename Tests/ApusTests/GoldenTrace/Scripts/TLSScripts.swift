import Apus
import COpenSSL
import TestSupport

extension GoldenScripts {
    /// What passes through TLS, decrypted.
    static let tls: [GoldenScript] =
        [("TLS 1.3", Int32(TLS1_3_VERSION)), ("TLS 1.2", Int32(TLS1_2_VERSION))].flatMap { name, version in
            [
                secure("\(name): a WebSocket's echoes and its close", version) { server, peer in
                    try peer.open("/chat")
                    for count in [5, 126, 65_536] {
                        peer.send(RawFrame.client(2, [UInt8](repeating: 0x61, count: count)))
                        try server.settle()
                    }
                    peer.send(RawFrame.client(1, "fr", fin: false) + RawFrame.client(9, "p") + RawFrame.client(0, "agments"))
                    try server.settle()
                    peer.send(RawFrame.close(1000, "bye"))
                    try server.settle()
                },
                secure("\(name): requests, the last with Connection: close", version) { server, peer in
                    peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                    try server.settle()
                    peer.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHello")
                    try server.settle()
                    peer.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    try server.settle()
                },
                secure("\(name): close_notify behind two requests", version) { server, peer in
                    peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                    peer.shutdownWrite()
                    try server.settle()
                },
                secure("\(name): a WebSocket ends with close_notify, without a close frame", version) { server, peer in
                    try peer.open("/chat")
                    peer.send(RawFrame.client(1, "last"))
                    peer.shutdownWrite()
                    try server.settle()
                },
                secure("\(name): the handler pauses with frames behind it in the record", version) { server, peer in
                    try peer.open("/pausing")
                    peer.send(RawFrame.client(1, "one") + RawFrame.client(1, "two") + RawFrame.close(1000))
                    try server.wait(for: "closed")
                },
                secure("\(name): the server closes and terminates", version) { server, peer in
                    try peer.open("/closing")
                    peer.send(RawFrame.client(1, "close"))
                    try server.settle()
                    peer.send(RawFrame.close(1001))
                    try server.settle()
                    let other = try server.peer("b", tls: TLSLayer(version: version))
                    try other.secure()
                    other.sendHandshake("/closing")
                    try server.settle()
                    other.send(RawFrame.client(1, "terminate"))
                    try server.settle()
                },
            ]
        } + [
            GoldenScript("HTTP where TLS is expected") { trace in
                let server = try secureServer(trace, TestCertificate())
                let peer = try server.peer()
                peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                try server.settle()
                try server.finish()
            },
            GoldenScript("a client and its server in one worker: a WebSocket and a request") { trace in
                let certificate = try TestCertificate()
                let server = try secureServer(trace, on: .tcp, certificate)
                guard let port = server.worker.addresses[0].port else { return }
                let client = TracedClient(server, label: "client")
                client.connect("wss://localhost:\(port)/chat") { $0.tls.roots = .file(certificate.chain) }
                try server.wait(for: "client* opened")
                server.send("text", "client") { client.handler.socket?.send(text: "Hello") ?? .closed }
                try server.wait(for: "client* received")
                server.call("close", "client") { client.handler.socket?.close(reason: "bye") }
                try server.wait(for: "client* closed")
                var options = ClientOptions()
                options.tls.roots = .file(certificate.chain)
                let handler = TracedResponseHandler(trace, label: "request")
                server.worker.request("https://localhost:\(port)/hello", options: options, handler: handler)
                try server.wait(for: "request* ended")
                let stranger = TracedClient(server, label: "stranger")
                stranger.connect("wss://localhost:\(port)/chat")
                try server.wait(for: "stranger* failed")
                try server.finish()
            },
        ]

    private static func secure(
        _ name: String, _ version: Int32, _ body: @escaping @Sendable (TracedServer, TracedPeer) throws -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let server = try secureServer(trace, TestCertificate())
            let peer = try server.peer(tls: TLSLayer(version: version))
            try peer.secure()
            try body(server, peer)
            try server.finish()
        }
    }

    private static func secureServer(
        _ trace: Trace, on transport: TracedServer.Transport = .unix, _ certificate: TestCertificate
    ) throws -> TracedServer {
        let tls = ServerTLS(TLSIdentity(certificateChain: certificate.chain, privateKey: certificate.key))
        return try TracedServer(trace, on: transport, tls: tls) { server in
            server.http(.get, at: "/hello") { $0.respond(text: "hello") }
            server.http(.post, at: "/echo") { $0.respond(body: $0.request.body) }
            server.http(.get, at: "/large") { $0.respond(body: [UInt8](repeating: 0x6C, count: 100_000)) }
            server.webSocket("chat", at: "/chat") { _ in TracedHandler(trace).echoes() }
            server.webSocket("pausing", at: "/pausing") { _ in
                let handler = TracedHandler(trace)
                handler.whenReceived = { socket, _ in
                    trace.add(.call, "pauseReceiving")
                    socket.pauseReceiving()
                    socket.worker.schedule(after: .zero) {
                        trace.add(.call, "resumeReceiving")
                        socket.resumeReceiving()
                    }
                }
                return handler
            }
            server.webSocket("closing", at: "/closing") { _ in
                let handler = TracedHandler(trace)
                handler.whenReceived = { socket, message in
                    socket.send(text: "before")
                    if case .text("close") = message { socket.close(code: .goingAway) } else { socket.terminate() }
                }
                return handler
            }
        }
    }
}
