import Apus
import ApusPlatform
import Testing

@Suite("Timers of a worker")
struct TimerTests {
    static let long: [Duration] = [
        .milliseconds(1 << 31), .milliseconds((1 << 31) - 1), .milliseconds(1 << 32), .seconds(1 << 31), .nanoseconds(Int64.max),
        .milliseconds(Int64.max),
        .seconds(Int64.max), Duration(secondsComponent: .max, attosecondsComponent: 999_999_999_999_999_999),
    ]

    @Test(
        "0, and what has passed: in the next turn, once",
        arguments: [.zero, .nanoseconds(-1), .seconds(-5), .seconds(Int64.min)] as [Duration])
    func atOnce(delay: Duration) throws {
        let stage = try TestServer(RecordingHandler())
        var fired = 0
        stage.worker.schedule(after: delay) { fired += 1 }
        try stage.settle()
        #expect(fired == 1)
    }

    @Test("2^31 ms, 2^63 ns, ms and s: not early, and cancelled like others", arguments: long)
    func notEarly(delay: Duration) throws {
        let stage = try TestServer(RecordingHandler())
        var fired = 0
        let timer = stage.worker.schedule(after: delay) { fired += 1 }
        stage.worker.schedule(after: delay) { fired += 1 }
        var soon = false
        stage.worker.schedule(after: .milliseconds(5)) { soon = true }
        try stage.until("the short one") { soon }
        try stage.settle()
        #expect(fired == 0)
        timer.start(after: .zero)
        try stage.until("started again") { fired == 1 }
        timer.start(after: delay)
        timer.cancel()
        try stage.settle()
        #expect(fired == 1)
    }

    @Test("limits of any length: a WebSocket works with them", arguments: long + [.zero])
    func limits(duration: Duration) throws {
        let script = RecordingHandler.echo()
        let stage = try TestServer(script) {
            $0.requestHeadTimeout = max(duration, .seconds(1))
            $0.keepAliveTimeout = duration
            $0.pingInterval = max(duration, .seconds(1))
            $0.silenceTimeout = max(duration, .seconds(1))
            $0.closingTimeout = max(duration, .seconds(1))
            $0.messageProgressTimeout = max(duration, .seconds(1))
        }
        let client = try stage.webSocket()
        script.socket?.setDeadline(after: max(duration, .seconds(1)))
        client.send(Client.frame(.text, "a", isFinal: false))
        try stage.settle()
        client.send(.continuation, "b")
        #expect(try client.frame() == .text("ab"))
        client.send(Client.close(1000))
        #expect(try client.frame() == .close(1000))
        try stage.until("the end") { script.endings == ["closed 1000"] }
    }

    @Test("a deadline of 0 closes in the next turn")
    func deadline() throws {
        let script = RecordingHandler()
        script.whenOpened = { $0.setDeadline(after: .zero, code: .policyViolation, reason: "now") }
        let stage = try TestServer(script)
        #expect(try stage.webSocket().frame() == .close(1008, "now"))
    }
}
