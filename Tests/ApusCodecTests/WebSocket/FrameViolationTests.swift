import ApusCodec
import Testing

@Suite("RFC 6455 frame violations")
struct FrameViolationTests {
    typealias Case = FrameDecoderTests.Case

    static func refused(
        _ name: String, _ bytes: [UInt8], _ violation: FrameViolation, role: Role = .server, after items: [FrameItem] = [],
        owned: UInt8 = 0, maxMessageBytes: Int = 1 << 20
    ) -> Case {
        Case(
            testDescription: name, role: role, bytes: bytes, items: items, violation: violation, ownedReservedBits: owned,
            maxMessageBytes: maxMessageBytes)
    }

    static func masked(_ first: UInt8, _ payload: [UInt8] = []) -> [UInt8] { wire(first, payload, key: sampleKey) }

    static let headers: [Case] =
        [
            refused("unmasked to the server", wire(0x81, [0x61]), .maskMismatch),
            refused("masked to the client", masked(0x81, [0x61]), .maskMismatch, role: .client),
            refused("unmasked and empty to the server", [0x81, 0x00], .maskMismatch),
            refused("unmasked control to the server", wire(0x89), .maskMismatch),
            refused("unmasked after masked", masked(0x82, [1]) + wire(0x82, [1]), .maskMismatch, after: [.data(.binary, [1])]),
            refused("126 for 5", [0x82, 0xFE, 0, 5], .malformedLength),
            refused("126 for 125", [0x82, 0xFE, 0, 125], .malformedLength),
            refused("126 for 0", [0x82, 0x7E, 0, 0], .malformedLength, role: .client),
            refused("127 for 5", [0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5], .malformedLength),
            refused("127 for 65535", [0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], .malformedLength),
            refused("top bit of 64", [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], .malformedLength),
            refused("all bits of 64", [0x82, 0x7F] + [UInt8](repeating: 0xFF, count: 8), .malformedLength, role: .client),
            refused("a control frame of 126 bytes", masked(0x89, [UInt8](repeating: 0, count: 126)), .controlTooLong(126)),
            refused("a close of 126 bytes", wire(0x88, [UInt8](repeating: 0, count: 126)), .controlTooLong(126), role: .client),
            refused("a control frame of 126 bytes at its second octet", [0x8A, 0xFE], .controlTooLong(126)),
            refused("a control frame with a 64-bit length at its second octet", [0x8A, 0xFF], .controlTooLong(127)),
            refused("a fragmented ping", masked(0x09), .controlFragmented),
            refused("a fragmented pong", masked(0x0A, [1]), .controlFragmented),
            refused("a fragmented close", masked(0x08), .controlFragmented),
            refused("continuation first", masked(0x80, [1]), .unexpectedContinuation),
            refused("continuation first, not final", masked(0x00, [1]), .unexpectedContinuation),
            refused(
                "continuation behind a whole message", masked(0x81, [0x61]) + masked(0x80), .unexpectedContinuation,
                after: [.data(.text, [0x61])]),
            refused(
                "text inside fragments", masked(0x01, [0x61]) + masked(0x81, [0x61]), .messageInsideMessage,
                after: [.data(.text, isFinal: false, [0x61])]),
            refused(
                "binary inside fragments, behind a ping", masked(0x02) + masked(0x89) + masked(0x02), .messageInsideMessage,
                after: [.data(.binary, isFinal: false, []), .ping([])]),
        ]
        + [0x40, 0x20, 0x10, 0x70, 0x60].flatMap { (bits: UInt8) in
            [
                refused("reserved bits \(bits) on data", masked(0x82 | bits, [1]), .reservedBits(bits)),
                refused("reserved bits \(bits) on a control frame", masked(0x89 | bits, [1]), .reservedBits(bits), owned: 0x70),
                refused(
                    "reserved bits \(bits) on a continuation", masked(0x02, [1]) + masked(0x80 | bits), .reservedBits(bits),
                    after: [.data(.binary, isFinal: false, [1])], owned: 0x70),
            ]
        }
        + [
            refused("RSV2 beside an owned RSV1", masked(0xE2, [1]), .reservedBits(0x60), owned: 0x40),
            refused(
                "RSV1 on a ping inside a message that owns it", masked(0x42, [1]) + masked(0xC9), .reservedBits(0x40),
                after: [.data(.binary, reservedBits: 0x40, isFinal: false, [1])], owned: 0x40),
        ]
        + ([3, 4, 5, 6, 7, 11, 12, 13, 14, 15] as [UInt8]).map { opcode in
            refused("opcode \(opcode)", masked(0x80 | opcode), .reservedOpcode(opcode))
        }

    static let sizes: [Case] = [
        refused("2^62", [0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0], .messageTooBig(size: 1 << 62, limit: 1 << 20)),
        refused(
            "2^62 in a text", [0x81, 0x7F, 0x40, 0, 0, 0, 0, 0, 0, 0], .messageTooBig(size: 1 << 62, limit: 1 << 20),
            role: .client),
        refused(
            "2^63 - 1", [0x82, 0x7F, 0x7F] + [UInt8](repeating: 0xFF, count: 7), .messageTooBig(size: 1 << 63 - 1, limit: 5),
            role: .client, maxMessageBytes: 5),
        refused("one over a limit of 5", [0x82, 0x86], .messageTooBig(size: 6, limit: 5), maxMessageBytes: 5),
        refused(
            "one over a limit of 300", [0x82, 0xFE, 0x01, 0x2D], .messageTooBig(size: 301, limit: 300), maxMessageBytes: 300),
        refused("one byte with a limit of 0", [0x82, 0x81], .messageTooBig(size: 1, limit: 0), maxMessageBytes: 0),
        refused("a negative limit counts as 0", [0x82, 0x81], .messageTooBig(size: 1, limit: 0), maxMessageBytes: -1),
        refused(
            "one over in sum", masked(0x02, [1, 2, 3]) + [0x80, 0x83], .messageTooBig(size: 6, limit: 5),
            after: [.data(.binary, isFinal: false, [1, 2, 3])], maxMessageBytes: 5),
        refused(
            "a sum of 2^63 + 3", masked(0x02, [1, 2, 3]) + [0x80, 0xFF, 0x7F] + [UInt8](repeating: 0xFF, count: 7),
            .messageTooBig(size: 1 << 63 + 2, limit: 5), after: [.data(.binary, isFinal: false, [1, 2, 3])], maxMessageBytes: 5),
    ]

    static let closes: [Case] = [
        refused("a close of one byte", masked(0x88, [0x03]), .malformedClose),
        refused("a reason with an octet that never occurs", masked(0x88, [0x03, 0xE8, 0xFF]), .invalidUTF8),
        refused("a reason with an overlong form", masked(0x88, [0x03, 0xE8, 0xC0, 0x80]), .invalidUTF8),
        refused("a reason with a surrogate", wire(0x88, [0x03, 0xE8, 0xED, 0xA0, 0x80]), .invalidUTF8, role: .client),
        refused("a reason cut inside a character", masked(0x88, [0x03, 0xE8, 0x61, 0xC3]), .invalidUTF8),
        refused("a reason that begins with a continuation", masked(0x88, [0x03, 0xE8, 0x80]), .invalidUTF8),
        refused("an invalid code before an invalid reason", masked(0x88, [0, 0, 0xFF]), .invalidCloseCode(0)),
        refused(
            "a bad close behind a ping", masked(0x89) + masked(0x88, [0x03, 0xED]), .invalidCloseCode(1005), after: [.ping([])]),
    ]

    @Test("violations are found however the frames are cut", arguments: headers + sizes + closes, FrameCut.all)
    func refuses(frames: Case, cut: FrameCut) throws {
        let outcome = decodeFrames(
            frames.bytes, role: frames.role, ownedReservedBits: frames.ownedReservedBits, maxMessageBytes: frames.maxMessageBytes,
            cut: cut)
        #expect(outcome == FrameOutcome(items: frames.items, violation: frames.violation))
        let violation = try #require(frames.violation)
        let expected: CloseCode =
            switch violation {
            case .messageTooBig: .messageTooBig
            case .invalidUTF8: .invalidPayload
            default: .protocolError
            }
        #expect(violation.closeCode == expected)
        #expect(violation.reason.utf8.count <= 123)
    }

    @Test("a violation is found at the earliest octet", arguments: headers + sizes)
    func early(frames: Case) {
        // Each of these is found in the header of the invalid frame.
        let before = frames.bytes.count
        let outcome = decodeFrames(
            Array(frames.bytes[..<min(before, Self.headerEnd(frames))]), role: frames.role,
            ownedReservedBits: frames.ownedReservedBits,
            maxMessageBytes: frames.maxMessageBytes, cut: .whole)
        #expect(outcome.violation == frames.violation)
    }

    /// The end of the fixed part of the last frame's header: two octets and the extended length,
    /// without key and payload.
    static func headerEnd(_ frames: Case) -> Int {
        var start = 0
        while true {
            let length = frames.bytes[start + 1] & 0x7F
            let extended = length == 126 ? 2 : length == 127 ? 8 : 0
            let isMasked = frames.bytes[start + 1] & 0x80 != 0
            let end = start + 2 + extended
            let frameEnd = end + (isMasked ? 4 : 0) + Int(length)
            guard extended == 0, frameEnd < frames.bytes.count else { return end }
            start = frameEnd
        }
    }

    @Test("every close code is accepted or refused as in §7.4 and the registry")
    func closeCodes() {
        for code in UInt16.min...UInt16.max {
            let isGood = (1000...1003).contains(code) || (1007...1014).contains(code) || (3000...4999).contains(code)
            let outcome = decodeFrames(wire(0x88, [UInt8(code >> 8), UInt8(code & 0xFF)]), role: .client, cut: .whole)
            let expected = isGood ? FrameOutcome(items: [.close(code, "")]) : FrameOutcome(violation: .invalidCloseCode(code))
            if outcome != expected { Issue.record("\(code): \(outcome)") }
        }
    }

    @Test("a long control frame is refused with 1002, however much of its length has arrived", arguments: FrameCut.all)
    func longControl(cut: FrameCut) {
        for frame in [
            Self.masked(0x89, [UInt8](repeating: 0, count: 300)), Self.masked(0xC9, [UInt8](repeating: 0, count: 70_000)),
        ] {
            #expect(decodeFrames(frame, role: .server, cut: cut).violation?.closeCode == .protocolError)
        }
    }
}
