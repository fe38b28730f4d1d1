import ApusPlatform
import Testing
import TestSupport

@testable import ApusSupervisor

@Suite("Worker slot: watchdog and orders")
struct WorkerSlotOrderTests {
    @Test("a beating worker is left alone, and looked at when its beat would be too old")
    func beating() {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        bench.lastBeat = bench.now + .seconds(4)
        #expect(bench.wake() == .none)
        #expect(bench.slot.deadline == bench.lastBeat + .seconds(10))
    }

    @Test("a beat in the future counts as one of now: the worker is looked at again")
    func liesOfBeats() {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        bench.lastBeat = MonotonicTime(milliseconds: .max)
        #expect(bench.wake() == .none)
        #expect(bench.slot.deadline == bench.now + .seconds(10))
    }

    @Test("a worker whose beat is 10 s old gets SIGABRT, a second later SIGKILL, and a successor at once")
    func hangs() {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        let ready = bench.now
        #expect(bench.wake() == .signal(Signal.abort, to: bench.nextPid))
        #expect(bench.now.millisecondsSince(ready) == 10_000)
        #expect(bench.wake() == .signal(Signal.kill, to: bench.nextPid))
        #expect(bench.now.millisecondsSince(ready) == 11_000)
        #expect(bench.slot.deadline == nil)
        #expect(bench.die() == .restart(after: .zero))
    }

    @Test("a supervisor that looks late gives the worker its time anew")
    func lateLook() {
        var bench = SlotBench()
        bench.launch()
        #expect(bench.wake(late: 1001) == .none)
        bench.becomeReady()
        #expect(bench.wake(late: 5000) == .none)
        #expect(bench.slot.deadline == bench.now + .seconds(10))
        #expect(bench.wake(late: 1000) == .signal(Signal.abort, to: bench.nextPid))
    }

    @Test("a worker that does not get ready in time is aborted, which is a failure")
    func startTimeout() {
        var bench = SlotBench { $0.startTimeout = .seconds(3) }
        bench.launch()
        #expect(bench.wake() == .signal(Signal.abort, to: bench.nextPid))
        #expect(bench.die(.signaled(Signal.abort)) == .restart(after: .milliseconds(100)))
    }

    @Test("a deadline that has not come does nothing")
    func early() {
        var bench = SlotBench()
        bench.launch()
        let before = bench.slot.state
        #expect(bench.slot.deadlineReached(now: bench.now, lastBeat: bench.now) == .none)
        #expect(bench.slot.state == before)
    }

    @Test("drain, then SIGKILL at the deadline; stop in between makes it faster, drain does not make it slower")
    func escalation() {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        #expect(bench.slot.drain(now: bench.now) == .send(.drain))
        #expect(bench.slot.deadline == bench.now + .seconds(30))
        #expect(bench.slot.stop(now: bench.now) == .send(.stop))
        #expect(bench.slot.deadline == bench.now + .seconds(2))
        bench.pass(1000)
        #expect(bench.slot.drain(now: bench.now) == .none)
        #expect(bench.slot.stop(now: bench.now) == .none)
        #expect(bench.wake() == .signal(Signal.kill, to: bench.nextPid))
        #expect(bench.die() == .end)
        #expect(bench.slot.isOver && !bench.slot.isAbandoned)
    }

    @Test("a worker that hangs while it drains is aborted, and killed a second later; one that is ordered to stop has its deadline")
    func hangsInDrain() {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        _ = bench.slot.drain(.handOver(closing: []), now: bench.now)
        bench.pass(9_999)
        #expect(bench.slot.checkDrain(now: bench.now, lastBeat: bench.lastBeat) == .none)
        bench.pass(1)
        #expect(bench.slot.checkDrain(now: bench.now, lastBeat: bench.lastBeat) == .signal(Signal.abort, to: bench.nextPid))
        #expect(bench.slot.checkDrain(now: bench.now, lastBeat: bench.lastBeat) == .none)
        #expect(bench.slot.isAborted)
        let aborted = bench.now
        #expect(bench.wake() == .signal(Signal.kill, to: bench.nextPid))
        #expect(bench.now.millisecondsSince(aborted) == 1000)
        #expect(bench.die() == .end)
    }

    @Test("a stop just before the drain's deadline does not postpone the kill")
    func stopNeverPostpones() {
        var bench = SlotBench()
        bench.launch()
        _ = bench.slot.drain(now: bench.now)
        let deadline = bench.slot.deadline
        bench.pass(29_900)
        #expect(bench.slot.stop(now: bench.now) == .send(.stop))
        #expect(bench.slot.deadline == deadline)
    }

    @Test("stopped while it backs off: over at once")
    func stopWhileBackingOff() {
        var bench = SlotBench()
        bench.launch()
        _ = bench.die()
        #expect(bench.slot.stop(now: bench.now) == .none)
        #expect(bench.slot.isOver && bench.slot.deadline == nil)
    }

    @Test("stopped while it is being aborted or killed: no successor", arguments: [1, 2])
    func stopWhileHanging(signals: Int) {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        for _ in 0..<signals { _ = bench.wake() }
        #expect(bench.slot.stop(now: bench.now) == .none)
        if signals == 1 { #expect(bench.wake() == .signal(Signal.kill, to: bench.nextPid)) }
        #expect(bench.die() == .end)
    }

    @Test("ready comes twice or too late without effect")
    func lateReady() {
        var bench = SlotBench()
        bench.launch()
        bench.becomeReady()
        let state = bench.slot.state
        bench.pass(10)
        bench.becomeReady()
        #expect(bench.slot.state == state)
        _ = bench.slot.drain(now: bench.now)
        bench.becomeReady()
        #expect(bench.slot.deadline == bench.now + .seconds(30))
    }

    @Test("ready counts once, and never for a worker that is being aborted")
    func readyCounts() {
        var bench = SlotBench()
        bench.launch()
        let (first, again) = (bench.slot.reportedReady(now: bench.now), bench.slot.reportedReady(now: bench.now))
        #expect(first && !again)
        var late = SlotBench()
        late.launch()
        #expect(late.wake() == .signal(Signal.abort, to: late.nextPid))
        let tooLate = late.slot.reportedReady(now: late.now)
        #expect(!tooLate && !late.slot.isReady && !late.slot.hasBeenReady)
    }

    @Test(
        "a seeded random walk: one process per slot, no signal to a reaped pid, always over after stop",
        arguments: 0..<200 as Range<UInt64>)
    func randomWalk(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var slot = WorkerSlot(policy: .init())
        var now = MonotonicTime(milliseconds: 5)
        var living: Int32?
        var lastPid: Int32 = 0

        func carryOut(_ action: WorkerSlot.Action) {
            switch action {
            case .none:
                break
            case .fork:
                #expect(living == nil, "seed \(seed)")
                if Int.random(in: 0..<10, using: &random) == 0 {
                    _ = slot.forkFailed(now: now, random: &random)
                } else {
                    lastPid += 1
                    living = lastPid
                    slot.forked(pid: lastPid, now: now)
                }
            case .signal(_, let pid):
                #expect(pid == living, "seed \(seed)")
            case .send:
                #expect(living != nil, "seed \(seed)")
            }
            #expect(slot.process == living, "seed \(seed)")
        }
        func die() {
            guard living != nil else { return }
            living = nil
            let ends: [ProcessEnd] = [.exited(0), .exited(1), .exited(78), .signaled(9), .signaled(11)]
            // 78 rarely, or every walk would be short.
            let end = ends[Int.random(in: 0..<100, using: &random) == 0 ? 2 : [0, 1, 3, 4].randomElement(using: &random) ?? 0]
            _ = slot.ended(end, now: now, random: &random)
        }

        carryOut(slot.start())
        for _ in 0..<300 {
            now = MonotonicTime(milliseconds: now.milliseconds + UInt64.random(in: 0..<3000, using: &random))
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<40: carryOut(slot.deadlineReached(now: now, lastBeat: now))
            case 40..<55: carryOut(slot.deadlineReached(now: now, lastBeat: MonotonicTime(milliseconds: 0)))
            case 55..<75: slot.reportedReady(now: now)
            case 75..<97: die()
            case 97: carryOut(slot.drain(now: now))
            default: break
            }
            // Time alone must lead on, unless the end of a process is certain or nothing is left to do.
            if slot.deadline == nil, !slot.isOver { #expect(living != nil, "seed \(seed)") }
        }
        carryOut(slot.stop(now: now))
        // A worker that listens to nothing but SIGKILL.
        for _ in 0..<3 where !slot.isOver {
            if let deadline = slot.deadline {
                now = max(now, deadline)
                let action = slot.deadlineReached(now: now, lastBeat: now)
                #expect(living.map { action == .signal(Signal.kill, to: $0) } ?? false, "seed \(seed)")
                carryOut(action)
            }
            die()
        }
        #expect(slot.isOver && living == nil, "seed \(seed)")
    }
}
