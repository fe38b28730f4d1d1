import ApusCodec
import ApusPlatform
import FuzzTargets
import Glibc
import Testing

@testable import ApusBus

@Suite("The bus between workers")
struct BroadcastBusTests {
    let mailboxes: Mailboxes
    let interest: InterestTable
    static let topic = Array("t".utf8)
    static let hash = TopicHash.of(topic.rawSpan)

    static func publication(isText: Bool, _ payload: [UInt8]) -> CopiedRecord {
        .publication(topic: topic, hash: hash, isText: isText, payload: payload)
    }

    /// Where the first process of a slot is.
    static func place(_ slot: Int) -> Int { Mailboxes.place(slot: slot, side: 0) }

    /// Puts bytes into the mailbox of a slot's first process.
    func send(_ bytes: [UInt8], to slot: Int) throws { _ = try Socket.send(mailboxes.sending(to: Self.place(slot)), bytes) }

    /// A packet from one first process to another.
    static func packet(from sender: Int, lost: UInt32 = 0, _ records: CopiedRecord...) -> [UInt8] {
        CopiedPacket(.init(sender: UInt16(place(sender)), lost: lost, process: 1, receiver: 1), records).bytes
    }

    init() throws {
        mailboxes = try Mailboxes(slots: 3)
        interest = try InterestTable(slots: 3)
    }

    func station(_ slot: Int, generation: Int = 0, outbox: Int? = nil, subscribed: Bool = true, poller: (any Poller)? = nil) throws
        -> BusNode
    {
        var limits = BroadcastBus.Limits()
        if let outbox { limits.maxOutboxBytes = outbox }
        let station = try BusNode(slot, mailboxes, interest, generation: generation, limits: limits, poller: poller)
        if subscribed { interest.count(1, topicHash: Self.hash, in: station.bus.place) }
        return station
    }

    /// Turns all until nothing more comes.
    func settle(_ stations: BusNode...) throws {
        var quiet = 0
        var lastChange = MonotonicTime.now()
        let deadline = lastChange + .seconds(20)
        // A turn reads some 256 KiB, so that a record of 5 MB needs 20 of them before anything is seen; and what is said often waits for the
        // next millisecond: the last turn begins when that is over.
        var turned = lastChange
        while quiet < 50 || turned < lastChange + .milliseconds(5) {
            turned = .now()
            let before = stations.map(\.events.count)
            for station in stations { try station.turn() }
            quiet = before == stations.map(\.events.count) ? quiet + 1 : 0
            if quiet == 0 { lastChange = .now() }
            try #require(MonotonicTime.now() < deadline)
        }
    }

    @Test("what two workers say reaches the third in each one's order, once, and nobody else")
    func order() throws {
        let (first, second, third) = (try station(0), try station(1, subscribed: false), try station(2))
        for index in 0..<5000 {
            first.publish("0 \(index)")
            second.publish("1 \(index)")
            if index % 7 == 0 { try first.turn() }
            if index % 5 == 0 { try second.turn() }
            if index % 100 == 0 { try third.turn() }
        }
        try settle(first, second, third)
        for sender in 0..<2 {
            #expect(third.texts.filter { $0.hasPrefix("\(sender) ") } == (0..<5000).map { "\(sender) \($0)" })
        }
        #expect(third.events.count == 10_000)
        #expect(first.texts == (0..<5000).map { "1 \($0)" }, "its own come to it by another way")
        #expect(second.events == [])
    }

    @Test("many small records of a turn go in few packets")
    func coalescing() throws {
        let (first, second) = (try station(0), try station(1))
        for index in 0..<10_000 { first.publish("\(index)") }
        first.bus.flush()
        var packets: [CopiedPacket] = []
        while case .done(let bytes) = try Socket.receivePacket(mailboxes.receiving(at: Self.place(1)), maxBytes: Packet.maxBytes) {
            packets.append(try CopiedPacket(bytes))
            #expect(bytes.count <= Packet.maxBytes)
        }
        #expect(packets.count == 3)
        #expect(packets.flatMap(\.records).count == 10_000)
        #expect(second.events == [])
    }

    @Test("records of every size around a packet's, and of 5 MB, come whole and in order")
    func large() throws {
        let (first, second) = (try station(0), try station(1))
        let sizes = [0, 65_506, 65_507, 65_508, 65_509, 131_000, 5_000_000, 1, 5_000_000]
        let payloads = sizes.map { size in
            [UInt8](unsafeUninitializedCapacity: size) { bytes, count in
                for index in 0..<size { bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ size) }
                count = size
            }
        }
        for payload in payloads {
            first.publish(payload, isText: false)
            first.bus.flush()
        }
        try settle(first, second)
        #expect(second.events.count == sizes.count)
        for (event, payload) in zip(second.events, payloads) {
            // Not shown if they differ: they are large.
            let isSame = event == .record(Self.publication(isText: false, payload))
            #expect(isSame, "\(payload.count) bytes")
        }
        #expect(first.bus.counts.recordsDropped == 0)
    }

    @Test("signals and requests go only to slots with connections of the protocol, requests once for any number")
    func interested() throws {
        let (first, second, third) = (try station(0), try station(1), try station(2))
        interest.count(1, protocolIndex: 4, in: Self.place(1))
        first.bus.signal(protocolIndex: 4, 9, payload: [1, 2].rawSpan)
        for _ in 0..<1000 { first.bus.request(.writable, protocolIndex: 4) }
        first.bus.request(.resume, protocolIndex: 4)
        first.bus.request(.resume, protocolIndex: 5)
        #expect(first.publish([], isText: true, to: "nobody's") == 0)
        #expect(first.publish([], isText: true) == 2)
        try settle(first, second, third)
        let publication = BusNode.Event.record(Self.publication(isText: true, []))
        #expect(third.events == [publication])
        #expect(second.events.count == 4)
        #expect(second.events.contains(.requested(.writable, 1 << 4)) && second.events.contains(.requested(.resume, 1 << 4)))
        #expect(
            second.events.filter { if case .requested = $0 { false } else { true } }
                == [.record(.signal(protocolIndex: 4, signal: 9, payload: [1, 2])), publication])
        second.clear()
        first.bus.request(.writable, protocolIndex: 4)
        try settle(first, second)
        #expect(second.events == [.requested(.writable, 1 << 4)], "a request after the last was taken")
    }

    @Test("a reader that does not read: saying goes on, what is lost is counted, and the gap stands where it happened")
    func stopped() throws {
        let (first, second, third) = (try station(0, outbox: 1 << 20), try station(1), try station(2))
        let filler = String(repeating: "x", count: 4000)
        var said = 0
        while first.bus.counts.recordsDropped < 100 {
            first.publish("\(said) \(filler)")
            said += 1
            if said % 10 == 0 { try first.turn() }
            try third.turn()
            try #require(said < 20_000)
        }
        #expect(first.bus.counts.recordsSent + first.bus.counts.recordsDropped == 2 * said)
        // Room comes, little by little, and more is said meanwhile: never before a gap that it came after.
        let slowly = MonotonicTime.now() + .seconds(20)
        var later = 0
        while second.events.isEmpty || second.texts.last?.hasPrefix("later") != true {
            try second.loop.turn(timeout: .zero)
            first.publish("later \(later)")
            later += 1
            try first.turn()
            try #require(MonotonicTime.now() < slowly)
        }
        try settle(first, second, third)
        check(second, said: said, later: later)
        #expect(third.events.count == said + later, "others miss nothing")
        #expect(!third.texts.contains { $0.hasPrefix("gap") })
    }

    /// Numbers rise by one, but for gaps, which say how many are missing.
    private func check(_ station: BusNode, said: Int, later: Int) {
        var next = 0
        for text in station.texts {
            if text.hasPrefix("gap 0 ") {
                next += Int(text.dropFirst(6)) ?? 0
                continue
            }
            let number = text.hasPrefix("later ") ? said + (Int(text.dropFirst(6)) ?? -1) : Int(text.prefix { $0 != " " }) ?? -1
            #expect(number == next)
            if number != next { return }
            next += 1
        }
        #expect(next == said + later)
        #expect(station.texts.contains { $0.hasPrefix("gap") })
    }

    @Test("a gap is told when the reader reads again, though nothing more is said")
    func gapAtEnd() throws {
        let (first, second) = (try station(0, outbox: 100_000), try station(1))
        let filler = String(repeating: "x", count: 4000)
        var said = 0
        while first.bus.counts.recordsDropped < 5 {
            first.publish("\(said) \(filler)")
            said += 1
            try first.turn()
            try #require(said < 20_000)
        }
        try settle(first, second)
        #expect(second.texts.last == "gap 0 5")
        #expect(second.texts.count == said - 5 + 1)
    }

    @Test("a reader that is always behind: what has been sent is not kept")
    func alwaysBehind() throws {
        let (first, second) = (try station(0, outbox: 32 << 20), try station(1))
        let filler = String(repeating: "x", count: 60_000)
        var peak = 0
        var said = 0
        // 600 MB go through; the reader takes as many packets a turn as are said in it, and the outbox is never empty.
        while said < 10_000 {
            for _ in 0..<64 {
                first.publish("\(said) \(filler)")
                said += 1
            }
            try first.turn()
            if first.bus.counts.recordsDropped > 0 { try second.loop.turn(timeout: .zero) }
            second.clear()
            peak = max(peak, first.bus.keptPackets)
        }
        #expect(first.bus.counts.recordsDropped > 0)
        // 32 MiB of packets of 60 kB wait at most; as many again may have been sent and not been let go yet.
        #expect(peak < 2 * (32 << 20) / 60_000 + 64)
    }

    @Test("a record over the limit is dropped and told as a gap, whatever else there is to say")
    func tooLarge() throws {
        var limits = BroadcastBus.Limits()
        limits.maxRecordBytes = 1000
        let first = try BusNode(0, mailboxes, interest, limits: limits)
        let second = try station(1)
        first.publish([UInt8](repeating: 0, count: 1000), isText: true)
        try settle(first, second)
        #expect(second.events == [.gap(0, 1)])
        first.publish("next")
        try settle(first, second)
        #expect(second.texts == ["gap 0 1", "next"])
    }

    @Test("a successor gets nothing that was said to its predecessor, and everything that is said once its connections have subscribed")
    func successor() throws {
        let first = try station(0)
        do {
            _ = try station(1)
            for index in 0..<100 { first.publish("unread \(index)") }
            try first.turn()
            first.publish("unsent")
        }
        BroadcastBus.ended(place: Mailboxes.place(slot: 1, side: 0), generation: 0, mailboxes: mailboxes, interest: interest)
        first.publish("while there is none")
        for generation in 1...4 {
            // The second and the fourth read the mailbox of the one that died.
            let successor = try station(1, generation: generation, subscribed: false)
            first.publish("not for it")
            try settle(first, successor)
            #expect(successor.texts == [], "generation \(generation)")
            interest.count(1, topicHash: Self.hash, in: successor.bus.place)
            first.publish("for it")
            try settle(first, successor)
            #expect(successor.texts == ["for it"], "generation \(generation)")
            #expect(successor.bus.counts.packetsSkipped == 0, "the mailbox was emptied")
            BroadcastBus.ended(
                place: Mailboxes.place(slot: 1, side: generation % 2), generation: generation, mailboxes: mailboxes, interest: interest)
        }
        #expect(first.bus.counts.recordsDropped == 0)
    }

    @Test("what a dead process's full mailbox kept back does not reach the next one at its place, nor does a gap")
    func successorOfStopped() throws {
        let first = try station(0, outbox: 100_000)
        let filler = String(repeating: "x", count: 4000)
        do {
            _ = try station(1)
            var said = 0
            while first.bus.counts.recordsDropped < 5 {
                first.publish("\(said) \(filler)")
                said += 1
                try first.turn()
                try #require(said < 20_000)
            }
        }
        // The master has not noticed when the next but one starts: it must not rely on the mailbox being empty.
        let successor = try station(1, generation: 2)
        first.publish("for it")
        let deadline = MonotonicTime.now() + .seconds(20)
        while successor.events.isEmpty, MonotonicTime.now() < deadline {
            try first.turn()
            try successor.turn()
        }
        try settle(first, successor)
        #expect(successor.texts == ["for it"])
        #expect(successor.bus.counts.packetsSkipped > 0 && first.bus.keptPackets == 0)
    }

    @Test("an old and a new process of a slot, side by side, hear both, each for its own connections, and each other")
    func sideBySide() throws {
        let (first, old, new) = (try station(0), try station(1, generation: 3), try station(1, generation: 4))
        for index in 0..<500 {
            first.publish("0 \(index)")
            old.publish("old \(index)")
            new.publish("new \(index)")
            try first.turn()
            try old.turn()
            try new.turn()
        }
        try settle(first, old, new)
        for (station, names) in [(first, ["old", "new"]), (old, ["0", "new"]), (new, ["0", "old"])] {
            for name in names { #expect(station.texts.filter { $0.hasPrefix("\(name) ") } == (0..<500).map { "\(name) \($0)" }) }
            #expect(station.events.count == 1000)
        }
        BroadcastBus.ended(place: Mailboxes.place(slot: 1, side: 1), generation: 3, mailboxes: mailboxes, interest: interest)
        first.publish("after")
        try settle(first, new)
        #expect(new.texts.last == "after" && new.events.count == 1001)
    }

    @Test("a process whose place was given to another, although it lives, leaves the mailbox and the row to that one")
    func placeTaken() throws {
        let (first, old) = (try station(0), try station(1, generation: 1))
        let new = try station(1, generation: 3)
        for index in 0..<100 {
            first.publish("\(index)")
            first.bus.request(.writable, protocolIndex: 0)
            try first.turn()
            try old.turn()
            try new.turn()
        }
        try settle(first, old, new)
        #expect(old.events == [.disturbed(.placeTaken(by: 4))] && !old.bus.hasPlace && new.bus.hasPlace)
        #expect(new.texts == (0..<100).map { "\($0)" })
        old.publish("it still speaks")
        try settle(first, old, new)
        #expect(first.texts == ["it still speaks"])
        BroadcastBus.ended(place: Mailboxes.place(slot: 1, side: 1), generation: 1, mailboxes: mailboxes, interest: interest)
        #expect(new.bus.hasPlace, "the end of the old one takes nothing from the new one")
    }

    @Test("records of 5 MB in one turn: the mailbox is used before any is dropped, what fits comes whole, the rest is a gap")
    func largeInOneTurn() throws {
        let (first, second) = (try station(0), try station(1))
        let payload = [UInt8](repeating: 7, count: 5_000_000)
        for _ in 0..<2 { first.publish(payload, isText: false) }
        #expect(first.bus.counts.recordsDropped == 0)
        // Nobody reads: some more fit, and then no more.
        for _ in 0..<10 { first.publish(payload, isText: false) }
        #expect(first.bus.counts.recordsDropped > 0 && first.bus.counts.recordsSent >= 2)
        first.publish("small")
        try settle(first, second)
        let whole = second.events.count { $0 == .record(Self.publication(isText: false, payload)) }
        #expect(whole == first.bus.counts.recordsSent - 1)
        #expect(second.events.contains(.gap(Self.place(0), first.bus.counts.recordsDropped)))
        #expect(second.texts.last == "small" && second.events.count == whole + 2)
    }

    @Test("a successor that finds the rest of a record in parts does not take its middle for a record")
    func halfRead() throws {
        let (first, second) = (try station(0), try station(1))
        // At the end of each part's payload stands what would be a record of its own.
        let forged = Self.packet(from: 0, Self.publication(isText: true, Array("forged".utf8))).dropFirst(16)
        var payload = [UInt8](repeating: 0, count: 200_000)
        payload.replaceSubrange(payload.count - forged.count..<payload.count, with: forged)
        first.publish(payload, isText: false)
        first.publish("behind it")
        first.bus.flush()
        // One packet is lost on the way.
        _ = try Socket.receivePacket(mailboxes.receiving(at: Self.place(1)), maxBytes: Packet.maxBytes)
        try settle(first, second)
        #expect(second.texts == ["behind it"])
        #expect(second.bus.counts.packetsRefused == 0)
        // The same by hand: a last part that is a whole record.
        try send(Self.packet(from: 0, .part(offset: 70_000, isLast: true, bytes: Array(forged))), to: 1)
        try settle(first, second)
        #expect(second.texts == ["behind it"])
    }

    @Test("a sender that died in the middle of a record does not spoil its successor's next one")
    func halfSent() throws {
        let second = try station(1)
        try send(Self.packet(from: 0, .part(offset: 0, isLast: false, bytes: [UInt8](repeating: 7, count: 1000))), to: 1)
        let first = try station(0, generation: 2)
        let payload = [UInt8](repeating: 1, count: 150_000)
        first.publish(payload, isText: false)
        try settle(first, second)
        #expect(second.events == [.record(Self.publication(isText: false, payload))])
    }

    enum Absence: CaseIterable {
        case none, beforeReading, whileReading, whileReadingOn
    }

    @Test("a reader that was away, and takes no more for now, hears the rest, in order, when it does", arguments: Absence.allCases)
    func held(_ absence: Absence) throws {
        let poller = try SteppedPoller()
        let (first, second) = (try station(0, outbox: 64 << 20), try station(1, poller: poller))
        let filler = String(repeating: "x", count: 1000)
        if absence == .beforeReading { poller.advance(by: .milliseconds(150)) }
        let stopsBehind = [Absence.whileReading: 10, .whileReadingOn: 1000][absence]
        var heardBefore = 0
        second.whenReceiving = {
            heardBefore += 1
            if heardBefore == stopsBehind { poller.advance(by: .milliseconds(150)) }
        }
        second.takesMore = false
        for index in 0..<5000 { first.publish("\(index) \(filler)") }
        try settle(first, second)
        let heard = second.events.count
        #expect(absence == .none ? heard == 5000 : heard > 0 && heard < 2000, "a turn's worth, or all if it only has much to read")
        second.takesMore = true
        let deadline = MonotonicTime.now() + .seconds(20)
        while second.events.count < 5000, MonotonicTime.now() < deadline {
            try first.turn()
            try second.turn()
            poller.advance(by: .milliseconds(2))
        }
        #expect(second.texts.map { $0.prefix { $0 != " " } } == (0..<5000).map { "\($0)" })
    }

    @Test("of very many turns few packets leave, and the last one always does; of fewer turns each has its own")
    func gathered() throws {
        let (first, second) = (try station(0), try station(1))
        let started = MonotonicTime.now()
        for index in 0..<20_000 {
            first.publish("\(index)")
            try first.turn()
        }
        let intervals = Int(MonotonicTime.now().millisecondsSince(started)) / 2 + 2
        func hear(_ count: Int) throws {
            let deadline = MonotonicTime.now() + .seconds(10)
            while second.events.count < count, MonotonicTime.now() < deadline {
                try first.loop.turn(timeout: .milliseconds(2))
                try second.turn()
            }
        }
        try hear(20_000)
        #expect(second.texts == (0..<20_000).map { "\($0)" })
        #expect(first.bus.counts.packetsSent <= 64 * intervals, "\(first.bus.counts.packetsSent) packets in \(intervals) intervals")
        // Were the machine so slow that an interval has 64 turns, each turn would have its own packet.
        if 20_000 / intervals > 256 { #expect(first.bus.counts.packetsSent < 5_000) }
        // At the pace of the milliseconds, nothing waits.
        let before = first.bus.counts.packetsSent
        for index in 0..<20 {
            first.publish("later \(index)")
            first.bus.flush()
            try hear(20_001 + index)
        }
        #expect(first.bus.counts.packetsSent == before + 20)
    }

    @Test("an externalSender reaches every interested process, from any thread; what does not fit is counted and told")
    func externalSender() throws {
        let (first, second) = (try station(0), try station(1, subscribed: false))
        let externalSender = ExternalSender(mailboxes, interest)
        func publish(_ payload: [UInt8]) -> Bool {
            externalSender.publish(topic: Self.topic.rawSpan, hash: Self.hash, isText: true, payload: payload.rawSpan)
        }
        #expect(publish(Array("hello".utf8)))
        #expect(publish([UInt8](repeating: 65, count: 200_000)), "in parts")
        interest.count(1, protocolIndex: 3, in: Self.place(1))
        let isSignalled = externalSender.signal(protocolIndex: 3, 8, payload: [5].rawSpan)
        #expect(isSignalled)
        externalSender.request(.resume, protocolIndex: 3)
        try settle(first, second)
        #expect(first.events.count == 2 && first.texts[0] == "hello")
        #expect(first.events[1] == .record(Self.publication(isText: true, [UInt8](repeating: 65, count: 200_000))))
        #expect(second.events.contains(.record(.signal(protocolIndex: 3, signal: 8, payload: [5]))))
        #expect(second.events.contains(.requested(.resume, 8)) && second.events.count == 2)
        first.clear()
        var sent = 0
        while publish([UInt8](repeating: 66, count: 60_000)) {
            sent += 1
            try #require(sent < 10_000)
        }
        #expect(!publish([67]) && externalSender.recordsDropped == 2)
        try settle(first)
        #expect(first.events.count == sent)
        #expect(publish([68]))
        try settle(first)
        #expect(first.texts.suffix(2) == ["gap \(Packet.externalSender) 2", "D"])
    }

    @Test("a worker needs where it reads its own mailbox, and where it writes and wakes all others, and nothing else")
    func descriptors() {
        for place in 0..<mailboxes.places {
            let needed = mailboxes.descriptors(of: place)
            #expect(needed.count == 2 * mailboxes.places + 1 && Set(needed).count == needed.count)
            for other in 0..<mailboxes.places {
                #expect(needed.contains(mailboxes.receiving(at: other)) == (other == place))
                #expect(needed.contains(mailboxes.sending(to: other)) && needed.contains(mailboxes.waker(of: other).descriptor))
            }
        }
    }

    @Test("two processes without a place, in the middle of a record each, do not spoil the other's")
    func twoOutsiders() throws {
        let second = try station(1)
        func part(_ process: UInt32, _ offset: Int, isLast: Bool, _ bytes: ArraySlice<UInt8>) -> [UInt8] {
            CopiedPacket(
                .init(sender: Packet.externalSender, process: process, receiver: 1),
                [.part(offset: UInt32(offset), isLast: isLast, bytes: Array(bytes))]
            ).bytes
        }
        let records = (0..<2).map { Self.packet(from: 0, Self.publication(isText: false, [UInt8($0), 7, 7])).dropFirst(16) }
        for (index, record) in records.enumerated() { try send(part(UInt32(index), 0, isLast: false, record.prefix(5)), to: 1) }
        for (index, record) in records.enumerated() { try send(part(UInt32(index), 5, isLast: true, record.dropFirst(5)), to: 1) }
        try settle(second)
        #expect(second.events == (0..<2).map { .record(Self.publication(isText: false, [$0, 7, 7])) })
    }

    @Test("a sender that there cannot be is refused; the most that is kept of unfinished records is a limit, and whose goes is told")
    func unfinished() throws {
        var limits = BroadcastBus.Limits()
        (limits.maxRecordBytes, limits.maxPartialBytes) = (3000, 5000)
        let second = try BusNode(1, mailboxes, interest, limits: limits)
        interest.count(1, topicHash: Self.hash, in: second.bus.place)
        func part(_ sender: Int, _ count: Int) -> [UInt8] {
            CopiedPacket(
                .init(sender: UInt16(sender), process: 1, receiver: 1),
                [.part(offset: 0, isLast: false, bytes: [UInt8](repeating: 0, count: count))]
            ).bytes
        }
        for sender in [mailboxes.places, 900, Int(Packet.externalSender) - 1] { try send(part(sender, 10), to: 1) }
        try settle(second)
        #expect(second.bus.counts.packetsRefused == 3 && second.bus.partialBytes == 0)
        for sender in 0..<3 {
            try send(part(sender, 2500), to: 1)
            try settle(second)
        }
        #expect(second.texts == ["gap 0 1"] && second.bus.partialBytes == 5000)
        // As many outsiders as anybody may say there are.
        for process in 0..<UInt32(1000) {
            let header = Packet.Header(sender: Packet.externalSender, process: process, receiver: 1)
            try send(CopiedPacket(header, [.part(offset: 0, isLast: false, bytes: [])]).bytes, to: 1)
            if process % 50 == 0 { try second.turn() }
        }
        try settle(second)
        #expect(second.bus.partialRecords <= mailboxes.places + 64)
        #expect(second.texts.count == 3 + 1000 - second.bus.partialRecords)
    }

    @Test("a packet that breaks the format is counted, and spoils nobody else's")
    func refused() throws {
        let (first, second, third) = (try station(0), try station(1), try station(2))
        try send(Self.packet(from: 2, .part(offset: 0, isLast: false, bytes: [1, 0])), to: 1)
        let header = Self.packet(from: 2)
        for bytes in [[9], header + [77], Array(header.prefix(3)), []] as [[UInt8]] { try send(bytes, to: 1) }
        let record = Self.packet(from: 2, .publication(topic: [], hash: 0, isText: false, payload: [5])).dropFirst(16)
        try send(Self.packet(from: 2, .part(offset: 2, isLast: true, bytes: Array(record.dropFirst(2)))), to: 1)
        // A record of no parts' bytes at all, and one that is cut where its bytes begin.
        for bytes in [[], Array(record.dropLast())] as [[UInt8]] {
            try send(Self.packet(from: 2, .part(offset: 0, isLast: true, bytes: bytes)), to: 1)
        }
        first.publish("good")
        try settle(first, second, third)
        #expect(second.bus.counts.packetsRefused == 6)
        #expect(second.events.count == 2)
        #expect(second.texts.last == "good")
    }
}
