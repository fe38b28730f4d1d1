import Apus
import Testing

@Suite("How WebSockets end")
struct WebSocketEndingTests {
    /// What a peer does, what the handler is told, and what the peer sees last.
    struct Ending: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let bytes: [UInt8]
        let closed: String
        /// The code of our close frame; nil when it has none.
        let answer: UInt16?
        var events: [String] = []
    }

    static let fragment = Client.frame(.text, "a", isFinal: false)

    static let endings: [Ending] = [
        Ending(
            testDescription: "a close with code and reason", bytes: Client.close(1001, "bye"), closed: "closed 1001 bye",
            answer: 1001),
        Ending(testDescription: "a close without a code", bytes: Client.frame(.close), closed: "closed 1005", answer: nil),
        Ending(testDescription: "a private code", bytes: Client.close(4321), closed: "closed 4321", answer: 4321),
        Ending(
            testDescription: "a message, then a close", bytes: Client.frame(.text, "a") + Client.close(1000),
            closed: "closed 1000", answer: 1000,
            events: ["text a"]),
        Ending(
            testDescription: "a close, then more",
            bytes: Client.close(1000) + Client.frame(.text, "a") + Client.frame(.ping) + Client.close(1001),
            closed: "closed 1000", answer: 1000),
        Ending(
            testDescription: "a close inside a message", bytes: fragment + Client.close(1000), closed: "closed 1000", answer: 1000
        ),
        Ending(
            testDescription: "an unmasked frame", bytes: [0x81, 0x01, 0x61],
            closed: "closed 1002 client frames must be masked, server frames must not", answer: 1002),
        Ending(
            testDescription: "a message, then a reserved opcode", bytes: Client.frame(.binary, [1, 2]) + [0x83, 0x80],
            closed: "closed 1002 reserved opcode 3", answer: 1002, events: ["binary [1, 2]"]),
        Ending(
            testDescription: "RSV1 without an extension", bytes: [0xC1, 0x80],
            closed: "closed 1002 reserved bit set without an extension",
            answer: 1002),
        Ending(
            testDescription: "a close of one byte", bytes: Client.frame(.close, [3]),
            closed: "closed 1002 close frame of one byte", answer: 1002),
        Ending(
            testDescription: "a close with a bad code", bytes: Client.close(1005),
            closed: "closed 1002 close code 1005 must not be sent",
            answer: 1002),
        Ending(
            testDescription: "text that is not UTF-8", bytes: Client.frame(.text, [0x61, 0xFF]),
            closed: "closed 1007 text is not UTF-8",
            answer: 1007),
        Ending(
            testDescription: "text cut inside a character", bytes: Client.frame(.text, [0x61, 0xC3]),
            closed: "closed 1007 text is not UTF-8",
            answer: 1007),
        Ending(
            testDescription: "bad UTF-8 in a first fragment, at once", bytes: Client.frame(.text, [0x61, 0xC0], isFinal: false),
            closed: "closed 1007 text is not UTF-8", answer: 1007),
        Ending(
            testDescription: "a character cut by fragments and broken",
            bytes: Client.frame(.text, [0xE2, 0x82], isFinal: false)
                + Client.frame(.continuation, [0x61], isFinal: false), closed: "closed 1007 text is not UTF-8", answer: 1007),
        Ending(
            testDescription: "a length over the limit, at its header", bytes: [0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0],
            closed: "closed 1009 message over the limit of 1000 bytes", answer: 1009),
        Ending(
            testDescription: "fragments over the limit in sum",
            bytes: Client.frame(.binary, [UInt8](repeating: 0, count: 600), isFinal: false)
                + Client.frame(.continuation, [UInt8](repeating: 0, count: 401)),
            closed: "closed 1009 message over the limit of 1000 bytes", answer: 1009),
    ]

    @Test("the handler is told once, the peer gets its answer and the end", arguments: endings)
    func ending(_ ending: Ending) throws {
        let script = RecordingHandler()
        let stage = try TestServer(script) { $0.maxMessageBytes = 1000 }
        let client = try stage.webSocket()
        client.send(ending.bytes)
        let frame = try client.frame()
        #expect(frame.opcode == 8)
        #expect(frame.closeCode == ending.answer.map(Int.init))
        // Within a second, although the peer leaves its side open.
        #expect(try client.end(within: .seconds(3)).isEmpty)
        #expect(script.middle == ending.events)
        #expect(script.endings == [ending.closed])
        client.close()
        try stage.until("the connection to be gone") { stage.worker.connectionCount == 0 }
        #expect(script.endings.count == 1)
    }

    @Test("a peer that leaves without a word", arguments: [false, true], [[], fragment, [0x81]])
    func gone(byReset: Bool, before bytes: [UInt8]) throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(bytes)
        try stage.settle()
        if byReset { client.reset() } else { client.close() }
        try stage.until("closed") { !script.endings.isEmpty }
        try stage.settle()
        #expect(script.events == ["opened", "closed 1006"])
        #expect(stage.worker.connectionCount == 0)
    }

    @Test("our close, answered: the peer's code and reason are reported, and TCP ends at once")
    func answered() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        script.socket?.close(code: .policyViolation, reason: "because")
        #expect(try client.frame() == .close(1008, "because"))
        try stage.settle()
        #expect(script.endings.isEmpty, "not before the peer has answered")
        client.send(Client.close(1000, "all right"))
        #expect(try client.end().isEmpty)
        #expect(script.events == ["opened", "closed 1000 all right"])
        #expect(stage.worker.connectionCount == 0)
    }

    @Test("our close, answered by a frame that breaks the protocol: that is what is reported")
    func answeredBadly() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        script.socket?.close()
        #expect(try client.frame() == .close(1000))
        client.send([0x81, 0x00])
        #expect(try client.end().isEmpty)
        try stage.settle()
        #expect(script.endings == ["closed 1002 client frames must be masked, server frames must not"])
    }

    @Test("our close, answered by the end of the connection")
    func answeredByEnd() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        script.socket?.close()
        #expect(try client.frame() == .close(1000))
        client.shutdownWrite()
        try client.end()
        #expect(script.endings == ["closed 1006"])
    }

    @Test(
        "our close, never answered: TCP ends when the time has passed, also for a peer that keeps talking",
        arguments: [false, true])
    func neverAnswered(talks: Bool) throws {
        let script = RecordingHandler()
        let stage = try TestServer(script) { $0.closingTimeout = .milliseconds(200) }
        let client = try stage.webSocket()
        let start = ContinuousClock.now
        script.socket?.close(code: .goingAway)
        #expect(try client.frame() == .close(1001))
        try stage.until("closed") {
            if talks { client.send(.text, "still here") }
            return !script.endings.isEmpty
        }
        let passed = start.duration(to: .now)
        #expect(passed >= .milliseconds(190))
        #expect(passed < .seconds(3))
        #expect(script.events == ["opened", "closed 1006"])
        try client.end()
        #expect(stage.worker.connectionCount == 0)
    }

    @Test("our close while receiving is paused still sees the answer")
    func closeWhilePaused() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        script.socket?.pauseReceiving()
        client.send(.text, "waits")
        try stage.settle()
        script.socket?.close()
        #expect(try client.frame() == .close(1000))
        client.send(Client.close(1000))
        try client.end()
        #expect(script.events == ["opened", "closed 1000"])
    }

    // MARK: Silence

    @Test("a silent peer is pinged, then given up with 1006")
    func silent() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script) {
            $0.pingInterval = .milliseconds(100)
            $0.silenceTimeout = .milliseconds(300)
        }
        let client = try stage.webSocket()
        let start = ContinuousClock.now
        #expect(try client.frame() == .ping())
        #expect(start.duration(to: .now) >= .milliseconds(90))
        try client.end()
        #expect(start.duration(to: .now) >= .milliseconds(290))
        #expect(script.events == ["opened", "closed 1006 no byte came for 0.3 seconds"], "one ping, no close frame")
    }

    @Test("any byte counts as life: the answer to the ping, and part of a frame")
    func life() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script) {
            $0.pingInterval = .milliseconds(50)
            $0.silenceTimeout = .milliseconds(400)
        }
        let client = try stage.webSocket()
        for byte in Client.frame(.pong, "abcdef") {
            #expect(try client.frame() == .ping())
            client.send([byte])
        }
        try stage.until("the pong") { script.count("pong") == 1 }
        #expect(script.endings.isEmpty)
    }

    // MARK: Deadlines of the application's

    @Test("a deadline closes with its code")
    func deadline() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.setDeadline(after: .milliseconds(100), code: .tryAgainLater, reason: "too slow") }
        let stage = try TestServer(script)
        let start = ContinuousClock.now
        let client = try stage.webSocket()
        #expect(try client.frame() == .close(1013, "too slow"))
        #expect(start.duration(to: .now) >= .milliseconds(90))
        client.send(Client.close(1013))
        try client.end()
        #expect(script.endings == ["closed 1013"])
    }

    @Test("a deadline can be moved and lifted")
    func deadlineMoved() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        let socket = try #require(script.socket)
        socket.setDeadline(after: .milliseconds(20))
        socket.setDeadline(after: .milliseconds(120))
        try stage.serve(for: .milliseconds(60))
        #expect(client.isSilent)
        socket.setDeadline(after: nil)
        try stage.serve(for: .milliseconds(120))
        #expect(client.isSilent)
        socket.setDeadline(after: .zero)
        #expect(try client.frame() == .close(1008, "deadline passed"))
    }

    @Test("a deadline of a connection that has ended does nothing")
    func deadlineAfterEnd() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        script.socket?.setDeadline(after: .milliseconds(50))
        client.close()
        try stage.until("closed") { !script.endings.isEmpty }
        script.socket?.setDeadline(after: .milliseconds(10))
        try stage.serve(for: .milliseconds(100))
        #expect(script.endings == ["closed 1006"])
    }
}
