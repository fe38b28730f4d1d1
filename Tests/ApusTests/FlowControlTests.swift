import Apus
import Testing

/// A peer that keeps taking or sending bytes is not cut, its control frames are read, and what it had sent is delivered.
@Suite("Flow control, in both directions and both roles")
struct FlowControlTests {
    private static let large = WebSocketFlowTests.big(6 << 20)
    private static let littleBuffer: Int32 = 64 * 1024

    /// A short deadline: reads that take several times as long must not fail on it.
    private static let deadline = Duration.milliseconds(200)

    private static func shortenSilence(_ limits: inout Limits) {
        limits.pingInterval = deadline / 2
        limits.silenceTimeout = deadline
    }

    /// Takes at most 128 KiB every few milliseconds until `isEnough` holds or the server has ended; gives what came.
    private static func readSlowly(_ client: Client, until isEnough: (Int) -> Bool = { _ in false }) throws -> [UInt8] {
        var bytes: [UInt8] = []
        let end = ContinuousClock.now + TestServer.patience
        while !client.isEnded, !isEnough(bytes.count) {
            guard ContinuousClock.now < end else { throw TimedOut(description: "the end, after \(bytes.count) bytes") }
            bytes += client.takeSome(128 * 1024)
            for _ in 0..<5 { try client.turn() }
        }
        return bytes
    }

    /// What a server sends as one binary message.
    private static func frame(_ payload: [UInt8]) -> [UInt8] { Client.serverFrame(.binary, payload) }

    /// Compares without Swift Testing's own description of the difference, which takes for ever at this size.
    private static func difference(_ got: [UInt8], _ expected: [UInt8]) -> String? {
        guard got != expected else { return nil }
        let place = zip(got, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? min(got.count, expected.count)
        return "\(got.count) bytes, expected \(expected.count); different from \(place): \(got[place...].prefix(20))"
    }

    // MARK: Close behind output (F1)

    @Test("close after send sends everything first, however slowly it is taken")
    func closeAfterSend() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script, limits: { $0.closingTimeout = Self.deadline })
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        script.socket?.send(binary: Self.large)
        script.socket?.close(code: .normal, reason: "done")
        let started = ContinuousClock.now
        let expected = Self.frame(Self.large) + Client.serverFrame(.close, ServerFrame.close(1000, "done").payload)
        let got = try Self.readSlowly(client) { $0 >= expected.count }
        #expect(Self.difference(got, expected) == nil)
        #expect(ContinuousClock.now - started > Self.deadline, "or nothing was tried")
        client.send(Client.close(1000))
        try stage.until("the end") { script.endings == ["closed 1000"] }
    }

    @Test("a peer that takes nothing is cut when it should have answered our close frame")
    func closeUnread() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script, limits: { $0.closingTimeout = Self.deadline })
        _ = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        script.socket?.send(binary: Self.large)
        script.socket?.close()
        try stage.until("the cut") { script.endings == ["closed 1006"] }
    }

    @Test("a draining server sends everything before its close frame")
    func drain() throws {
        let script = RecordingHandler()
        let stage = try TestServer(
            script,
            limits: {
                $0.closingTimeout = Self.deadline
                $0.drainWindow = .zero
            })
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        script.socket?.send(binary: Self.large)
        stage.worker.drain()
        let got = try Self.readSlowly(client) { $0 >= Self.large.count + 14 }
        #expect(Self.difference(Array(got.prefix(Self.large.count + 10)), Self.frame(Self.large)) == nil)
        #expect(got.dropFirst(Self.large.count + 10).first == 0x88)
    }

    // MARK: Control frames while output waits (F2)

    @Test("a ping and a close frame are read while output waits, and answered behind it")
    func controlFrames() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script)
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        script.socket?.send(binary: Self.large)
        client.send(.ping, "alive")
        client.send(Client.close(1000, "bye"))
        try stage.until("the close frame") { script.endings == ["closed 1000 bye"] }
        let got = try Self.readSlowly(client)
        let answers = Client.serverFrame(.pong, Array("alive".utf8)) + Client.serverFrame(.close, ServerFrame.close(1000).payload)
        #expect(Self.difference(got, Self.frame(Self.large) + answers) == nil)
    }

    @Test("messages wait while what they would cause waits; pings before them do not, and nothing is lost or out of order")
    func messagesWait() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, message in if case .text("more") = message { socket.send(binary: Self.large) } }
        let stage = try TestServer(script)
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        client.send(.text, "more")
        client.send(.ping, "p")
        for index in 0..<3 { client.send(.text, "\(index)") }
        try stage.serve(for: .milliseconds(50))
        #expect(script.middle == ["text more"])
        let got = try Self.readSlowly(client) { $0 >= Self.large.count + 10 + 3 }
        #expect(Self.difference(got, Self.frame(Self.large) + Client.serverFrame(.pong, [0x70])) == nil)
        try stage.until("the messages") { script.middle == ["text more", "text 0", "text 1", "text 2"] }
    }

    @Test("messages are read while publications wait for their sender")
    func publicationsWait() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.subscribe(to: "t") }
        let stage = try TestServer(script, limits: { $0.maxBufferedBytes = 64 << 20 })
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        stage.worker.publish(Self.large, as: .binary, to: "t")
        try stage.settle()
        #expect(script.socket?.bufferedBytes ?? 0 > 1 << 20)
        client.send(.text, "upload")
        try stage.until("the message") { script.middle == ["text upload"] }
    }

    @Test("output that is taken is life; a peer that takes and sends nothing is given up")
    func silence() throws {
        let script = RecordingHandler()
        let stage = try TestServer(script, limits: Self.shortenSilence)
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        script.socket?.send(binary: Self.large)
        let started = ContinuousClock.now
        let got = try Self.readSlowly(client) { $0 >= Self.large.count + 10 }
        #expect(Self.difference(Array(got.prefix(Self.large.count + 10)), Self.frame(Self.large)) == nil)
        #expect(ContinuousClock.now - started > Self.deadline * 2, "or nothing was tried")
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.endings[0].hasPrefix("closed 1006 no byte came for"))
    }

    @Test("a peer whose messages wait and that takes no output is given up")
    func silentBehindOutput() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, _ in socket.send(binary: Self.large) }
        let stage = try TestServer(script, limits: Self.shortenSilence)
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        client.send(Client.frame(.text, "a") + Client.frame(.text, "b"))
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.endings[0].hasPrefix("closed 1006 no output was taken for"))
    }

    // MARK: Time in which we do not read (F4)

    @Test("a pause in the middle of a message does not count as the message's")
    func pauseInMessage() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, message in if case .text("pause") = message { socket.pauseReceiving() } }
        let stage = try TestServer(script, limits: { $0.messageProgressTimeout = Self.deadline })
        let client = try stage.webSocket()
        let payload = WebSocketFlowTests.big(100_000)
        let frame = Client.frame(.binary, payload)
        client.send(Client.frame(.binary, [1], isFinal: false))
        try stage.settle()
        client.send(Array(Client.frame(.continuation, [2])))
        client.send(.text, "pause")
        client.send(Array(frame[..<50_000]))
        try stage.until("the pause") { script.middle.contains("text pause") }
        script.socket?.resumeReceiving()
        try stage.settle()
        script.socket?.pauseReceiving()
        try stage.serve(for: Self.deadline * 3)
        #expect(script.endings.isEmpty)
        script.socket?.resumeReceiving()
        client.send(Array(frame[50_000...]))
        try stage.until("the message") { script.middle.last == "binary of 100000" }
    }

    // MARK: The end while we do not read (F5)

    @Test("a paused peer that ends is noticed at once if it had sent nothing more")
    func endWhilePaused() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.pauseReceiving() }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.close()
        try stage.until("the end") { script.endings == ["closed 1006"] }
    }

    @Test("what a paused peer had sent before its end is delivered, in order, and then the end")
    func endBehindMessages() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.pauseReceiving() }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(Client.frame(.text, "a") + Client.frame(.text, "b") + Client.close(1001, "leaving"))
        client.shutdownWrite()
        try stage.serve(for: .milliseconds(50))
        #expect(script.middle.isEmpty && script.endings.isEmpty)
        script.socket?.resumeReceiving()
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.events == ["opened", "text a", "text b", "closed 1001 leaving"])
    }

    @Test("a paused peer that ended is given up after silenceTimeout")
    func endNeverRead() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.pauseReceiving() }
        let stage = try TestServer(script, limits: Self.shortenSilence)
        let client = try stage.webSocket()
        client.send(.text, "unread")
        client.shutdownWrite()
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.endings == ["closed 1006 the peer ended the connection while receiving was paused"])
    }

    @Test("a paused peer is pinged, and not given up")
    func pausedIsPinged() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.pauseReceiving() }
        let stage = try TestServer(
            script,
            limits: {
                $0.pingInterval = Self.deadline / 4
                $0.silenceTimeout = Self.deadline / 2
            })
        let client = try stage.webSocket()
        for _ in 0..<5 { #expect(try client.frame() == .ping()) }
        #expect(script.endings.isEmpty)
    }

    @Test("a peer that another's handler pauses, when bytes of it have just arrived, has not ended")
    func pausedByAnother() throws {
        var sockets: [WebSocket] = []
        var paused: WebSocket?
        let script = RecordingHandler()
        script.whenOpened = { sockets.append($0) }
        script.whenReceived = { socket, message in
            guard case .text("first") = message else { return }
            for other in sockets where other !== socket {
                other.pauseReceiving()
                paused = other
            }
        }
        let stage = try TestServer(script, limits: Self.shortenSilence)
        let clients = try [stage.webSocket(), stage.webSocket()]
        // Both have arrived when the worker looks: whichever is served first pauses the other.
        for client in clients { client.send(.text, "first") }
        try stage.settle()
        #expect(script.middle == ["text first"])
        try stage.serve(for: Self.deadline * 3)
        #expect(paused?.isOpen == true)
        paused?.resumeReceiving()
        try stage.until("the other message") { script.middle == ["text first", "text first"] }
    }

    @Test("what a peer had sent before its reset is delivered, though output waited for it")
    func resetBehindMessages() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, message in if case .text("more") = message { socket.send(binary: Self.large) } }
        let stage = try TestServer(script)
        let client = try stage.webSocket(receiveBufferBytes: Self.littleBuffer)
        client.send(.text, "more")
        try stage.settle()
        client.send(Client.frame(.text, "last") + Client.close(1001, "leaving"))
        try stage.settle()
        #expect(script.middle == ["text more"])
        client.reset()
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.events == ["opened", "text more", "text last", "closed 1001 leaving"])
    }

    // MARK: Clients (F3)

    @Test("a client reads while its own output waits")
    func clientReads() throws {
        let stage = try TestServer(listen: false) { _ in }
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url)
        attempt.script.whenOpened = { $0.send(binary: Self.large) }
        let peer = try server.accept()
        try peer.acceptWebSocket(peer.requestHead())
        // Reads nothing and sends much: both kernels' buffers are full of the client's output by then.
        peer.send((0..<1000).flatMap { _ in Client.serverFrame(.binary, [UInt8](repeating: 7, count: 10_000)) })
        try stage.until("the messages") { attempt.script.count("binary of 10000") == 1000 }
    }

    @Test("a response that comes before the request was taken is the result", arguments: [false, true])
    func earlyResponse(closes: Bool) throws {
        let stage = try TestServer(listen: false) { _ in }
        let server = try RawServer(stage)
        var result: Result<HTTPResponse, ConnectError>?
        stage.worker.request(server.httpURL, method: .post, body: Self.large) { result = $0 }
        let peer = try server.accept()
        _ = try peer.requestHead()
        peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch")
        if closes { peer.close() }
        try stage.until("the response") { result != nil }
        let response = try #require(result).get()
        #expect(response.status.code == 413 && response.body == Array("much".utf8))
    }
}
