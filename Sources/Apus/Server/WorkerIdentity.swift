import ApusPlatform

/// Wakes a context from any thread.
public struct LoopWaker: Sendable {
    private let waker: Waker
    init(_ waker: Waker) { self.waker = waker }
    public func wakeUp() { waker.wakeUp() }
}

/// Which of a server's processes this is.
public struct WorkerIdentity: Sendable, Hashable {
    /// 0 to `count` - 1; a successor has the slot of the one it replaces.
    public let slot: Int
    public let count: Int
    /// How many workers this slot has had before this one.
    public let generation: Int
    public var pid: Int32 { Process.id }
}
