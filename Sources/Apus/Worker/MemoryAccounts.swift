import ApusPlatform
import ApusTransport
import Logging

/// Bytes that a worker's connections hold: incomplete messages and queued output.
final class MemoryAccounts {
    /// The allocator of that memory, which counts it.
    let pool = BufferPool()
    private let limit: Int
    private let loop: EventLoop
    private let logger: Logger
    private let trimTimer = ClosureTimer()
    private var shortage = RateLimitedLog(every: .seconds(10))
    private var scratch: [[UInt8]] = []

    /// Free buffers that stay unused this long are returned to the kernel.
    private static let trimInterval = Duration.seconds(1)
    /// Scratch buffers above this size, in bytes, are freed after use.
    private static let maxScratchBytes = 256 * 1024

    /// - Parameter limit: `Limits.maxWorkerBufferBytes`.
    init(limit: Int, loop: EventLoop, logger: Logger) {
        self.limit = limit
        self.loop = loop
        self.logger = logger
        trimTimer.body = { [unowned self] _, _ in if pool.trim() { trimLater() } }
        pool.whenKeeping = { [unowned self] in trimLater() }
    }

    deinit {
        // Chunks, and so the pool, may outlive the worker.
        pool.whenKeeping = nil
        loop.cancel(trimTimer)
    }

    private func trimLater() { loop.schedule(trimTimer, after: Self.trimInterval) }

    /// Whether the connections may hold `bytes` more.
    func hasRoom(for bytes: Int = 0) -> Bool { pool.usedBytes <= limit - bytes }

    /// Logs, rate-limited, that a connection was refused memory.
    func noteShortage() {
        guard let again = shortage.lineEnd(at: loop.now) else { return }
        logger.warning(
            "unfinished messages and waiting output hold \(pool.usedBytes) bytes, maxWorkerBufferBytes is \(limit): connections that need more are turned away\(again)"
        )
    }

    /// A buffer for the output of extensions; return it with `giveBack`. Several may be in use:
    /// handlers send while they receive.
    func takeScratch() -> [UInt8] { scratch.popLast() ?? [] }

    func giveBack(_ buffer: consuming [UInt8]) {
        guard scratch.count < 2, buffer.capacity <= Self.maxScratchBytes else { return }
        buffer.removeAll(keepingCapacity: true)
        scratch.append(buffer)
    }
}
