import ApusPlatform

/// Whether a peer takes what is sent.
extension Connection {
    /// Whether the peer has taken enough of the output since this was last asked, or since `watchOutput`.
    func outputHasProgressed() -> Bool {
        let pending = pendingOutput
        defer { pendingAtLastCheck = pending }
        return pendingAtLastCheck - pending >= context.limits.minBodyProgressBytes
    }

    /// Output that is to be watched begins: what an earlier answer had left says nothing of it.
    func watchOutput() { pendingAtLastCheck = hasBufferedOutput ? pendingOutput : .max }

    /// The kernel's queue counts: it may hold megabytes while ours stands still.
    private var pendingOutput: Int { bufferedBytes + Socket.unacknowledgedBytes(transport.descriptor) }
}
