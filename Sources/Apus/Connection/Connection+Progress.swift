import ApusPlatform

/// Whether a peer takes what is sent.
extension Connection {
    /// Whether the peer has taken enough of the output since this was last called, or since `watchOutput` or `markOutput`.
    func outputHasProgressed() -> Bool {
        let taken = takenOutput
        defer { takenAtLastCheck = taken }
        return taken >= takenAtLastCheck + context.limits.minBodyProgressBytes
    }

    /// Output begins whose progress is to be watched. The first period counts as progress if output waits: what it began with is not known.
    func watchOutput() { takenAtLastCheck = hasBufferedOutput ? takenOutput : .min }

    /// From here on only what is taken later counts.
    func markOutput() { takenAtLastCheck = takenOutput }

    var hasUnacknowledgedOutput: Bool { hasBufferedOutput || Socket.unacknowledgedBytes(transport.descriptor) > 0 }

    /// Bytes that the peer has taken in all. The kernel's queue does not count: it may hold megabytes while the peer takes nothing.
    private var takenOutput: Int { transport.writtenBytes - bufferedBytes - Socket.unacknowledgedBytes(transport.descriptor) }
}
