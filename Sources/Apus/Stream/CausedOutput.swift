/// The part of the queued output that the peer's own messages have caused. Output is sent in order,
/// so all of it is gone when the bytes up to its end are.
struct CausedOutput {
    /// Caused bytes that may still be queued.
    private(set) var bytes = 0
    /// Queued bytes up to the end of the last caused output.
    private var end = 0

    init() {}

    private init(bytes: Int, end: Int) {
        self.bytes = bytes
        self.end = end
    }

    /// - Parameter total: bytes queued now; the last `count` of them are caused output.
    func appending(_ count: Int, behind total: Int) -> CausedOutput {
        count > 0 ? CausedOutput(bytes: bytes + count, end: total) : self
    }

    /// After `sent` bytes were sent.
    func removing(_ sent: Int) -> CausedOutput {
        let end = max(0, end - sent)
        return CausedOutput(bytes: min(bytes, end), end: end)
    }
}
