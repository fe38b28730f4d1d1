import CLinux
import Glibc
import Synchronization

/// Runs Swift tasks without a thread pool: the jobs of the global executor and of the main actor
/// run in the turns of one loop. In a process that forks, they are refused.
package enum TaskQueue {
    /// A job of the Swift runtime, to run once.
    @safe private struct Job: Sendable {
        private let work: @convention(c) (UnsafeMutableRawPointer?) -> Void
        /// A pointer as an integer; it is not dereferenced here.
        private let context: UInt

        init(_ work: @escaping @convention(c) (UnsafeMutableRawPointer?) -> Void, _ context: UnsafeMutableRawPointer?) {
            unsafe self.work = unsafe work
            self.context = UInt(bitPattern: context)
        }

        // SAFETY: the context belongs to this call.
        func run() { unsafe work(UnsafeMutableRawPointer(bitPattern: context)) }
    }

    /// Whether Dispatch has made descriptors, in this process or before the fork: its main queue
    /// cannot be served in a child then. False where that cannot be seen, in a static program.
    package static var isDispatchUsed: Bool { apus_dispatch_is_used() != 0 }

    /// The job queue of the loop that runs tasks.
    private static let queue = Mutex<JobQueue?>(nil)

    /// Makes the main actor and Dispatch's main queue run on the thread of `loop`, between its
    /// events. The process's main thread must run the loop.
    ///
    /// - Parameter onRun: called with true before tasks and blocks run, and with false after them.
    package static func serveMainQueue(in loop: EventLoop, onRun: @escaping (_ begins: Bool) -> Void) throws(SystemError) {
        unsafe self.onRun = onRun
        let descriptor = apus_main_queue()
        guard descriptor >= 0 else { return }
        let source = ClosureSource { _, _ in
            var count: UInt64 = 0
            _ = unsafe read(descriptor, &count, 8)
            running { apus_serve_main_queue() }
        }
        try loop.add(source, descriptor: descriptor, for: .readable)
    }

    /// Written before the first task runs.
    private nonisolated(unsafe) static var onRun: (_ begins: Bool) -> Void = { _ in }

    private static func running(_ body: () -> Void) {
        unsafe onRun(true)
        body()
        unsafe onRun(false)
    }

    /// The loop whose timers delay jobs. Written once, before the first job.
    nonisolated(unsafe) private static var loop: EventLoop?
    /// The thread of `loop`; written with it.
    nonisolated(unsafe) private static var thread = pthread_self()

    /// What runs on the loop beside the jobs of Swift's runtime.
    package enum Scope: Sendable {
        /// Nothing: Dispatch has threads for its queues and timers.
        case tasks
        /// Work for Dispatch's queues, by C functions, and its `asyncAfter`: there are no threads.
        case everything
    }

    /// Makes `Task { … }`, actors and `Task.sleep` run on the thread of `loop`, between its events,
    /// whichever thread starts or resumes them. Call it on that thread.
    package static func serve(_ scope: Scope, in loop: EventLoop) {
        queue.withLock { $0 = loop.jobs }
        unsafe self.loop = loop
        unsafe thread = pthread_self()
        _ = unsafe apus_take_jobs(
            { work, context in
                guard let work = unsafe work else { return }
                let job = unsafe Job(work, context)
                let queue = TaskQueue.queue.withLock { $0 }
                queue?.executeAlways { TaskQueue.running { job.run() } }
            },
            { nanoseconds, work, context in
                guard let work = unsafe work else { return }
                // Relative to the current time, not to the start of the turn, which may be long
                // ago.
                let due = MonotonicTime.now().deadline(after: .nanoseconds(Int64(clamping: nanoseconds)))
                let job = unsafe Job(work, context)
                if unsafe pthread_equal(TaskQueue.thread, pthread_self()) != 0 { return TaskQueue.schedule(job, at: due) }
                // The timers belong to the thread of the loop.
                let queue = TaskQueue.queue.withLock { $0 }
                queue?.executeAlways { TaskQueue.schedule(job, at: due) }
            }, scope == .everything ? 1 : 0)
    }

    private static func schedule(_ job: Job, at due: MonotonicTime) {
        unsafe loop?.schedule(ClosureTimer { _, _ in running { job.run() } }, at: due)
    }

    // MARK: Refusing

    /// Called for the first refused job.
    private static let refusal = Mutex<(@Sendable () -> Void)?>(nil)

    /// Makes tasks not run, so that Dispatch, which would run them on threads, is not used in this
    /// process; until `serve` or `allow`.
    ///
    /// - Parameter report: called once, for the first task.
    package static func refuse(report: @escaping @Sendable () -> Void) {
        refusal.withLock { $0 = report }
        _ = unsafe apus_take_jobs({ _, _ in TaskQueue.refused() }, { _, _, _ in TaskQueue.refused() }, 0)
    }

    /// Ends `refuse`.
    package static func allow() { _ = apus_take_jobs(nil, nil, 0) }

    private static func refused() {
        let report = refusal.withLock { report in
            defer { report = nil }
            return report
        }
        report?()
    }
}
