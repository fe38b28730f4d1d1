/// An element of a `TimerWheel`. The wheel retains it from `schedule` to `cancel` or firing.
///
/// The links are part of the node, so scheduling a timer allocates nothing. The class is open, and
/// types in its signatures public, only because Swift has no `package open`: the module is not a
/// product, so library users cannot access it.
@safe open class TimerNode {
    /// The deadline in milliseconds of `MonotonicTime`; valid while scheduled.
    package fileprivate(set) final var deadline: UInt64 = 0
    fileprivate final var next: Unmanaged<TimerNode>?
    fileprivate final var previous: Unmanaged<TimerNode>?
    fileprivate final var slot: UInt16 = TimerWheel.unscheduled

    public init() {}

    /// Whether the node is in a wheel.
    package final var isScheduled: Bool { slot != TimerWheel.unscheduled }

    /// Called when the deadline has passed. The node is not scheduled, and may be scheduled again.
    open func timerFired(at now: MonotonicTime) {}
}

/// A hierarchical timer wheel: six levels of 64 slots, 1 ms per slot at the lowest. Scheduling and
/// cancelling are O(1); a node moves down at most five times before it fires. Deadlines beyond 2^35
/// ms (1.1 years) stay in the top level until they are in range.
@safe package struct TimerWheel: ~Copyable {
    fileprivate static let unscheduled = UInt16.max
    private static let levels = 6
    private static let slotBits: UInt64 = 6
    private static let due = UInt16(levels * 64)
    /// Range of the wheel, in ms: half a rotation of the top level, so that its slots stay ordered.
    private static let span: UInt64 = 1 << 35

    private var heads: [Unmanaged<TimerNode>?]
    private var occupied: [UInt64]
    private var elapsed: UInt64
    /// Number of scheduled nodes.
    package private(set) var count = 0

    package init(now: MonotonicTime) {
        unsafe heads = Array(repeating: nil, count: Self.levels * 64 + 1)
        occupied = Array(repeating: 0, count: Self.levels)
        elapsed = now.milliseconds
    }

    deinit {
        for index in unsafe heads.indices {
            var link = unsafe heads[index]
            while let current = unsafe link {
                // SAFETY: `schedule` retained every linked node; this is the matching release.
                let node = unsafe current.takeRetainedValue()
                unsafe link = node.next
                unsafe node.next = nil
                unsafe node.previous = nil
                node.slot = Self.unscheduled
            }
        }
    }

    /// Schedules `node` for `time`, rescheduling it if needed.
    package mutating func schedule(_ node: TimerNode, at time: MonotonicTime) {
        if node.isScheduled { unlink(node) } else { unsafe _ = Unmanaged.passRetained(node) }
        node.deadline = time.milliseconds
        insert(node)
    }

    /// Cancels `node`; no effect if it is not scheduled.
    package mutating func cancel(_ node: TimerNode) {
        guard node.isScheduled else { return }
        unlink(node)
        // SAFETY: balances the retain of `schedule`; the caller's reference keeps the node alive
        // here.
        unsafe Unmanaged.passUnretained(node).release()
    }

    /// When `takeDue` must be called next: at the earliest deadline, or earlier to move far nodes.
    /// Never late.
    package func nextWake() -> MonotonicTime? {
        if unsafe heads[Int(Self.due)] != nil { return MonotonicTime(milliseconds: elapsed) }
        return nextExpiration().map { MonotonicTime(milliseconds: $0.time) }
    }

    /// Removes one node whose deadline is at or before `now`; nil if there is none. Call it until
    /// it returns nil; nodes may be scheduled or cancelled between calls.
    package mutating func takeDue(now: MonotonicTime) -> TimerNode? {
        while true {
            if let head = unsafe heads[Int(Self.due)] {
                // SAFETY: the wheel retains linked nodes; the reference passes to the caller.
                let node = unsafe head.takeUnretainedValue()
                unlink(node)
                unsafe head.release()
                return node
            }
            guard let expiration = nextExpiration(), expiration.time <= now.milliseconds else {
                elapsed = max(elapsed, now.milliseconds)
                return nil
            }
            elapsed = expiration.time
            cascade(level: expiration.level, slot: expiration.slot)
        }
    }

    /// Moves a slot's nodes to lower levels when `elapsed` has reached the slot.
    private mutating func cascade(level: Int, slot: Int) {
        let index = level * 64 + slot
        while let head = unsafe heads[index] {
            // SAFETY: the wheel retains linked nodes, also while they move.
            let node = unsafe head.takeUnretainedValue()
            unlink(node)
            insert(node)
        }
    }

    private func nextExpiration() -> (level: Int, slot: Int, time: UInt64)? {
        for level in 0..<Self.levels where occupied[level] != 0 {
            let shift = UInt64(level) * Self.slotBits
            let current = (elapsed >> shift) & 63
            let rotated = occupied[level].rotatedRight(by: current)
            let slot = (current + UInt64(rotated.trailingZeroBitCount)) & 63
            let range: UInt64 = 1 << (shift + Self.slotBits)
            var time = (elapsed & ~(range - 1)) + (slot << shift)
            // Only the top level wraps around: lower levels have no nodes in past slots.
            if time <= elapsed, level == Self.levels - 1 { time += range }
            return (level, Int(slot), max(time, elapsed))
        }
        return nil
    }

    private mutating func insert(_ node: TimerNode) {
        guard node.deadline > elapsed else { return link(node, at: Self.due) }
        let target = min(node.deadline, elapsed + Self.span)
        let distance = elapsed ^ target
        let level = min((63 - distance.leadingZeroBitCount) / Int(Self.slotBits), Self.levels - 1)
        let slot = Int((target >> (UInt64(level) * Self.slotBits)) & 63)
        link(node, at: UInt16(level * 64 + slot))
        occupied[level] |= 1 << UInt64(slot)
    }

    private mutating func link(_ node: TimerNode, at index: UInt16) {
        let head = unsafe heads[Int(index)]
        unsafe node.next = head
        unsafe node.previous = nil
        node.slot = index
        // SAFETY: links are unretained; the single retain of `schedule` keeps the node alive while
        // linked.
        unsafe head?._withUnsafeGuaranteedRef { unsafe $0.previous = Unmanaged.passUnretained(node) }
        unsafe heads[Int(index)] = Unmanaged.passUnretained(node)
        count += 1
    }

    private mutating func unlink(_ node: TimerNode) {
        let index = Int(node.slot)
        // SAFETY: neighbours of a linked node are linked, hence alive.
        if let previous = unsafe node.previous {
            unsafe previous._withUnsafeGuaranteedRef { unsafe $0.next = node.next }
        } else {
            unsafe heads[index] = node.next
            if unsafe node.next == nil, index < Int(Self.due) { occupied[index / 64] &= ~(1 << UInt64(index % 64)) }
        }
        unsafe node.next?._withUnsafeGuaranteedRef { unsafe $0.previous = node.previous }
        unsafe node.next = nil
        unsafe node.previous = nil
        node.slot = Self.unscheduled
        count -= 1
    }
}

extension UInt64 {
    fileprivate func rotatedRight(by amount: UInt64) -> UInt64 {
        amount == 0 ? self : (self >> amount) | (self << (64 - amount))
    }
}
