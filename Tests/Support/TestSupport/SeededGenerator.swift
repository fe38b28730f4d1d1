import Glibc

/// Random numbers that a seed determines (SplitMix64), so that a test's failure can be repeated.
public struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// The seeds of a long test: those of the environment variable APUS_SEEDS, `FIRST-LAST` or one
    /// number.
    ///
    /// - Parameter usual: the seeds without the variable, or if its value cannot be read.
    public static func seeds(_ usual: ClosedRange<UInt64>) -> ClosedRange<UInt64> {
        let words = getenv("APUS_SEEDS").map { String(cString: $0).split(separator: "-") } ?? []
        let bounds = words.compactMap { UInt64($0) }
        guard let first = bounds.first, let last = bounds.last, bounds.count == words.count, bounds.count <= 2, first <= last
        else { return usual }
        return first...last
    }
}
