/// The changes that were requested, carried out one at a time: a pure state machine. Requests
/// (signals) come at any time and wait. `next` tells which change to start; the caller reports its
/// progress.
///
/// A reload starts the whole next generation beside the present one, and replaces the present one
/// when every new worker is ready. So a generation that cannot start changes nothing. Each slot has
/// two sides (rows of the scoreboard, mailboxes), and a new worker takes the free one: while the
/// former worker of a slot still drains, a reload waits.
package struct ChangeQueue: Equatable {
    /// The change under way.
    package enum Change: Equatable {
        case none
        /// The workers of the next generation start. Those of the slots in `missing` are not ready
        /// yet.
        case reload(missing: Set<Int>)
        /// A worker starts in a new last slot.
        case grow(slot: Int)
        /// New connections are steered away from the last slot, whose worker still accepts.
        case shrink(slot: Int)
        /// A new program starts with the listeners of this one.
        case upgrade
    }

    /// The change to start.
    package enum Step: Equatable { case none, reload, grow, shrink, upgrade }

    package private(set) var current = Change.none
    package private(set) var wantsReload = false
    package private(set) var wantsUpgrade = false
    /// The requested number of slots.
    package private(set) var target: Int
    /// The workers were drained, and none starts until the next reload.
    package private(set) var isParked = false

    package init(target: Int) { self.target = target }

    package var isBusy: Bool { current != .none }

    // MARK: Requests

    /// Requests a reload. Several requests before it starts are one.
    package mutating func requestReload() { wantsReload = true }

    package mutating func requestUpgrade() { wantsUpgrade = true }

    /// Requests more or fewer workers, within 1 and `maximum`.
    ///
    /// - Returns: The requested number of slots.
    package mutating func requestWorkers(_ change: Int, maximum: Int) -> Int {
        target = min(max(target + change, 1), max(maximum, 1))
        return target
    }

    package mutating func setTarget(_ target: Int) { self.target = max(target, 1) }

    package mutating func park() { isParked = true }

    // MARK: Progress

    /// Takes the next change from the queue.
    ///
    /// - Parameter isBlocked: Whether the former worker of a slot has not ended yet.
    package mutating func next(slots: Int, isBlocked: (Int) -> Bool) -> Step {
        guard current == .none else { return .none }
        if wantsReload {
            if (0..<slots).contains(where: isBlocked) { return .none }
            wantsReload = false
            isParked = false
            current = .reload(missing: Set(0..<slots))
            return .reload
        }
        if isParked { return .none }
        if slots < target {
            if isBlocked(slots) { return .none }
            current = .grow(slot: slots)
            return .grow
        }
        if slots > target {
            current = .shrink(slot: slots - 1)
            return .shrink
        }
        if wantsUpgrade {
            wantsUpgrade = false
            current = .upgrade
            return .upgrade
        }
        return .none
    }

    /// A new worker is ready.
    ///
    /// - Returns: Whether all workers that the change needs are ready now.
    package mutating func workerBecameReady(slot: Int) -> Bool {
        switch current {
        case .reload(var missing):
            missing.remove(slot)
            current = .reload(missing: missing)
            return missing.isEmpty
        case .grow(let growing):
            return growing == slot
        case .none, .shrink, .upgrade:
            return false
        }
    }

    /// A new worker has died before the change was complete: the one of its slot is missing again.
    package mutating func workerDied(slot: Int) {
        switch current {
        case .reload(let missing): current = .reload(missing: missing.union([slot]))
        case .none, .grow, .shrink, .upgrade: break
        }
    }

    /// The change is complete.
    package mutating func complete() { current = .none }

    /// The change is given up. Growth and shrinking are not tried again without a new request.
    package mutating func giveUp(slots: Int) {
        switch current {
        case .grow, .shrink: target = max(slots, 1)
        case .none, .reload, .upgrade: break
        }
        current = .none
    }
}
