import Apus
import ApusCodec

extension GoldenScripts {
    private final class Kept { var exchanges: [HTTPExchange] = [] }

    /// A server with WebSockets and HTTP connections that is going to end.
    private struct Ending {
        let server: TracedServer
        /// The WebSocket.
        let ws: TracedPeer
        /// An HTTP connection between requests.
        let idle: TracedPeer
        /// An HTTP connection whose request has no answer yet.
        let active: TracedPeer
        let kept = Kept()

        init(_ trace: Trace, limits: (inout Limits) -> Void = { _ in }) throws {
            let kept = kept
            server = try TracedServer(trace, limits: limits) { server in
                server.onWorkerStart = { _ in trace.add(.callback, "worker starts") }
                server.onWorkerStop = { worker in trace.add(.callback, "worker stops, \(worker.connectionCount) connections") }
                server.webSocket("chat", at: "/") { request in TracedHandler(trace, label: request.head.queryString ?? "") }
                server.http(.get, at: "/hello") { $0.respond(text: "hello") }
                server.http(.get, at: "/later") {
                    trace.add(.callback, "GET /later")
                    kept.exchanges.append($0)
                }
            }
            ws = try server.webSocket("ws")
            idle = try server.peer("idle")
            idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            try server.settle()
            active = try server.peer("active")
            active.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
            try server.settle()
        }

        func answer() throws {
            server.call("respond") { kept.exchanges.popLast()?.respond(text: "later") }
            try server.settle()
        }

        /// Ends like `finish`, and serves until the worker has ended.
        func finish() throws {
            try server.finish()
            try server.wait(for: "worker stops")
        }
    }

    /// How a worker ends, with WebSockets and HTTP connections.
    static let worker: [GoldenScript] = [
        GoldenScript("a worker that served nothing stops") { trace in
            let server = try TracedServer(trace) { server in
                server.onWorkerStart = { _ in trace.add(.callback, "worker starts") }
                server.onWorkerStop = { _ in trace.add(.callback, "worker stops") }
            }
            server.call("stop") { server.worker.stop() }
            try server.settle()
            server.call("stop, drain") {
                server.worker.stop()
                server.worker.drain()
            }
            try server.settle()
        },
        GoldenScript("stop: WebSocket, idle and active HTTP connections, all of which end as they should") { trace in
            let ending = try Ending(trace)
            ending.server.call("stop") { ending.server.worker.stop() }
            try ending.server.settle()
            ending.ws.send(RawFrame.close(1001))
            try ending.server.settle()
            try ending.answer()
            try ending.finish()
        },
        GoldenScript("stop: what arrives after it") { trace in
            let ending = try Ending(trace)
            let fresh = try ending.server.peer("fresh")
            try ending.server.settle()
            let halfway = try ending.server.peer("halfway")
            halfway.send("GET /hello HT")
            try ending.server.settle()
            ending.server.call("stop") { ending.server.worker.stop() }
            ending.ws.send(RawFrame.client(1, "too late"))
            ending.idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            fresh.sendHandshake("/?fresh")
            halfway.send("TP/1.1\r\nHost: a\r\n\r\n")
            try ending.server.settle()
            try ending.finish()
        },
        GoldenScript("stop: what is left after a second is cut") { trace in
            let ending = try Ending(trace)
            ending.server.call("stop") { ending.server.worker.stop() }
            try ending.server.settle()
            try ending.server.wait(for: "worker stops")
            ending.server.call("respond, isOpen \(ending.kept.exchanges.first?.isOpen ?? false)") {
                ending.kept.exchanges.popLast()?.respond(text: "too late")
            }
            try ending.server.settle()
            try ending.finish()
        },
        GoldenScript("stop from a callback") { trace in
            let handler = TracedHandler(trace)
            handler.whenReceived = { socket, _ in
                socket.send(text: "before")
                trace.add(.call, "stop")
                socket.worker.stop()
                socket.send(text: "never")
            }
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            peer.send(RawFrame.client(1, "one") + RawFrame.client(1, "two"))
            try server.settle()
            peer.send(RawFrame.close(1001))
            try server.settle()
            try server.finish()
        },
        GoldenScript("drain: WebSocket, idle and active HTTP connections, all of which end as they should") { trace in
            let ending = try Ending(trace) { $0.drainWindow = .zero }
            ending.server.call("drain") { ending.server.worker.drain() }
            try ending.server.wait("the idle one's end") { ending.idle.hasEnded }
            ending.ws.send(RawFrame.close(1012))
            try ending.server.settle()
            try ending.answer()
            try ending.finish()
        },
        GoldenScript("drain: requests and handshakes during the window are served") { trace in
            let ending = try Ending(trace) { $0.drainWindow = .seconds(3) }
            let fresh = try ending.server.peer("fresh")
            try ending.server.settle()
            ending.server.call("drain") { ending.server.worker.drain() }
            ending.idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            try ending.server.settle()
            // One of one is closed at once; one that opens now is closed with the next step.
            fresh.sendHandshake("/?fresh")
            try ending.server.settle()
            try ending.server.wait("the close frame") { fresh.framesReceived == 1 }
            ending.ws.send(RawFrame.close(1012))
            fresh.send(RawFrame.close(1012))
            try ending.server.settle()
            try ending.answer()
            try ending.finish()
        },
        GoldenScript("drain: what is left after drainTimeout is cut") { trace in
            let ending = try Ending(trace) {
                $0.drainWindow = .zero
                $0.drainTimeout = .milliseconds(100)
            }
            ending.server.call("drain") { ending.server.worker.drain() }
            try ending.server.wait(for: "worker stops")
            try ending.finish()
        },
        GoldenScript("stop after drain") { trace in
            let ending = try Ending(trace) { $0.drainWindow = .seconds(100) }
            ending.server.call("drain") { ending.server.worker.drain() }
            try ending.server.settle()
            ending.server.call("stop") { ending.server.worker.stop() }
            try ending.server.settle()
            ending.ws.send(RawFrame.close(1012))
            try ending.server.settle()
            try ending.answer()
            try ending.finish()
        },
        GoldenScript("stop with clients: one open, one without an answer, and one that comes later") { trace in
            let server = try TracedServer(trace, on: .none) { server in
                server.onWorkerStop = { _ in trace.add(.callback, "worker stops") }
            }
            let listener = try server.listener()
            let client = TracedClient(server, label: "open")
            client.connect(listener.url())
            let open = try server.accept(listener, "open")
            try open.receiveRequest()
            try open.acceptWebSocket()
            try server.settle()
            let waiting = TracedClient(server, label: "waiting")
            waiting.connect(listener.url("/waiting"))
            let silent = try server.accept(listener, "waiting")
            try silent.receiveRequest()
            server.call("stop") { server.worker.stop() }
            try server.wait(for: "waiting* failed")
            let late = TracedClient(server, label: "late")
            late.connect(listener.url())
            try server.wait(for: "late* failed")
            open.send(RawFrame.server(8, RawFrame.closePayload(1001)))
            try server.settle()
            try server.finish()
            try server.wait(for: "worker stops")
        },
    ]
}
