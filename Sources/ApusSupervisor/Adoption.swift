import ApusPlatform

/// Which slots new connections are kept from, and who accepts what waits for them, as a pure state machine: how things are and the time in, what
/// the supervisor is to do out.
///
/// A slot is *away* when it has had no ready worker for `absence`, or when the worker's loop has not beaten for `staleness`: it is stopped, or stuck
/// in a callback. Then new connections go to its siblings, and one of them, its *adopter*, accepts what waits in the slot's queues and what
/// the kernel has promised it already. Both ends when the slot's worker beats again. An adopter that is lost, or does not beat, is followed by
/// another. Where nobody beats, nothing can be done for anybody.
struct Adoption {
    struct Policy: Sendable, Equatable {
        /// A successor is ready sooner, as a rule.
        var absence: Duration = .milliseconds(100)
        /// Two beats and a little.
        var staleness: Duration = .milliseconds(450)
        /// How often a worker that does not beat is looked at again.
        var patience: Duration = .milliseconds(100)

        init() {}
    }

    /// The ready worker of a slot.
    struct Attendance: Equatable {
        let process: Int32
        /// As the worker says: one in the future is one now.
        let lastBeat: MonotonicTime

        init(process: Int32, lastBeat: MonotonicTime) {
            self.process = process
            self.lastBeat = lastBeat
        }
    }

    struct Adopter: Equatable {
        let slot: Int
        let process: Int32
    }

    enum Action: Equatable {
        /// New connections go to all slots but these.
        case steer(except: [Int])
        case adopt(slot: Int, by: Adopter)
        /// The adopter lives, and is to be told that it is none any more.
        case release(slot: Int, by: Adopter)
    }

    private let policy: Policy
    /// When a slot is away, for those that do not serve now.
    private var awayAt: [Int: MonotonicTime] = [:]
    private var adopters: [Int: Adopter] = [:]
    /// Slots that are kept from new connections, in ascending order.
    private(set) var exceptions: [Int] = []
    /// When `look` is to be called again, though nothing happens; nil: not by time.
    private(set) var nextLook: MonotonicTime?

    init(policy: Policy = Policy()) { self.policy = policy }

    /// - Parameter workers: by slot; nil where none is ready.
    mutating func look(_ workers: [Attendance?], now: MonotonicTime) -> [Action] {
        let serves = workers.map { worker in worker.map { now < min($0.lastBeat, now) + policy.staleness } ?? false }
        for slot in workers.indices {
            if serves[slot] {
                awayAt[slot] = nil
            } else if awayAt[slot] == nil {
                awayAt[slot] = workers[slot] == nil ? now + policy.absence : now
            } else if workers[slot] != nil {
                awayAt[slot] = min(awayAt[slot] ?? now, now)
            }
        }
        awayAt = awayAt.filter { $0.key < workers.count }
        var actions: [Action] = []
        let away = workers.indices.filter { slot in awayAt[slot].map { $0 <= now } ?? false }
        let exceptions = serves.contains(true) ? away : []
        if exceptions != self.exceptions {
            self.exceptions = exceptions
            actions.append(.steer(except: exceptions))
        }
        for (slot, adopter) in adopters.sorted(by: { $0.key < $1.key }) {
            let lives = adopter.slot < workers.count && workers[adopter.slot]?.process == adopter.process
            if lives, away.contains(slot), serves[adopter.slot] { continue }
            adopters[slot] = nil
            if lives { actions.append(.release(slot: slot, by: adopter)) }
        }
        for slot in away where adopters[slot] == nil {
            guard let adopter = choose(for: slot, among: workers, serves) else { continue }
            adopters[slot] = adopter
            actions.append(.adopt(slot: slot, by: adopter))
        }
        nextLook = time(of: workers, serves, away, now)
        return actions
    }

    /// The adopter could not be told: another is looked for with the next look.
    mutating func failed(slot: Int, now: MonotonicTime) {
        adopters[slot] = nil
        let again = now + policy.patience
        nextLook = nextLook.map { min($0, again) } ?? again
    }

    /// The slot that accepts for this one.
    func adopter(of slot: Int) -> Int? { adopters[slot]?.slot }

    /// Who accepts for the fewest, the next in turn of them.
    private func choose(for slot: Int, among workers: [Attendance?], _ serves: [Bool]) -> Adopter? {
        let loads = adopters.values.reduce(into: [:]) { $0[$1.slot, default: 0] += 1 }
        let candidates = (1..<max(workers.count, 1)).map { (slot + $0) % workers.count }.filter { serves[$0] }
        guard let chosen = candidates.min(by: { loads[$0, default: 0] < loads[$1, default: 0] }), let worker = workers[chosen]
        else { return nil }
        return Adopter(slot: chosen, process: worker.process)
    }

    private func time(of workers: [Attendance?], _ serves: [Bool], _ away: [Int], _ now: MonotonicTime) -> MonotonicTime? {
        // One that is alone has nobody to give anything to.
        guard workers.count > 1 else { return nil }
        return workers.indices.compactMap { slot -> MonotonicTime? in
            if serves[slot] { return workers[slot].map { min($0.lastBeat, now) + policy.staleness } }
            if !away.contains(slot) { return awayAt[slot] }
            return workers[slot] == nil ? nil : now + policy.patience
        }.min()
    }
}
