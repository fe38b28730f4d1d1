package import ApusPlatform

/// Two mailboxes per worker slot, created by the master before it forks, each with a waker.
///
/// A worker owns the mailbox of its slot and of its generation's parity, so that the old and the
/// new process of a slot, which overlap during a reload, have one each. Every process holds the
/// sending end of every mailbox; the master holds both ends for life, and a worker no receiving end
/// but its own, once it has closed inherited descriptors.
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
            // A privileged master may exceed the system's limit; otherwise the limit applies.
            do { try Socket.set(.sendBufferForced(Mailboxes.bufferBytes), on: first) } catch {
                try Socket.set(.sendBuffer(Mailboxes.bufferBytes), on: first)
            }
        }
    }

    /// Socket buffer per mailbox, in bytes.
    private static let bufferBytes: Int32 = 8 << 20
    /// Most overlapping processes per slot.
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

    /// The mailbox index of a process of the slot, also its row in the interest table. The two
    /// overlapping processes of a slot, one that drains and its replacement, have different sides,
    /// 0 and 1.
    package static func place(slot: Int, side: Int) -> Int { slot * placesPerSlot + side }

    /// The descriptors that a mailbox's worker needs: all sending ends, its own receiving end, and
    /// the wakers.
    package func descriptors(of place: Int) -> [Int32] {
        pairs.map { $0.sending.rawValue } + [receiving(at: place)] + wakers.map(\.descriptor)
    }

    /// Whether a mailbox's socket was shut down, which any worker can do; nothing reaches it any
    /// more.
    package var isShut: Bool { pairs.contains { Socket.isShut($0.receiving.rawValue) } }

    /// The sending end of a mailbox.
    func sending(to place: Int) -> Int32 { pairs[place].sending.rawValue }

    /// The receiving end of a mailbox.
    func receiving(at place: Int) -> Int32 { pairs[place].receiving.rawValue }

    /// Wakes a mailbox's worker to read the request bits of its row.
    func waker(of place: Int) -> Waker { wakers[place] }

    /// Discards what an ended process did not read: it was for connections that no longer exist.
    func empty(_ place: Int) {
        let scratch = ReceivedPacket()
        // At least as many packets as the kernel can hold; bounded, so that an active sender cannot
        // block the caller.
        for _ in 0..<100_000 {
            guard case .done(1...)? = try? scratch.receive(from: receiving(at: place)) else { return }
        }
    }
}

/// A buffer for received packets, reused for each.
@safe final class ReceivedPacket {
    private let storage: UnsafeMutableRawBufferPointer
    private var count = 0

    init() { unsafe storage = .allocate(byteCount: Packet.maxBytes, alignment: 16) }
    deinit { unsafe storage.deallocate() }

    /// Receives one packet and returns its length.
    func receive(from descriptor: Int32) throws(SystemError) -> IOResult<Int> {
        let result = try unsafe Socket.receive(descriptor, into: storage)
        if case .done(let received) = result { count = received }
        return result
    }

    /// The last packet received.
    var bytes: RawSpan {
        @_lifetime(borrow self)
        get {
            let filled = unsafe UnsafeRawBufferPointer(rebasing: storage[..<count])
            // SAFETY: the storage lives as long as this object and is written only by `receive`.
            return unsafe _overrideLifetime(RawSpan(_unsafeBytes: filled), borrowing: self)
        }
    }
}
