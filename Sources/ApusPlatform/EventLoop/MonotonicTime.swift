import Glibc

/// A point on the monotonic clock, in milliseconds. Changes of the wall clock do not affect it.
public struct MonotonicTime: Comparable, Hashable, Sendable {
    package let milliseconds: UInt64

    package init(milliseconds: UInt64) { self.milliseconds = milliseconds }

    /// Earlier than any other point.
    package static let distantPast = MonotonicTime(milliseconds: 0)

    /// The current time (`clock_gettime CLOCK_MONOTONIC`, by the vDSO without a system call).
    package static func now() -> MonotonicTime {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return MonotonicTime(milliseconds: UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000)
    }

    public static func < (left: MonotonicTime, right: MonotonicTime) -> Bool { left.milliseconds < right.milliseconds }

    /// The point `duration` later. Rounds up, because a deadline must not be early, and saturates;
    /// a negative duration counts as zero.
    package static func + (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        MonotonicTime(milliseconds: time.milliseconds.addingSaturated(duration.wholeMilliseconds))
    }

    /// The deadline of a timer that must not fire before `delay` has passed. The clock rounds down
    /// to milliseconds, so one is added.
    package func deadline(after delay: Duration) -> MonotonicTime {
        MonotonicTime(milliseconds: milliseconds.addingSaturated(delay.wholeMilliseconds).addingSaturated(1))
    }

    /// Milliseconds from `other` to this point; 0 if `other` is later.
    package func millisecondsSince(_ other: MonotonicTime) -> UInt64 {
        milliseconds > other.milliseconds ? milliseconds - other.milliseconds : 0
    }
}

extension Duration {
    /// Milliseconds, rounded up, saturated to `UInt64`; 0 if negative.
    package var wholeMilliseconds: UInt64 {
        if self <= .zero { return 0 }
        // `components` traps for the longest durations.
        if self > .seconds(Int64.max / 2) { return .max }
        let (seconds, attoseconds) = components
        let fraction = UInt64((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
        let (product, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1000)
        return overflow ? .max : product.addingSaturated(fraction)
    }
}

extension UInt64 {
    func addingSaturated(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}

/// The wall clock, for dates shown to users. Never for deadlines.
package enum WallClock {
    /// Seconds since 1970-01-01T00:00:00Z.
    package static func seconds() -> Int {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return time.tv_sec
    }

    /// Seconds and milliseconds since 1970-01-01T00:00:00Z.
    package static func secondsAndMilliseconds() -> (seconds: Int, milliseconds: Int) {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return (time.tv_sec, time.tv_nsec / 1_000_000)
    }
}
