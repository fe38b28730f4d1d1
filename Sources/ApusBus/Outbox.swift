import ApusPlatform

/// What waits for one place: packets, the last of which still grows.
struct Outbox {
    private var packets: [PacketBuffer] = []
    private var head = 0
    private(set) var byteCount = 0
    /// Records dropped since the last packet was opened: a gap, which stands at the front of the next one.
    private(set) var lost: UInt32 = 0
    /// The process that all this is for.
    private(set) var receiver: UInt32 = 0
    /// Its mailbox was full; the kernel will say when it has room.
    var isBlocked = false
    /// It is in the bus's list of places to send to.
    var isListed = false
    /// Packets sent in this millisecond.
    private var recent = (millisecond: 0 as UInt64, packets: 0)

    var isEmpty: Bool { head == packets.count }
    var packetCount: Int { packets.count - head }

    /// Turns to the process that is at the place now; what was kept for its predecessor goes.
    mutating func turn(to receiver: UInt32) {
        guard receiver != self.receiver else { return }
        self.receiver = receiver
        packets.removeAll()
        head = 0
        byteCount = 0
        lost = 0
    }

    mutating func drop() { lost += 1 }

    /// Opens a packet unless the last has room for a record.
    mutating func tail(for bytes: Int, from sender: Packet.Header, pool: inout [PacketBuffer]) -> PacketBuffer {
        // What comes after a gap may not join a packet that was opened before it.
        if lost == 0, head < packets.count, packets[packets.count - 1].hasRoom(for: bytes) { return packets[packets.count - 1] }
        let packet = pool.popLast() ?? PacketBuffer()
        var header = sender
        header.lost = lost
        header.receiver = receiver
        packet.begin(header)
        lost = 0
        byteCount += packet.count
        packets.append(packet)
        return packet
    }

    mutating func grew(by bytes: Int) { byteCount += bytes }

    /// The packet to send next. If records were lost and nothing follows them, an empty one says so.
    mutating func first(from sender: Packet.Header, pool: inout [PacketBuffer]) -> PacketBuffer? {
        if isEmpty, lost > 0 { return tail(for: 0, from: sender, pool: &pool) }
        return isEmpty ? nil : packets[head]
    }

    /// Whether a packet may leave now. A packet costs some microseconds however little is in it, so only a few leave in a millisecond; what
    /// else is said waits for the next one, unless it fills a packet.
    mutating func maySend(at now: MonotonicTime, packetsPerMillisecond: Int) -> Bool {
        if now.milliseconds != recent.millisecond { recent = (now.milliseconds, 0) }
        return packetCount > 1 || recent.packets < packetsPerMillisecond
    }

    /// The first packet has left.
    mutating func removeFirst(pool: inout [PacketBuffer], maxPooled: Int) {
        recent.packets += 1
        let packet = packets[head]
        byteCount -= packet.count
        head += 1
        if isEmpty {
            packets.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64, head * 2 >= packets.count {
            // A receiver that is always behind never empties this: what has been sent must not pile up.
            packets.removeFirst(head)
            head = 0
        }
        if pool.count < maxPooled { pool.append(packet) }
    }

    /// Gives everything up; gives how many records that were.
    mutating func dropAll() -> Int {
        var records: UInt32 = 0
        for packet in packets[head...] {
            records += packet.records
            lost += packet.lost
        }
        lost += records
        packets.removeAll()
        head = 0
        byteCount = 0
        return Int(records)
    }
}
