import ApusPlatform

/// A call in the future, on the worker's thread. It happens once, unless it is cancelled or started again.
public final class DeadlineTimer {
    private final class Node: TimerNode {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
        override func timerFired(at now: MonotonicTime) { body() }
    }

    private let loop: EventLoop
    private let node: Node

    init(_ loop: EventLoop, _ body: @escaping () -> Void) {
        self.loop = loop
        node = Node(body)
    }

    /// Calls the body `delay` from the start of the loop's turn. The body may start it again.
    public func start(after delay: Duration) { loop.schedule(node, after: delay) }

    /// The body is not called any more, unless started again.
    public func cancel() { loop.cancel(node) }
}
