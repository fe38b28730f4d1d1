import ApusCodec
import Testing

@Suite("deadlines of a WebSocket")
struct WebSocketDeadlineTests {
    /// Ping after 30 s of silence, give up after 60 s, 5 s for the peer's close frame, 10 s for
    /// 1024 bytes of a message.
    static let limits = WebSocketLimits()

    /// A state with what surrounds it.
    struct Clocked {
        var state = WebSocketStateTests.state()
        var pauses: PauseReasons = []
        var output = OutputState.drained
        var assembledBytes = 0

        /// The deadline in seconds.
        var deadline: Double? { state.deadline.map { Double($0.milliseconds) / 1000 } }

        mutating func reached(_ time: Double) -> WebSocketTimeoutAction {
            let output = output
            return state.deadlineReached(
                now: .at(time), pauses: pauses, output: output, assembledBytes: assembledBytes, limits: WebSocketDeadlineTests.limits)
        }

        mutating func close(at time: Double) {
            let output = output
            _ = state.close(.normal, reason: "", output: output, now: .at(time), limits: WebSocketDeadlineTests.limits)
        }

        /// The header of a frame of 1 MiB and the first `count` bytes of its payload come.
        mutating func receiveMessage(_ count: Int, at time: Double) {
            var bytes = wire(0x82, [UInt8](repeating: 0, count: 1 << 20), key: sampleKey)
            bytes.removeLast((1 << 20) - count)
            var position = 0
            var octets = bytes.mutableSpan
            var memory = octets.mutableBytes
            state.received(lastAt: .at(time))
            _ = try? state.decoder.next(in: &memory, until: 14 + count, from: &position)
            grow(by: count, at: time)
        }

        /// Returns whether the deadline may be earlier.
        @discardableResult
        mutating func grow(by count: Int, at time: Double) -> Bool {
            assembledBytes += count
            return state.watchMessage(assembledBytes: assembledBytes, now: .at(time), limits: WebSocketDeadlineTests.limits)
        }
    }

    @Test("a silent peer is pinged once, then given up")
    func silence() {
        var connection = Clocked()
        #expect(connection.deadline == 30)
        #expect(connection.reached(29) == .none)
        #expect(connection.reached(30) == .sendPing)
        #expect(connection.state.hasPinged)
        #expect(connection.reached(30) == .none)
        #expect(connection.deadline == 60)
        #expect(connection.reached(59) == .none)
        #expect(connection.reached(60) == .giveUp(reason: "no byte came for 60.0 seconds"))
    }

    @Test("any byte is life, and does not move the timer: the next look does")
    func activity() {
        var connection = Clocked()
        connection.state.received(lastAt: .at(20))
        #expect(connection.deadline == 30)
        #expect(connection.reached(30) == .none)
        #expect(connection.deadline == 50)
        #expect(connection.reached(50) == .sendPing)
        #expect(connection.deadline == 80)
        connection.state.received(lastAt: .at(51))
        #expect(!connection.state.hasPinged)
        #expect(connection.reached(80) == .none)
        #expect(connection.deadline == 81)
        #expect(connection.reached(81) == .sendPing)
    }

    @Test("bytes that came before the last ones are no news")
    func lateActivity() {
        var connection = Clocked()
        connection.state.received(lastAt: .at(40))
        connection.state.received(lastAt: .at(20))
        #expect(connection.reached(69) == .none)
        #expect(connection.deadline == 70)
        #expect(connection.reached(70) == .sendPing)
        connection.state.received(lastAt: .at(40))
        #expect(connection.state.hasPinged)
    }

    @Test("output is not looked at while bytes come: that costs a system call")
    func outputIsSpared() {
        func unneeded() -> OutputState {
            Issue.record("expected no look at the output")
            return .drained
        }
        var state = WebSocketStateTests.state()
        state.received(lastAt: .at(20))
        let action = state.deadlineReached(now: .at(30), pauses: [], output: unneeded(), assembledBytes: 0, limits: Self.limits)
        #expect(action == .none)
    }

    @Test("output that is taken is life: at least 1024 bytes since the ping")
    func outputIsLife() {
        for (taken, isAlive) in [(1024, true), (1023, false)] {
            var connection = Clocked()
            connection.output = .waiting(taken: 0)
            #expect(connection.reached(30) == .sendPing)
            connection.output = .waiting(taken: taken)
            #expect(connection.reached(60) == (isAlive ? .none : .giveUp(reason: "no byte came for 60.0 seconds")))
            guard isAlive else { continue }
            #expect(connection.deadline == 90)
            // Nothing has come since the first ping: the answer to it stands behind the output.
            #expect(connection.reached(90) == .none)
            #expect(connection.deadline == 120)
        }
    }

    @Test("a peer that is not read because it takes no output is given up for that")
    func noOutputTaken() {
        var connection = Clocked()
        connection.pauses = .output
        connection.output = .waiting(taken: 7)
        #expect(connection.reached(30) == .sendPing)
        #expect(connection.reached(60) == .giveUp(reason: "no output was taken for 60.0 seconds"))
    }

    @Test("while the handler does not read, silence proves nothing; a ping goes out unless output waits")
    func pausedByApplication() {
        var connection = Clocked()
        connection.pauses = .application
        #expect(connection.reached(30) == .sendPing)
        #expect(connection.deadline == 60)
        connection.output = .waiting(taken: 0)
        #expect(connection.reached(60) == .none)
        #expect(connection.reached(1000) == .none)
        connection.pauses = []
        connection.state.resumed(assembledBytes: 0, now: .at(1010), limits: Self.limits)
        #expect(connection.deadline == 1030)
        #expect(connection.reached(1030) == .none)
        #expect(connection.deadline == 1040)
    }

    @Test("a peer that ended while reading was paused is given up after the silence")
    func endedWhilePaused() {
        var connection = Clocked()
        connection.pauses = .application
        connection.state.peerEndedWhilePaused(now: .at(10), limits: Self.limits)
        #expect(connection.state.hasPeerEnded)
        #expect(connection.deadline == 70)
        #expect(connection.reached(69) == .none)
        #expect(connection.reached(70) == .giveUp(reason: "the peer ended the connection while receiving was paused"))
        var resumed = Clocked()
        resumed.pauses = .application
        resumed.state.peerEndedWhilePaused(now: .at(10), limits: Self.limits)
        resumed.state.resumed(assembledBytes: 0, now: .at(60), limits: Self.limits)
        #expect(resumed.reached(70) == .none)
        #expect(resumed.deadline == 120)
    }

    @Test("a message that has begun must grow")
    func progress() {
        var connection = Clocked()
        connection.receiveMessage(100, at: 1)
        #expect(connection.state.isWatchingMessage && connection.deadline == 11)
        #expect(connection.grow(by: 1024, at: 5) == false, "a period has begun already")
        #expect(connection.deadline == 11)
        #expect(connection.reached(11) == .none)
        #expect(connection.deadline == 21)
        connection.grow(by: 1023, at: 12)
        #expect(connection.reached(20) == .none)
        #expect(connection.reached(21) == .close(.policyViolation, reason: "the message makes no progress"))
        connection.close(at: 21)
        #expect(connection.deadline == 26)
        connection.grow(by: 0, at: 22)
        #expect(!connection.state.isWatchingMessage)
    }

    @Test("time in which a message is not read does not count")
    func progressWhilePaused() {
        var connection = Clocked()
        connection.receiveMessage(0, at: 0)
        connection.pauses = .output
        #expect(connection.reached(10) == .none)
        #expect(connection.deadline == 20)
        connection.pauses = []
        connection.state.resumed(assembledBytes: 0, now: .at(15), limits: Self.limits)
        #expect(connection.deadline == 25)
        connection.pauses = .application
        #expect(connection.reached(25) == .none, "a ping is sent when silence is looked at, not with each period of a message")
        #expect(connection.deadline == 30)
    }

    @Test("the closing deadline begins when the close frame has left, and is prolonged by output that is taken")
    func closing() {
        var connection = Clocked()
        connection.output = .waiting(taken: 100)
        connection.close(at: 1)
        #expect(connection.deadline == 6)
        connection.output = .waiting(taken: 1124)
        #expect(connection.reached(6) == .none)
        #expect(connection.deadline == 11)
        var stalled = connection
        stalled.output = .waiting(taken: 2147)
        #expect(stalled.reached(11) == .giveUp(reason: ""))
        _ = connection.state.outputDrained(now: .at(8), limits: Self.limits)
        #expect(connection.deadline == 13)
        connection.close(at: 9)
        #expect(connection.deadline == 13, "closing again changes nothing")
        connection.state.didEnd()
        #expect(connection.deadline == nil && connection.reached(13) == .none)
    }

    @Test("an application's deadline closes once, unless it is changed in time")
    func applicationDeadline() {
        var connection = Clocked()
        connection.state.setDeadline(nil, .abnormal)
        connection.state.setDeadline(.at(5), WebSocketEnding(.goingAway, "too late"))
        #expect(connection.deadline == 5)
        connection.state.setDeadline(.at(7), WebSocketEnding(.policyViolation, "deadline passed"))
        #expect(connection.deadline == 7)
        #expect(connection.reached(5) == .none)
        var kept = connection
        kept.state.setDeadline(nil, .abnormal)
        #expect(kept.deadline == 30)
        #expect(connection.reached(7) == .close(.policyViolation, reason: "deadline passed"))
        #expect(connection.deadline == 30)
        connection.state.setDeadline(.at(8), .abnormal)
        connection.close(at: 7)
        #expect(connection.deadline == 12, "only the closing handshake is due")
    }

    @Test("all that is due is given one by one")
    func several() {
        var connection = Clocked()
        connection.receiveMessage(0, at: 0)
        connection.state.setDeadline(.at(25), WebSocketEnding(.goingAway))
        #expect(connection.reached(40) == .sendPing)
        #expect(connection.reached(40) == .close(.goingAway, reason: ""))
        #expect(connection.reached(40) == .close(.policyViolation, reason: "the message makes no progress"))
    }
}
