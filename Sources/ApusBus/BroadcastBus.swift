package import ApusPlatform

/// One process's access to the bus: gathers what it says during a turn, sends it, keeps what does not fit, and hands on what others say.
///
/// Order: what one process says to a slot arrives in the order it was said. Delivery: at most once. A receiver that does not read fills its
/// mailbox (megabytes), then this outbox (`Limits.maxOutboxBytes`); what comes after is dropped, counted, and told to the receiver as a gap
/// in front of the next packet. Saying never blocks.
package final class BroadcastBus {
    package struct Limits: Sendable {
        /// Bytes kept for a receiver whose mailbox is full.
        package var maxOutboxBytes = 8 << 20
        /// Bytes of one record, all its parts together.
        package var maxRecordBytes = 128 << 20
        package init() {}
    }

    /// What the bus tells its owner.
    package struct Handlers {
        /// A record came from another process.
        package var received: (Record) -> Void
        /// So many records of this sender were lost on the way here.
        package var gap: (_ sender: Int, _ lost: Int) -> Void
        /// Bits of protocols, see `InterestTable.Request`.
        package var requested: (InterestTable.Request, UInt64) -> Void

        package init(
            received: @escaping (Record) -> Void, gap: @escaping (Int, Int) -> Void,
            requested: @escaping (InterestTable.Request, UInt64) -> Void
        ) {
            self.received = received
            self.gap = gap
            self.requested = requested
        }
    }

    /// Counters since the process started.
    package private(set) var recordsSent = 0
    package private(set) var recordsReceived = 0
    package private(set) var recordsDropped = 0
    package private(set) var packetsRefused = 0

    package let interest: InterestTable
    private let mailboxes: Mailboxes
    private let slot: Int
    private let loop: EventLoop
    private let limits: Limits
    private let handlers: Handlers
    private var outboxes: [Outbox] = []
    private var sources: [Source] = []
    /// Records that come in parts, by sender.
    private var partial: [UInt16: [UInt8]] = [:]
    private var hasOutput = false

    /// Packets read in one turn, so that a flood does not keep connections from being served.
    private static let packetsPerTurn = 64
    /// Bytes read in one turn: what a turn delivers waits in the connections' queues until its end, and a subscriber that keeps up must not
    /// be taken for a slow one because its worker did not read for a while.
    private static let bytesPerTurn = 256 * 1024

    /// Joins the bus as the worker of `slot`: its row of the interest table starts empty.
    package init(
        slot: Int, mailboxes: Mailboxes, interest: InterestTable, loop: EventLoop, limits: Limits = Limits(), handlers: Handlers
    ) throws(SystemError) {
        self.slot = slot
        self.mailboxes = mailboxes
        self.interest = interest
        self.loop = loop
        self.limits = limits
        self.handlers = handlers
        interest.clear(slot)
        outboxes = (0..<mailboxes.slots).map { _ in Outbox() }
        let mailbox = Source { [unowned self] _ in readMailbox() }
        try loop.add(mailbox, descriptor: mailboxes.receiving(at: slot), for: .readable)
        let waker = Source { [unowned self] _ in
            self.mailboxes.waker(of: self.slot).silence()
            takeRequests()
        }
        try loop.add(waker, descriptor: mailboxes.waker(of: slot).descriptor, for: .readable)
        sources = [mailbox, waker]
        // Bits set while the slot had no worker ask nothing of connections that are gone.
    }

    /// Packets that the outboxes hold, those that were sent and not let go yet included.
    package var keptPackets: Int { outboxes.reduce(0) { $0 + $1.packetCount } }

    // MARK: Saying

    /// Says something to every interested slot but this one. Gives how many will get it.
    @discardableResult
    package func publish(topic: [UInt8], isText: Bool, payload: [UInt8]) -> Int {
        let hash = InterestTable.hash(topic)
        var receivers = 0
        for other in 0..<mailboxes.slots where other != slot && interest.isInterested(other, topicHash: hash) {
            say(to: other, bytes: Packet.publicationBytes(topic: topic.count, payload: payload.count)) {
                Packet.appendPublication(topic: topic, isText: isText, payload: payload, to: &$0)
            }
            receivers += 1
        }
        return receivers
    }

    /// Sends a signal to every other slot that has connections of the protocol.
    package func signal(protocolIndex: Int, _ signal: UInt32, payload: [UInt8]) {
        for other in 0..<mailboxes.slots where other != slot && interest.isInterested(other, protocolIndex: protocolIndex) {
            say(to: other, bytes: Packet.recordHeaderBytes + payload.count) {
                Packet.appendSignal(protocolIndex: UInt16(protocolIndex), signal: signal, payload: payload, to: &$0)
            }
        }
    }

    /// Asks every other slot that has connections of the protocol to do something that needs no data and may be asked any number of times.
    package func request(_ request: InterestTable.Request, protocolIndex: Int) {
        for other in 0..<mailboxes.slots where other != slot && interest.isInterested(other, protocolIndex: protocolIndex) {
            if interest.set(request, protocolIndex: protocolIndex, in: other) { mailboxes.waker(of: other).wakeUp() }
        }
    }

    private func say(to other: Int, bytes: Int, _ encode: (inout [UInt8]) -> Void) {
        guard bytes <= limits.maxRecordBytes, outboxes[other].byteCount + bytes <= limits.maxOutboxBytes || outboxes[other].isEmpty else {
            outboxes[other].lost += 1
            recordsDropped += 1
            hasOutput = true
            return
        }
        recordsSent += 1
        outboxes[other].append(bytes: bytes, sender: UInt16(slot), encode)
        hasOutput = true
    }

    /// Sends what was said. To be called at the end of each turn.
    package func flush() {
        guard hasOutput else { return }
        hasOutput = false
        for other in outboxes.indices where !outboxes[other].isBlocked { send(to: other) }
    }

    private func send(to other: Int) {
        let descriptor = mailboxes.sending(to: other)
        while let packet = outboxes[other].first(sender: UInt16(slot)) {
            do throws(SystemError) {
                switch try Socket.send(descriptor, packet) {
                case .done: outboxes[other].removeFirst()
                case .wouldBlock: return waitForRoom(other)
                }
            } catch {
                // A mailbox never closes while the master lives; without a master this process ends soon. But the kernel may lack memory.
                recordsDropped += outboxes[other].drop()
                return
            }
        }
    }

    /// The mailbox is full: the kernel reports room when it is three quarters empty.
    private func waitForRoom(_ other: Int) {
        outboxes[other].isBlocked = true
        let descriptor = mailboxes.sending(to: other)
        let source = Source { [unowned self] source in
            loop.remove(source, descriptor: descriptor)
            outboxes[other].isBlocked = false
            send(to: other)
        }
        do { try loop.add(source, descriptor: descriptor, for: .writable) } catch { outboxes[other].isBlocked = false }
    }

    // MARK: Hearing

    private func readMailbox() {
        var bytesRead = 0
        for _ in 0..<Self.packetsPerTurn where bytesRead < Self.bytesPerTurn {
            do throws(SystemError) {
                let bytes = try Socket.receivePacket(mailboxes.receiving(at: slot), maxBytes: Packet.maxBytes)
                guard case .done(let packet) = bytes, !packet.isEmpty else { return }
                bytesRead += packet.count
                accept(packet)
            } catch {
                return
            }
        }
    }

    private func accept(_ bytes: [UInt8]) {
        do throws(PacketViolation) {
            let packet = try Packet(bytes)
            if packet.lost > 0 {
                partial[packet.sender] = nil
                handlers.gap(Int(packet.sender), Int(packet.lost))
            }
            for record in packet.records {
                do throws(PacketViolation) { try accept(record, from: packet.sender) } catch {
                    partial[packet.sender] = nil
                    throw error
                }
            }
        } catch {
            packetsRefused += 1
        }
    }

    private func accept(_ record: Record, from sender: UInt16) throws(PacketViolation) {
        guard case .part(let offset, let isLast, let bytes) = record else {
            recordsReceived += 1
            return handlers.received(record)
        }
        // A record of which this process has not seen the beginning was its predecessor's, or its sender died on the way: what comes in
        // the middle of a payload must never be taken for a record.
        if offset == 0 { partial[sender] = [] }
        guard let count = partial[sender]?.count, count == Int(offset) else {
            partial[sender] = nil
            return
        }
        guard count + bytes.count <= limits.maxRecordBytes + Packet.recordHeaderBytes else {
            throw .recordTooLarge(limit: limits.maxRecordBytes)
        }
        partial[sender]?.append(contentsOf: bytes)
        guard isLast, let whole = partial.removeValue(forKey: sender) else { return }
        let record = try Packet.record(from: whole)
        if case .part = record { throw .malformedParts }
        recordsReceived += 1
        handlers.received(record)
    }

    private func takeRequests() {
        for request in InterestTable.Request.allCases {
            let bits = interest.take(request, of: slot)
            if bits != 0 { handlers.requested(request, bits) }
        }
    }
}

/// What waits for one receiver: packets, the last of which still grows.
private struct Outbox {
    private struct Pending {
        var bytes: [UInt8] = []
        /// How many records end in it, besides those that it says were lost.
        var records: UInt32 = 0
        var lost: UInt32 = 0
    }

    private var packets: [Pending] = []
    private var head = 0
    private(set) var byteCount = 0
    /// Records dropped since the last packet was opened.
    var lost: UInt32 = 0
    var isBlocked = false

    var isEmpty: Bool { head == packets.count }
    var packetCount: Int { packets.count }

    mutating func append(bytes: Int, sender: UInt16, _ encode: (inout [UInt8]) -> Void) {
        let room = Packet.maxBytes - Packet.headerBytes
        if bytes <= room {
            // A gap stands at the front of a packet: what comes after it may not join one that was opened before.
            if isEmpty || lost > 0 || packets[packets.count - 1].bytes.count + bytes > Packet.maxBytes { open(sender) }
            add { encode(&$0) }
            packets[packets.count - 1].records += 1
            return
        }
        // Too large for a packet: in parts, each a packet of its own.
        var whole: [UInt8] = []
        whole.reserveCapacity(bytes)
        encode(&whole)
        var rest = whole[...]
        while !rest.isEmpty {
            let step = rest.prefix(room - Packet.recordHeaderBytes)
            rest = rest.dropFirst(step.count)
            open(sender)
            let isLast = rest.isEmpty
            add { Packet.appendPart(offset: UInt32(step.startIndex), isLast: isLast, step, to: &$0) }
        }
        packets[packets.count - 1].records += 1
    }

    private mutating func open(_ sender: UInt16) {
        let gap = lost
        lost = 0
        packets.append(Pending(lost: gap))
        add { Packet.appendHeader(sender: sender, lost: gap, to: &$0) }
    }

    private mutating func add(_ write: (inout [UInt8]) -> Void) {
        let before = packets[packets.count - 1].bytes.count
        write(&packets[packets.count - 1].bytes)
        byteCount += packets[packets.count - 1].bytes.count - before
    }

    /// The packet to send next. If records were lost and nothing follows them, an empty one says so.
    mutating func first(sender: UInt16) -> [UInt8]? {
        if isEmpty {
            guard lost > 0 else { return nil }
            open(sender)
        }
        return packets[head].bytes
    }

    mutating func removeFirst() {
        byteCount -= packets[head].bytes.count
        packets[head] = Pending()
        head += 1
        // A receiver that is always behind never empties this: what has been sent must not pile up.
        if head >= 64, head * 2 >= packets.count || isEmpty {
            packets.removeFirst(head)
            head = 0
        } else if isEmpty {
            packets.removeAll(keepingCapacity: true)
            head = 0
        }
    }

    /// Drops everything; gives how many records that were.
    mutating func drop() -> Int {
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

/// A descriptor to watch and what to do.
private final class Source: EventSource {
    private let body: (Source) -> Void
    init(_ body: @escaping (Source) -> Void) {
        self.body = body
        super.init()
    }
    override func ready(_ readiness: Readiness, in loop: EventLoop) { body(self) }
}
