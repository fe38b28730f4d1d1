import ApusPlatform
import Testing
import TestSupport

@testable import ApusSupervisor

/// Draws the top of every range, so that delays are the unshortened ones.
struct AlwaysMost: RandomNumberGenerator {
    mutating func next() -> UInt64 { .max }
}

/// A slot with a clock and processes that exist in the test only.
struct SlotBench {
    var slot: WorkerSlot
    var now = MonotonicTime(milliseconds: 1_000_000)
    var lastBeat = MonotonicTime(milliseconds: 0)
    var nextPid: Int32 = 100
    var random = AlwaysMost()

    init(_ adjust: (inout WorkerSlot.Policy) -> Void = { _ in }) {
        var policy = WorkerSlot.Policy()
        adjust(&policy)
        slot = WorkerSlot(policy: policy)
    }

    mutating func pass(_ milliseconds: UInt64) { now = MonotonicTime(milliseconds: now.milliseconds + milliseconds) }

    /// Starts the first process, or lets the clock run until the machine starts the next.
    mutating func launch() {
        if slot.state == .idle {
            #expect(slot.start() == .fork)
        } else {
            #expect(wake() == .fork)
        }
        nextPid += 1
        slot.forked(pid: nextPid, now: now)
    }

    mutating func becomeReady() {
        lastBeat = now
        slot.reportedReady(now: now)
    }

    mutating func die(_ end: ProcessEnd = .signaled(Signal.kill)) -> WorkerSlot.RestartDecision {
        slot.ended(end, now: now, random: &random)
    }

    /// Lets the clock run to the machine's deadline.
    mutating func wake(late milliseconds: UInt64 = 0) -> WorkerSlot.Action {
        guard let deadline = slot.deadline else { return .none }
        now = max(now, MonotonicTime(milliseconds: deadline.milliseconds + milliseconds))
        return slot.deadlineReached(now: now, lastBeat: lastBeat)
    }
}

@Suite("Worker slot: what follows a death")
struct WorkerSlotDeathTests {
    /// A life: ms until ready (nil: never), ms of service after that, how it ended.
    struct Life {
        var readyAfter: UInt64?
        var served: UInt64 = 0
        var end: ProcessEnd = .signaled(11)
        static func ready(_ served: UInt64) -> Life { Life(readyAfter: 10, served: served) }
        static let stillborn = Life(readyAfter: nil, end: .exited(1))
    }

    @Test(
        "lives in a row and the delays after each, in ms",
        arguments: [
            ("a worker that works restarts at once", [.ready(500), .ready(500), .ready(500)], [0, 0, 0]),
            ("however brief it was, at most ten times a second", [.ready(89), .ready(0), .ready(90), .ready(30)], [1, 90, 0, 60]),
            ("never ready: 100 ms doubling", [.stillborn, .stillborn, .stillborn, .stillborn], [100, 200, 400, 800]),
            ("a worker that gets ready clears failures", [.stillborn, .stillborn, .ready(500), .stillborn], [100, 200, 0, 100]),
            (
                "exit 78 is a failure as others once the slot has served",
                [.ready(500), Life(readyAfter: nil, end: .exited(78)), Life(readyAfter: 1, served: 900, end: .exited(78))], [0, 100, 0]
            ),
            ("exit 0 unasked is a death like others", [Life(readyAfter: 1, served: 900, end: .exited(0))], [0]),
            (
                "the delay is capped at 30 s", Array(repeating: .stillborn, count: 12),
                [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]
            ),
        ] as [(String, [Life], [UInt64])])
    func delays(name: String, lives: [Life], expected: [UInt64]) {
        var bench = SlotBench()
        for (life, delay) in zip(lives, expected) {
            bench.launch()
            if let wait = life.readyAfter {
                bench.pass(wait)
                bench.becomeReady()
            }
            bench.pass(life.served)
            #expect(bench.die(life.end) == .restart(after: .milliseconds(delay)), "\(name)")
            #expect(bench.slot.deadline?.millisecondsSince(bench.now) == delay)
        }
    }

    @Test("exit 78 abandons a slot that has never served")
    func doNotRestart() {
        var bench = SlotBench()
        bench.launch()
        bench.pass(1000)
        #expect(bench.die(.exited(78)) == .abandon)
        #expect(bench.slot.isOver && bench.slot.isAbandoned)
        #expect(bench.slot.deadline == nil)
    }

    @Test("exit 78 of a worker that was asked to leave is an end like any other")
    func doNotRestartWhenAsked() {
        var bench = SlotBench()
        bench.launch()
        _ = bench.slot.stop(now: bench.now)
        #expect(bench.die(.exited(78)) == .end)
        #expect(!bench.slot.isAbandoned)
    }

    @Test("a fork that fails counts like a death before ready")
    func forkFails() {
        var bench = SlotBench()
        #expect(bench.slot.start() == .fork)
        #expect(bench.slot.forkFailed(now: bench.now, random: &bench.random) == .restart(after: .milliseconds(100)))
        #expect(bench.wake() == .fork)
        #expect(bench.slot.forkFailed(now: bench.now, random: &bench.random) == .restart(after: .milliseconds(200)))
        #expect(bench.slot.failures == 2)
    }

    @Test("the draw takes off at most half")
    func jitter() {
        var random = SeededGenerator(seed: 7)
        for failures in 0..<40 {
            let full = min(100 << UInt64(max(failures, 1) - 1), 30_000)
            let drawn = Set(
                (0..<200).map { _ in WorkerSlot.backOffMilliseconds(failures: failures, random: &random) })
            #expect(drawn.allSatisfy { $0 >= full / 2 && $0 <= full })
            #expect(drawn.count > 20)
        }
        #expect(WorkerSlot.backOffMilliseconds(failures: .max, random: &random) <= 30_000)
    }
}
