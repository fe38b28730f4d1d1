/// A point on a monotonic clock, in milliseconds. The codec has no clock: its callers pass the time
/// in.
public struct TimePoint: Comparable, Hashable, Sendable {
    public let milliseconds: UInt64

    @inlinable
    public init(milliseconds: UInt64) { self.milliseconds = milliseconds }

    @inlinable
    public static func < (left: TimePoint, right: TimePoint) -> Bool { left.milliseconds < right.milliseconds }

    /// The point so many milliseconds later, saturated: a limit that means "never" must not
    /// overflow.
    package static func + (time: TimePoint, milliseconds: UInt64) -> TimePoint {
        let (sum, overflow) = time.milliseconds.addingReportingOverflow(milliseconds)
        return TimePoint(milliseconds: overflow ? .max : sum)
    }
}
