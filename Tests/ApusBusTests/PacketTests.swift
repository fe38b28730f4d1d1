import ApusBus
import ApusCodec
import FuzzTargets
import Testing
import TestSupport

@Suite("What travels between workers")
struct PacketTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let packet: CopiedPacket
        let bytes: [UInt8]
        var testDescription: String { name }
    }

    static let header: [UInt8] = [2, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]
    static let sender = Packet.Header(sender: 3, process: 1, receiver: 7)

    static let cases: [Case] = [
        Case(name: "nothing", packet: CopiedPacket(sender), bytes: header),
        Case(
            name: "a gap, and every number of the header",
            packet: CopiedPacket(Packet.Header(sender: 0x0102, lost: 0x0A0B_0C0D, process: 0x0102_0304, receiver: 0x0506_0708)),
            bytes: [2, 0, 2, 1, 0x0D, 0x0C, 0x0B, 0x0A, 4, 3, 2, 1, 8, 7, 6, 5]),
        Case(
            name: "an externalSender's", packet: CopiedPacket(Packet.Header(sender: Packet.externalSender)),
            bytes: [2, 0, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 12)),
        Case(
            name: "a text publication",
            packet: CopiedPacket(
                sender, [.publication(topic: [0x61, 0x2F, 0x62], hash: 0x1234_5678, isText: true, payload: [0x48, 0x69])]),
            bytes: header + [1, 1, 3, 0, 0x78, 0x56, 0x34, 0x12, 5, 0, 0, 0] + [0x61, 0x2F, 0x62, 0x48, 0x69]),
        Case(
            name: "an empty binary publication to the empty topic",
            packet: CopiedPacket(sender, [.publication(topic: [], hash: 0, isText: false, payload: [])]),
            bytes: header + [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Case(
            name: "a signal", packet: CopiedPacket(sender, [.signal(protocolIndex: 0x0203, signal: 0xDEAD_BEEF, payload: [7])]),
            bytes: header + [2, 0, 3, 2, 0xEF, 0xBE, 0xAD, 0xDE, 1, 0, 0, 0] + [7]),
        Case(
            name: "a part", packet: CopiedPacket(sender, [.part(offset: 0x0102_0304, isLast: false, bytes: [9, 8])]),
            bytes: header + [3, 0, 0, 0, 4, 3, 2, 1, 2, 0, 0, 0] + [9, 8]),
        Case(
            name: "a last part behind a signal",
            packet: CopiedPacket(
                sender, [.signal(protocolIndex: 0, signal: 1, payload: []), .part(offset: 0, isLast: true, bytes: [])]),
            bytes: header + [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]

    @Test("bytes as documented, both ways", arguments: cases)
    func literal(_ example: Case) throws {
        #expect(example.packet.bytes == example.bytes)
        #expect(try CopiedPacket(example.bytes) == example.packet)
    }

    @Test("a packet cut anywhere, but between records, is refused", arguments: cases)
    func cut(_ example: Case) {
        let whole = (0...example.packet.records.count).map { count in
            CopiedPacket(example.packet.header, Array(example.packet.records.prefix(count)))
        }
        for count in 0..<example.bytes.count {
            if let shorter = whole.first(where: { $0.bytes.count == count }) {
                #expect((try? CopiedPacket(Array(example.bytes.prefix(count)))) == shorter)
            } else {
                #expect(throws: PacketViolation.cutShort) { try CopiedPacket(Array(example.bytes.prefix(count))) }
            }
        }
    }

    @Test("what stands behind the last record is a record or a violation", arguments: cases)
    func trailing(_ example: Case) {
        #expect(throws: PacketViolation.unknownKind(0)) { try CopiedPacket(example.bytes + [0]) }
        #expect(throws: PacketViolation.unknownKind(4)) { try CopiedPacket(example.bytes + [4]) }
        #expect(throws: PacketViolation.cutShort) { try CopiedPacket(example.bytes + [1]) }
    }

    @Test("a record by itself is as whole as in a packet: nothing at all is no record, and nothing may stand behind it", arguments: cases)
    func alone(_ example: Case) throws {
        #expect(throws: PacketViolation.cutShort) { _ = try CopiedRecord(whole: []) }
        guard example.packet.records.count == 1 else { return }
        let bytes = Array(example.bytes.dropFirst(Self.header.count))
        #expect(try CopiedRecord(whole: bytes) == example.packet.records[0])
        #expect(throws: PacketViolation.trailingBytes(1)) { _ = try CopiedRecord(whole: bytes + [1]) }
        for count in bytes.indices {
            #expect(throws: PacketViolation.cutShort, "\(count)") { _ = try CopiedRecord(whole: Array(bytes.prefix(count))) }
        }
    }

    @Test("another version is refused", arguments: [0, 1, 3, 255] as [UInt8])
    func version(_ version: UInt8) {
        for example in Self.cases {
            #expect(throws: PacketViolation.version(version)) { try CopiedPacket([version] + example.bytes.dropFirst()) }
        }
    }

    @Test("lengths that lie are refused before anything is reserved")
    func lies() {
        let header = Self.header
        // A topic longer than the record, and payloads longer than the packet.
        #expect(throws: PacketViolation.cutShort) { try CopiedPacket(header + [1, 0, 3, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3]) }
        for kind in 1...3 as ClosedRange<UInt8> {
            #expect(throws: PacketViolation.cutShort) { try CopiedPacket(header + [kind, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1]) }
            #expect(throws: PacketViolation.cutShort) { try CopiedPacket(header + [kind, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]) }
        }
    }

    @Test(
        "100,000 mutations of good packets: never a crash, and what is accepted encodes to what was meant", arguments: [1, 2] as [UInt64])
    func mutations(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        for _ in 0..<50_000 {
            var bytes = Self.cases.randomElement(using: &random).map(\.bytes) ?? []
            if Bool.random(using: &random) {
                bytes += Self.cases.randomElement(using: &random).map { Array($0.bytes.dropFirst(Self.header.count)) } ?? []
            }
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where !bytes.isEmpty: bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
                case 1 where !bytes.isEmpty: bytes.remove(at: Int.random(in: 0..<bytes.count, using: &random))
                case 2: bytes.insert(.random(in: 0...255, using: &random), at: Int.random(in: 0...bytes.count, using: &random))
                default: bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random)))
                }
            }
            guard let packet = try? CopiedPacket(bytes) else { continue }
            // Flags without a meaning, and numbers that a kind does not use, are not kept.
            #expect(packet.bytes.count == bytes.count, "seed \(seed): \(bytes)")
            #expect(try CopiedPacket(packet.bytes) == packet, "seed \(seed): \(bytes)")
        }
    }
}
