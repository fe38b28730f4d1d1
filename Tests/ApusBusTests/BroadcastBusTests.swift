import ApusPlatform
import Glibc
import Testing

@testable import ApusBus

/// A worker without connections: a bus on a loop of its own, which runs only when the test says so.
final class Station {
    enum Event: Equatable {
        case record(Record)
        case gap(Int, Int)
        case requested(InterestTable.Request, UInt64)
    }

    let loop: EventLoop
    private(set) var bus: BroadcastBus
    var events: [Event] { log.events }
    private let log = Log()

    private final class Log { var events: [Event] = [] }

    init(_ slot: Int, _ mailboxes: Mailboxes, _ interest: InterestTable, limits: BroadcastBus.Limits = .init()) throws {
        loop = try EventLoop()
        let log = log
        bus = try BroadcastBus(
            slot: slot, mailboxes: mailboxes, interest: interest, loop: loop, limits: limits,
            handlers: .init(
                received: { log.events.append(.record($0)) }, gap: { log.events.append(.gap($0, $1)) },
                requested: { log.events.append(.requested($0, $1)) }))
    }

    /// What a worker does in a turn that has nothing to wait for.
    func turn() throws {
        bus.flush()
        try loop.turn(timeout: .zero)
        bus.flush()
    }

    func clear() { log.events = [] }

    func publish(_ text: String, to topic: String = "t") { bus.publish(topic: Array(topic.utf8), isText: true, payload: Array(text.utf8)) }

    /// Payloads of publications, and gaps.
    var texts: [String] {
        log.events.map { event in
            switch event {
            case .record(.publication(_, _, let payload)): String(decoding: payload.prefix(16), as: UTF8.self)
            case .record(let record): "\(record)"
            case .gap(let sender, let lost): "gap \(sender) \(lost)"
            case .requested(let request, let bits): "\(request) \(bits)"
            }
        }
    }
}

@Suite("The bus between workers")
struct BroadcastBusTests {
    let mailboxes: Mailboxes
    let interest: InterestTable
    static let topic = Array("t".utf8)

    init() throws {
        mailboxes = try Mailboxes(slots: 3)
        interest = try InterestTable(slots: 3)
    }

    func station(_ slot: Int, outbox: Int? = nil, subscribed: Bool = true) throws -> Station {
        var limits = BroadcastBus.Limits()
        if let outbox { limits.maxOutboxBytes = outbox }
        let station = try Station(slot, mailboxes, interest, limits: limits)
        if subscribed { interest.count(1, topicHash: InterestTable.hash(Self.topic), in: slot) }
        return station
    }

    /// Turns all until nothing more comes.
    func settle(_ stations: Station...) throws {
        var quiet = 0
        let deadline = MonotonicTime.now() + .seconds(20)
        // A turn reads some 256 KiB, so that a record of 5 MB needs 20 of them before anything is seen.
        while quiet < 50 {
            let before = stations.map(\.events.count)
            for station in stations { try station.turn() }
            quiet = before == stations.map(\.events.count) ? quiet + 1 : 0
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
        var packets: [Packet] = []
        while case .done(let bytes) = try Socket.receivePacket(mailboxes.receiving(at: 1), maxBytes: Packet.maxBytes) {
            packets.append(try Packet(bytes))
            #expect(bytes.count <= Packet.maxBytes)
        }
        #expect(packets.count == 3)
        #expect(packets.flatMap(\.records).count == 10_000)
        #expect(second.events == [])
    }

    @Test("records of every size around a packet's, and of 5 MB, come whole and in order")
    func large() throws {
        let (first, second) = (try station(0), try station(1))
        let sizes = [0, 65_514, 65_515, 65_516, 65_517, 131_000, 5_000_000, 1, 5_000_000]
        let payloads = sizes.map { size in
            [UInt8](unsafeUninitializedCapacity: size) { bytes, count in
                for index in 0..<size { bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ size) }
                count = size
            }
        }
        for payload in payloads {
            first.bus.publish(topic: Self.topic, isText: false, payload: payload)
            first.bus.flush()
        }
        try settle(first, second)
        #expect(second.events.count == sizes.count)
        for (event, payload) in zip(second.events, payloads) {
            // Not shown if they differ: they are large.
            let isSame = event == .record(.publication(topic: Self.topic, isText: false, payload: payload))
            #expect(isSame, "\(payload.count) bytes")
        }
        #expect(first.bus.recordsDropped == 0)
    }

    @Test("signals and requests go only to slots with connections of the protocol, requests once for any number")
    func interested() throws {
        let (first, second, third) = (try station(0), try station(1), try station(2))
        interest.count(1, protocolIndex: 4, in: 1)
        first.bus.signal(protocolIndex: 4, 9, payload: [1, 2])
        for _ in 0..<1000 { first.bus.request(.writable, protocolIndex: 4) }
        first.bus.request(.resume, protocolIndex: 4)
        first.bus.request(.resume, protocolIndex: 5)
        #expect(first.bus.publish(topic: Array("nobody's".utf8), isText: true, payload: []) == 0)
        #expect(first.bus.publish(topic: Self.topic, isText: true, payload: []) == 2)
        try settle(first, second, third)
        let publication = Station.Event.record(.publication(topic: Self.topic, isText: true, payload: []))
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
        while first.bus.recordsDropped < 100 {
            first.publish("\(said) \(filler)")
            said += 1
            if said % 10 == 0 { try first.turn() }
            try third.turn()
            try #require(said < 20_000)
        }
        #expect(first.bus.recordsSent + first.bus.recordsDropped == 2 * said)
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
    private func check(_ station: Station, said: Int, later: Int) {
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
        while first.bus.recordsDropped < 5 {
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
            if first.bus.recordsDropped > 0 { try second.loop.turn(timeout: .zero) }
            second.clear()
            peak = max(peak, first.bus.keptPackets)
        }
        #expect(first.bus.recordsDropped > 0)
        // 32 MiB of packets of 60 kB wait at most; as many again may have been sent and not been let go yet.
        #expect(peak < 2 * (32 << 20) / 60_000 + 64)
    }

    @Test("a record over the limit is dropped and told as a gap, whatever else there is to say")
    func tooLarge() throws {
        var limits = BroadcastBus.Limits()
        limits.maxRecordBytes = 1000
        let first = try Station(0, mailboxes, interest, limits: limits)
        let second = try station(1)
        first.bus.publish(topic: Self.topic, isText: true, payload: [UInt8](repeating: 0, count: 1000))
        try settle(first, second)
        #expect(second.events == [.gap(0, 1)])
        first.publish("next")
        try settle(first, second)
        #expect(second.texts == ["gap 0 1", "next"])
    }

    @Test("what was sent while a slot had no reader waits for its successor, whose interest starts from nothing")
    func successor() throws {
        let first = try station(0)
        interest.count(1, topicHash: InterestTable.hash(Self.topic), in: 1)
        for index in 0..<100 { first.publish("\(index)") }
        try first.turn()
        _ = interest.set(.writable, protocolIndex: 0, in: 1)
        let successor = try station(1, subscribed: false)
        #expect(!interest.isInterested(1, topicHash: InterestTable.hash(Self.topic)))
        first.publish("not for it")
        try settle(first, successor)
        #expect(successor.texts == (0..<100).map { "\($0)" })
        interest.count(1, topicHash: InterestTable.hash(Self.topic), in: 1)
        first.publish("for it")
        try settle(first, successor)
        #expect(successor.texts.last == "for it" && successor.events.count == 101)
    }

    @Test("a successor that finds the rest of a record in parts does not take its middle for a record")
    func halfRead() throws {
        let (first, second) = (try station(0), try station(1))
        _ = second
        // At the end of each part's payload stands what would be a record of its own.
        let forged = Packet(sender: 0, records: [.publication(topic: Self.topic, isText: true, payload: Array("forged".utf8))]).bytes
            .dropFirst(8)
        var payload = [UInt8](repeating: 0, count: 200_000)
        payload.replaceSubrange(payload.count - forged.count..<payload.count, with: forged)
        first.bus.publish(topic: Self.topic, isText: false, payload: payload)
        first.publish("behind it")
        first.bus.flush()
        // The predecessor reads one packet and dies.
        _ = try Socket.receivePacket(mailboxes.receiving(at: 1), maxBytes: Packet.maxBytes)
        let successor = try station(1)
        try settle(first, successor)
        #expect(successor.texts == ["behind it"])
        #expect(successor.bus.packetsRefused == 0)
        // The same by hand: a last part that is a whole record.
        let part = Packet(sender: 0, records: [.part(offset: 70_000, isLast: true, bytes: Array(forged))])
        _ = try Socket.send(mailboxes.sending(to: 1), part.bytes)
        try settle(first, successor)
        #expect(successor.texts == ["behind it"])
    }

    @Test("a sender that died in the middle of a record does not spoil its successor's next one")
    func halfSent() throws {
        let second = try station(1)
        let start = Packet(sender: 0, records: [.part(offset: 0, isLast: false, bytes: [UInt8](repeating: 7, count: 1000))])
        _ = try Socket.send(mailboxes.sending(to: 1), start.bytes)
        let first = try station(0)
        first.bus.publish(topic: Self.topic, isText: false, payload: [UInt8](repeating: 1, count: 150_000))
        try settle(first, second)
        let isWhole =
            second.events == [.record(.publication(topic: Self.topic, isText: false, payload: [UInt8](repeating: 1, count: 150_000)))]
        #expect(isWhole)
    }

    @Test("a packet that breaks the format is counted, and spoils nobody else's")
    func refused() throws {
        let (first, second, third) = (try station(0), try station(1), try station(2))
        let half = Packet(sender: 2, records: [.part(offset: 0, isLast: false, bytes: [1, 0])])
        _ = try Socket.send(mailboxes.sending(to: 1), half.bytes)
        for bytes in [[9], [1, 0, 0, 0, 0, 0, 0, 0, 77], [1, 0, 0]] as [[UInt8]] { _ = try Socket.send(mailboxes.sending(to: 1), bytes) }
        let record = Packet(sender: 2, records: [.publication(topic: [], isText: false, payload: [5])]).bytes.dropFirst(8)
        let rest = Packet(sender: 2, records: [.part(offset: 2, isLast: true, bytes: Array(record.dropFirst(2)))])
        _ = try Socket.send(mailboxes.sending(to: 1), rest.bytes)
        first.publish("good")
        try settle(first, second, third)
        #expect(second.bus.packetsRefused == 3)
        #expect(second.events.count == 2)
        #expect(second.texts.last == "good")
    }
}
