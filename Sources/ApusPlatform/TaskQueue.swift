import CLinux
import Glibc
import Synchronization

/// Swift tasks without a thread of their own: the jobs of the global executor and of the main actor run in the turns of one loop.
package enum TaskQueue {
    /// What the runtime gave, to be run once.
    @safe private struct Job: Sendable {
        private let work: @convention(c) (UnsafeMutableRawPointer?) -> Void
        /// An address, which is only carried.
        private let context: UInt

        init(_ work: @escaping @convention(c) (UnsafeMutableRawPointer?) -> Void, _ context: UnsafeMutableRawPointer?) {
            unsafe self.work = unsafe work
            self.context = UInt(bitPattern: context)
        }

        // SAFETY: the context belongs to this call.
        func run() { unsafe work(UnsafeMutableRawPointer(bitPattern: context)) }
    }

    private struct State: Sendable {
        /// In the order in which they were enqueued.
        var jobs: [Job] = []
        var waker: Waker?
    }

    private static let state = Mutex(State())

    /// Dispatch's main queue, which the main actor uses, as an event source of the loop.
    private final class MainQueue: EventSource {
        private let descriptor: Int32

        init(_ descriptor: Int32) { self.descriptor = descriptor }

        override func ready(_ readiness: Readiness, in loop: EventLoop) {
            var count: UInt64 = 0
            _ = unsafe read(descriptor, &count, 8)
            TaskQueue.running { apus_serve_main_queue() }
        }
    }

    /// From here on the work of the main actor and of Dispatch's main queue is done on the thread of `loop`, between its events. The process's
    /// main thread must run the loop.
    ///
    /// - Parameter onRun: called with true before tasks and blocks run on the loop, and with false after them.
    package static func serveMainQueue(in loop: EventLoop, onRun: @escaping (_ begins: Bool) -> Void) throws(SystemError) {
        unsafe self.onRun = onRun
        let descriptor = apus_main_queue()
        if descriptor >= 0 { try loop.add(MainQueue(descriptor), descriptor: descriptor, for: .readable) }
    }

    /// Work of Swift's runtime or of Dispatch that waits for its time, as a timer of the loop.
    @safe private final class DelayedWork: TimerNode {
        private let work: @convention(c) (UnsafeMutableRawPointer?) -> Void
        private let context: UnsafeMutableRawPointer?

        init(_ work: @escaping @convention(c) (UnsafeMutableRawPointer?) -> Void, context: UnsafeMutableRawPointer?) {
            unsafe self.work = unsafe work
            unsafe self.context = unsafe context
        }

        // SAFETY: the node fires once, and the context is for one call.
        override func timerFired(at now: MonotonicTime) { TaskQueue.running { unsafe work(context) } }
    }

    /// Written before the first task runs.
    private nonisolated(unsafe) static var onRun: (_ begins: Bool) -> Void = { _ in }

    private static func running(_ body: () -> Void) {
        unsafe onRun(true)
        body()
        unsafe onRun(false)
    }

    /// The loop whose timers delay work. Written once, on its own thread, which is the only one where `serve` is used.
    nonisolated(unsafe) private static var loop: EventLoop?

    /// From here on `Task { … }`, the jobs of actors, `Task.sleep` and Dispatch's `asyncAfter` run on the thread of `loop`, between its events.
    /// The process must have no other thread.
    package static func serve(in loop: EventLoop) {
        state.withLock { $0.waker = loop.waker }
        loop.onWake = { running { runJobs() } }
        unsafe self.loop = loop
        _ = unsafe apus_take_jobs(
            { work, context in
                guard let work = unsafe work else { return }
                TaskQueue.enqueue(unsafe Job(work, context))
            },
            { nanoseconds, work, context in
                guard let loop = unsafe TaskQueue.loop, let work = unsafe work else { return }
                // From this moment, not from the start of the turn, which may be long ago.
                let delay = MonotonicTime.now() + .nanoseconds(Int64(clamping: nanoseconds)) + .milliseconds(1)
                loop.schedule(unsafe DelayedWork(work, context: context), at: delay)
            })
    }

    private static func enqueue(_ job: Job) {
        let waker = state.withLock { state -> Waker? in
            state.jobs.append(job)
            return state.jobs.count == 1 ? state.waker : nil
        }
        waker?.wakeUp()
    }

    /// Runs what is enqueued by now. What that enqueues waits for the next turn, so that no task can hold the loop.
    private static func runJobs() {
        let jobs = state.withLock { state in
            defer { state.jobs = [] }
            return state.jobs
        }
        for job in jobs { job.run() }
    }
}
