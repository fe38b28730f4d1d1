/// The 32-bit hash of a topic, for each worker's table and for the interest table. It is keyed per
/// server, the same in all processes forked from one master, so that clients cannot choose
/// colliding topics.
///
/// Incremental: the hash of a name does not depend on how it is split into pieces.
package struct TopicHash {
    // The standard library seeds its hasher at process start; a fork keeps the seed.
    private var hasher = Hasher()

    package init() {}

    package mutating func add(_ bytes: borrowing RawSpan) {
        // SAFETY: the pointer is used only inside the closure.
        unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }

    /// The hash of the bytes added so far.
    package var value: UInt32 {
        let hash = UInt64(bitPattern: Int64(hasher.finalizedCopy))
        return UInt32(truncatingIfNeeded: hash ^ hash >> 32)
    }

    package static func of(_ name: borrowing RawSpan) -> UInt32 {
        var hash = TopicHash()
        hash.add(name)
        return hash.value
    }
}

extension Hasher {
    fileprivate var finalizedCopy: Int {
        let copy = self
        return copy.finalize()
    }
}
