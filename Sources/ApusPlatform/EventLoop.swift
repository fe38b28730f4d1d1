import CLinux
import Glibc

/// What a descriptor is ready for.
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Bytes, a connection or the end can be read.
    package static var readable: Readiness { Readiness(rawValue: EPOLLIN.rawValue) }
    /// The kernel takes bytes again.
    package static var writable: Readiness { Readiness(rawValue: EPOLLOUT.rawValue) }
    /// The peer will send no more (`EPOLLRDHUP`).
    package static var peerClosed: Readiness { Readiness(rawValue: EPOLLRDHUP.rawValue) }
    /// Both directions are closed, or an error waits. Always reported.
    package static var hangUp: Readiness { Readiness(rawValue: EPOLLHUP.rawValue | EPOLLERR.rawValue) }
    /// Wake one of the processes that wait on a shared listener, not all.
    package static var exclusive: Readiness { Readiness(rawValue: EPOLLEXCLUSIVE.rawValue) }
}

/// Something an `EventLoop` watches: a descriptor, and one built-in timer (see `TimerNode`).
open class EventSource: TimerNode {
    /// What the loop watches for; nil while the source is not registered.
    fileprivate(set) final var interest: Readiness?

    public override init() { super.init() }

    /// The descriptor is ready. Level-triggered: what is left over is reported again. May be spurious.
    open func ready(_ readiness: Readiness, in loop: EventLoop) {}
}

/// One thread's epoll instance, timer wheel and clock.
///
/// Contract: events of one `turn` go to sources that are registered at that moment; a source removed by an earlier event
/// of the same turn gets nothing and is released only after the turn, so a token can never meet freed memory.
/// Timers run after the events, never early, by the monotonic clock; the wait is rounded up to whole milliseconds.
/// Everything but `waker` belongs to the thread that runs the loop.
@safe public final class EventLoop {
    private let epoll: OwnedDescriptor
    private let events: UnsafeMutableBufferPointer<epoll_event>
    // What each turn looks at is private, and read and written at one stroke: then the compiler sees that no access can overlap another,
    // and checks none of them (some 80 instructions each).
    private var removed: [EventSource] = []
    private var hasRemoved = false
    private var isTurning = false
    private var wheel: TimerWheel
    /// The wheel must not be left alone longer than this, in milliseconds of `MonotonicTime`: no node is due earlier.
    private var earliest = UInt64.max
    private var time: MonotonicTime
    /// The time at the start of the current turn, or of its timers. Reading it costs no clock call.
    package var now: MonotonicTime {
        @inline(never) get { time }
    }
    /// Ends the wait from any thread.
    package let waker: Waker
    /// Called in the turn that `waker` has caused.
    package var onWake: () -> Void = {}

    /// Events taken from the kernel in one call.
    private static let batch = 1024

    package init() throws(SystemError) {
        epoll = OwnedDescriptor(rawValue: try blockingSyscall("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
        time = .now()
        wheel = TimerWheel(now: time)
        unsafe events = .allocate(capacity: Self.batch)
        waker = try Waker()
        try control(EPOLL_CTL_ADD, waker.descriptor, .readable, token: nil)
    }

    deinit {
        unsafe events.deallocate()
    }

    // MARK: Descriptors

    /// The loop's own descriptors. A child that will not turn the loop closes them: a shared epoll instance would
    /// keep reporting the parent's descriptors.
    package var descriptors: [Int32] { [epoll.rawValue, waker.descriptor] }

    /// Starts to watch `descriptor` for `interest`. The loop keeps `source` alive until `remove`.
    package func add(_ source: EventSource, descriptor: Int32, for interest: Readiness) throws(SystemError) {
        precondition(source.interest == nil, "a source watches one descriptor")
        try control(EPOLL_CTL_ADD, descriptor, interest, token: source)
        source.interest = interest
        unsafe _ = Unmanaged.passRetained(source)
    }

    /// Changes what `source` is watched for; no system call when nothing changes.
    package func update(_ source: EventSource, descriptor: Int32, for interest: Readiness) throws(SystemError) {
        guard let old = source.interest, old != interest else { return }
        try control(EPOLL_CTL_MOD, descriptor, interest, token: source)
        source.interest = interest
    }

    /// Stops to watch `source` and cancels its timer. Must come before the descriptor is closed: after a fork another process may
    /// hold the same open file, and epoll forgets it only with the last of them.
    package func remove(_ source: EventSource, descriptor: Int32) {
        wheel.cancel(source)
        guard source.interest != nil else { return }
        source.interest = nil
        _ = epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor, nil)
        // SAFETY: balances the retain of `add`; events of this turn may still name the source, so it lives until the turn ends. Between
        // turns no event can name it, and to keep it would keep whatever owns this loop, if there is no further turn.
        let source = unsafe Unmanaged.passUnretained(source).takeRetainedValue()
        guard isTurning else { return }
        removed.append(source)
        hasRemoved = true
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ interest: Readiness, token: EventSource?) throws(SystemError) {
        var event = unsafe epoll_event()
        unsafe event.events = interest.rawValue
        if let token { unsafe event.data.ptr = Unmanaged.passUnretained(token).toOpaque() } else { unsafe event.data.u64 = 0 }
        let number = epoll.rawValue
        try blockingSyscall("epoll_ctl") { unsafe epoll_ctl(number, operation, descriptor, &event) }
    }

    // MARK: Timers

    /// Arms `node` to fire `delay` from the start of this turn, moving it when it was armed. A millisecond is added, because the clock's
    /// own are rounded down and no timer may be early.
    package func schedule(_ node: TimerNode, after delay: Duration) { schedule(node, at: now + delay + .milliseconds(1)) }

    package func schedule(_ node: TimerNode, at time: MonotonicTime) {
        wheel.schedule(node, at: time)
        earliest = min(earliest, time.milliseconds)
    }

    package func cancel(_ node: TimerNode) { wheel.cancel(node) }

    // MARK: Turning

    /// Waits for events, at most `timeout` (nil: until there is one), then serves them and the timers that are due.
    ///
    /// - Parameter whenAwake: called when the wait is over.
    package func turn(timeout: Duration? = nil, whenAwake: () -> Void = {}) throws(SystemError) {
        let wait = waitMilliseconds(timeout)
        let count: Int32
        do {
            let number = epoll.rawValue
            let result = unsafe epoll_wait(number, events.baseAddress, Int32(Self.batch), wait)
            if result < 0 {
                let code = errno
                guard code == EINTR else { throw SystemError(code: code, call: "epoll_wait") }
                count = 0
            } else {
                count = result
            }
        }
        isTurning = true
        time = .now()
        whenAwake()
        for index in 0..<Int(count) {
            let event = unsafe events[index]
            guard let token = unsafe event.data.ptr else {
                waker.silence()
                onWake()
                continue
            }
            // SAFETY: tokens are sources that `add` retained; `remove` defers the release to the end of the turn.
            unsafe Unmanaged<EventSource>.fromOpaque(token)._withUnsafeGuaranteedRef { source in
                guard source.interest != nil else { return }
                source.ready(Readiness(rawValue: unsafe event.events), in: self)
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

    /// The epoll timeout: -1 for ever, rounded up so that a timer is never early.
    private func waitMilliseconds(_ timeout: Duration?) -> Int32 {
        var wait: UInt64?
        if earliest < .max { wait = MonotonicTime(milliseconds: earliest).millisecondsSince(.now()) }
        if let timeout { wait = min(wait ?? .max, timeout.wholeMilliseconds) }
        guard let wait else { return -1 }
        return Int32(clamping: wait)
    }
}
