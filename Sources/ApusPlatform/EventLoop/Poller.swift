/// The events for which a descriptor is watched.
public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Data, a connection or the end of input.
    package static var readable: Interest { Interest(rawValue: 1) }
    /// Room for output.
    package static var writable: Interest { Interest(rawValue: 4) }
    /// The peer has shut down its sending side.
    package static var peerClosed: Interest { Interest(rawValue: 0x2000) }
    /// Wakes only one of the processes that poll a shared listener.
    package static var exclusive: Interest { Interest(rawValue: 1 << 16) }
}

/// The events that a descriptor is ready for. The bits are those of poll(2).
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Data, a connection or the end of input can be read.
    package static var readable: Readiness { Readiness(rawValue: 1) }
    /// Output can be written.
    package static var writable: Readiness { Readiness(rawValue: 4) }
    /// The peer has shut down its sending side.
    package static var peerClosed: Readiness { Readiness(rawValue: 0x2000) }
    /// Both directions are closed, or an error is pending. Always reported.
    package static var hangUp: Readiness { Readiness(rawValue: 0x8 | 0x10) }
}

/// One ready descriptor.
package struct PollEvent {
    /// The token of `Poller.add`.
    package var token: UInt
    package var readiness: Readiness

    package init(token: UInt, readiness: Readiness) {
        self.token = token
        self.readiness = readiness
    }
}

/// Watches descriptors for one `EventLoop`, and provides its clock, so that waiting and time agree.
///
/// Contract: level-triggered. Events may be spurious and in any order. A descriptor is reported at
/// most once per `wait`, and never after `remove` has returned.
package protocol Poller: AnyObject {
    /// The current time.
    func now() -> MonotonicTime

    /// Starts watching `descriptor`.
    ///
    /// - Throws: `SystemError`: without memory, or if the descriptor cannot be watched (`EPERM`, a
    ///   regular file).
    func add(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError)

    /// Changes the events for which `descriptor` is watched.
    func update(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError)

    /// Stops watching `descriptor`, which must be open.
    func remove(_ descriptor: Int32)

    /// Waits until a descriptor is ready or `deadline` has passed (nil: without limit), never
    /// shorter, unless a signal interrupts it.
    ///
    /// - Parameter events: receives the events, as many as fit.
    /// - Returns: the number of events.
    func wait(until deadline: MonotonicTime?, into events: UnsafeMutableBufferPointer<PollEvent>) throws(SystemError) -> Int

    /// The poller's own descriptors.
    var descriptors: [Int32] { get }
}
