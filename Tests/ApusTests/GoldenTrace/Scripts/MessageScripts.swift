import Apus
import ApusCodec

extension GoldenScripts {
    /// Messages in both directions.
    static let messages: [GoldenScript] = [
        sizes("text messages of 0, 125, 126, 65535 and 65536 bytes, echoed", opcode: 1),
        sizes("binary messages of 0, 125, 126, 65535 and 65536 bytes, echoed", opcode: 2),
        withPeer("a message in two arrivals, and one of a megabyte", prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            let frame = RawFrame.client(1, "Hello, world")
            peer.sendPart(Array(frame[..<10]))
            try server.settle()
            peer.sendPart(Array(frame[10...]))
            try server.settle()
            peer.send(RawFrame.client(2, WebSocketFlowTests.big(1_000_000)))
            try server.settle()
        },
        withPeer("fragments are assembled, also empty ones, with pings between them", prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            peer.send(RawFrame.client(1, "Tschüß ", fin: false))
            try server.settle()
            peer.send(RawFrame.client(9, "one"))
            try server.settle()
            peer.send(RawFrame.client(0, "", fin: false) + RawFrame.client(9, "two") + RawFrame.client(10, "three"))
            try server.settle()
            peer.send(RawFrame.client(0, "🐦"))
            try server.settle()
            peer.send(RawFrame.client(2, [], fin: false) + RawFrame.client(0))
            try server.settle()
        },
        withPeer("a character cut by a fragment's end", prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            let bird = Array("🐦".utf8)
            peer.send(RawFrame.client(1, Array(bird[..<1]), fin: false) + RawFrame.client(0, Array(bird[1..<3]), fin: false))
            try server.settle()
            peer.send(RawFrame.client(0, Array(bird[3...])))
            try server.settle()
        },
        withPeer("delivery in fragments", delivery: .fragments) { server, peer in
            try peer.open()
            peer.send(RawFrame.client(1, "whole"))
            try server.settle()
            peer.send(RawFrame.client(2))
            try server.settle()
            let frames = RawFrame.client(1, "Hello", fin: false) + RawFrame.client(9, "p") + RawFrame.client(0, "", fin: false)
            for part in [frames[..<8], frames[8..<9], frames[9...]] {
                peer.sendPart(Array(part))
                try server.settle()
            }
            peer.send(RawFrame.client(0, " wörld"))
            try server.settle()
            peer.send(RawFrame.client(2, [UInt8](repeating: 0x62, count: 65_536)))
            try server.settle()
        },
        withPeer(
            "fragments out, with a ping between them",
            prepare: {
                $0.whenReceived = { socket, _ in
                    socket.sendFragment(Array("Hel".utf8).span.bytes, as: .text, isLast: false)
                    socket.ping(Array("between".utf8))
                    socket.sendFragment(Array("lo".utf8).span.bytes, as: .text, isLast: false)
                    socket.sendFragment([UInt8]().span.bytes, as: .text, isLast: true)
                    socket.sendFragment(binary: [1, 2], isLast: true)
                }
            }
        ) { server, peer in
            try peer.open()
            peer.send(RawFrame.client(1, "go"))
            try server.settle()
        },
        withPeer("pings of 0, 1 and 125 bytes are answered, the handler is not called") { server, peer in
            try peer.open()
            for count in [0, 1, 125] {
                peer.send(RawFrame.client(9, [UInt8](repeating: 0x70, count: count)))
                try server.settle()
            }
        },
        GoldenScript("our ping and its pong, and pongs that answer nothing") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            let peer = try server.webSocket()
            server.send("ping \"a\"") { handler.socket?.ping(Array("a".utf8)) ?? .closed }
            try server.settle()
            peer.send(RawFrame.client(10, "a"))
            try server.settle()
            peer.send(RawFrame.client(10) + RawFrame.client(10, "unsolicited"))
            try server.settle()
            try server.finish()
        },
        withPeer("several frames in one segment", prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            peer.send(segment)
            try server.settle()
        },
        withPeer("the same frames byte by byte", prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            try peer.sendByteByByte(segment)
            try server.settle()
        },
        withPeer("a hundred messages in one segment", prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            peer.send((0..<100).flatMap { RawFrame.client(1, "message \($0)") })
            try server.settle()
        },
        withPeer(
            "messages sent in every callback",
            prepare: { handler in
                handler.whenOpened = {
                    $0.send(text: "in opened")
                    $0.requestWritable()
                }
                handler.whenReceived = { socket, _ in socket.send(text: "in received") }
                handler.whenWritable = { $0.send(text: "in writable") }
                handler.whenPong = { $0.send(text: "in pong") }
                handler.whenClosed = { $0.send(text: "in closed: not sent") }
            }
        ) { server, peer in
            try peer.open()
            peer.send(RawFrame.client(1, "x") + RawFrame.client(10, "y") + RawFrame.close(1000))
            try server.settle()
        },
        GoldenScript("sends outside of callbacks, small and larger than the cork") { trace in
            let handler = TracedHandler(trace)
            let server = try serve(trace, handler)
            _ = try server.webSocket()
            guard let socket = handler.socket else { return }
            server.send("text") { socket.send(text: "outside") }
            server.send("100000 bytes") { socket.send(binary: [UInt8](repeating: 0x61, count: 100_000)) }
            server.send("text") { socket.send(text: "behind it") }
            try server.settle()
            try server.finish()
        },
        withPeer(
            "sends in a callback that do not fit the cork",
            prepare: {
                $0.whenReceived = { socket, _ in
                    socket.send(text: "before")
                    for _ in 0..<3 { socket.send(binary: [UInt8](repeating: 0x62, count: 30_000)) }
                    socket.send(binary: [UInt8](repeating: 0x63, count: 100_000))
                    socket.send(text: "behind")
                }
            }
        ) { server, peer in
            try peer.open()
            peer.send(RawFrame.client(1, "go"))
            try server.settle()
        },
    ]

    /// A server whose only connection has this handler.
    static func serve(
        _ trace: Trace, on transport: TracedServer.Transport = .unix, _ handler: TracedHandler, limits: (inout Limits) -> Void = { _ in }
    ) throws -> TracedServer {
        try TracedServer(trace, on: transport, limits: limits) { $0.webSocket("chat", at: "/") { _ in handler } }
    }

    private static func sizes(_ name: String, opcode: UInt8) -> GoldenScript {
        withPeer(name, prepare: { _ = $0.echoes() }) { server, peer in
            try peer.open()
            for count in [0, 125, 126, 65_535, 65_536] {
                peer.send(RawFrame.client(opcode, [UInt8](repeating: 0x61, count: count)))
                try server.settle()
            }
        }
    }

    private static var segment: [UInt8] {
        var bytes = RawFrame.client(1, "first") + RawFrame.client(9, "ping") + RawFrame.client(2, [0, 1, 0xFF])
        bytes += RawFrame.client(1, "fr", fin: false) + RawFrame.client(10, "pong") + RawFrame.client(0, "agments")
        return bytes + RawFrame.client(1, [UInt8](repeating: 0x6C, count: 200)) + RawFrame.close(1000, "done") + RawFrame.client(1, "late")
    }
}
