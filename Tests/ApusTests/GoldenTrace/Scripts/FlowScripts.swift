import Apus
import ApusCodec

extension GoldenScripts {
    /// Receiving paused and resumed, and output that waits.
    static let flow: [GoldenScript] = [
        GoldenScript("paused outside of callbacks: messages wait, and come when it is resumed") { trace in
            let handler = TracedHandler(trace).echoes()
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            server.call("pauseReceiving") { handler.socket?.pauseReceiving() }
            try server.settle()
            peer.send(RawFrame.client(1, "one") + RawFrame.client(9, "ping") + RawFrame.client(1, "two"))
            try server.settle()
            peer.send(RawFrame.client(1, "three"))
            try server.settle()
            server.call("resumeReceiving") { handler.socket?.resumeReceiving() }
            try server.settle()
            try server.finish()
        },
        pausing("paused in a callback with frames behind it in the segment", afterEach: false),
        pausing("paused and resumed after each message", afterEach: true),
        withPeer(
            "paused and resumed in one callback",
            prepare: {
                $0.whenReceived = { socket, _ in
                    socket.pauseReceiving()
                    socket.resumeReceiving()
                }
            }
        ) { server, peer in
            try peer.open()
            peer.send(RawFrame.client(1, "one") + RawFrame.client(1, "two") + RawFrame.close(1000))
            try server.settle()
        },
        GoldenScript("paused inside a message, and inside a frame") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            let frame = RawFrame.client(0, "second fragment")
            peer.send(RawFrame.client(1, "first fragment, ", fin: false))
            peer.sendPart(Array(frame[..<9]))
            try server.settle()
            server.call("pauseReceiving") { handler.socket?.pauseReceiving() }
            peer.sendPart(Array(frame[9...]))
            peer.send(RawFrame.client(1, "next"))
            try server.settle()
            server.call("resumeReceiving") { handler.socket?.resumeReceiving() }
            try server.settle()
            try server.finish()
        },
        GoldenScript("paused in a fragment's callback") { trace in
            let handler = TracedHandler(trace, delivery: .fragments)
            handler.whenFragment = { socket, text in
                if text == "two" {
                    trace.add(.call, "pauseReceiving")
                    socket.pauseReceiving()
                }
            }
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            peer.send(RawFrame.client(1, "one", fin: false) + RawFrame.client(0, "two", fin: false) + RawFrame.client(0, "three"))
            try server.settle()
            server.call("resumeReceiving") { handler.socket?.resumeReceiving() }
            try server.settle()
            try server.finish()
        },
        GoldenScript("paused, with more than a buffer waiting") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            server.call("pauseReceiving") { handler.socket?.pauseReceiving() }
            try server.settle()
            for letter in [0x61, 0x62, 0x63] as [UInt8] { peer.send(RawFrame.client(2, [UInt8](repeating: letter, count: 50_000))) }
            try server.settle()
            server.call("resumeReceiving") { handler.socket?.resumeReceiving() }
            try server.settle()
            try server.finish()
        },
        GoldenScript("the peer leaves while receiving is paused") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            server.call("pauseReceiving") { handler.socket?.pauseReceiving() }
            try server.settle()
            peer.send(RawFrame.client(1, "waits"))
            peer.shutdownWrite()
            try server.settle()
            server.call("resumeReceiving") { handler.socket?.resumeReceiving() }
            try server.settle()
            try server.finish()
        },
        GoldenScript("close while receiving is paused: the peer's answer is received") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            server.call("pauseReceiving") { handler.socket?.pauseReceiving() }
            peer.send(RawFrame.client(1, "waits"))
            try server.settle()
            server.call("close") { handler.socket?.close() }
            try server.settle()
            peer.send(RawFrame.close(1000))
            try server.settle()
            try server.finish()
        },
        // MARK: Output
        GoldenScript("requestWritable with nothing buffered: once for several requests") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            _ = try server.webSocket()
            server.call("requestWritable, twice") {
                handler.socket?.requestWritable()
                handler.socket?.requestWritable()
            }
            try server.settle()
            var left = 2
            handler.whenWritable = { socket in
                left -= 1
                socket.send(text: "\(left) left")
                if left > 0 { socket.requestWritable() }
            }
            server.call("requestWritable") { handler.socket?.requestWritable() }
            try server.settle()
            try server.finish()
        },
        blocked("requestWritable while output waits: called when all has left") { server, peer, socket in
            server.call("requestWritable") { socket.requestWritable() }
            try server.settle()
            server.send("text") { socket.send(text: "behind it") }
        },
        blocked("a message that comes while output waits is received when the peer has read") { server, peer, _ in
            peer.send(RawFrame.client(1, "meanwhile") + RawFrame.client(9, "p"))
            try server.settle()
        },
        blocked("close while output waits: the close frame follows it") { server, peer, socket in
            server.call("close 1000") { socket.close(reason: "behind it") }
            try server.settle()
            peer.send(RawFrame.close(1000))
        },
        blocked("terminate while output waits: it is dropped", readsAll: false) { server, _, socket in
            server.call("terminate") { socket.terminate() }
            try server.settle()
        },
        GoldenScript("more than maxBufferedBytes waits: the next send closes with 1013") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler) { $0.maxBufferedBytes = 100_000 }
            let peer = try server.webSocket()
            guard let socket = handler.socket else { return }
            peer.isReadingPaused = true
            server.send("4000000 bytes") { socket.send(binary: [UInt8](repeating: 0x61, count: 4_000_000)) }
            try server.settle()
            server.send("text") { socket.send(text: "too much") }
            server.send("ping") { socket.ping() }
            try server.settle()
            peer.isReadingPaused = false
            try server.settle()
            peer.send(RawFrame.close(1013))
            try server.settle()
            try server.finish()
        },
    ]

    /// A handler that pauses with its first message, or with each.
    private static func pausing(_ name: String, afterEach: Bool) -> GoldenScript {
        GoldenScript(name) { trace in
            let handler = TracedHandler(trace)
            var isFirst = true
            handler.whenReceived = { socket, _ in
                guard afterEach || isFirst else { return }
                isFirst = false
                trace.add(.call, "pauseReceiving")
                socket.pauseReceiving()
            }
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            peer.send(RawFrame.client(1, "one") + RawFrame.client(2, [2]) + RawFrame.client(9, "p") + RawFrame.client(1, "three"))
            peer.send(RawFrame.close(1000, "end"))
            for _ in 0..<(afterEach ? 3 : 1) {
                try server.settle()
                server.call("resumeReceiving") { handler.socket?.resumeReceiving() }
            }
            try server.settle()
            try server.finish()
        }
    }

    /// A WebSocket with more output waiting than any buffer of the kernel takes, and then a peer
    /// that reads.
    private static func blocked(
        _ name: String, readsAll: Bool = true, _ body: @escaping @Sendable (TracedServer, TracedPeer, WebSocket) throws -> Void
    ) -> GoldenScript {
        GoldenScript(name) { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler) { $0.maxBufferedBytes = 8_000_000 }
            let peer = try server.webSocket()
            guard let socket = handler.socket else { return }
            peer.isReadingPaused = true
            server.send("4000000 bytes") { socket.send(binary: [UInt8](repeating: 0x61, count: 4_000_000)) }
            try server.settle()
            try body(server, peer, socket)
            if readsAll { server.call("the peer reads") { peer.isReadingPaused = false } }
            try server.settle()
            try server.finish()
        }
    }
}
