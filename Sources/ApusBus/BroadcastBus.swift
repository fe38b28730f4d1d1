package import ApusPlatform

/// One process's access to the bus: gathers what it says during a turn, sends it, keeps what does not fit, and hands on what others say.
///
/// Order: what one process says to another arrives in the order it was said. Delivery: at most once, and only to the process that was at the
/// place when it was said: what a dead worker did not read was for connections that are gone, and its successor's connections hear what is
/// said after they came. A receiver that does not read fills its mailbox (megabytes), then this outbox (`Limits.maxOutboxBytes`); what comes
/// after is dropped, counted, and told to the receiver as a gap in front of the next packet. Saying never blocks.
@safe package final class BroadcastBus {
    package struct Limits: Sendable {
        /// Bytes kept for a receiver whose mailbox is full. One record may pass it, if it is alone.
        package var maxOutboxBytes = 8 << 20
        /// Bytes of one record, all its parts together.
        package var maxRecordBytes = 128 << 20
        /// Bytes kept of records of which parts are still to come, whoever sends them; at least `maxRecordBytes`.
        package var maxPartialBytes = 256 << 20
        package init() {}
    }

    /// What the bus tells its owner.
    package struct Handlers {
        /// A record came from another process; never a part.
        package var received: (Record) -> Void
        /// So many records of this sender were lost on the way here.
        package var gap: (_ sender: Int, _ lost: Int) -> Void
        /// Bits of protocols, see `InterestTable.Request`.
        package var requested: (InterestTable.Request, UInt64) -> Void
        /// More waits in the mailbox than was read, and it had not been read for a while: whether to go on in the next turn. If not, the bus
        /// asks again a little later. It says whether the mailbox has not been empty since it asked last.
        package var takesMore: (_ isContinued: Bool) -> Bool
        /// Others cannot be heard, or can again.
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

    /// What keeps this process from hearing others. All processes write to the memory and hold the sockets that the bus consists of, so that one
    /// that has gone wrong can do this to the others.
    package enum Disturbance: Equatable, Sendable {
        /// The row of this process's place is another process's, who need not exist. It can still speak.
        case placeTaken(by: UInt32)
        /// The row is its own again. What was said meanwhile is lost.
        case placeReturned
        /// Somebody has shut the mailbox down, for good.
        case mailboxShut
    }

    /// What is counted in this process's row of the interest table.
    package enum Interest: Hashable {
        case connections(protocolIndex: Int)
        case topic(hash: UInt32)
        case pattern
    }

    /// What is counted from the start of the process.
    package struct Counters {
        package fileprivate(set) var recordsSent = 0
        package fileprivate(set) var recordsReceived = 0
        package fileprivate(set) var recordsDropped = 0
        package fileprivate(set) var packetsSent = 0
        package fileprivate(set) var packetsRefused = 0
        /// Packets for a predecessor.
        package fileprivate(set) var packetsSkipped = 0
    }

    package var counts: Counters { unsafe counters.pointee }

    package let interest: InterestTable
    /// This process's mailbox and row.
    package let place: Int
    private let mailboxes: Mailboxes
    private let header: Packet.Header
    private let loop: EventLoop
    private let limits: Limits
    private let handlers: Handlers
    // What changes with each record lies behind pointers: a stored property would cost an exclusivity check with each access.
    // SAFETY: both are allocated for the bus's life; `outboxes` has one for each place, and places come from the table or are counted.
    private let outboxes: UnsafeMutableBufferPointer<Outbox>
    private let counters: UnsafeMutablePointer<Counters>
    /// Places with something to send, each once.
    private var listed: [Int] = []
    private let mailbox = Source()
    private let waker = Source()
    private var isMailboxShut = false
    /// The row is another's; `lookout` sees when it no longer is.
    private var isAside = false
    /// Changes of the row to be made when it is this process's again.
    private var owed: [Interest: Int] = [:]
    private let incoming = ReceivedPacket()
    private var assembly: RecordAssembly
    /// The mailbox has not been empty since a turn's worth of it was read.
    private var hasBacklog = false
    /// Before that it had not been read for so long that this process was probably stopped.
    private var hasBeenAway = false
    private var lastRead: MonotonicTime
    private let alarm: Alarm
    private let patience: Alarm
    private let lookout: Alarm

    /// Packets read in one turn, so that a flood does not keep connections from being served.
    private static let packetsPerTurn = 64
    /// Bytes read in one turn: what a turn delivers waits in the connections' queues until its end, and a subscriber that keeps up must not
    /// be taken for a slow one because its worker did not read for a while.
    private static let bytesPerTurn = 256 * 1024
    /// Processes without a place that may have sent parts of a record at a time.
    private static let maxOutsiders = 64
    /// Between two looks at whether the owner takes more.
    private static let pause = Duration.milliseconds(2)
    /// Between two looks at whether the row is this process's again.
    private static let lookInterval = Duration.milliseconds(250)
    private static let listening: Readiness = [.readable, .peerClosed]
    /// Who has not read its mailbox for so long, and finds much in it, was away.
    private static let absence = Duration.milliseconds(100)

    /// Joins the bus as the process at a place: its row of the interest table starts empty.
    package init(
        place: Int, generation: Int, mailboxes: Mailboxes, interest: InterestTable, loop: EventLoop, limits: Limits = Limits(),
        handlers: Handlers
    ) throws(SystemError) {
        self.place = place
        self.mailboxes = mailboxes
        self.interest = interest
        self.loop = loop
        self.limits = limits
        self.handlers = handlers
        // The table says 0 where nobody is.
        let process = UInt32(truncatingIfNeeded: generation) &+ 1
        header = Packet.Header(sender: UInt16(place), process: process)
        assembly = RecordAssembly(
            maxRecordBytes: limits.maxRecordBytes, maxBytes: limits.maxPartialBytes, maxRecords: mailboxes.places + Self.maxOutsiders)
        unsafe outboxes = .allocate(capacity: mailboxes.places)
        unsafe outboxes.initialize(repeating: Outbox())
        unsafe counters = .allocate(capacity: 1)
        unsafe counters.initialize(to: Counters())
        lastRead = loop.now
        alarm = Alarm()
        patience = Alarm()
        lookout = Alarm()
        interest.join(place, generation: process)
        alarm.body = { [unowned self] in flush() }
        patience.body = { [unowned self] in
            if handlers.takesMore(true) { listen(true) } else { loop.schedule(patience, after: Self.pause) }
        }
        lookout.body = { [unowned self] in lookAgain() }
        mailbox.body = { [unowned self] in readMailbox(isShut: !$0.isDisjoint(with: [.peerClosed, .hangUp])) }
        waker.body = { [unowned self] _ in
            self.mailboxes.waker(of: place).silence()
            takeRequests()
        }
        try watch()
        // Bits set while the place had no worker ask nothing of connections that are gone.
    }

    deinit {
        unsafe outboxes.deinitialize().deallocate()
        unsafe counters.deinitialize(count: 1)
        unsafe counters.deallocate()
    }

    /// The master says that a process has ended: nothing more is said to it, and what it did not read goes.
    package static func ended(place: Int, generation: Int, mailboxes: Mailboxes, interest: InterestTable) {
        let process = UInt32(truncatingIfNeeded: generation) &+ 1
        guard [0, process].contains(interest.generation(of: place)) else { return }
        interest.leave(place, generation: process)
        mailboxes.empty(place)
    }

    /// Packets that wait in the outboxes.
    package var keptPackets: Int { unsafe outboxes.reduce(0) { $0 + $1.packetCount } }

    /// Records of which parts are still to come, and bytes of all of these.
    package var partialRecords: Int { assembly.count }
    package var partialBytes: Int { assembly.byteCount }

    // MARK: Saying

    /// Says something to every interested place but this one. Gives how many will get it.
    @discardableResult
    package func publish(topic: borrowing RawSpan, hash: UInt32, isText: Bool, payload: borrowing RawSpan) -> Int {
        var receivers = 0
        let bytes = Packet.recordHeaderBytes + topic.byteCount + payload.byteCount
        for other in 0..<mailboxes.places where other != place && interest.isInterested(other, topicHash: hash) {
            guard admit(bytes, to: other) else { continue }
            if bytes <= Packet.room {
                tail(of: other, for: bytes).appendPublication(topic: topic, hash: hash, isText: isText, payload: payload)
            } else {
                let whole = PacketBuffer(capacity: bytes)
                whole.appendPublication(topic: topic, hash: hash, isText: isText, payload: payload)
                sayInParts(whole, to: other)
            }
            receivers += 1
        }
        return receivers
    }

    /// Sends a signal to every other place that has connections of the protocol.
    package func signal(protocolIndex: Int, _ signal: UInt32, payload: borrowing RawSpan) {
        let bytes = Packet.recordHeaderBytes + payload.byteCount
        for other in 0..<mailboxes.places where other != place && interest.isInterested(other, protocolIndex: protocolIndex) {
            guard admit(bytes, to: other) else { continue }
            if bytes <= Packet.room {
                tail(of: other, for: bytes).appendSignal(protocolIndex: UInt16(protocolIndex), signal: signal, payload: payload)
            } else {
                let whole = PacketBuffer(capacity: bytes)
                whole.appendSignal(protocolIndex: UInt16(protocolIndex), signal: signal, payload: payload)
                sayInParts(whole, to: other)
            }
        }
    }

    /// Asks every other place that has connections of the protocol to do something that needs no data and may be asked any number of times.
    package func request(_ request: InterestTable.Request, protocolIndex: Int) {
        for other in 0..<mailboxes.places where other != place && interest.isInterested(other, protocolIndex: protocolIndex) {
            if interest.set(request, protocolIndex: protocolIndex, in: other) { mailboxes.waker(of: other).wakeUp() }
        }
    }

    /// Whether a record of so many bytes may wait for a place. What does not fit the outbox is first tried on the mailbox.
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

    /// Too large for a packet: in parts, each a packet of its own.
    private func sayInParts(_ whole: PacketBuffer, to other: Int) {
        let bytes = unsafe RawSpan(_unsafeBytes: whole.bytes)
        var start = 0
        while start < bytes.byteCount {
            let end = min(bytes.byteCount, start + Packet.room - Packet.recordHeaderBytes)
            // Only what fills a packet, or opens one, keeps the parts apart from other records.
            let packet = tail(of: other, for: end - start + Packet.recordHeaderBytes)
            packet.appendPart(offset: UInt32(start), isLast: end == bytes.byteCount, bytes.extracting(start..<end))
            start = end
        }
    }

    /// Sends what was said. To be called at the end of each turn.
    package func flush() {
        guard !listed.isEmpty else { return }
        var waiting = 0
        for index in listed.indices {
            let other = listed[index]
            if unsafe !outboxes[other].isBlocked {
                if let time = unsafe outboxes[other].sendingTime(now: loop.now) {
                    if !alarm.isScheduled || time.milliseconds < alarm.deadline { loop.schedule(alarm, at: time) }
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
        // Who was meant has gone if another is there now.
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
                // A mailbox never closes while the master lives; without a master this process ends soon. But the kernel may lack memory.
                unsafe counters.pointee.recordsDropped += outboxes[other].dropAll()
                return
            }
        }
    }

    /// The mailbox is full: the kernel reports room when it is three quarters empty.
    private func waitForRoom(_ other: Int) {
        unsafe outboxes[other].isBlocked = true
        let descriptor = mailboxes.sending(to: other)
        let source = Source()
        source.body = { [unowned self, unowned source] _ in
            loop.remove(source, descriptor: descriptor)
            unsafe outboxes[other].isBlocked = false
            send(to: other)
        }
        do { try loop.add(source, descriptor: descriptor, for: .writable) } catch { unsafe outboxes[other].isBlocked = false }
    }

    // MARK: Hearing

    private func readMailbox(isShut: Bool) {
        guard hasPlace else { return stepAside() }
        let incoming = incoming
        let silence = loop.now.millisecondsSince(lastRead)
        lastRead = loop.now
        var bytesRead = 0
        for _ in 0..<Self.packetsPerTurn where bytesRead < Self.bytesPerTurn {
            do throws(SystemError) {
                guard case .done(let count) = try incoming.receive(from: mailboxes.receiving(at: place)) else {
                    hasBacklog = false
                    return
                }
                // The end, or a packet without a byte, which would be no good one.
                if count == 0, isShut { return giveUpMailbox() }
                bytesRead += count
                accept(incoming.bytes)
            } catch {
                return
            }
        }
        let isContinued = hasBacklog
        hasBacklog = true
        if !isContinued { hasBeenAway = silence >= Self.absence.wholeMilliseconds }
        if hasBeenAway, !handlers.takesMore(isContinued) {
            listen(false)
            loop.schedule(patience, after: Self.pause)
        }
    }

    private func listen(_ isListening: Bool) {
        try? loop.update(mailbox, descriptor: mailboxes.receiving(at: place), for: isListening ? Self.listening : [])
    }

    private func giveUpMailbox() {
        isMailboxShut = true
        loop.cancel(patience)
        loop.remove(mailbox, descriptor: mailboxes.receiving(at: place))
        handlers.disturbed(.mailboxShut)
    }

    // MARK: The place

    private func watch() throws(SystemError) {
        if !isMailboxShut { try loop.add(mailbox, descriptor: mailboxes.receiving(at: place), for: Self.listening) }
        do throws(SystemError) {
            try loop.add(waker, descriptor: mailboxes.waker(of: place).descriptor, for: .readable)
        } catch {
            loop.remove(mailbox, descriptor: mailboxes.receiving(at: place))
            throw error
        }
    }

    /// The row says that another process is at this place, although this one lives: the mailbox is the other's. This one hears no more of others,
    /// can still speak, and looks from time to time whether the row has become its own again.
    private func stepAside() {
        guard !isAside else { return }
        isAside = true
        hasBacklog = false
        loop.cancel(patience)
        loop.remove(mailbox, descriptor: mailboxes.receiving(at: place))
        loop.remove(waker, descriptor: mailboxes.waker(of: place).descriptor)
        loop.schedule(lookout, after: Self.lookInterval)
        handlers.disturbed(.placeTaken(by: interest.generation(of: place)))
    }

    private func lookAgain() {
        // Without memory for it, a little later.
        guard hasPlace, (try? watch()) != nil else { return loop.schedule(lookout, after: Self.lookInterval) }
        isAside = false
        for (owed, change) in owed { add(change, owed) }
        owed = [:]
        handlers.disturbed(.placeReturned)
        takeRequests()
    }

    /// Counts a connection, or a subscription, in (1) or out (-1).
    package func count(_ change: Int, _ what: Interest) {
        if hasPlace { return add(change, what) }
        stepAside()
        owed[bucket(of: what), default: 0] += change
    }

    /// As many different ones as the table has cells.
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

    /// Whether the row of the interest table is this process's still.
    package var hasPlace: Bool { interest.generation(of: place) == header.process }

    private func accept(_ bytes: RawSpan) {
        do throws(PacketViolation) {
            var packet = try Packet(bytes)
            guard packet.header.receiver == header.process else {
                unsafe counters.pointee.packetsSkipped += 1
                return
            }
            guard packet.header.sender < mailboxes.places || packet.header.sender == Packet.outsider else {
                throw .unknownSender(packet.header.sender)
            }
            if packet.header.lost > 0 {
                assembly.forget(packet.header)
                handlers.gap(Int(packet.header.sender), Int(packet.header.lost))
            }
            while let record = packet.next() { try accept(record, from: packet.header) }
        } catch {
            unsafe counters.pointee.packetsRefused += 1
        }
    }

    private func accept(_ record: Record, from sender: Packet.Header) throws(PacketViolation) {
        guard case .part(let offset, let isLast, let bytes) = record else {
            unsafe counters.pointee.recordsReceived += 1
            return handlers.received(record)
        }
        var dropped: [UInt16] = []
        let whole = try assembly.add(bytes, at: Int(offset), isLast: isLast, from: sender) { dropped.append($0) }
        for sender in dropped { handlers.gap(Int(sender), 1) }
        guard let whole else { return }
        // SAFETY: octets have no other representation than their bytes.
        let complete = try Packet.record(from: unsafe whole.span.bytes)
        if case .part = complete { throw .malformedParts }
        unsafe counters.pointee.recordsReceived += 1
        handlers.received(complete)
    }

    private func takeRequests() {
        guard hasPlace else { return stepAside() }
        for request in InterestTable.Request.allCases {
            let bits = interest.take(request, of: place)
            if bits != 0 { handlers.requested(request, bits) }
        }
    }
}

/// A descriptor to watch and what to do.
private final class Source: EventSource {
    var body: (Readiness) -> Void = { _ in }
    override func ready(_ readiness: Readiness, in loop: EventLoop) { body(readiness) }
}

/// A time to wait for and what to do.
private final class Alarm: TimerNode {
    var body: () -> Void = {}
    override func timerFired(at now: MonotonicTime) { body() }
}
