package import ApusPlatform

/// One mailbox per slot, made by the master before it forks, and a waker beside it.
///
/// Every process holds every mailbox's sending end; only the slot's worker reads. What was sent while a slot had no worker waits for its
/// successor, because the master holds both ends for life.
package final class Mailboxes {
    private let pairs: [Pair]
    private let wakers: [Waker]

    private final class Pair {
        let sending: OwnedDescriptor
        let receiving: OwnedDescriptor

        init() throws(SystemError) {
            let (first, second) = try Socket.packetPair().release()
            sending = OwnedDescriptor(rawValue: first)
            receiving = OwnedDescriptor(rawValue: second)
            // A privileged master may pass the system's limit; otherwise it is as much as the limit allows.
            do { try Socket.set(.sendBufferForced(Mailboxes.bufferBytes), on: first) } catch {
                try Socket.set(.sendBuffer(Mailboxes.bufferBytes), on: first)
            }
        }
    }

    /// What the kernel may hold for one slot, in bytes.
    private static let bufferBytes: Int32 = 8 << 20

    package init(slots: Int) throws(SystemError) {
        var pairs: [Pair] = []
        var wakers: [Waker] = []
        for _ in 0..<slots {
            pairs.append(try Pair())
            wakers.append(try Waker())
        }
        self.pairs = pairs
        self.wakers = wakers
    }

    package var slots: Int { pairs.count }

    /// Every descriptor of every mailbox: each worker holds them all.
    package var descriptors: [Int32] {
        pairs.flatMap { [$0.sending.rawValue, $0.receiving.rawValue] } + wakers.map(\.descriptor)
    }

    /// Where to write for `slot`.
    func sending(to slot: Int) -> Int32 { pairs[slot].sending.rawValue }

    /// Where the worker of `slot` reads.
    func receiving(at slot: Int) -> Int32 { pairs[slot].receiving.rawValue }

    /// Tells the worker of `slot` to look at its row of the interest table.
    func waker(of slot: Int) -> Waker { wakers[slot] }
}
