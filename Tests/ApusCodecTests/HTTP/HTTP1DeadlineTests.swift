import ApusCodec
import Testing

@Suite("deadlines of HTTP exchanges")
struct HTTP1DeadlineTests {
    /// Ten seconds for a head, 20 for a body's progress, 60 between requests, 30 for an answer.
    static let limits: HTTP1Limits = {
        var limits = HTTP1Limits()
        limits.bodyTimeout = 20_000
        return limits
    }()

    /// A cycle with a clock.
    struct Clocked {
        var cycle: HTTP1Cycle
        var pauses: PauseReasons = []
        var output = OutputState.drained

        init(_ role: Role = .server) { cycle = HTTP1Cycle(role: role, now: .at(0)) }

        /// The deadline in seconds.
        var deadline: Double? {
            cycle.deadline(HTTP1DeadlineTests.limits, waitingBytes: output.waitingBytes, pauses: pauses).map {
                Double($0.milliseconds) / 1000
            }
        }

        @discardableResult
        mutating func receive(_ text: String, at time: Double) -> Bool {
            let bytes = Array(text.utf8)
            var position = 0
            do throws(HTTPViolation) {
                while let event = try cycle.event(bytes.span, from: &position, now: .at(time), limits: HTTP1DeadlineTests.limits) {
                    switch event {
                    case .paused, .over: return true
                    case .request, .response, .informational, .data, .end: break
                    }
                }
            } catch {
                return false
            }
            return true
        }

        mutating func respond(at time: Double) -> HTTP1Next {
            _ = cycle.startResponse(.ok, framing: .counted(0), keepsAlive: true)
            return cycle.endResponse(output, now: .at(time))
        }

        mutating func reached(_ time: Double) -> HTTP1TimeoutAction {
            cycle.deadlineReached(now: .at(time), output: output, pauses: pauses, limits: HTTP1DeadlineTests.limits)
        }
    }

    static let get = HTTP1CycleTests.get
    static let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"

    @Test("the first head has its time from the start, and bytes that trickle do not prolong it")
    func firstHead() {
        var connection = Clocked()
        #expect(connection.deadline == 10)
        connection.receive("GET", at: 9)
        #expect(connection.deadline == 10)
        #expect(connection.reached(9.999) == .none)
        #expect(connection.reached(10) == .answer(.requestTimeout))
        #expect(connection.cycle.permits(.startResponse))
        #expect(connection.respond(at: 10) == .closeAfterOutput)
        var silent = Clocked()
        #expect(silent.reached(10) == .close)
        #expect(silent.deadline == nil)
    }

    @Test("a following head has its time from its first byte; before that the connection is kept alive")
    func followingHead() {
        var connection = Clocked()
        connection.receive(Self.get, at: 1)
        #expect(connection.respond(at: 2) == .nextMessage)
        #expect(connection.deadline == 62)
        connection.receive("\r\n", at: 3)
        #expect(connection.deadline == 62 && connection.cycle.isIdle)
        connection.receive("G", at: 4)
        #expect(connection.deadline == 14)
        connection.receive("E", at: 13)
        #expect(connection.deadline == 14)
        #expect(connection.reached(14) == .answer(.requestTimeout))
        var idle = Clocked()
        idle.receive(Self.get, at: 1)
        _ = idle.respond(at: 2)
        #expect(idle.reached(62) == .close)
    }

    @Test("a body's time is prolonged by enough bytes only")
    func bodyProgress() {
        var connection = Clocked()
        connection.receive(Self.put, at: 1)
        #expect(connection.deadline == 21)
        connection.receive(String(repeating: "x", count: 1023), at: 5)
        #expect(connection.deadline == 21)
        connection.receive("x", at: 6)
        #expect(connection.deadline == 26)
        connection.receive(String(repeating: "x", count: 1023), at: 25)
        #expect(connection.deadline == 26)
        #expect(connection.reached(26) == .answer(.requestTimeout))
        #expect(connection.respond(at: 26) == .closeAfterOutput)
    }

    @Test("the application has its time from the end of the request, and output that is taken does not prolong it")
    func answer() {
        var connection = Clocked()
        connection.output = .waiting(taken: 0)
        connection.receive(HTTP1CycleTests.post, at: 5)
        #expect(connection.deadline == 35)
        connection.output = .waiting(taken: 5000)
        #expect(connection.reached(35) == .answer(.gatewayTimeout))
        // It may still be kept alive.
        #expect(connection.respond(at: 35) == .nextMessage)
    }

    @Test("a response's output has time as long as enough of it is taken, and is kept alive when it has left")
    func outputProgress() {
        var connection = Clocked()
        connection.receive(Self.get, at: 0)
        connection.output = .waiting(taken: 1000)
        #expect(connection.respond(at: 0) == .nextMessage)
        #expect(connection.deadline == 20)
        connection.output = .waiting(taken: 2024)
        #expect(connection.reached(20) == .none)
        #expect(connection.deadline == 40)
        connection.output = .waiting(taken: 3047)
        var stalled = connection
        #expect(stalled.reached(40) == .close)
        connection.output = .drained
        connection.cycle.outputDrained(now: .at(30))
        #expect(connection.deadline == 90)
    }

    @Test("a head that has begun while output waits is prolonged while that is taken, then answered with 408")
    func headBehindOutput() {
        var connection = Clocked()
        connection.receive(Self.get, at: 0)
        connection.output = .waiting(taken: 0)
        _ = connection.respond(at: 0)
        connection.receive("G", at: 5)
        #expect(connection.deadline == 15)
        connection.output = .waiting(taken: 1024)
        #expect(connection.reached(15) == .none)
        #expect(connection.deadline == 35)
        connection.output = .drained
        connection.cycle.outputDrained(now: .at(20))
        #expect(connection.deadline == 35)
        #expect(connection.reached(35) == .answer(.requestTimeout))
    }

    @Test("while a client waits for 100 Continue the time is the application's; then it is the client's")
    func expectation() {
        var connection = Clocked()
        connection.receive(HTTP1CycleTests.expecting, at: 1)
        #expect(connection.cycle.awaitsContinue)
        #expect(connection.deadline == 31)
        var forgotten = connection
        #expect(forgotten.reached(31) == .answer(.gatewayTimeout))
        #expect(forgotten.respond(at: 31) == .closeAfterOutput)
        var impatient = connection
        impatient.receive("o", at: 4)
        #expect(impatient.deadline == 24 && !impatient.cycle.awaitsContinue)
        connection.cycle.sendInformational(.continue, now: .at(3))
        #expect(connection.deadline == 23 && !connection.cycle.awaitsContinue)
    }

    @Test("time in which a body is not read does not count against its sender", arguments: [Role.server, .client])
    func pausedBody(role: Role) {
        var connection = Clocked(role)
        if role == .client { connection.cycle.startRequest(.get, framing: .none, wish: .close, now: .at(0)) }
        connection.receive(role == .server ? Self.put : HTTP1CycleTests.ok, at: 1)
        #expect(connection.deadline == 21)
        connection.pauses = .application
        #expect(connection.deadline == nil)
        #expect(connection.reached(1000) == .none)
        connection.pauses = []
        connection.cycle.resumed(now: .at(100))
        #expect(connection.deadline == 120)
    }

    @Test("a response that is sent in parts is watched only while output waits")
    func streamedResponse() {
        var connection = Clocked()
        connection.receive(Self.get, at: 0)
        _ = connection.cycle.startResponse(.ok, framing: .chunked, keepsAlive: true)
        #expect(connection.deadline == nil)
        connection.cycle.sendContent(.drained, now: .at(50))
        connection.output = .waiting(taken: 0)
        connection.cycle.sendContent(connection.output, now: .at(55))
        #expect(connection.deadline == 70)
        connection.output = .waiting(taken: 1)
        #expect(connection.reached(70) == .none, "the first period counts as progress")
        #expect(connection.deadline == 90)
        var stalled = connection
        #expect(stalled.reached(90) == .close)
        connection.output = .waiting(taken: 1025)
        #expect(connection.reached(90) == .none)
        connection.output = .drained
        connection.cycle.outputDrained(now: .at(95))
        #expect(connection.deadline == nil)
        #expect(connection.cycle.endResponse(.drained, now: .at(100)) == .nextMessage)
        #expect(connection.deadline == 160)
    }

    @Test("the rest of a request that was answered early must make progress")
    func drainedBody() {
        var connection = Clocked()
        connection.receive(Self.put, at: 0)
        #expect(connection.respond(at: 1) == .awaitPeer)
        #expect(connection.deadline == 20)
        connection.receive(String(repeating: "x", count: 2000), at: 15)
        #expect(connection.deadline == 35)
        #expect(connection.reached(35) == .close)
    }

    @Test("a peer that neither sends nor takes is closed while both directions wait for it")
    func bothDirections() {
        var connection = Clocked()
        connection.receive(Self.put, at: 0)
        _ = connection.cycle.startResponse(.ok, framing: .chunked, keepsAlive: true)
        connection.cycle.sendContent(.drained, now: .at(1))
        connection.output = .waiting(taken: 0)
        connection.pauses = .output
        #expect(connection.deadline == 20)
        #expect(connection.reached(20) == .none)
        #expect(connection.reached(40) == .close)
    }

    @Test("a client's answer is due in time, interim ones prolong nothing, and a large request has time while it is taken")
    func clientAnswer() {
        var connection = Clocked(.client)
        #expect(connection.deadline == 60, "a connection that is not used is closed")
        connection.cycle.startRequest(.get, framing: .none, wish: .keepAlive, now: .at(1))
        #expect(connection.deadline == 31)
        connection.receive("HTTP/1.1 100 A\r\n\r\nHTTP", at: 20)
        #expect(connection.deadline == 31)
        connection.output = .waiting(taken: 10)
        #expect(connection.reached(31) == .none, "the first period counts as progress")
        #expect(connection.deadline == 51)
        connection.output = .waiting(taken: 1034)
        #expect(connection.reached(51) == .none)
        var stalled = connection
        #expect(stalled.reached(71) == .giveUp)
        connection.output = .drained
        #expect(connection.reached(71) == .giveUp)
        #expect(connection.deadline == nil)
    }

    @Test("each arrival prolongs a client's body")
    func clientBody() {
        var connection = Clocked(.client)
        connection.cycle.startRequest(.get, framing: .none, wish: .keepAlive, now: .at(0))
        connection.receive(HTTP1CycleTests.ok, at: 5)
        #expect(connection.deadline == 25)
        connection.receive("h", at: 24)
        #expect(connection.deadline == 44)
        var silent = connection
        #expect(silent.reached(44) == .giveUp)
        connection.receive("ello", at: 30)
        #expect(connection.deadline == 90, "it is kept alive")
        #expect(connection.reached(90) == .close)
    }

    @Test("a client that is producing its request cannot be late, unless what it has sent is not taken")
    func clientProducing() {
        var connection = Clocked(.client)
        connection.cycle.startRequest(.put, framing: .chunked, wish: .keepAlive, now: .at(0))
        #expect(connection.deadline == nil)
        connection.cycle.sendContent(.drained, now: .at(100))
        connection.output = .waiting(taken: 0)
        #expect(connection.deadline == 120)
        connection.output = .drained
        #expect(connection.cycle.endRequest(now: .at(130)) == .awaitPeer)
        #expect(connection.deadline == 160)
    }

    @Test("limits that mean never do not overflow")
    func never() {
        var limits = HTTP1Limits()
        limits.headTimeout = .max
        let cycle = HTTP1Cycle(role: .server, now: .at(1))
        #expect(cycle.deadline(limits, waitingBytes: 0, pauses: []) == TimePoint(milliseconds: .max))
    }
}
