import Glibc

/// A point on the monotonic clock, in milliseconds. The wall clock's jumps never reach it.
public struct MonotonicTime: Comparable, Hashable, Sendable {
    package let milliseconds: UInt64

    package init(milliseconds: UInt64) { self.milliseconds = milliseconds }

    /// The clock now (`clock_gettime CLOCK_MONOTONIC`, no system call on Linux: vDSO).
    package static func now() -> MonotonicTime {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return MonotonicTime(milliseconds: UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000)
    }

    public static func < (left: MonotonicTime, right: MonotonicTime) -> Bool { left.milliseconds < right.milliseconds }

    /// The point `duration` later. Rounds up, because a deadline must never be early; saturates instead of overflowing;
    /// a negative duration is now.
    package static func + (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        MonotonicTime(milliseconds: time.milliseconds.addingSaturated(duration.wholeMilliseconds))
    }

    /// Milliseconds from `other` to this point, 0 when it lies later.
    package func millisecondsSince(_ other: MonotonicTime) -> UInt64 {
        milliseconds > other.milliseconds ? milliseconds - other.milliseconds : 0
    }
}

extension Duration {
    /// Milliseconds, rounded up, saturated to `UInt64`; 0 when negative.
    package var wholeMilliseconds: UInt64 {
        if self <= .zero { return 0 }
        // The standard library traps when it takes the longest durations apart.
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

/// The wall clock, for dates that people read. Never for deadlines.
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
