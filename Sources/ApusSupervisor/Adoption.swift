import ApusPlatform

/// Decides which slots get no new connections, and which workers accept for them. A pure state
/// machine: the state of all workers and the time in, actions out.
///
/// A slot is *away* when it has had no ready worker for `absenceTimeout`, or when its worker's loop
/// has not beaten for `beatTimeout` because the process is stopped or hangs in a callback. Then new
/// connections go to its siblings, and one of them, the *adopter*, accepts the connections in the
/// slot's queues and those that the kernel has assigned to it already. Both end when the slot's
/// worker beats again. An adopter that dies or stops beating is replaced. Without any beating
/// worker nothing can be done.
struct Adoption {
    struct Policy: Sendable, Equatable {
        /// Usually a successor is ready sooner.
        var absenceTimeout: Duration = .milliseconds(100)
        /// Two beats of 200 ms and a margin.
        var beatTimeout: Duration = .milliseconds(450)
        /// How often a worker that does not beat is checked.
        var recheckInterval: Duration = .milliseconds(100)

        init() {}
    }

    /// The ready worker of a slot.
    struct ReadyWorker: Equatable {
        let pid: Int32
        /// Written by the worker: a time in the future counts as now.
        let lastBeat: MonotonicTime

        init(pid: Int32, lastBeat: MonotonicTime) {
            self.pid = pid
            self.lastBeat = lastBeat
        }
    }

    struct Adopter: Equatable {
        let slot: Int
        let pid: Int32
    }

    enum Action: Equatable {
        /// Steer new connections to all slots but these.
        case steer(except: [Int])
        case adopt(slot: Int, by: Adopter)
        /// The adopter is alive and must be ordered to stop accepting for the slot.
        case release(slot: Int, by: Adopter)
    }

    private let policy: Policy
    /// When a slot that does not serve counts as away.
    private var awayAt: [Int: MonotonicTime] = [:]
    private var adopters: [Int: Adopter] = [:]
    /// Slots that get no new connections, in ascending order.
    private(set) var excludedSlots: [Int] = []
    /// When `check` must be called again if nothing happens before; nil: never.
    private(set) var nextCheck: MonotonicTime?

    init(policy: Policy = Policy()) { self.policy = policy }

    /// - Parameter workers: By slot; nil where no worker is ready.
    mutating func check(_ workers: [ReadyWorker?], now: MonotonicTime) -> [Action] {
        let serves = workers.map { worker in
            worker.map { now < min($0.lastBeat, now) + policy.beatTimeout } ?? false
        }
        for slot in workers.indices {
            if serves[slot] {
                awayAt[slot] = nil
            } else if awayAt[slot] == nil {
                awayAt[slot] = workers[slot] == nil ? now + policy.absenceTimeout : now
            } else if workers[slot] != nil {
                awayAt[slot] = min(awayAt[slot] ?? now, now)
            }
        }
        awayAt = awayAt.filter { $0.key < workers.count }
        var actions: [Action] = []
        let away = workers.indices.filter { slot in awayAt[slot].map { $0 <= now } ?? false }
        let excluded = serves.contains(true) ? away : []
        if excluded != excludedSlots {
            excludedSlots = excluded
            actions.append(.steer(except: excluded))
        }
        for (slot, adopter) in adopters.sorted(by: { $0.key < $1.key }) {
            let isAlive = adopter.slot < workers.count && workers[adopter.slot]?.pid == adopter.pid
            if isAlive, away.contains(slot), serves[adopter.slot] { continue }
            adopters[slot] = nil
            if isAlive { actions.append(.release(slot: slot, by: adopter)) }
        }
        for slot in away where adopters[slot] == nil {
            guard let adopter = chooseAdopter(for: slot, among: workers, serves) else { continue }
            adopters[slot] = adopter
            actions.append(.adopt(slot: slot, by: adopter))
        }
        nextCheck = computeNextCheck(workers, serves, away, now)
        return actions
    }

    /// The adopter did not get the order: the next check chooses another.
    mutating func adoptionFailed(slot: Int, now: MonotonicTime) {
        adopters[slot] = nil
        let again = now + policy.recheckInterval
        nextCheck = nextCheck.map { min($0, again) } ?? again
    }

    /// The worker that accepts for the fewest slots; among several, the next one in the order of
    /// slots.
    private func chooseAdopter(
        for slot: Int, among workers: [ReadyWorker?], _ serves: [Bool]
    ) -> Adopter? {
        let loads = adopters.values.reduce(into: [:]) { $0[$1.slot, default: 0] += 1 }
        let others = (1..<max(workers.count, 1)).map { (slot + $0) % workers.count }
        let chosen = others.filter { serves[$0] }.min { loads[$0, default: 0] < loads[$1, default: 0] }
        guard let chosen, let worker = workers[chosen] else { return nil }
        return Adopter(slot: chosen, pid: worker.pid)
    }

    private func computeNextCheck(
        _ workers: [ReadyWorker?], _ serves: [Bool], _ away: [Int], _ now: MonotonicTime
    ) -> MonotonicTime? {
        // A single worker has no siblings.
        guard workers.count > 1 else { return nil }
        return workers.indices.compactMap { slot -> MonotonicTime? in
            if serves[slot] { return workers[slot].map { min($0.lastBeat, now) + policy.beatTimeout } }
            if !away.contains(slot) { return awayAt[slot] }
            return workers[slot] == nil ? nil : now + policy.recheckInterval
        }.min()
    }
}
