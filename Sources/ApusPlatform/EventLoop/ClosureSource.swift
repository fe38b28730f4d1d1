/// Calls a closure when a descriptor is ready. For descriptors with little traffic; a connection
/// subclasses `EventSource`.
package final class ClosureSource: EventSource {
    /// Called with the source itself, so that it can be removed.
    package var body: (ClosureSource, Readiness) -> Void

    package init(_ body: @escaping (ClosureSource, Readiness) -> Void = { _, _ in }) { self.body = body }

    package override func ready(_ readiness: Readiness, in loop: EventLoop) { body(self, readiness) }
}

/// Calls a closure when a timer fires.
package final class ClosureTimer: TimerNode {
    /// Called with the timer itself, so that it can be scheduled again, and the time.
    package var body: (ClosureTimer, MonotonicTime) -> Void

    package init(_ body: @escaping (ClosureTimer, MonotonicTime) -> Void = { _, _ in }) { self.body = body }

    package override func timerFired(at now: MonotonicTime) { body(self, now) }
}
