import Apus
import Testing

@Suite("What flows through a WebSocket")
struct WebSocketFlowTests {
    /// Bytes that repeat with a period no buffer has.
    static func big(_ count: Int) -> [UInt8] {
        let block = (0..<251).map { UInt8($0) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + block.count)
        while bytes.count < count { bytes += block }
        return Array(bytes[..<count])
    }

    @Test("echoes of every size come back whole and in order")
    func echoes() throws {
        let stage = try TestServer(RecordingHandler.echo())
        let client = try stage.webSocket()
        let sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 200_000, 1_000_000]
        for size in sizes {
            let payload = Self.big(size)
            client.send(Client.frame(.binary, payload))
            #expect(try client.frame() == .binary(payload), "\(size) bytes")
        }
        client.send(Client.frame(.text, "Tschüß ", isFinal: false) + Client.frame(.ping, "p") + Client.frame(.continuation, "🐦"))
        #expect(try client.frame() == .pong("p"))
        #expect(try client.frame() == .text("Tschüß 🐦"))
    }

    @Test("many messages in one arrival are answered in order")
    func many() throws {
        let stage = try TestServer(RecordingHandler.echo())
        let client = try stage.webSocket()
        client.send((0..<2000).flatMap { Client.frame(.text, "message \($0)") })
        for index in 0..<2000 { #expect(try client.frame() == .text("message \(index)")) }
    }

    @Test("frames that come with the handshake, and octet by octet, are delivered")
    func withHandshake() throws {
        let script = RecordingHandler.echo()
        let stage = try TestServer(script)
        let client = try stage.client()
        client.send(Array(Client.handshake().utf8) + Client.frame(.text, "at once") + Client.frame(.text, "cut").dropLast(2))
        #expect(try client.response().status == 101)
        #expect(try client.frame() == .text("at once"))
        for octet in Client.frame(.text, "cut").suffix(2) + Client.frame(.text, "slow") {
            client.send([octet])
            try stage.turn()
        }
        #expect(try client.frame() == .text("cut"))
        #expect(try client.frame() == .text("slow"))
    }

    // MARK: Pings

    @Test("a ping is answered with its payload, up to 125 bytes", arguments: [0, 1, 124, 125])
    func ping(size: Int) throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(.ping, String(repeating: "x", count: size))
        #expect(try client.frame() == .pong(String(repeating: "x", count: size)))
        #expect(script.middle.isEmpty, "the handler does not hear of it")
    }

    @Test("the answer to our ping comes to the handler")
    func ourPing() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        script.socket?.ping([0x61, 0x62])
        #expect(try client.frame() == .ping([0x61, 0x62]))
        client.send(.pong, "ab")
        try stage.until("pong") { script.middle == ["pong ab"] }
    }

    /// Sends until output waits for a peer that does not read, and stays waiting.
    static func block(_ socket: WebSocket, _ stage: TestServer, piece: Int) throws -> Int {
        var sent = 0
        while true {
            while !socket.hasBufferedOutput {
                #expect(socket.send(binary: [UInt8](repeating: 0, count: piece)) != .closed)
                sent += 1
                try stage.turn()
            }
            for _ in 0..<20 { try stage.turn() }
            if socket.hasBufferedOutput { return sent }
        }
    }

    @Test("while output is blocked, one pong waits behind it, and of the pings after that only the last is answered")
    func lastPing() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket(receiveBufferBytes: 4096)
        let socket = try #require(script.socket)
        // So much that the kernel does not take all of it by itself.
        let sent = try Self.block(socket, stage, piece: 500_000)
        let buffered = socket.bufferedBytes
        for name in ["one", "two", "three"] {
            client.send(.ping, name)
            try stage.settle()
        }
        #expect(socket.hasBufferedOutput && socket.bufferedBytes <= buffered + 5, "one pong is queued behind the output")
        for _ in 0..<sent { #expect(try client.frame().payload.count == 500_000) }
        #expect(try client.frame() == .pong("one"))
        #expect(try client.frame() == .pong("three"))
        client.send(.ping, "four")
        #expect(try client.frame() == .pong("four"))
    }

    // MARK: Writable

    @Test("requests for writable coalesce, and what it asks for comes in the next turn")
    func writable() throws {
        let script = RecordingHandler()
        script.whenOpened = { for _ in 0..<3 { $0.requestWritable() } }
        let stage = try TestServer(script)
        _ = try stage.webSocket()
        try stage.settle()
        #expect(script.middle == ["writable"])
        script.socket?.requestWritable()
        script.socket?.requestWritable()
        try stage.settle()
        #expect(script.middle == ["writable", "writable"])
        var left = 3
        script.whenWritable = { socket in
            left -= 1
            if left > 0 { socket.requestWritable() }
        }
        script.socket?.requestWritable()
        try stage.settle()
        #expect(script.count("writable") == 5)
    }

    @Test("writable comes once nothing is buffered, and then once")
    func writableWhenDrained() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket(receiveBufferBytes: 4096)
        let socket = try #require(script.socket)
        let sent = try Self.block(socket, stage, piece: 100_000)
        socket.requestWritable()
        socket.requestWritable()
        try stage.settle()
        #expect(script.middle.isEmpty)
        for _ in 0..<sent { _ = try client.frame() }
        try stage.until("writable") { !script.middle.isEmpty }
        try stage.settle()
        #expect(script.middle == ["writable"])
        #expect(!socket.hasBufferedOutput)
    }

    @Test("writable is not called for a socket that closes")
    func writableWhenClosing() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, _ in
            socket.requestWritable()
            socket.close()
        }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(.text, "a")
        #expect(try client.frame() == .close(1000))
        try stage.settle()
        #expect(script.middle == ["text a"])
    }

    // MARK: Pausing

    @Test("a pause takes effect at once; order and what was read already are kept")
    func pause() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, message in
            if case .text("2") = message { socket.pauseReceiving() }
        }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        // More than a header's worth stays behind the pause, and it ends inside a frame.
        let frames = (1...50).flatMap { Client.frame(.text, "\($0)") } + Client.frame(.text, String(repeating: "x", count: 500))
        client.send(Array(frames.dropLast(100)))
        try stage.until("the pause") { script.middle.count == 2 }
        client.send(Array(frames.suffix(100)) + Client.frame(.text, "last"))
        try stage.serve(for: .milliseconds(30))
        #expect(script.middle == ["text 1", "text 2"])
        script.socket?.resumeReceiving()
        script.socket?.resumeReceiving()
        try stage.until("all") { script.middle.count == 52 }
        #expect(script.middle == (1...50).map { "text \($0)" } + ["text " + String(repeating: "x", count: 500), "text last"])
    }

    @Test("pausing and resuming at every message loses nothing")
    func pauseOften() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, _ in socket.pauseReceiving() }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send((0..<100).flatMap { Client.frame(.text, "\($0)") } + Client.close(1000))
        try stage.until("all") {
            script.socket?.resumeReceiving()
            return !script.endings.isEmpty
        }
        #expect(script.events == ["opened"] + (0..<100).map { "text \($0)" } + ["closed 1000"])
    }

    @Test("a pause in opened holds back what came with the handshake")
    func pauseInOpened() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.pauseReceiving() }
        let stage = try TestServer(script)
        let client = try stage.client()
        client.send(Array(Client.handshake().utf8) + (0..<100).flatMap { Client.frame(.text, "\($0)") })
        #expect(try client.response().status == 101)
        try stage.settle()
        #expect(script.middle.isEmpty)
        script.socket?.resumeReceiving()
        try stage.until("all") { script.middle.count == 100 }
    }

    @Test("while it is paused, the peer's reset is noticed and a silent peer is not given up", arguments: [false, true])
    func pausedEnd(resets: Bool) throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.pauseReceiving() }
        let stage = try TestServer(script) {
            $0.pingInterval = .milliseconds(20)
            $0.silenceTimeout = .milliseconds(40)
        }
        let client = try stage.webSocket()
        client.send(.text, "waits")
        if resets {
            client.reset()
            try stage.until("closed") { script.endings == ["closed 1006"] }
        } else {
            try stage.serve(for: .milliseconds(120))
            #expect(script.endings.isEmpty)
            script.socket?.resumeReceiving()
            try stage.until("the text") { script.middle == ["text waits"] }
        }
    }

    @Test("resumed by another connection in the turn in which its peer resets, with much kept: no harm")
    func resumedAndReset() throws {
        var paused: WebSocket?
        let script = RecordingHandler()
        script.whenReceived = { socket, message in
            switch message {
            case .text("pause"):
                paused = socket
                socket.pauseReceiving()
            case .text("resume"): paused?.resumeReceiving()
            default: break
            }
        }
        let stage = try TestServer(script)
        let first = try stage.webSocket()
        let second = try stage.webSocket()
        first.send(Client.frame(.text, "pause") + (0..<100).flatMap { Client.frame(.text, "kept \($0)") })
        try stage.until("the pause") { paused != nil }
        try stage.settle()
        // Both are ready in the next turn, the one that resumes first.
        second.send(.text, "resume")
        first.reset()
        try stage.until("closed") { script.endings == ["closed 1006"] }
        second.send(.text, "lives")
        try stage.until("the other lives") { script.events.last == "text lives" }
    }

    // MARK: Slow peers

    @Test("a peer that reads too slowly gets 1013 behind what was accepted, and others live on")
    func slowConsumer() throws {
        let script = RecordingHandler.echo()
        let stage = try TestServer(script) { $0.maxBufferedBytes = 200_000 }
        let slow = try stage.webSocket(receiveBufferBytes: 4096)
        let socket = try #require(script.socket)
        let other = try stage.webSocket()
        var accepted = 0
        var last = WebSocket.SendOutcome.accepted
        while accepted < 10_000 {
            last = socket.send(binary: [UInt8](repeating: 1, count: 50_000))
            if last == .closed { break }
            accepted += 1
            try stage.turn()
        }
        #expect(last == .closed)
        #expect(!socket.isOpen)
        #expect(socket.bufferedBytes <= 200_000 + 2 * 50_000, "the limit, one message more, and the close frame")
        other.send(.text, "still served")
        #expect(try other.frame() == .text("still served"))
        for _ in 0..<accepted { #expect(try slow.frame().payload.count == 50_000) }
        #expect(try slow.frame() == .close(1013, "the peer reads too slowly"))
        slow.send(Client.close(1013))
        try slow.end()
        #expect(script.endings == ["closed 1013"])
    }

    @Test("a peer that is sent echoes and never reads is not read from without end")
    func backPressure() throws {
        let script = RecordingHandler.echo()
        let stage = try TestServer(script)
        let client = try stage.webSocket(receiveBufferBytes: 4096)
        let socket = try #require(script.socket)
        let frame = Client.frame(.binary, Self.big(50_000))
        var most = 0
        // As much as kernel buffers take at most, without ever reading.
        for _ in 0..<400 {
            client.sendWithoutWaiting(frame)
            try stage.turn()
            most = max(most, socket.bufferedBytes)
        }
        #expect(socket.isOpen)
        #expect(most <= 32 * 1024 + 128 * 1024 + 50_016, "\(most) bytes were buffered")
        let received = script.count("binary")
        for _ in 0..<received { #expect(try client.frame().payload.count == 50_000) }
        #expect(socket.isOpen)
    }

    // MARK: Fragments

    @Test("fragments come as they arrive, with what they know of their frame and message")
    func fragments() throws {
        let script = RecordingHandler(delivery: .fragments)
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        let frames =
            Client.frame(.text, "Hello", isFinal: false) + Client.frame(.ping) + Client.frame(.continuation, isFinal: false)
            + Client.frame(.continuation, "wörld")
        client.send(Array(frames[..<8]))
        try stage.until("the first piece") { script.middle.count == 1 }
        client.send(Array(frames[8..<9]))
        try stage.until("the second piece") { script.middle.count == 2 }
        client.send(Array(frames[9...]))
        try stage.until("the rest") { script.middle.count == 5 }
        #expect(
            script.middle == [
                "fragment text 'He' starts owes 3", "fragment text 'l' owes 2", "fragment text 'lo'", "fragment text ''",
                "fragment text 'wörld' final ends",
            ])
        client.send(Client.frame(.binary, [0x62]))
        try stage.until("the next message") { script.middle.last == "fragment binary 'b' starts final ends" }
    }

    @Test("bad UTF-8 is found in fragments too, before the handler sees it")
    func fragmentsUTF8() throws {
        let script = RecordingHandler(delivery: .fragments)
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(Client.frame(.text, "ok", isFinal: false) + Client.frame(.continuation, [0xFF], isFinal: false))
        #expect(try client.frame().closeCode == 1007)
        #expect(script.middle == ["fragment text 'ok' starts"])
    }

    @Test("messages sent in fragments are frames of their own")
    func sendFragments() throws {
        let script = RecordingHandler()
        script.whenOpened = { socket in
            socket.sendFragment(Array("Hel".utf8).span.bytes, as: .text, isLast: false)
            socket.ping()
            socket.sendFragment(Array("lo".utf8).span.bytes, as: .text, isLast: true)
            socket.sendFragment(binary: [1], isLast: true)
        }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        #expect(try client.frame() == ServerFrame(opcode: 1, isFinal: false, payload: Array("Hel".utf8)))
        #expect(try client.frame() == .ping())
        #expect(try client.frame() == ServerFrame(opcode: 0, payload: Array("lo".utf8)))
        #expect(try client.frame() == .binary([1]))
    }
}
