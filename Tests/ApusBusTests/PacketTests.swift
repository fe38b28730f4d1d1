import ApusBus
import Testing

@Suite("What travels between workers")
struct PacketTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let packet: Packet
        let bytes: [UInt8]
        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case(name: "nothing", packet: Packet(sender: 0), bytes: [1, 0, 0, 0, 0, 0, 0, 0]),
        Case(name: "a gap", packet: Packet(sender: 0x0102, lost: 0x0A0B_0C0D), bytes: [1, 0, 2, 1, 0x0D, 0x0C, 0x0B, 0x0A]),
        Case(name: "the master's", packet: Packet(sender: Packet.master), bytes: [1, 0, 0xFF, 0xFF, 0, 0, 0, 0]),
        Case(
            name: "a text publication",
            packet: Packet(sender: 3, records: [.publication(topic: [0x61, 0x2F, 0x62], isText: true, payload: [0x48, 0x69])]),
            bytes: [1, 0, 3, 0, 0, 0, 0, 0] + [1, 1, 3, 0, 0, 0, 0, 0, 5, 0, 0, 0] + [0x61, 0x2F, 0x62, 0x48, 0x69]),
        Case(
            name: "an empty binary publication to the empty topic",
            packet: Packet(sender: 3, records: [.publication(topic: [], isText: false, payload: [])]),
            bytes: [1, 0, 3, 0, 0, 0, 0, 0] + [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Case(
            name: "a signal",
            packet: Packet(sender: 1, records: [.signal(protocolIndex: 0x0203, signal: 0xDEAD_BEEF, payload: [7])]),
            bytes: [1, 0, 1, 0, 0, 0, 0, 0] + [2, 0, 3, 2, 0xEF, 0xBE, 0xAD, 0xDE, 1, 0, 0, 0] + [7]),
        Case(
            name: "a part",
            packet: Packet(sender: 1, records: [.part(offset: 0x0102_0304, isLast: false, bytes: [9, 8])]),
            bytes: [1, 0, 1, 0, 0, 0, 0, 0] + [3, 0, 0, 0, 4, 3, 2, 1, 2, 0, 0, 0] + [9, 8]),
        Case(
            name: "a last part behind a signal and a gap",
            packet: Packet(
                sender: 1, lost: 2,
                records: [.signal(protocolIndex: 0, signal: 1, payload: []), .part(offset: 0, isLast: true, bytes: [])]),
            bytes: [1, 0, 1, 0, 2, 0, 0, 0] + [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]

    @Test("bytes as documented, both ways", arguments: cases)
    func literal(_ example: Case) throws {
        #expect(example.packet.bytes == example.bytes)
        #expect(try Packet(example.bytes) == example.packet)
    }

    @Test("a packet cut anywhere, but between records, is refused", arguments: cases)
    func cut(_ example: Case) {
        let whole = (0...example.packet.records.count).map { count in
            Packet(sender: example.packet.sender, lost: example.packet.lost, records: Array(example.packet.records.prefix(count)))
        }
        for count in 0..<example.bytes.count {
            if let shorter = whole.first(where: { $0.bytes.count == count }) {
                #expect((try? Packet(Array(example.bytes.prefix(count)))) == shorter)
            } else {
                #expect(throws: PacketViolation.cutShort) { try Packet(Array(example.bytes.prefix(count))) }
            }
        }
    }

    @Test("what stands behind the last record is a record or a violation", arguments: cases)
    func trailing(_ example: Case) {
        #expect(throws: PacketViolation.unknownKind(0)) { try Packet(example.bytes + [0]) }
        #expect(throws: PacketViolation.unknownKind(4)) { try Packet(example.bytes + [4]) }
        #expect(throws: PacketViolation.cutShort) { try Packet(example.bytes + [1]) }
    }

    @Test("another version is refused", arguments: [0, 2, 255] as [UInt8])
    func version(_ version: UInt8) {
        for example in Self.cases {
            #expect(throws: PacketViolation.version(version)) { try Packet([version] + example.bytes.dropFirst()) }
        }
    }

    @Test("lengths that lie are refused before anything is reserved")
    func lies() {
        let header: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]
        // A topic longer than the record, and payloads longer than the packet.
        #expect(throws: PacketViolation.cutShort) { try Packet(header + [1, 0, 3, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3]) }
        for kind in 1...3 as ClosedRange<UInt8> {
            #expect(throws: PacketViolation.cutShort) { try Packet(header + [kind, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1]) }
            #expect(throws: PacketViolation.cutShort) { try Packet(header + [kind, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]) }
        }
    }

    @Test(
        "100,000 mutations of good packets: never a crash, and what is accepted encodes to what was meant", arguments: [1, 2] as [UInt64])
    func mutations(seed: UInt64) throws {
        var random = Seeded(state: seed)
        for _ in 0..<50_000 {
            var bytes = Self.cases.randomElement(using: &random).map(\.bytes) ?? []
            if Bool.random(using: &random) { bytes += Self.cases.randomElement(using: &random).map { Array($0.bytes.dropFirst(8)) } ?? [] }
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where !bytes.isEmpty: bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
                case 1 where !bytes.isEmpty: bytes.remove(at: Int.random(in: 0..<bytes.count, using: &random))
                case 2: bytes.insert(.random(in: 0...255, using: &random), at: Int.random(in: 0...bytes.count, using: &random))
                default: bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random)))
                }
            }
            guard let packet = try? Packet(bytes) else { continue }
            // Flags without a meaning, and numbers that a kind does not use, are not kept.
            #expect(packet.bytes.count == bytes.count, "seed \(seed): \(bytes)")
            #expect(try Packet(packet.bytes) == packet, "seed \(seed): \(bytes)")
        }
    }
}

/// SplitMix64: the same numbers for the same seed.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
