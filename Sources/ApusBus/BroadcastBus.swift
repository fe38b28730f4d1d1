package import ApusPlatform

/// One process's access to the bus: its interests, the records that it sends (through `Outboxes`),
/// and those that it receives.
///
/// Order: records from one process to another arrive in the order sent. Delivery: at most once, and
/// only to the process that owned the mailbox at the time of sending: a crashed worker's unread
/// records were for connections that no longer exist. A receiver that does not read fills its
/// mailbox (megabytes), then this outbox (`Limits.maxOutboxBytes`); further records are dropped,
/// counted, and reported to the receiver as a gap before the next packet. Sending never blocks.
package final class BroadcastBus {
    package struct Limits: Sendable {
        /// Bytes queued for a receiver whose mailbox is full. A single larger record is allowed.
        package var maxOutboxBytes = 8 << 20
        /// Bytes of one record, all its parts together.
        package var maxRecordBytes = 128 << 20
        /// Bytes of all incomplete records, from all senders; at least `maxRecordBytes`.
        package var maxPartialBytes = 256 << 20
        package init() {}
    }

    /// Callbacks of the bus.
    package struct Handlers {
        /// A complete record was received; never a part.
        package var received: (Record) -> Void
        /// `lost` records of this sender were dropped before the next one.
        package var gap: (_ sender: Int, _ lost: Int) -> Void
        /// Requests were made for the protocols in this bit set; see `InterestTable.Request`.
        package var requested: (InterestTable.Request, UInt64) -> Void
        /// Whether to continue reading a backlog in the next turn. Called when this process had not
        /// read the mailbox for a while and did not empty it in one turn; if false, called again a
        /// little later. `isContinued`: whether the mailbox has not been empty since the last call.
        package var takesMore: (_ isContinued: Bool) -> Bool
        /// Receiving was disturbed, or is possible again.
        package var disturbed: (Disturbance) -> Void

        package init(
            received: @escaping (Record) -> Void, gap: @escaping (Int, Int) -> Void,
            requested: @escaping (InterestTable.Request, UInt64) -> Void, takesMore: @escaping (Bool) -> Bool = { _ in true },
            disturbed: @escaping (Disturbance) -> Void = { _ in }
        ) {
            self.received = received
            self.gap = gap
            self.requested = requested
            self.takesMore = takesMore
            self.disturbed = disturbed
        }
    }

    /// Why this process cannot receive. All processes can write to the shared memory and hold the
    /// sockets of the bus, so a faulty one can disturb the others.
    package enum Disturbance: Equatable, Sendable {
        /// The interest table names another owner of this mailbox. Sending still works.
        case placeTaken(by: UInt32)
        /// The row is this process's again. Records sent meanwhile are lost.
        case placeReturned
        /// The mailbox's socket was shut down, permanently.
        case mailboxShut
    }

    /// What this process counts in its row of the interest table.
    package enum Interest: Hashable {
        case connections(protocolIndex: Int)
        case topic(hash: UInt32)
        case pattern
    }

    /// Totals since the process started.
    package struct Counters {
        package fileprivate(set) var recordsSent = 0
        package fileprivate(set) var recordsReceived = 0
        package fileprivate(set) var recordsDropped = 0
        package fileprivate(set) var packetsSent = 0
        package fileprivate(set) var packetsRefused = 0
        /// Packets for an earlier owner of the mailbox.
        package fileprivate(set) var packetsSkipped = 0
    }

    package var counts: Counters {
        let sent = outboxes.counts
        var counts = received
        counts.recordsSent = sent.recordsSent
        counts.recordsDropped = sent.recordsDropped
        counts.packetsSent = sent.packetsSent
        return counts
    }

    package let interest: InterestTable
    /// This process's mailbox index, also its row's.
    package let place: Int
    private let mailboxes: Mailboxes
    private let header: Packet.Header
    private let loop: EventLoop
    private let handlers: Handlers
    private let outboxes: Outboxes
    /// What was received.
    private var received = Counters()
    private let mailbox = ClosureSource()
    private let waker = ClosureSource()
    private var isMailboxShut = false
    /// Whether another process owns the row; `ownershipTimer` checks again.
    private var isSuspended = false
    /// Changes of the row to apply when it is this process's again.
    private var owed: [Interest: Int] = [:]
    private let incoming = ReceivedPacket()
    private var assembly: RecordAssembly
    /// Whether the mailbox has not been empty since the limit per turn was reached.
    private var hasBacklog = false
    /// Whether the mailbox was unread so long before that the process was probably stopped.
    private var hasBeenAway = false
    private var lastRead: MonotonicTime
    private let backpressureTimer = ClosureTimer()
    private let ownershipTimer = ClosureTimer()

    /// Most packets read per turn, so that a flood does not starve connections.
    private static let packetsPerTurn = 64
    /// Most bytes read per turn. What a turn delivers is queued until its end, and a subscriber
    /// that keeps up must not be closed as slow because its worker did not read for a while.
    private static let bytesPerTurn = 256 * 1024
    /// Most external senders with incomplete records.
    private static let maxExternalSenders = 64
    /// Time between two calls of `takesMore`.
    private static let pause = Duration.milliseconds(2)
    /// Time between two ownership checks.
    private static let ownershipCheckInterval = Duration.milliseconds(250)
    private static let listening: ApusPlatform.Interest = [.readable, .peerClosed]
    /// A backlog after this long without a read means that the process was stopped.
    private static let absence = Duration.milliseconds(100)

    /// Joins the bus as the owner of a mailbox; its row of the interest table starts empty.
    package init(
        place: Int, generation: Int, mailboxes: Mailboxes, interest: InterestTable, loop: EventLoop, limits: Limits = Limits(),
        handlers: Handlers
    ) throws(SystemError) {
        self.place = place
        self.mailboxes = mailboxes
        self.interest = interest
        self.loop = loop
        self.handlers = handlers
        // 0 marks a row without an owner.
        let process = UInt32(truncatingIfNeeded: generation) &+ 1
        header = Packet.Header(sender: UInt16(place), process: process)
        assembly = RecordAssembly(
            maxRecordBytes: limits.maxRecordBytes, maxBytes: limits.maxPartialBytes, maxRecords: mailboxes.places + Self.maxExternalSenders)
        outboxes = Outboxes(header, to: mailboxes, interest: interest, loop: loop, limits: limits)
        lastRead = loop.now
        interest.join(place, generation: process)
        backpressureTimer.body = { [unowned self] _, _ in
            if handlers.takesMore(true) { listen(true) } else { loop.schedule(backpressureTimer, after: Self.pause) }
        }
        ownershipTimer.body = { [unowned self] _, _ in checkOwnership() }
        mailbox.body = { [unowned self] in readMailbox(isShut: !$1.isDisjoint(with: [.peerClosed, .hangUp])) }
        waker.body = { [unowned self] _, _ in
            self.mailboxes.waker(of: place).silence()
            takeRequests()
        }
        try watch()
        // Request bits set while the mailbox had no owner concern no connection here.
    }

    /// Called by the master: ends sending to a process, and discards its unread records.
    package static func ended(place: Int, generation: Int, mailboxes: Mailboxes, interest: InterestTable) {
        let process = UInt32(truncatingIfNeeded: generation) &+ 1
        guard [0, process].contains(interest.generation(of: place)) else { return }
        interest.leave(place, generation: process)
        mailboxes.empty(place)
    }

    /// Packets queued in the outboxes.
    package var keptPackets: Int { outboxes.packetCount }

    /// Incomplete records received, and their bytes.
    package var partialRecords: Int { assembly.count }
    package var partialBytes: Int { assembly.byteCount }

    // MARK: Sending

    /// Sends a publication to every other process with subscribers.
    ///
    /// - Returns: the number of processes that will receive it.
    @discardableResult
    package func publish(topic: borrowing RawSpan, hash: UInt32, isText: Bool, payload: borrowing RawSpan) -> Int {
        var receivers = 0
        for other in 0..<mailboxes.places where other != place && interest.isInterested(other, topicHash: hash) {
            if outboxes.appendPublication(topic: topic, hash: hash, isText: isText, payload: payload, to: other) { receivers += 1 }
        }
        return receivers
    }

    /// Sends a signal to every other process with connections of the protocol.
    package func signal(protocolIndex: Int, _ signal: UInt32, payload: borrowing RawSpan) {
        for other in 0..<mailboxes.places where other != place && interest.isInterested(other, protocolIndex: protocolIndex) {
            outboxes.appendSignal(protocolIndex: UInt16(protocolIndex), signal, payload: payload, to: other)
        }
    }

    /// Sends a request, which coalesces, to every other process that uses the protocol.
    package func request(_ request: InterestTable.Request, protocolIndex: Int) {
        for other in 0..<mailboxes.places where other != place && interest.isInterested(other, protocolIndex: protocolIndex) {
            if interest.set(request, protocolIndex: protocolIndex, in: other) { mailboxes.waker(of: other).wakeUp() }
        }
    }

    /// Sends queued records; call it at the end of each turn.
    package func flush() { outboxes.flush() }

    // MARK: Receiving

    private func readMailbox(isShut: Bool) {
        guard hasPlace else { return suspendReceiving() }
        let incoming = incoming
        var bytesRead = 0
        for _ in 0..<Self.packetsPerTurn where bytesRead < Self.bytesPerTurn {
            do throws(SystemError) {
                guard case .done(let count) = try incoming.receive(from: mailboxes.receiving(at: place)) else {
                    hasBacklog = false
                    lastRead = loop.currentTime
                    return
                }
                // End of input, or an empty packet, which would be invalid.
                if count == 0, isShut { return giveUpMailbox() }
                bytesRead += count
                accept(incoming.bytes)
            } catch {
                return
            }
        }
        let isContinued = hasBacklog
        hasBacklog = true
        // The process may have been stopped at any instruction, also in this turn: the turn's time
        // would not show it.
        let now = loop.currentTime
        let wasAway = now.millisecondsSince(lastRead) >= Self.absence.wholeMilliseconds
        lastRead = now
        hasBeenAway = isContinued && hasBeenAway || wasAway
        if hasBeenAway, !handlers.takesMore(isContinued) {
            listen(false)
            loop.schedule(backpressureTimer, after: Self.pause)
        }
    }

    private func listen(_ isListening: Bool) {
        try? loop.update(mailbox, descriptor: mailboxes.receiving(at: place), for: isListening ? Self.listening : [])
    }

    private func giveUpMailbox() {
        isMailboxShut = true
        loop.cancel(backpressureTimer)
        loop.remove(mailbox, descriptor: mailboxes.receiving(at: place))
        handlers.disturbed(.mailboxShut)
    }

    // MARK: Ownership

    private func watch() throws(SystemError) {
        if !isMailboxShut { try loop.add(mailbox, descriptor: mailboxes.receiving(at: place), for: Self.listening) }
        do throws(SystemError) {
            try loop.add(waker, descriptor: mailboxes.waker(of: place).descriptor, for: .readable)
        } catch {
            loop.remove(mailbox, descriptor: mailboxes.receiving(at: place))
            throw error
        }
    }

    /// Another process owns this mailbox: stops reading it, and checks again periodically.
    private func suspendReceiving() {
        guard !isSuspended else { return }
        isSuspended = true
        hasBacklog = false
        loop.cancel(backpressureTimer)
        loop.remove(mailbox, descriptor: mailboxes.receiving(at: place))
        loop.remove(waker, descriptor: mailboxes.waker(of: place).descriptor)
        loop.schedule(ownershipTimer, after: Self.ownershipCheckInterval)
        handlers.disturbed(.placeTaken(by: interest.generation(of: place)))
    }

    private func checkOwnership() {
        // Without memory for the registration, check again later.
        guard hasPlace, (try? watch()) != nil else { return loop.schedule(ownershipTimer, after: Self.ownershipCheckInterval) }
        isSuspended = false
        for (owed, change) in owed { add(change, owed) }
        owed = [:]
        handlers.disturbed(.placeReturned)
        takeRequests()
    }

    /// Counts one connection or subscription more (1) or less (-1).
    package func count(_ change: Int, _ what: Interest) {
        if hasPlace { return add(change, what) }
        suspendReceiving()
        owed[bucket(of: what), default: 0] += change
    }

    /// Maps topics to the table's buckets, so that the owed changes are bounded.
    private func bucket(of what: Interest) -> Interest {
        if case .topic(let hash) = what { .topic(hash: InterestTable.bucket(of: hash)) } else { what }
    }

    private func add(_ change: Int, _ what: Interest) {
        switch what {
        case .connections(let index): interest.count(change, protocolIndex: index, in: place)
        case .topic(let hash): interest.count(change, topicHash: hash, in: place)
        case .pattern: interest.countPattern(change, in: place)
        }
    }

    /// Whether this process still owns its row of the interest table.
    package var hasPlace: Bool { interest.generation(of: place) == header.process }

    private func accept(_ bytes: RawSpan) {
        do throws(PacketViolation) {
            var packet = try Packet(bytes)
            guard packet.header.receiver == header.process else {
                received.packetsSkipped += 1
                return
            }
            guard packet.header.sender < mailboxes.places || packet.header.sender == Packet.externalSender else {
                throw .unknownSender(packet.header.sender)
            }
            if packet.header.lost > 0 {
                assembly.forget(packet.header)
                handlers.gap(Int(packet.header.sender), Int(packet.header.lost))
            }
            while let record = packet.next() { try accept(record, from: packet.header) }
        } catch {
            received.packetsRefused += 1
        }
    }

    private func accept(_ record: Record, from sender: Packet.Header) throws(PacketViolation) {
        guard case .part(let offset, let isLast, let bytes) = record else {
            received.recordsReceived += 1
            return handlers.received(record)
        }
        var dropped: [UInt16] = []
        let whole = try assembly.add(bytes, at: Int(offset), isLast: isLast, from: sender) { dropped.append($0) }
        for sender in dropped { handlers.gap(Int(sender), 1) }
        guard let whole else { return }
        // SAFETY: octets have no padding and no invalid values.
        let complete = try Packet.record(from: unsafe whole.span.bytes)
        if case .part = complete { throw .malformedParts }
        received.recordsReceived += 1
        handlers.received(complete)
    }

    private func takeRequests() {
        guard hasPlace else { return suspendReceiving() }
        for request in InterestTable.Request.allCases {
            let bits = interest.take(request, of: place)
            if bits != 0 { handlers.requested(request, bits) }
        }
    }
}
