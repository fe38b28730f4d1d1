import ApusCodec
import Testing
import TestSupport

@Suite("RFC 6455 §5 frame encoder")
struct FrameEncoderTests {
    struct Frame: Sendable {
        var opcode: Opcode
        var payload: [UInt8]
        var isFinal = true
        var key: UInt32?
    }

    struct Example: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let frames: [Frame]
        let bytes: [UInt8]
    }

    static let hello = FrameDecoderTests.hello
    static let octets256 = FrameDecoderTests.octets256
    static let octets64K = FrameDecoderTests.octets64K

    /// RFC 6455 §5.7; the same literals are in `FrameDecoderTests.accepted`.
    static let examples: [Example] = [
        Example(
            testDescription: "single-frame unmasked text", frames: [Frame(opcode: .text, payload: hello)],
            bytes: [0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]),
        Example(
            testDescription: "single-frame masked text", frames: [Frame(opcode: .text, payload: hello, key: sampleKeyWord)],
            bytes: [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]),
        Example(
            testDescription: "fragmented unmasked text",
            frames: [
                Frame(opcode: .text, payload: Array("Hel".utf8), isFinal: false),
                Frame(opcode: .continuation, payload: Array("lo".utf8)),
            ], bytes: [0x01, 0x03, 0x48, 0x65, 0x6C, 0x80, 0x02, 0x6C, 0x6F]),
        Example(
            testDescription: "unmasked ping", frames: [Frame(opcode: .ping, payload: hello)],
            bytes: [0x89, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]),
        Example(
            testDescription: "masked pong", frames: [Frame(opcode: .pong, payload: hello, key: sampleKeyWord)],
            bytes: [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]),
        Example(
            testDescription: "256 bytes unmasked", frames: [Frame(opcode: .binary, payload: octets256)],
            bytes: [0x82, 0x7E, 0x01, 0x00] + octets256),
        Example(
            testDescription: "64 KiB unmasked", frames: [Frame(opcode: .binary, payload: octets64K)],
            bytes: [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0] + octets64K),
    ]

    @Test("§5.7 examples", arguments: examples)
    func encodes(example: Example) {
        var output: [UInt8] = []
        for frame in example.frames {
            FrameEncoder.append(frame.opcode, frame.payload.rawSpan, isFinal: frame.isFinal, maskingKey: frame.key, to: &output)
        }
        #expect(output == example.bytes)
    }

    @Test(
        "headers have the shortest form",
        arguments: [
            (0, [0x00]), (1, [0x01]), (125, [0x7D]), (126, [0x7E, 0, 126]), (127, [0x7E, 0, 127]), (65535, [0x7E, 0xFF, 0xFF]),
            (65536, [0x7F, 0, 0, 0, 0, 0, 1, 0, 0]), (0x0102_0304_0506_0708, [0x7F, 1, 2, 3, 4, 5, 6, 7, 8]),
            (.max, [0x7F, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ] as [(Int, [UInt8])])
    func headers(payloadBytes: Int, length: [UInt8]) {
        let plain = FrameHeader(opcode: .binary, payloadBytes: payloadBytes)
        #expect(plain.bytes == [0x82] + length)
        #expect(plain.byteCount == plain.bytes.count)
        #expect(plain.maskingKey == nil)
        let masked = FrameHeader(opcode: .binary, payloadBytes: payloadBytes, maskingKey: sampleKeyWord)
        #expect(masked.bytes == [0x82, length[0] | 0x80] + length.dropFirst() + sampleKey)
        #expect(masked.byteCount <= FrameHeader.maxBytes)
        #expect(masked.maskingKey == sampleKeyWord)
    }

    @Test("the first octet: every opcode, FIN and reserved bit", arguments: [.continuation, .text, .binary] as [Opcode])
    func firstOctet(opcode: Opcode) {
        for bits in [0, 0x40, 0x20, 0x10, 0x70] as [UInt8] {
            for isFinal in [true, false] {
                let header = FrameHeader(opcode: opcode, payloadBytes: 3, isFinal: isFinal, reservedBits: bits)
                #expect(header.bytes == [opcode.rawValue | bits | (isFinal ? 0x80 : 0), 3])
            }
        }
        #expect(FrameHeader(opcode: opcode, payloadBytes: 0, reservedBits: 0xFF).bytes[0] == 0xF0 | opcode.rawValue)
    }

    @Test("a key of zeros sets the mask bit")
    func zeroKey() {
        var output: [UInt8] = []
        FrameEncoder.append(.binary, Self.hello.rawSpan, maskingKey: 0, to: &output)
        #expect(output == [0x82, 0x85, 0, 0, 0, 0] + Self.hello)
    }

    struct Close: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let code: CloseCode?
        let reason: String
        let payload: [UInt8]
    }

    static func ascii(_ count: Int) -> String { String(repeating: "a", count: count) }

    static let closes: [Close] = [
        Close(testDescription: "no code", code: nil, reason: "ignored", payload: []),
        Close(testDescription: "1005 stands for no code", code: .noStatus, reason: "ignored", payload: []),
        Close(testDescription: "code alone", code: .normal, reason: "", payload: [0x03, 0xE8]),
        Close(
            testDescription: "code and reason", code: CloseCode(rawValue: 4999), reason: "bye",
            payload: [0x13, 0x87, 0x62, 0x79, 0x65]),
        Close(
            testDescription: "123 bytes fit", code: .normal, reason: ascii(123), payload: [0x03, 0xE8] + Array(ascii(123).utf8)),
        Close(
            testDescription: "124 bytes are cut", code: .normal, reason: ascii(124),
            payload: [0x03, 0xE8] + Array(ascii(123).utf8)),
        Close(
            testDescription: "two octets over the edge", code: .normal, reason: ascii(122) + "ü",
            payload: [0x03, 0xE8] + Array(ascii(122).utf8)),
        Close(
            testDescription: "two octets up to the edge", code: .normal, reason: ascii(121) + "üx",
            payload: [0x03, 0xE8] + Array((ascii(121) + "ü").utf8)),
        Close(
            testDescription: "three octets, two of them over", code: .normal, reason: ascii(122) + "€",
            payload: [0x03, 0xE8] + Array(ascii(122).utf8)),
        Close(
            testDescription: "four octets, one over, with a shorter character behind", code: .normal, reason: ascii(120) + "🐦a",
            payload: [0x03, 0xE8] + Array(ascii(120).utf8)),
        Close(
            testDescription: "four octets up to the edge", code: .normal, reason: ascii(119) + "🐦a",
            payload: [0x03, 0xE8] + Array((ascii(119) + "🐦").utf8)),
    ]

    @Test("payloads of close frames: the reason is cut at a character", arguments: closes)
    func closePayload(close: Close) {
        let payload = FrameEncoder.closePayload(code: close.code, reason: close.reason)
        #expect(payload == close.payload)
        #expect(payload.count <= maxControlPayloadBytes)
        // The decoder accepts it.
        let outcome = decodeFrames(wire(0x88, payload), role: .client, cut: .whole)
        let code = close.code == .noStatus ? nil : close.code
        #expect(outcome.items == [.close(code?.rawValue, String(decoding: payload.dropFirst(2), as: UTF8.self))])
    }

    @Test(
        "codes that must not be sent become 1011; no status gives an empty payload",
        arguments: [0, 999, 1004, 1006, 1015, 2000, 5000] as [UInt16])
    func unsendable(code: UInt16) {
        #expect(FrameEncoder.closePayload(code: CloseCode(rawValue: code), reason: "r") == [0x03, 0xF3, UInt8(ascii: "r")])
        #expect(FrameEncoder.closePayload(code: .noStatus, reason: "r").isEmpty)
    }

    // MARK: Both ways

    @Test("encoded frames are decoded to the same events, cut anywhere", arguments: 1...60 as ClosedRange<UInt64>)
    func roundTrip(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let role: Role = Bool.random(using: &generator) ? .server : .client
        var bytes: [UInt8] = []
        var meant: [FrameItem] = []
        for _ in 0..<Int.random(in: 1...12, using: &generator) {
            Self.appendMessage(to: &bytes, meant: &meant, for: role, &generator)
        }
        for cut in [.whole, .withTrailingByte, .random(seed: seed), .random(seed: ~seed), .randomByFastPath(seed: seed)]
            as [FrameCut]
        {
            let outcome = decodeFrames(bytes, role: role, ownedReservedBits: 0x40, cut: cut)
            #expect(outcome == FrameOutcome(items: meant), "seed \(seed), \(role), \(cut)")
        }
        if bytes.count < 4096 {
            #expect(
                decodeFrames(bytes, role: role, ownedReservedBits: 0x40, cut: .byteByByte) == FrameOutcome(items: meant),
                "seed \(seed)")
        }
    }

    /// One message in one or more fragments, with control frames before each.
    static func appendMessage(
        to bytes: inout [UInt8], meant: inout [FrameItem], for role: Role, _ generator: inout SeededGenerator
    ) {
        let kind: MessageKind = Bool.random(using: &generator) ? .text : .binary
        let bits: UInt8 = Int.random(in: 0..<4, using: &generator) == 0 ? 0x40 : 0
        let fragments = Bool.random(using: &generator) ? 1 : Int.random(in: 1...5, using: &generator)
        for index in 0..<fragments {
            let isFinal = index == fragments - 1
            if Int.random(in: 0..<3, using: &generator) == 0 {
                let payload = octets(Int.random(in: 0...125, using: &generator), &generator)
                let isPing = Bool.random(using: &generator)
                FrameEncoder.append(isPing ? .ping : .pong, payload.rawSpan, maskingKey: key(role, &generator), to: &bytes)
                meant.append(isPing ? .ping(payload) : .pong(payload))
            }
            let edges = [0, 1, 124, 125, 126, 127, 300, 65_535, 65_536]
            let size =
                Int.random(in: 0..<4, using: &generator) == 0
                ? edges[Int.random(in: 0..<edges.count, using: &generator)] : Int.random(in: 0...200, using: &generator)
            let payload = octets(size, &generator)
            FrameEncoder.append(
                index == 0 ? kind.opcode : .continuation, payload.rawSpan, isFinal: isFinal, reservedBits: index == 0 ? bits : 0,
                maskingKey: key(role, &generator), to: &bytes)
            meant.append(.data(kind, reservedBits: bits, starts: index == 0, isFinal: isFinal, payload))
        }
    }

    static func octets(_ count: Int, _ generator: inout SeededGenerator) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    static func key(_ role: Role, _ generator: inout SeededGenerator) -> UInt32? {
        role == .server ? UInt32.random(in: 0...UInt32.max, using: &generator) : nil
    }
}
