import ApusPlatform

/// The sending side of a process on the bus: an `Outbox` for each mailbox, sent as the mailboxes
/// and the limits allow. Sending never blocks.
@safe final class Outboxes {
    /// Totals since the process started.
    struct Counters {
        fileprivate(set) var recordsSent = 0
        fileprivate(set) var recordsDropped = 0
        fileprivate(set) var packetsSent = 0
    }

    private let mailboxes: Mailboxes
    private let interest: InterestTable
    private let header: Packet.Header
    private let loop: EventLoop
    private let limits: BroadcastBus.Limits
    // State that changes with each record is behind pointers: a stored property would cost an
    // exclusivity check per access.
    // SAFETY: both are allocated for the object's life; `outboxes` has one element per mailbox, and
    // indices come from loops over the mailboxes.
    private let outboxes: UnsafeMutableBufferPointer<Outbox>
    private let counters: UnsafeMutablePointer<Counters>
    /// Mailboxes with output, each once.
    private var listed: [Int] = []
    private let flushTimer = ClosureTimer()

    /// - Parameter header: of each packet; the receiver and the gap are filled in.
    init(_ header: Packet.Header, to mailboxes: Mailboxes, interest: InterestTable, loop: EventLoop, limits: BroadcastBus.Limits) {
        self.header = header
        self.mailboxes = mailboxes
        self.interest = interest
        self.loop = loop
        self.limits = limits
        unsafe outboxes = .allocate(capacity: mailboxes.places)
        unsafe outboxes.initialize(repeating: Outbox())
        unsafe counters = .allocate(capacity: 1)
        unsafe counters.initialize(to: Counters())
        flushTimer.body = { [unowned self] _, _ in flush() }
    }

    deinit {
        unsafe outboxes.deinitialize().deallocate()
        unsafe counters.deinitialize(count: 1)
        unsafe counters.deallocate()
    }

    var counts: Counters { unsafe counters.pointee }

    var packetCount: Int { unsafe outboxes.reduce(0) { $0 + $1.packetCount } }

    // MARK: Appending

    /// Queues a publication for the owner of a mailbox.
    ///
    /// - Returns: false if it was dropped.
    func appendPublication(
        topic: borrowing RawSpan, hash: UInt32, isText: Bool, payload: borrowing RawSpan, to other: Int
    ) -> Bool {
        let bytes = Packet.recordHeaderBytes + topic.byteCount + payload.byteCount
        guard admit(bytes, to: other) else { return false }
        if bytes <= Packet.room {
            tail(of: other, for: bytes).appendPublication(topic: topic, hash: hash, isText: isText, payload: payload)
        } else {
            let whole = PacketBuffer(capacity: bytes)
            whole.appendPublication(topic: topic, hash: hash, isText: isText, payload: payload)
            appendParts(of: whole, to: other)
        }
        return true
    }

    /// Queues a signal for the owner of a mailbox, or drops it.
    func appendSignal(protocolIndex: UInt16, _ signal: UInt32, payload: borrowing RawSpan, to other: Int) {
        let bytes = Packet.recordHeaderBytes + payload.byteCount
        guard admit(bytes, to: other) else { return }
        if bytes <= Packet.room {
            tail(of: other, for: bytes).appendSignal(protocolIndex: protocolIndex, signal: signal, payload: payload)
        } else {
            let whole = PacketBuffer(capacity: bytes)
            whole.appendSignal(protocolIndex: protocolIndex, signal: signal, payload: payload)
            appendParts(of: whole, to: other)
        }
    }

    /// Whether a record of `bytes` bytes may be queued; a full outbox is flushed first.
    private func admit(_ bytes: Int, to other: Int) -> Bool {
        unsafe outboxes[other].turn(to: interest.generation(of: other))
        if unsafe !outboxes[other].isListed {
            unsafe outboxes[other].isListed = true
            listed.append(other)
        }
        if !fits(bytes, other), unsafe !outboxes[other].isBlocked { send(to: other) }
        guard bytes <= limits.maxRecordBytes, fits(bytes, other) else {
            unsafe outboxes[other].drop()
            unsafe counters.pointee.recordsDropped += 1
            return false
        }
        unsafe counters.pointee.recordsSent += 1
        return true
    }

    private func fits(_ bytes: Int, _ other: Int) -> Bool {
        unsafe outboxes[other].byteCount + bytes <= limits.maxOutboxBytes || outboxes[other].isEmpty
    }

    private func tail(of other: Int, for bytes: Int) -> PacketBuffer {
        let packet = unsafe outboxes[other].tail(for: bytes, from: header)
        unsafe outboxes[other].grew(by: bytes)
        return packet
    }

    /// Queues a record larger than a packet in parts, one per packet.
    private func appendParts(of whole: PacketBuffer, to other: Int) {
        let bytes = unsafe RawSpan(_unsafeBytes: whole.bytes)
        var start = 0
        while start < bytes.byteCount {
            let end = min(bytes.byteCount, start + Packet.room - Packet.recordHeaderBytes)
            // A part fills its packet or starts a new one: no record comes between.
            let packet = tail(of: other, for: end - start + Packet.recordHeaderBytes)
            packet.appendPart(offset: UInt32(start), isLast: end == bytes.byteCount, bytes.extracting(start..<end))
            start = end
        }
    }

    // MARK: Sending

    /// Sends what may be sent now.
    func flush() {
        guard !listed.isEmpty else { return }
        var waiting = 0
        for index in listed.indices {
            let other = listed[index]
            if unsafe !outboxes[other].isBlocked {
                if let time = unsafe outboxes[other].sendingTime(now: loop.now) {
                    if !flushTimer.isScheduled || time.milliseconds < flushTimer.deadline { loop.schedule(flushTimer, at: time) }
                    listed[waiting] = other
                    waiting += 1
                    continue
                }
                send(to: other)
            }
            unsafe outboxes[other].isListed = false
        }
        listed.removeLast(listed.count - waiting)
    }

    private func send(to other: Int) {
        // Drop what was queued for an earlier owner of the mailbox.
        unsafe outboxes[other].turn(to: interest.generation(of: other))
        let descriptor = mailboxes.sending(to: other)
        while let packet = unsafe outboxes[other].first(from: header) {
            do throws(SystemError) {
                switch try unsafe Socket.send(descriptor, packet.bytes) {
                case .done:
                    unsafe counters.pointee.packetsSent += 1
                    unsafe outboxes[other].removeFirst()
                case .wouldBlock: return waitForRoom(other)
                }
            } catch {
                // A mailbox does not close while the master lives, but the kernel may lack memory.
                unsafe counters.pointee.recordsDropped += outboxes[other].dropAll()
                return
            }
        }
    }

    /// The mailbox is full; the kernel reports room when it is three quarters empty.
    private func waitForRoom(_ other: Int) {
        unsafe outboxes[other].isBlocked = true
        let descriptor = mailboxes.sending(to: other)
        let source = ClosureSource { [unowned self] source, _ in
            loop.remove(source, descriptor: descriptor)
            unsafe outboxes[other].isBlocked = false
            send(to: other)
        }
        do { try loop.add(source, descriptor: descriptor, for: .writable) } catch { unsafe outboxes[other].isBlocked = false }
    }
}
