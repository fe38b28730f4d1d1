import ApusPlatform

/// Polls with epoll, by a clock that stands still until the test advances it.
final class SteppedPoller: Poller {
    private let poller: EpollPoller
    private var time = MonotonicTime.now()

    init() throws { poller = try EpollPoller(capacity: 64) }

    func advance(by duration: Duration) { time = time + duration }

    func now() -> MonotonicTime { time }

    var descriptors: [Int32] { poller.descriptors }

    func add(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError) {
        try poller.add(descriptor, for: interest, token: token)
    }

    func update(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError) {
        try poller.update(descriptor, for: interest, token: token)
    }

    func remove(_ descriptor: Int32) { poller.remove(descriptor) }

    /// Does not wait: no time would pass.
    func wait(until deadline: MonotonicTime?, into events: UnsafeMutableBufferPointer<PollEvent>) throws(SystemError) -> Int {
        try unsafe poller.wait(until: MonotonicTime(milliseconds: 0), into: events)
    }
}
