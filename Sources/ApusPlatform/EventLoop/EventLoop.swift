/// A source of events for an `EventLoop`: a descriptor and a built-in timer (see `TimerNode`).
open class EventSource: TimerNode {
    /// The watched events; nil while the source is not registered.
    fileprivate(set) final var interest: Interest?

    public override init() { super.init() }

    /// The descriptor is ready. Level-triggered: unread data is reported again. May be spurious.
    open func ready(_ readiness: Readiness, in loop: EventLoop) {}
}

/// One thread's poller, timer wheel and job queue.
///
/// Contract: events of a `turn` go to the sources that are registered at that moment. A source that
/// an earlier event of the same turn removed gets none, and is released only after the turn, so
/// that a token never refers to freed memory. Timers run after the events, never early, by the
/// poller's clock. Everything except `waker` and `jobs` belongs to the thread that runs the loop.
@safe public final class EventLoop {
    private let poller: any Poller
    private let events: UnsafeMutableBufferPointer<PollEvent>
    // State that each turn uses is private and accessed as a whole: the compiler can then prove
    // that no accesses overlap, and omits the exclusivity checks (some 80 instructions each).
    private var removed: [EventSource] = []
    private var hasRemoved = false
    private var isTurning = false
    private var wheel: TimerWheel
    /// A lower bound of all deadlines in the wheel, in milliseconds of `MonotonicTime`.
    private var earliest = UInt64.max
    private var time: MonotonicTime
    /// The time at the start of the current turn, or of its timers. Reading it costs no clock call.
    package var now: MonotonicTime {
        @inline(never) get { time }
    }
    /// The time now, which is later than `now` if this turn was long or the process was stopped.
    package var currentTime: MonotonicTime { poller.now() }
    /// Ends the wait; usable from any thread.
    package let waker: Waker
    /// Jobs from any thread.
    package let jobs: JobQueue

    /// Most events per call of the poller.
    private static let batch = 1024
    /// The waker's token.
    private static let noToken: UInt = 0

    /// - Parameter poller: nil for epoll.
    package init(_ poller: (any Poller)? = nil) throws(SystemError) {
        if let poller { self.poller = poller } else { self.poller = try EpollPoller(capacity: Self.batch) }
        time = self.poller.now()
        wheel = TimerWheel(now: time)
        unsafe events = .allocate(capacity: Self.batch)
        waker = try Waker()
        jobs = JobQueue(waker)
        try self.poller.add(waker.descriptor, for: .readable, token: Self.noToken)
    }

    deinit {
        unsafe events.deallocate()
    }

    // MARK: Descriptors

    /// The loop's own descriptors. A child that does not run the loop closes them: a shared epoll
    /// instance would continue to report the parent's descriptors.
    package var descriptors: [Int32] { poller.descriptors + [waker.descriptor] }

    /// Starts watching `descriptor` for `interest`. The loop retains `source` until `remove`.
    package func add(_ source: EventSource, descriptor: Int32, for interest: Interest) throws(SystemError) {
        precondition(source.interest == nil, "expected an unregistered source, got one that is registered")
        try poller.add(descriptor, for: interest, token: Self.token(of: source))
        source.interest = interest
        unsafe _ = Unmanaged.passRetained(source)
    }

    /// Changes the watched events; no system call if they are the same.
    package func update(_ source: EventSource, descriptor: Int32, for interest: Interest) throws(SystemError) {
        guard let old = source.interest, old != interest else { return }
        try poller.update(descriptor, for: interest, token: Self.token(of: source))
        source.interest = interest
    }

    /// Stops watching `source` and cancels its timer. Call it before closing the descriptor: after
    /// a fork another process may hold the same open file description, and epoll drops it only with
    /// the last reference.
    package func remove(_ source: EventSource, descriptor: Int32) {
        wheel.cancel(source)
        guard source.interest != nil else { return }
        source.interest = nil
        poller.remove(descriptor)
        // SAFETY: balances the retain of `add`. Events of this turn may still refer to the source,
        // so it is retained until the turn ends. Between turns no event can, and retaining it could
        // retain the owner of this loop forever.
        let source = unsafe Unmanaged.passUnretained(source).takeRetainedValue()
        guard isTurning else { return }
        removed.append(source)
        hasRemoved = true
    }

    private static func token(of source: EventSource) -> UInt { unsafe UInt(bitPattern: Unmanaged.passUnretained(source).toOpaque()) }

    // MARK: Timers

    /// The deadline `delay` after the start of this turn.
    package func time(after delay: Duration) -> MonotonicTime { time.deadline(after: delay) }

    /// Schedules `node` for `delay` after the start of this turn, rescheduling it if needed.
    package func schedule(_ node: TimerNode, after delay: Duration) { schedule(node, at: time(after: delay)) }

    package func schedule(_ node: TimerNode, at time: MonotonicTime) {
        wheel.schedule(node, at: time)
        earliest = min(earliest, time.milliseconds)
    }

    package func cancel(_ node: TimerNode) { wheel.cancel(node) }

    // MARK: Turning

    /// Waits for events, at most `timeout` (nil: without limit), then serves them and the timers
    /// that are due.
    ///
    /// - Parameter whenAwake: called when the wait ends.
    package func turn(timeout: Duration? = nil, whenAwake: () -> Void = {}) throws(SystemError) {
        let count = try unsafe poller.wait(until: deadline(timeout), into: events)
        isTurning = true
        time = poller.now()
        whenAwake()
        for index in 0..<count {
            let event = unsafe events[index]
            guard let token = unsafe UnsafeRawPointer(bitPattern: event.token) else {
                waker.silence()
                jobs.run()
                continue
            }
            // SAFETY: tokens are sources that `add` retained; `remove` defers the release to the
            // end of the turn.
            unsafe Unmanaged<EventSource>.fromOpaque(token)._withUnsafeGuaranteedRef { source in
                guard source.interest != nil else { return }
                source.ready(event.readiness, in: self)
            }
        }
        if time.milliseconds >= earliest { runTimers() }
        isTurning = false
        if hasRemoved {
            hasRemoved = false
            removed.removeAll(keepingCapacity: removed.count <= Self.batch)
        }
    }

    private func runTimers() {
        while let node = wheel.takeDue(now: now) { node.timerFired(at: now) }
        earliest = wheel.nextWake()?.milliseconds ?? .max
    }

    /// When the wait must end; nil for never.
    private func deadline(_ timeout: Duration?) -> MonotonicTime? {
        var deadline = earliest
        if let timeout { deadline = timeout == .zero ? 0 : min(deadline, (poller.now() + timeout).milliseconds) }
        return deadline == .max ? nil : MonotonicTime(milliseconds: deadline)
    }
}
