import Apus
import Testing

@Suite("Handlers may do anything in any callback")
struct WebSocketCallbackTests {
    enum Callback: CaseIterable { case opened, received, fragment, writable, pong, closed }

    enum Deed: CaseIterable {
        case send, sendMuch, close, terminate, closeAndTerminate, terminateAndClose, closeTwice, sendBehindClose, pause,
            everything
    }

    static func perform(_ deed: Deed, _ socket: WebSocket) {
        switch deed {
        case .send: socket.send(text: "from within")
        case .sendMuch: for _ in 0..<3 { socket.send(binary: [UInt8](repeating: 7, count: 100_000)) }
        case .close: socket.close(code: .goingAway, reason: "enough")
        case .terminate: socket.terminate()
        case .closeAndTerminate:
            socket.close()
            socket.terminate()
        case .terminateAndClose:
            socket.terminate()
            socket.close()
            #expect(socket.send(text: "never") == .closed)
        case .closeTwice:
            socket.close(code: .goingAway)
            socket.close(code: .normal)
        case .sendBehindClose:
            socket.close(code: .goingAway)
            #expect(socket.send(text: "never") == .closed)
            #expect(socket.ping() == .closed)
        case .pause:
            socket.pauseReceiving()
            socket.resumeReceiving()
            socket.pauseReceiving()
        case .everything:
            socket.requestWritable()
            socket.setDeadline(after: .seconds(100))
            socket.ping([1])
            socket.send(text: "a")
            socket.pauseReceiving()
            socket.resumeReceiving()
            socket.sendFragment(binary: [1], isLast: false)
            socket.sendFragment(binary: [2], isLast: true)
            socket.setDeadline(after: nil)
        }
    }

    /// What `closed` must report when a deed was done in a callback before it.
    static func ending(_ deed: Deed) -> String {
        switch deed {
        case .send, .sendMuch, .pause, .everything: "closed 1000"
        case .close: "closed 1001 enough"
        case .closeTwice, .sendBehindClose: "closed 1001"
        case .terminate, .closeAndTerminate, .terminateAndClose: "closed 1006"
        }
    }

    @Test(
        "in every callback, every deed: closed is called exactly once, with the right code", arguments: Callback.allCases,
        Deed.allCases)
    func safety(callback: Callback, deed: Deed) throws {
        let script = RecordingHandler(delivery: callback == .fragment ? .fragments : .messages)
        var isDone = false
        let once = { (socket: WebSocket) in
            guard !isDone else { return }
            isDone = true
            Self.perform(deed, socket)
        }
        switch callback {
        case .opened: script.whenOpened = once
        case .received, .fragment: script.whenReceived = { socket, _ in once(socket) }
        case .writable:
            script.whenOpened = { $0.requestWritable() }
            script.whenWritable = once
        case .pong: script.whenPong = once
        case .closed: script.whenClosed = once
        }
        let stage = try TestServer(script)
        let client = try stage.client()
        client.send(Client.handshake())
        // Whoever terminates in `opened` is faster than the response.
        if callback != .opened || Self.ending(deed) != "closed 1006" { #expect(try client.response().status == 101) }
        client.send(.text, "a")
        client.send(.pong, "b")
        if callback == .closed { client.send(Client.close(1000)) }
        try stage.until("the callback") { isDone }
        if deed == .pause { script.socket?.resumeReceiving() }
        // The peer ends it, or answers the close it gets.
        if callback != .closed {
            let ending = Self.ending(deed)
            if ending == "closed 1006" {
                try client.end()
            } else if ending == "closed 1000" {
                client.send(Client.close(1000))
            } else {
                let frames = try client.framesToClose()
                #expect(frames.count == 1, "a data frame behind or before the close: \(frames)")
                #expect(frames.last?.closeCode == 1001)
                client.send(ServerFrame.answer(frames))
            }
        }
        try stage.until("closed") { !script.endings.isEmpty }
        try client.end()
        try stage.settle()
        #expect(script.endings == [callback == .closed ? "closed 1000" : Self.ending(deed)])
        #expect(script.events.first == "opened")
        #expect(script.events.last?.hasPrefix("closed") == true, "nothing comes behind closed: \(script.events)")
        #expect(stage.worker.connectionCount == 0)
        #expect(script.socket?.descriptor == nil)
        #expect(script.socket?.send(text: "late") == .closed)
    }

    @Test(
        "after terminate nothing more is delivered, although it has been read already",
        arguments: [Delivery.messages, .fragments])
    func nothingBehindTerminate(delivery: Delivery) throws {
        let script = RecordingHandler(delivery: delivery)
        script.whenReceived = { socket, _ in socket.terminate() }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(Client.frame(.text, "a") + Client.frame(.text, "b") + Client.frame(.pong, "c") + Client.close(1000))
        try stage.until("closed") { !script.endings.isEmpty }
        #expect(script.middle.count == 1, "\(script.events)")
        #expect(script.endings == ["closed 1006"])
    }

    @Test("after close nothing more is delivered, and pings are not answered")
    func nothingBehindClose() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, _ in socket.close() }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(
            Client.frame(.text, "a") + Client.frame(.text, "b") + Client.frame(.ping, "c") + Client.frame(.pong, "d")
                + Client.close(1000))
        #expect(try client.frame() == .close(1000))
        #expect(try client.end().isEmpty)
        try stage.settle()
        #expect(script.events == ["opened", "text a", "closed 1000"])
    }

    @Test("a handler may close one socket in the callback of another")
    func another() throws {
        var sockets: [WebSocket] = []
        let script = RecordingHandler()
        script.whenOpened = { sockets.append($0) }
        script.whenReceived = { socket, message in
            for other in sockets where other !== socket {
                other.send(text: "good bye")
                if case .text("close") = message { other.close(code: .goingAway) } else { other.terminate() }
            }
        }
        let stage = try TestServer(script)
        let first = try stage.webSocket()
        let second = try stage.webSocket()
        let third = try stage.webSocket()
        // All have input in the same turn, so the second and third are told while they wait for theirs.
        try stage.settle()
        first.send(.text, "close")
        second.send(.text, "x")
        third.send(.text, "y")
        #expect(try second.frame() == .text("good bye"))
        #expect(try second.frame() == .close(1001))
        second.send(Client.close(1001))
        third.send(Client.close(1001))
        try stage.until("two ends") { script.endings.count >= 2 }
        first.send(Client.close(1000))
        try stage.until("three ends") { script.endings.count == 3 }
        #expect(stage.worker.connectionCount == 0)
    }
}

extension ServerFrame {
    /// The peer's answer to the close frame among `frames`.
    static func answer(_ frames: [ServerFrame]) -> [UInt8] { Client.frame(.close, frames.last?.payload ?? []) }
}
