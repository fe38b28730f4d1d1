import ApusPlatform

/// A descriptor's readiness as a closure call. For the master's and the control channel's few descriptors; what carries
/// traffic subclasses `EventSource` instead.
final class Watch: EventSource {
    private let handle: (Watch) -> Void

    init(_ handle: @escaping (Watch) -> Void) { self.handle = handle }

    override func ready(_ readiness: Readiness, in loop: EventLoop) { handle(self) }
}

/// A timer as a closure call.
final class Alarm: TimerNode {
    private let handle: (Alarm, MonotonicTime) -> Void

    init(_ handle: @escaping (Alarm, MonotonicTime) -> Void) { self.handle = handle }

    override func timerFired(at now: MonotonicTime) { handle(self, now) }
}
