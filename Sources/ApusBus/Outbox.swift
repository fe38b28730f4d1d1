import ApusPlatform

/// Packets queued for one mailbox; the last one is still open.
struct Outbox {
    private var packets: [PacketBuffer] = []
    private var head = 0
    private(set) var byteCount = 0
    /// Records dropped since the last packet was opened: the gap before the next one.
    private(set) var lost: UInt32 = 0
    /// The process that the packets are for.
    private(set) var receiver: UInt32 = 0
    /// Whether its mailbox was full; the kernel will report room.
    var isBlocked = false
    /// Whether the bus lists this mailbox for sending.
    var isListed = false
    /// Packets sent in the current interval.
    private var recent = (packets: 0, since: MonotonicTime(milliseconds: 0))
    /// Whether sending is limited to one packet per interval.
    private var isBulk = false
    /// Packet buffers for reuse.
    private var pool: [PacketBuffer] = []
    private static let maxPooled = 1

    var isEmpty: Bool { head == packets.count }
    var packetCount: Int { packets.count - head }

    /// Sets the receiver; packets for an earlier owner of the mailbox are dropped.
    mutating func turn(to receiver: UInt32) {
        guard receiver != self.receiver else { return }
        self.receiver = receiver
        packets.removeAll()
        head = 0
        byteCount = 0
        lost = 0
    }

    mutating func drop(_ records: UInt32 = 1) { lost.addUpToMax(records) }

    /// Returns the last packet if the record fits, otherwise a new one.
    mutating func tail(for bytes: Int, from sender: Packet.Header) -> PacketBuffer {
        // Records behind a gap must not join a packet opened before it.
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

    /// The packet to send next: an empty one if records were lost and none follow.
    mutating func first(from sender: Packet.Header) -> PacketBuffer? {
        if isEmpty, lost > 0 { return tail(for: 0, from: sender) }
        return isEmpty ? nil : packets[head]
    }

    /// Packets per interval, or records per packet, from which sending is bulk.
    private static let muchSaid = 64
    /// The interval for collecting records in bulk mode, in milliseconds.
    private static let interval: UInt64 = 2

    /// When the next packet may be sent; nil for now. A packet costs microseconds and wakes the
    /// receiver, whatever its size. Under load, records are therefore collected, and one packet is
    /// sent per interval, until little is collected. A full packet is sent at once.
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

    /// The first packet was sent.
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
            // A receiver that is always behind never empties the array, so remove sent packets from
            // it.
            packets.removeFirst(head)
            head = 0
        }
        if pool.count < Self.maxPooled { pool.append(packet) }
    }

    /// Discards all packets and returns the number of their records.
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
    /// Adds, saturating at the maximum: that many records were lost, or more.
    mutating func addUpToMax(_ other: UInt32) {
        let (sum, isOver) = addingReportingOverflow(other)
        self = isOver ? .max : sum
    }
}
