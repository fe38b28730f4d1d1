/// What the master does besides keeping workers alive, one thing at a time: a pure state machine. Wishes (signals) come in at any time and
/// wait; `next` says what to begin, and the supervisor says how it went.
///
/// A reload starts the whole next generation beside the present one and changes over when every new worker is ready, so that a generation
/// that cannot start changes nothing. Each slot has two sides (rows of the scoreboard, mailboxes); new workers take the free one, so a slot
/// whose former worker still drains makes the wish wait.
package struct Agenda: Equatable {
    package enum Work: Equatable {
        case none
        /// The workers of the next generation start; these slots' are not ready yet.
        case reload(missing: Set<Int>)
        /// A worker starts in a new last slot.
        case grow(slot: Int)
        /// New connections are steered away from the last slot, whose worker still takes what has come.
        case shrink(slot: Int)
        /// A new program starts with our listeners.
        case upgrade
    }

    package enum Step: Equatable { case none, reload, grow, shrink, upgrade }

    package private(set) var work = Work.none
    package private(set) var wantsReload = false
    package private(set) var wantsUpgrade = false
    /// How many slots there shall be.
    package private(set) var target: Int
    /// The workers were asked to leave and none to come, until the next reload.
    package private(set) var isParked = false

    package init(target: Int) { self.target = target }

    package var isBusy: Bool { work != .none }

    // MARK: Wishes

    /// Any number of wishes before the reload begins are one.
    package mutating func requestReload() { wantsReload = true }

    package mutating func requestUpgrade() { wantsUpgrade = true }

    /// One worker more or less; there is always one, and never more than `maximum`. Gives the number wanted now.
    package mutating func requestWorkers(_ change: Int, maximum: Int) -> Int {
        target = min(max(target + change, 1), max(maximum, 1))
        return target
    }

    package mutating func setTarget(_ target: Int) { self.target = max(target, 1) }

    package mutating func park() { isParked = true }

    // MARK: Work

    /// What to begin now. `isBlocked` tells of a slot that a former worker has not left yet.
    package mutating func next(slots: Int, isBlocked: (Int) -> Bool) -> Step {
        guard work == .none else { return .none }
        if wantsReload {
            if (0..<slots).contains(where: isBlocked) { return .none }
            wantsReload = false
            isParked = false
            work = .reload(missing: Set(0..<slots))
            return .reload
        }
        if isParked { return .none }
        if slots < target {
            if isBlocked(slots) { return .none }
            work = .grow(slot: slots)
            return .grow
        }
        if slots > target {
            work = .shrink(slot: slots - 1)
            return .shrink
        }
        if wantsUpgrade {
            wantsUpgrade = false
            work = .upgrade
            return .upgrade
        }
        return .none
    }

    /// A new worker is ready. Whether that completes the work.
    package mutating func ready(slot: Int) -> Bool {
        switch work {
        case .reload(var missing):
            missing.remove(slot)
            work = .reload(missing: missing)
            return missing.isEmpty
        case .grow(let growing):
            return growing == slot
        case .none, .shrink, .upgrade:
            return false
        }
    }

    /// A new worker has ended before all were ready: that slot's is missing again.
    package mutating func lost(slot: Int) {
        switch work {
        case .reload(let missing): work = .reload(missing: missing.union([slot]))
        case .none, .grow, .shrink, .upgrade: break
        }
    }

    /// The work is done.
    package mutating func finished() { work = .none }

    /// The work is given up. A worker that could not be added, or taken away, is not tried again by itself.
    package mutating func givenUp(slots: Int) {
        switch work {
        case .grow, .shrink: target = max(slots, 1)
        case .none, .reload, .upgrade: break
        }
        work = .none
    }
}
