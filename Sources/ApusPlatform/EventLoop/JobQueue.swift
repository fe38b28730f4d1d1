import Synchronization

/// Jobs for an `EventLoop` from any thread. They run on the loop's thread in the order added. A job
/// added by a job runs in the next turn, so that no job can block the loop.
package final class JobQueue: Sendable {
    package typealias Job = @Sendable () -> Void

    private let jobs = Mutex<[Job]>([])
    private let waker: Waker

    /// Most queued jobs.
    package static let capacity = 65_536

    init(_ waker: Waker) { self.waker = waker }

    /// Runs `job` once, in the loop's next turn.
    ///
    /// - Returns: false, and `job` does not run, if `capacity` jobs are queued already.
    @discardableResult
    package func execute(_ job: @escaping Job) -> Bool { add(job, atMost: Self.capacity) }

    /// Runs `job` regardless of `capacity`: jobs of Swift's runtime cannot be rejected.
    package func executeAlways(_ job: @escaping Job) { _ = add(job, atMost: .max) }

    private func add(_ job: @escaping Job, atMost capacity: Int) -> Bool {
        let count = jobs.withLock { jobs -> Int in
            guard jobs.count < capacity else { return 0 }
            jobs.append(job)
            return jobs.count
        }
        if count == 1 { waker.wakeUp() }
        return count > 0
    }

    func run() {
        let waiting = jobs.withLock { jobs in
            defer { jobs = [] }
            return jobs
        }
        for job in waiting { job() }
    }
}
