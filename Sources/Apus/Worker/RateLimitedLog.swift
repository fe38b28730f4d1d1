import ApusPlatform

/// Limits a log line to one per interval, and counts the suppressed ones.
struct RateLimitedLog {
    private let interval: Duration
    private var count = 0
    private var loggedAt: MonotonicTime?

    init(every interval: Duration) { self.interval = interval }

    /// Counts one occurrence.
    ///
    /// - Returns: occurrences since the last line, if a line is due; otherwise nil.
    mutating func note(at now: MonotonicTime) -> Int? {
        count += 1
        if let loggedAt, now < loggedAt + interval { return nil }
        loggedAt = now
        defer { count = 0 }
        return count
    }

    /// Counts one occurrence.
    ///
    /// - Returns: what the line ends with, the number of suppressed ones, if a line is due;
    ///   otherwise nil.
    mutating func lineEnd(at now: MonotonicTime) -> String? {
        note(at: now).map { $0 > 1 ? "; \($0) times since the last such line" : "" }
    }
}
