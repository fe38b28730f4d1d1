import ApusPlatform

/// Wakes a worker from any thread.
public struct LoopWaker: Sendable {
    private let waker: Waker
    init(_ waker: Waker) { self.waker = waker }
    public func wakeUp() { waker.wakeUp() }
}

/// Identifies a worker process of a server.
public struct WorkerIdentity: Sendable, Hashable {
    /// 0 to `count` - 1; a replacement process has the slot of the one it replaces.
    public let slot: Int
    public let count: Int
    /// Number of earlier workers of this slot.
    public let generation: Int
    public var pid: Int32 { Process.id }
}
