/// How much output a stream has, as its owner counts it.
package struct OutputState: Hashable, Sendable {
    /// Bytes that wait for the peer in this process.
    package var waitingBytes: Int
    /// Bytes that the peer has taken since the stream began: what was written less what waits here
    /// and in the kernel.
    package var takenBytes: Int

    package init(waitingBytes: Int, takenBytes: Int) {
        self.waitingBytes = waitingBytes
        self.takenBytes = takenBytes
    }

    /// Whether output waits for the peer.
    package var isWaiting: Bool { waitingBytes > 0 }
}

/// Whether a peer takes enough of the output from one check to the next.
package struct OutputProgress: Hashable, Sendable {
    /// Bytes that had been taken at the last check.
    private var takenAtLastCheck = Int.min

    package init() {}

    /// Whether the peer has taken at least `minBytes` since the last check, or since `watch` or
    /// `mark`.
    package mutating func hasProgressed(_ output: OutputState, minBytes: Int) -> Bool {
        let (expected, overflow) = takenAtLastCheck.addingReportingOverflow(minBytes)
        takenAtLastCheck = output.takenBytes
        return !overflow && output.takenBytes >= expected
    }

    /// Output begins whose progress is to be watched. The first period counts as progress unless
    /// output waits already.
    package mutating func watch(_ output: OutputState) { takenAtLastCheck = output.isWaiting ? output.takenBytes : .min }

    /// From here on only what is taken later counts.
    package mutating func mark(_ output: OutputState) { takenAtLastCheck = output.takenBytes }
}
