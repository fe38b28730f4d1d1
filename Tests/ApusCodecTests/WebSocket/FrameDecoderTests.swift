import ApusCodec
import Testing

@Suite("RFC 6455 §5 frame decoder")
struct FrameDecoderTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let testDescription: String
        var role = Role.server
        let bytes: [UInt8]
        var items: [FrameItem] = []
        var violation: FrameViolation?
        var ownedReservedBits: UInt8 = 0
        var maxMessageBytes = 1 << 20
    }

    static let hello = Array("Hello".utf8)
    static let octets256 = (0..<256).map { UInt8($0) }
    static let octets64K = (0..<65536).map { UInt8(truncatingIfNeeded: $0 &* 7) }

    // MARK: Accepted

    static let accepted: [Case] = [
        Case(
            testDescription: "§5.7 single-frame unmasked text", role: .client, bytes: [0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F],
            items: [.data(.text, hello)]),
        Case(
            testDescription: "§5.7 single-frame masked text",
            bytes: [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58], items: [.data(.text, hello)]),
        Case(
            testDescription: "§5.7 fragmented unmasked text", role: .client,
            bytes: [0x01, 0x03, 0x48, 0x65, 0x6C, 0x80, 0x02, 0x6C, 0x6F],
            items: [.data(.text, isFinal: false, Array("Hel".utf8)), .data(.text, starts: false, Array("lo".utf8))]),
        Case(
            testDescription: "§5.7 unmasked ping", role: .client, bytes: [0x89, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F],
            items: [.ping(hello)]),
        Case(
            testDescription: "§5.7 masked pong", bytes: [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58],
            items: [.pong(hello)]),
        Case(
            testDescription: "§5.7 256 bytes unmasked", role: .client, bytes: [0x82, 0x7E, 0x01, 0x00] + octets256,
            items: [.data(.binary, octets256)]),
        Case(
            testDescription: "§5.7 64 KiB unmasked", role: .client, bytes: [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0] + octets64K,
            items: [.data(.binary, octets64K)]),
        Case(
            testDescription: "an empty message", bytes: wire(0x81, key: sampleKey), items: [.data(.text, [])]),
        Case(
            testDescription: "a message of empty fragments",
            bytes: wire(0x02, key: sampleKey) + wire(0x00, key: sampleKey) + wire(0x80, key: sampleKey),
            items: [
                .data(.binary, isFinal: false, []), .data(.binary, starts: false, isFinal: false, []),
                .data(.binary, starts: false, []),
            ]),
        Case(
            testDescription: "control frames between fragments",
            bytes: wire(0x01, Array("a".utf8), key: sampleKey) + wire(0x89, Array("ping".utf8), key: sampleKey)
                + wire(0x00, Array("b".utf8), key: sampleKey) + wire(0x8A, key: sampleKey)
                + wire(0x80, Array("c".utf8), key: sampleKey),
            items: [
                .data(.text, isFinal: false, [0x61]), .ping(Array("ping".utf8)),
                .data(.text, starts: false, isFinal: false, [0x62]),
                .pong([]), .data(.text, starts: false, [0x63]),
            ]),
        Case(
            testDescription: "consecutive frames, each with its own key",
            bytes: wire(0x82, hello, key: [1, 2, 3, 4]) + wire(0x82, hello, key: [0, 0, 0, 0])
                + wire(0x89, hello, key: [255, 0, 0, 9]),
            items: [.data(.binary, hello), .data(.binary, hello), .ping(hello)]),
        Case(
            testDescription: "the longest control frames",
            bytes: wire(0x89, Array(octets256[..<125]), key: sampleKey) + wire(0x8A, Array(octets256[..<125]), key: sampleKey),
            items: [.ping(Array(octets256[..<125])), .pong(Array(octets256[..<125]))]),
        Case(testDescription: "an empty close", bytes: wire(0x88, key: sampleKey), items: [.close(nil, "")]),
        Case(testDescription: "a close with a code", bytes: wire(0x88, [0x03, 0xE8], key: sampleKey), items: [.close(1000, "")]),
        Case(
            testDescription: "a close with the longest reason",
            bytes: wire(0x88, [0x0F, 0xA0] + [UInt8](repeating: 0x61, count: 123), key: sampleKey),
            items: [.close(4000, String(repeating: "a", count: 123))]),
        Case(
            testDescription: "a close with a reason beyond ASCII", role: .client,
            bytes: wire(0x88, [0x03, 0xE9] + Array("Tschüß 🐦".utf8)),
            items: [.close(1001, "Tschüß 🐦")]),
        Case(
            testDescription: "an extension's bit on a message's first frame, text and binary",
            bytes: wire(0x41, hello, key: sampleKey) + wire(0x80, hello, key: sampleKey) + wire(0xC2, hello, key: sampleKey)
                + wire(0x82, hello, key: sampleKey),
            items: [
                .data(.text, reservedBits: 0x40, isFinal: false, hello), .data(.text, reservedBits: 0x40, starts: false, hello),
                .data(.binary, reservedBits: 0x40, hello), .data(.binary, hello),
            ], ownedReservedBits: 0x40),
        Case(
            testDescription: "a message at the limit, in fragments",
            bytes: wire(0x02, [1, 2, 3], key: sampleKey) + wire(0x80, [4, 5], key: sampleKey),
            items: [.data(.binary, isFinal: false, [1, 2, 3]), .data(.binary, starts: false, [4, 5])], maxMessageBytes: 5),
    ]

    @Test("frames are decoded however they are cut", arguments: accepted, FrameCut.all)
    func accepts(frames: Case, cut: FrameCut) {
        let outcome = decodeFrames(
            frames.bytes, role: frames.role, ownedReservedBits: frames.ownedReservedBits, maxMessageBytes: frames.maxMessageBytes,
            cut: cut)
        #expect(outcome == FrameOutcome(items: frames.items))
    }

    @Test("lengths at the edges of their encodings", arguments: [0, 1, 125, 126, 127, 128, 65535, 65536, 65537], [Role.server, .client])
    func lengths(length: Int, role: Role) {
        let payload = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 1) }
        let bytes = wire(0x82, payload, key: role == .server ? sampleKey : nil)
        for cut in FrameCut.all {
            #expect(decodeFrames(bytes, role: role, cut: cut) == FrameOutcome(items: [.data(.binary, payload)]), "\(cut)")
        }
    }

    @Test("a 64-bit length is read in full, and its payload is not buffered", arguments: [Role.server, .client])
    func longLength(role: Role) throws {
        let mask: UInt8 = role == .server ? 0x80 : 0
        let key = role == .server ? sampleKey : []
        var bytes: [UInt8] = [0x82, mask | 127, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06] + key + [0xAA]
        var decoder = FrameDecoder(role: role, maxMessageBytes: .max)
        var position = 0
        let end = bytes.count
        var octets = bytes.mutableSpan
        var buffer = octets.mutableBytes
        let event = try decoder.next(in: &buffer, until: end, from: &position)
        let size: UInt64 = 0x0102_0304_0506
        #expect(
            event
                == .data(
                    DataPiece(
                        range: end - 1..<end, kind: .binary, reservedBits: 0, startsMessage: true, remainingInFrame: size - 1,
                        isFinalFrame: true)))
        #expect(try decoder.next(in: &buffer, until: end, from: &position) == nil)
    }

    @Test("incomplete bytes are not consumed", arguments: [Role.server, .client])
    func incomplete(role: Role) {
        let key = role == .server ? sampleKey : nil
        for (name, bytes, headerBytes) in [
            ("short", wire(0x82, Self.hello, key: key), 2), ("16-bit", wire(0x82, Self.octets256, key: key), 4),
            ("64-bit", wire(0x82, Self.octets64K, key: key), 10),
        ] {
            let header = headerBytes + (key == nil ? 0 : 4)
            for count in 0..<header {
                let outcome = decodeFrames(Array(bytes[..<count]), role: role, cut: .whole)
                #expect(outcome == FrameOutcome(unconsumed: count), "\(name) header with only \(count) octets")
            }
        }
        let ping = wire(0x89, Array(Self.octets256[..<125]), key: key)
        for count in 0..<ping.count {
            #expect(decodeFrames(Array(ping[..<count]), role: role, cut: .byteByByte) == FrameOutcome(unconsumed: count))
        }
    }

    @Test("pieces describe their position in frame and message")
    func pieces() throws {
        var decoder = FrameDecoder(role: .server, maxMessageBytes: 100)
        let frames = wire(0x01, Array("Hello".utf8), key: sampleKey) + wire(0x80, Array("!".utf8), key: sampleKey)
        var seen: [String] = []
        for range in [0..<8, 8..<10, 10..<18] {
            var bytes = Array(frames[range])
            var position = 0
            while let event = try next(&decoder, &bytes, &position) {
                guard case .data(let piece) = event else { continue }
                let text = String(decoding: bytes[piece.range], as: UTF8.self)
                seen.append("\(text) starts \(piece.startsMessage) missing \(piece.remainingInFrame) ends \(piece.endsMessage)")
            }
            #expect(position == bytes.count)
        }
        #expect(
            seen == [
                "He starts true missing 3 ends false", "ll starts false missing 1 ends false", "o starts false missing 0 ends false",
                "! starts false missing 0 ends true",
            ])
        #expect(!decoder.isInsideMessage)
        #expect(decoder.remainingInFrame == 0)
    }

    func next(_ decoder: inout FrameDecoder, _ bytes: inout [UInt8], _ position: inout Int) throws(FrameViolation) -> FrameEvent? {
        let end = bytes.count
        var octets = bytes.mutableSpan
        var buffer = octets.mutableBytes
        return try decoder.next(in: &buffer, until: end, from: &position)
    }

    @Test("the masking phase continues across pieces of every size", arguments: 1...9)
    func phase(size: Int) throws {
        let payload = (0..<100).map { UInt8($0) }
        let frame = wire(0x82, payload, key: sampleKey)
        var decoder = FrameDecoder(role: .server, maxMessageBytes: 100)
        var found: [UInt8] = []
        var start = 0
        while start < frame.count {
            // The header arrives whole, the payload in pieces of one size.
            let end = min(frame.count, start == 0 ? 6 + size : start + size)
            var bytes = Array(frame[start..<end])
            var position = 0
            while case .data(let piece)? = try next(&decoder, &bytes, &position) { found += bytes[piece.range] }
            start = end
        }
        #expect(found == payload)
    }

    @Test("only octets up to the given end are read")
    func end() throws {
        var decoder = FrameDecoder(role: .client, maxMessageBytes: 100)
        var bytes: [UInt8] = [0xFF, 0x82, 0x02, 0x01, 0x02]
        var position = 1
        var octets = bytes.mutableSpan
        var buffer = octets.mutableBytes
        #expect(try decoder.next(in: &buffer, until: 2, from: &position) == nil)
        #expect(position == 1)
        guard case .data(let piece)? = try decoder.next(in: &buffer, until: 4, from: &position) else {
            Issue.record("no piece")
            return
        }
        #expect((piece.range, piece.remainingInFrame) == (3..<4, 1))
    }
    @Test("the fast path stays inside the buffer with any end", arguments: [5, 33, Int.max, -1, Int.min, Int.min + 5])
    func shortWay(end: Int) {
        var decoder = FrameDecoder(role: .server, maxMessageBytes: 100)
        var bytes = [UInt8](repeating: 0, count: 6) + wire(0x81, Array("hello, apus and others".utf8), key: sampleKey)
        #expect(bytes.count == 34)
        let before = bytes
        var position = 6
        do {
            var octets = bytes.mutableSpan
            var buffer = octets.mutableBytes
            #expect(decoder.nextShortMessage(in: &buffer, until: end, from: &position) == nil)
        }
        #expect(position == 6 && bytes == before)
    }
}
