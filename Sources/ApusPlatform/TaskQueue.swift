import CLinux
import Glibc
import Synchronization

/// Swift tasks without a thread of their own: the jobs of the global executor and of the main actor run in the turns of one loop.
package enum TaskQueue {
    private struct State: Sendable {
        /// Addresses of jobs, in the order in which they were enqueued.
        var jobs: [UInt] = []
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
            apus_serve_main_queue()
        }
    }

    /// From here on the work of the main actor and of Dispatch's main queue is done on the thread of `loop`, between its events. The process's
    /// main thread must run the loop.
    package static func serveMainQueue(in loop: EventLoop) throws(SystemError) {
        let descriptor = apus_main_queue()
        if descriptor >= 0 { try loop.add(MainQueue(descriptor), descriptor: descriptor, for: .readable) }
    }

    /// From here on `Task { … }` and the jobs of actors run on the thread of `loop`, between its events.
    package static func serve(in loop: EventLoop) {
        state.withLock { $0.waker = loop.waker }
        loop.onWake = { runJobs() }
        _ = unsafe apus_take_jobs { job in
            guard let job = unsafe job else { return }
            // The address is only carried.
            let address = UInt(bitPattern: job)
            TaskQueue.enqueue(address)
        }
    }

    private static func enqueue(_ job: UInt) {
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
        // SAFETY: each address is a job that the runtime gave to `enqueue`, and is run once.
        for job in jobs { unsafe apus_run_job(UnsafeMutableRawPointer(bitPattern: job)) }
    }
}
