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
    /// Packets that have left since the interval began.
    private var recent = (packets: 0, since: MonotonicTime(milliseconds: 0))
    /// So much is said that only one packet leaves in each interval.
    private var isBulk = false
    /// Packets kept for reuse.
    private var pool: [PacketBuffer] = []
    private static let maxPooled = 1

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

    mutating func drop(_ records: UInt32 = 1) { lost.addUpToMax(records) }

    /// Opens a packet unless the last has room for a record.
    mutating func tail(for bytes: Int, from sender: Packet.Header) -> PacketBuffer {
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
    mutating func first(from sender: Packet.Header) -> PacketBuffer? {
        if isEmpty, lost > 0 { return tail(for: 0, from: sender) }
        return isEmpty ? nil : packets[head]
    }

    /// Packets in an interval, or records in a packet, that are much.
    private static let muchSaid = 64
    /// Milliseconds for which much is gathered.
    private static let interval: UInt64 = 2

    /// When the next packet may leave; nil if now. A packet costs some microseconds, and wakes the receiver, however little is in it: when much is
    /// said, it is gathered, and one packet leaves in each interval, until little waits then. A full packet does not wait.
    mutating func sendingTime(now: MonotonicTime) -> MonotonicTime? {
        if now.millisecondsSince(recent.since) >= Self.interval {
            recent = (0, now)
            if isBulk, packetCount > 0 { isBulk = packetCount > 1 || packets[packets.count - 1].records > Self.muchSaid }
        } else if recent.packets >= Self.muchSaid {
            isBulk = true
        }
        if packetCount > 1 || !isBulk || recent.packets == 0 { return nil }
        return MonotonicTime(milliseconds: recent.since.milliseconds + Self.interval)
    }

    /// The first packet has left.
    mutating func removeFirst() {
        recent.packets += 1
        let packet = packets[head]
        byteCount -= packet.count
        if packet.records > Self.muchSaid { isBulk = true }
        head += 1
        if isEmpty {
            packets.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64, head * 2 >= packets.count {
            // A receiver that is always behind never empties this: what has been sent must not pile up.
            packets.removeFirst(head)
            head = 0
        }
        if pool.count < Self.maxPooled { pool.append(packet) }
    }

    /// Gives everything up; gives how many records that were.
    mutating func dropAll() -> Int {
        var records: UInt32 = 0
        for packet in packets[head...] {
            records += packet.records
            lost.addUpToMax(packet.lost)
        }
        lost.addUpToMax(records)
        packets.removeAll()
        head = 0
        byteCount = 0
        return Int(records)
    }
}

extension UInt32 {
    /// Adds, but stays at the largest number: so many were lost, or more.
    mutating func addUpToMax(_ other: UInt32) {
        let (sum, isOver) = addingReportingOverflow(other)
        self = isOver ? .max : sum
    }
}
