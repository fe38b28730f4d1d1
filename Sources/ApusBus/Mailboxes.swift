package import ApusPlatform

/// Two mailboxes per slot, made by the master before it forks, and a waker beside each.
///
/// A worker reads the one of its place: the slot and the parity of its generation. So the old and the new process of a slot, which live side by
/// side during a reload, have one each. Every process holds every mailbox's sending end; the master holds both ends for life, and a worker no
/// receiving end but its own, if it gives up what it is not to have.
package final class Mailboxes: Sendable {
    private let pairs: [Pair]
    private let wakers: [Waker]

    private final class Pair: Sendable {
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

    /// What the kernel may hold for one place, in bytes.
    private static let bufferBytes: Int32 = 8 << 20
    /// Processes that may serve a slot at a time.
    package static let placesPerSlot = 2

    package init(slots: Int) throws(SystemError) {
        var pairs: [Pair] = []
        var wakers: [Waker] = []
        for _ in 0..<slots * Self.placesPerSlot {
            pairs.append(try Pair())
            wakers.append(try Waker())
        }
        self.pairs = pairs
        self.wakers = wakers
    }

    package var places: Int { pairs.count }

    /// Where a process of the slot reads, and its row of the interest table. Two processes of a slot that live at a time, one that drains and the
    /// one that replaces it, are on different sides, 0 and 1.
    package static func place(slot: Int, side: Int) -> Int { slot * placesPerSlot + side }

    /// What the worker of a place needs: it writes to all, and reads its own.
    package func descriptors(of place: Int) -> [Int32] {
        pairs.map { $0.sending.rawValue } + [receiving(at: place)] + wakers.map(\.descriptor)
    }

    /// Whether a mailbox has been shut down: any worker can, and nothing reaches that place any more.
    package var isShut: Bool { pairs.contains { Socket.isShut($0.receiving.rawValue) } }

    /// Where to write for a place.
    func sending(to place: Int) -> Int32 { pairs[place].sending.rawValue }

    /// Where the worker of a place reads.
    func receiving(at place: Int) -> Int32 { pairs[place].receiving.rawValue }

    /// Tells the worker of a place to look at its row of the interest table.
    func waker(of place: Int) -> Waker { wakers[place] }

    /// Throws away what a process that has ended did not read: it was for connections that are gone.
    func empty(_ place: Int) {
        let scratch = ReceivedPacket()
        // As many packets as the kernel can hold, so that a sender that goes on cannot keep the caller.
        for _ in 0..<100_000 {
            guard case .done(1...)? = try? scratch.receive(from: receiving(at: place)) else { return }
        }
    }
}

/// One buffer for packets that arrive, reused for each.
@safe final class ReceivedPacket {
    private let storage: UnsafeMutableRawBufferPointer
    private var count = 0

    init() { unsafe storage = .allocate(byteCount: Packet.maxBytes, alignment: 16) }
    deinit { unsafe storage.deallocate() }

    /// Receives one; gives its length.
    func receive(from descriptor: Int32) throws(SystemError) -> IOResult<Int> {
        let result = try unsafe Socket.receive(descriptor, into: storage)
        if case .done(let received) = result { count = received }
        return result
    }

    /// The last one received.
    var bytes: RawSpan {
        @_lifetime(borrow self)
        get {
            let filled = unsafe UnsafeRawBufferPointer(rebasing: storage[..<count])
            // SAFETY: the storage lives as long as this object, and is written only by `receive`.
            return unsafe _overrideLifetime(RawSpan(_unsafeBytes: filled), borrowing: self)
        }
    }
}
