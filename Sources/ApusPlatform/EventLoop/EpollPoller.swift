import CLinux
import Glibc

/// A poller based on `epoll(7)`.
@safe package final class EpollPoller: Poller {
    private let epoll: OwnedDescriptor
    private let ready: UnsafeMutableBufferPointer<epoll_event>
    /// The last result of `now`.
    private var latest = MonotonicTime.distantPast
    /// From this distance, in milliseconds, a deadline needs no exact clock reading: the wait ends
    /// halfway, and the next one is exact.
    private static let farAway: UInt64 = 2000

    /// - Parameter capacity: most events per system call.
    package init(capacity: Int) throws(SystemError) {
        epoll = OwnedDescriptor(rawValue: try blockingSyscall("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
        unsafe ready = .allocate(capacity: capacity)
    }

    deinit {
        unsafe ready.deallocate()
    }

    package var descriptors: [Int32] { [epoll.rawValue] }

    package func now() -> MonotonicTime {
        let now = MonotonicTime.now()
        latest = now
        return now
    }

    package func add(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError) {
        try control(EPOLL_CTL_ADD, descriptor, interest, token)
    }

    package func update(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError) {
        try control(EPOLL_CTL_MOD, descriptor, interest, token)
    }

    package func remove(_ descriptor: Int32) { _ = epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor, nil) }

    private func control(_ operation: Int32, _ descriptor: Int32, _ interest: Interest, _ token: UInt) throws(SystemError) {
        var event = unsafe epoll_event()
        // All other bits equal those of poll(2).
        unsafe event.events = interest.subtracting(.exclusive).rawValue
        if interest.contains(.exclusive) { unsafe event.events |= EPOLLEXCLUSIVE.rawValue }
        unsafe event.data.u64 = UInt64(token)
        let number = epoll.rawValue
        try blockingSyscall("epoll_ctl") { unsafe epoll_ctl(number, operation, descriptor, &event) }
    }

    package func wait(until deadline: MonotonicTime?, into events: UnsafeMutableBufferPointer<PollEvent>) throws(SystemError) -> Int {
        let number = epoll.rawValue
        // SAFETY: the kernel writes at most the requested number of events, for which the buffer
        // has room.
        let count = unsafe epoll_wait(number, ready.baseAddress, Int32(min(ready.count, events.count)), milliseconds(until: deadline))
        guard count >= 0 else {
            let code = errno
            guard code == EINTR else { throw SystemError(code: code, call: "epoll_wait") }
            return 0
        }
        for index in 0..<Int(count) {
            let event = unsafe ready[index]
            unsafe events[index] = PollEvent(token: UInt(event.data.u64), readiness: Readiness(rawValue: event.events))
        }
        return Int(count)
    }

    /// The timeout of epoll_wait(2); -1 for none. Deadlines are whole milliseconds, so a timer is
    /// never early.
    private func milliseconds(until deadline: MonotonicTime?) -> Int32 {
        guard let deadline else { return -1 }
        let remaining = deadline.millisecondsSince(latest)
        if remaining == 0 { return 0 }
        if remaining > Self.farAway { return Int32(clamping: remaining / 2) }
        return Int32(clamping: deadline.millisecondsSince(.now()))
    }
}
