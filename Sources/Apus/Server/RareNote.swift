import ApusPlatform

/// Something that happens often and is to be said rarely.
struct RareNote {
    private let interval: Duration
    private var count = 0
    private var saidAt: MonotonicTime?

    init(every interval: Duration) { self.interval = interval }

    /// It has happened again. Gives how often since it was last said, if it is to be said now.
    mutating func note(at now: MonotonicTime) -> Int? {
        count += 1
        if let saidAt, now < saidAt + interval { return nil }
        saidAt = now
        defer { count = 0 }
        return count
    }
}
