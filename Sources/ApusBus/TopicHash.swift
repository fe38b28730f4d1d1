/// What topics are found by, in every worker's table and in the table of interest: 32 bits, the same in all processes of a server, which are
/// forks of one master, and in no other server, so that nobody can choose topics that collide.
///
/// Grows by pieces: the hash of a name is the hash of its pieces, however it is cut.
package struct TopicHash {
    // The standard library's hasher is keyed when the process starts; a fork keeps the key.
    private var hasher = Hasher()

    package init() {}

    package mutating func add(_ bytes: borrowing RawSpan) {
        // SAFETY: the pointer is used only inside the closure.
        unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }

    /// The hash of what was added until now.
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
