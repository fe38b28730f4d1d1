import Testing

@testable import ApusSupervisor

@Suite("Agenda: what the master changes, one thing at a time")
struct AgendaTests {
    private static let free: @Sendable (Int) -> Bool = { _ in false }

    /// A step's outcome; `#expect` itself cannot change what it looks at.
    private func did<Outcome>(_ agenda: inout Agenda, _ step: (inout Agenda) -> Outcome) -> Outcome { step(&agenda) }

    @Test("a reload begins when no slot is blocked, and is complete when every slot is ready")
    func reload() {
        var agenda = Agenda(target: 2)
        agenda.requestReload()
        #expect(did(&agenda) { $0.next(slots: 2) { slot in slot == 1 } } == .none)
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .reload)
        #expect(did(&agenda) { $0.ready(slot: 0) } == false)
        #expect(did(&agenda) { $0.ready(slot: 0) } == false)
        #expect(did(&agenda) { $0.ready(slot: 1) })
        agenda.finished()
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .none)
    }

    @Test("a new worker that was ready and has ended is missing again: the reload is complete when its successor is ready")
    func lost() {
        var agenda = Agenda(target: 2)
        agenda.requestReload()
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .reload)
        #expect(did(&agenda) { $0.ready(slot: 0) } == false)
        agenda.lost(slot: 0)
        #expect(did(&agenda) { $0.ready(slot: 1) } == false)
        #expect(did(&agenda) { $0.ready(slot: 0) })
        agenda.finished()
        agenda.lost(slot: 0)
        #expect(!agenda.isBusy)
    }

    @Test("wishes during a reload are one reload after it")
    func coalesced() {
        var agenda = Agenda(target: 1)
        agenda.requestReload()
        #expect(did(&agenda) { $0.next(slots: 1, isBlocked: Self.free) } == .reload)
        for _ in 0..<5 {
            agenda.requestReload()
            #expect(did(&agenda) { $0.next(slots: 1, isBlocked: Self.free) } == .none)
        }
        agenda.finished()
        #expect(did(&agenda) { $0.next(slots: 1, isBlocked: Self.free) } == .reload)
        agenda.finished()
        #expect(did(&agenda) { $0.next(slots: 1, isBlocked: Self.free) } == .none)
    }

    @Test(
        "TTIN and TTOU change the target within 1 and the maximum",
        arguments: [([1], 3), ([1, 1, 1], 4), ([-1], 1), ([-1, -1, -1], 1), ([1, 1, 1, 1, -1], 3), ([-1, -1, 1], 2)])
    func target(changes: [Int], expected: Int) {
        var agenda = Agenda(target: 2)
        for change in changes { _ = agenda.requestWorkers(change, maximum: 4) }
        #expect(agenda.target == expected)
    }

    @Test("a worker that cannot be added is not wanted any more; one that was added is kept")
    func growing() {
        var agenda = Agenda(target: 1)
        _ = agenda.requestWorkers(1, maximum: 8)
        _ = agenda.requestWorkers(1, maximum: 8)
        #expect(did(&agenda) { $0.next(slots: 1, isBlocked: Self.free) } == .grow)
        #expect(did(&agenda) { $0.ready(slot: 1) })
        agenda.finished()
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .grow)
        #expect(agenda.target == 3)
        agenda.givenUp(slots: 2)
        #expect(agenda.target == 2)
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .none)
    }

    @Test("parked, nothing begins but a reload, which ends it")
    func parked() {
        var agenda = Agenda(target: 2)
        agenda.park()
        agenda.requestUpgrade()
        _ = agenda.requestWorkers(1, maximum: 8)
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .none)
        agenda.requestReload()
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .reload)
        agenda.finished()
        #expect(did(&agenda) { $0.next(slots: 2, isBlocked: Self.free) } == .grow)
        agenda.finished()
        #expect(did(&agenda) { $0.next(slots: 3, isBlocked: Self.free) } == .upgrade)
    }

    @Test("a seeded random walk: one work at a time, and every wish comes to its end", arguments: 0..<200 as Range<UInt64>)
    func randomWalk(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var slots = Int.random(in: 1...4, using: &random)
        var agenda = Agenda(target: slots)
        var blocked: Set<Int> = []

        func step() {
            let before = agenda.work
            let step = agenda.next(slots: slots) { blocked.contains($0) }
            if before != .none { #expect(step == .none, "seed \(seed)") }
            if case .reload = step { #expect(blocked.isDisjoint(with: 0..<slots), "seed \(seed)") }
            if case .grow = step { #expect(!blocked.contains(slots), "seed \(seed)") }
            if case .shrink = step { #expect(slots > 1, "seed \(seed)") }
            #expect((step == .none) == (agenda.work == before), "seed \(seed)")
        }
        func advance() {
            switch agenda.work {
            case .none:
                return
            case .reload(let missing):
                if let slot = missing.randomElement(using: &random) {
                    guard agenda.ready(slot: slot) else { return }
                    blocked = Set(0..<slots)
                }
                agenda.finished()
            case .grow(let slot):
                // It may fail.
                if Bool.random(using: &random) {
                    #expect(did(&agenda) { $0.ready(slot: slot) })
                    slots += 1
                }
                agenda.finished()
            case .shrink(let slot):
                #expect(slot == slots - 1, "seed \(seed)")
                slots -= 1
                blocked.insert(slot)
                agenda.finished()
            case .upgrade:
                agenda.finished()
            }
        }
        for _ in 0..<200 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0: agenda.requestReload()
            case 1: _ = agenda.requestWorkers(1, maximum: 6)
            case 2: _ = agenda.requestWorkers(-1, maximum: 6)
            case 3: agenda.requestUpgrade()
            case 4: if let slot = blocked.randomElement(using: &random) { blocked.remove(slot) }
            default: advance()
            }
            step()
            #expect((1...6).contains(slots) && (1...6).contains(agenda.target), "seed \(seed)")
        }
        // Left alone, it comes to rest with all wishes fulfilled.
        for _ in 0..<100 {
            blocked = []
            step()
            advance()
        }
        #expect(!agenda.isBusy && !agenda.wantsReload && !agenda.wantsUpgrade && slots == agenda.target, "seed \(seed)")
    }
}
