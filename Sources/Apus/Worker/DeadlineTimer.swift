import ApusPlatform

/// A timer on the worker's thread. It fires once, unless it is cancelled or started again.
public final class DeadlineTimer {
    private let loop: EventLoop
    private let timer: ClosureTimer

    init(_ loop: EventLoop, _ body: @escaping () -> Void) {
        self.loop = loop
        timer = ClosureTimer { _, _ in body() }
    }

    /// Schedules the body for `delay` after the start of the loop's turn. The body may start the
    /// timer again.
    public func start(after delay: Duration) { loop.schedule(timer, after: delay) }

    /// Cancels the timer. It may be started again.
    public func cancel() { loop.cancel(timer) }
}
