/// The part of the waiting output that a peer's own messages have caused. Output leaves in order, so all of it has left when what stood before its
/// end has.
struct CausedOutput {
    /// Bytes that may still wait.
    private(set) var bytes = 0
    /// Bytes that wait up to the end of the last caused output.
    private var end = 0

    /// - Parameter total: Bytes that wait now, `count` of caused output being the last of them.
    mutating func append(_ count: Int, behind total: Int) {
        guard count > 0 else { return }
        bytes += count
        end = total
    }

    /// So many bytes have left.
    mutating func remove(_ sent: Int) {
        end = max(0, end - sent)
        bytes = min(bytes, end)
    }
}
