import TestSupport
import Testing

@testable import ApusSupervisor

@Suite("ChangeQueue: what the master queue, one thing at a time")
struct ChangeQueueTests {
    private static let free: @Sendable (Int) -> Bool = { _ in false }

    /// A step's outcome; `#expect` itself cannot change what it looks at.
    private func did<Outcome>(_ queue: inout ChangeQueue, _ step: (inout ChangeQueue) -> Outcome) -> Outcome { step(&queue) }

    @Test("a reload begins when no slot is blocked, and is complete when every slot is ready")
    func reload() {
        var queue = ChangeQueue(target: 2)
        queue.requestReload()
        #expect(did(&queue) { $0.next(slots: 2) { slot in slot == 1 } } == .none)
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .reload)
        #expect(did(&queue) { $0.workerBecameReady(slot: 0) } == false)
        #expect(did(&queue) { $0.workerBecameReady(slot: 0) } == false)
        #expect(did(&queue) { $0.workerBecameReady(slot: 1) })
        queue.complete()
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .none)
    }

    @Test("a new worker that was ready and has ended is missing again: the reload is complete when its successor is ready")
    func lost() {
        var queue = ChangeQueue(target: 2)
        queue.requestReload()
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .reload)
        #expect(did(&queue) { $0.workerBecameReady(slot: 0) } == false)
        queue.workerDied(slot: 0)
        #expect(did(&queue) { $0.workerBecameReady(slot: 1) } == false)
        #expect(did(&queue) { $0.workerBecameReady(slot: 0) })
        queue.complete()
        queue.workerDied(slot: 0)
        #expect(!queue.isBusy)
    }

    @Test("wishes during a reload are one reload after it")
    func coalesced() {
        var queue = ChangeQueue(target: 1)
        queue.requestReload()
        #expect(did(&queue) { $0.next(slots: 1, isBlocked: Self.free) } == .reload)
        for _ in 0..<5 {
            queue.requestReload()
            #expect(did(&queue) { $0.next(slots: 1, isBlocked: Self.free) } == .none)
        }
        queue.complete()
        #expect(did(&queue) { $0.next(slots: 1, isBlocked: Self.free) } == .reload)
        queue.complete()
        #expect(did(&queue) { $0.next(slots: 1, isBlocked: Self.free) } == .none)
    }

    @Test(
        "TTIN and TTOU change the target within 1 and the maximum",
        arguments: [([1], 3), ([1, 1, 1], 4), ([-1], 1), ([-1, -1, -1], 1), ([1, 1, 1, 1, -1], 3), ([-1, -1, 1], 2)])
    func target(requests: [Int], expected: Int) {
        var queue = ChangeQueue(target: 2)
        for change in requests { _ = queue.requestWorkers(change, maximum: 4) }
        #expect(queue.target == expected)
    }

    @Test("a worker that cannot be added is not wanted any more; one that was added is kept")
    func growing() {
        var queue = ChangeQueue(target: 1)
        _ = queue.requestWorkers(1, maximum: 8)
        _ = queue.requestWorkers(1, maximum: 8)
        #expect(did(&queue) { $0.next(slots: 1, isBlocked: Self.free) } == .grow)
        #expect(did(&queue) { $0.workerBecameReady(slot: 1) })
        queue.complete()
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .grow)
        #expect(queue.target == 3)
        queue.giveUp(slots: 2)
        #expect(queue.target == 2)
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .none)
    }

    @Test("parked, nothing begins but a reload, which ends it")
    func parked() {
        var queue = ChangeQueue(target: 2)
        queue.park()
        queue.requestUpgrade()
        _ = queue.requestWorkers(1, maximum: 8)
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .none)
        queue.requestReload()
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .reload)
        queue.complete()
        #expect(did(&queue) { $0.next(slots: 2, isBlocked: Self.free) } == .grow)
        queue.complete()
        #expect(did(&queue) { $0.next(slots: 3, isBlocked: Self.free) } == .upgrade)
    }

    @Test("a seeded random walk: one work at a time, and every wish comes to its end", arguments: 0..<200 as Range<UInt64>)
    func randomWalk(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var slots = Int.random(in: 1...4, using: &random)
        var queue = ChangeQueue(target: slots)
        var blocked: Set<Int> = []

        func step() {
            let before = queue.current
            let step = queue.next(slots: slots) { blocked.contains($0) }
            if before != .none { #expect(step == .none, "seed \(seed)") }
            if case .reload = step { #expect(blocked.isDisjoint(with: 0..<slots), "seed \(seed)") }
            if case .grow = step { #expect(!blocked.contains(slots), "seed \(seed)") }
            if case .shrink = step { #expect(slots > 1, "seed \(seed)") }
            #expect((step == .none) == (queue.current == before), "seed \(seed)")
        }
        func advance() {
            switch queue.current {
            case .none:
                return
            case .reload(let missing):
                if let slot = missing.randomElement(using: &random) {
                    guard queue.workerBecameReady(slot: slot) else { return }
                    blocked = Set(0..<slots)
                }
                queue.complete()
            case .grow(let slot):
                // It may fail.
                if Bool.random(using: &random) {
                    #expect(did(&queue) { $0.workerBecameReady(slot: slot) })
                    slots += 1
                }
                queue.complete()
            case .shrink(let slot):
                #expect(slot == slots - 1, "seed \(seed)")
                slots -= 1
                blocked.insert(slot)
                queue.complete()
            case .upgrade:
                queue.complete()
            }
        }
        for _ in 0..<200 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0: queue.requestReload()
            case 1: _ = queue.requestWorkers(1, maximum: 6)
            case 2: _ = queue.requestWorkers(-1, maximum: 6)
            case 3: queue.requestUpgrade()
            case 4: if let slot = blocked.randomElement(using: &random) { blocked.remove(slot) }
            default: advance()
            }
            step()
            #expect((1...6).contains(slots) && (1...6).contains(queue.target), "seed \(seed)")
        }
        // Left alone, it comes to rest with all wishes fulfilled.
        for _ in 0..<100 {
            blocked = []
            step()
            advance()
        }
        #expect(!queue.isBusy && !queue.wantsReload && !queue.wantsUpgrade && slots == queue.target, "seed \(seed)")
    }
}
