/// The part of the waiting output that a peer's own messages have caused. Output leaves in order, so all of it has left when what stood before its
/// end has.
struct CausedOutput {
    /// Bytes that may still wait.
    private(set) var bytes = 0
    /// Bytes that wait up to the end of the last caused output.
    private var end = 0

    init() {}

    private init(bytes: Int, end: Int) {
        self.bytes = bytes
        self.end = end
    }

    /// - Parameter total: Bytes that wait now, `count` of caused output being the last of them.
    func appending(_ count: Int, behind total: Int) -> CausedOutput {
        count > 0 ? CausedOutput(bytes: bytes + count, end: total) : self
    }

    /// So many bytes have left.
    func removing(_ sent: Int) -> CausedOutput {
        let end = max(0, end - sent)
        return CausedOutput(bytes: min(bytes, end), end: end)
    }
}
