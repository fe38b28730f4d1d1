import ApusPlatform
import Testing

@testable import Apus

@Suite("A drain")
struct DrainTests {
    /// Without jitter: the middle of the range.
    private struct Middle: RandomNumberGenerator {
        mutating func next() -> UInt64 { .max / 2 }
    }

    private enum Event {
        case drain(within: Duration?), stop, connectionsEnded, time
    }

    private struct Step {
        let milliseconds: UInt64
        let event: Event
        var actions: [Drain.Action] = []
        var deadline: UInt64?
    }

    private static func limits() -> Limits {
        var limits = Limits()
        limits.drainWindow = .milliseconds(100)
        limits.drainTimeout = .milliseconds(400)
        return limits
    }

    private static let tables: [(name: String, steps: [Step], isFinished: Bool)] = [
        (
            "shares, then idle connections, then the rest",
            [
                Step(milliseconds: 1000, event: .drain(within: nil), deadline: 1000),
                Step(milliseconds: 1000, event: .time, actions: [.closeShare], deadline: 1051),
                Step(milliseconds: 1050, event: .time, deadline: 1051),
                Step(milliseconds: 1051, event: .time, actions: [.closeShare], deadline: 1100),
                Step(milliseconds: 1102, event: .time, actions: [.closeShare, .closeIdle], deadline: 1153),
                Step(milliseconds: 1401, event: .time, actions: [.cut]),
            ], true
        ),
        (
            "less patience",
            [
                Step(milliseconds: 0, event: .drain(within: .milliseconds(80)), deadline: 0),
                Step(milliseconds: 40, event: .time, actions: [.closeShare, .closeIdle], deadline: 81),
                Step(milliseconds: 81, event: .time, actions: [.cut]),
            ], true
        ),
        (
            "all ended early",
            [
                Step(milliseconds: 0, event: .connectionsEnded), Step(milliseconds: 0, event: .drain(within: nil), deadline: 0),
                Step(milliseconds: 5, event: .connectionsEnded), Step(milliseconds: 500, event: .time),
            ], true
        ),
        (
            "a fast shutdown in a graceful one",
            [
                Step(milliseconds: 0, event: .drain(within: nil), deadline: 0), Step(milliseconds: 10, event: .stop, deadline: 1011),
                Step(milliseconds: 400, event: .time, deadline: 1011), Step(milliseconds: 1011, event: .time, actions: [.cut]),
            ], true
        ),
        ("none", [Step(milliseconds: 0, event: .connectionsEnded), Step(milliseconds: 9_000_000, event: .time)], false),
    ]

    @Test("asks for what is due, once", arguments: tables.indices)
    func table(index: Int) {
        let table = Self.tables[index]
        var drain = Drain(limits: Self.limits())
        var random = Middle()
        for step in table.steps {
            let now = MonotonicTime(milliseconds: step.milliseconds)
            switch step.event {
            case .drain(let patience):
                let begins = drain.drain(at: now, within: patience)
                #expect(begins)
            case .stop:
                let begins = (drain.stop(at: now), drain.stop(at: now))
                #expect(begins == (true, false) && drain.isStopping)
            case .connectionsEnded: drain.connectionsEnded()
            case .time: break
            }
            var actions: [Drain.Action] = []
            if case .time = step.event {
                while case let action = drain.deadlineReached(at: now, using: &random), action != .none { actions.append(action) }
            }
            #expect(actions == step.actions, "\(table.name) at \(step.milliseconds)")
            #expect(drain.deadline?.milliseconds == step.deadline, "\(table.name) at \(step.milliseconds)")
        }
        #expect(drain.isFinished == table.isFinished && drain.isRunning != table.isFinished, "\(table.name)")
        let now = MonotonicTime(milliseconds: 10_000_000)
        let begins = drain.drain(at: now, within: nil)
        #expect(begins != table.isFinished)
    }

    @Test(
        "closes all WebSockets within its window, and no more than its rate",
        arguments: [(1_000_000, 30, [10, 10, 10]), (40, 30, [2, 2, 2])])
    func shares(rate: Int, open: Int, closed: [Int]) {
        var limits = Self.limits()
        limits.drainRate = rate
        var drain = Drain(limits: limits)
        let start = MonotonicTime(milliseconds: 0)
        _ = drain.drain(at: start, within: nil)
        var left = open
        let shares = closed.indices.map { index in
            let share = drain.share(of: left, at: start + .milliseconds(50 * index))
            left -= share
            return share
        }
        #expect(shares == closed)
        _ = drain.stop(at: start)
        #expect(drain.share(of: left, at: start) == left)
    }
}
