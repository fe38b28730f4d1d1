import ApusCodec
import Testing
import TestSupport

/// The message that a chain decodes from frames with the given payloads.
func inflate(
    _ frames: [[UInt8]], with chain: ExtensionChain, bits: ReservedBits = .rsv1, maxBytes: Int = 1 << 20, into output: inout [UInt8]
) throws(FrameViolation) {
    for (index, frame) in frames.enumerated() {
        let piece = ExtensionPiece(kind: .binary, reservedBits: bits, startsMessage: index == 0, endsMessage: index == frames.count - 1)
        let outcome = try chain.receive(frame.rawSpan, piece, into: &output, maxBytes: maxBytes)
        #expect(outcome == .replaced())
    }
}

func inflate(_ frames: [[UInt8]], with chain: ExtensionChain, maxBytes: Int = 1 << 20) throws(FrameViolation) -> [UInt8] {
    var output: [UInt8] = []
    try inflate(frames, with: chain, maxBytes: maxBytes, into: &output)
    return output
}

/// The frames that a chain encodes from a message sent in the given pieces; nil: unchanged.
func deflate(_ pieces: [[UInt8]], with chain: ExtensionChain) -> [[UInt8]]? {
    var frames: [[UInt8]] = []
    for (index, payload) in pieces.enumerated() {
        let piece = ExtensionPiece(kind: .binary, reservedBits: [], startsMessage: index == 0, endsMessage: index == pieces.count - 1)
        var frame: [UInt8] = []
        switch chain.send(payload.rawSpan, piece, into: &frame) {
        case .unchanged: #expect(frames.isEmpty && frame.isEmpty, "all pieces are changed or none")
        case .replaced(let bits):
            #expect(bits == .rsv1)
            frames.append(frame)
        }
    }
    return frames.isEmpty ? nil : frames
}

@Suite("RFC 7692 §7.2 permessage-deflate payload")
struct PerMessageDeflateTests {
    static let hello = Array("Hello".utf8)
    static let helloDeflated: [UInt8] = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]

    static let takingOver = DeflateConfiguration.with {
        $0 = .takingOver
        $0.threshold = 0
    }
    static let takingNothing = DeflateConfiguration.with { $0.threshold = 0 }

    // MARK: §7.2.3, examples of the RFC

    static let examples: [(name: String, payload: [UInt8], message: [UInt8])] = [
        ("§7.2.3.1 one block", helloDeflated, hello),
        ("§7.2.3.3 a block without compression", [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00], hello),
        ("§7.2.3.4 a final block", [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00], hello),
        ("a final block at the end", [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], hello),
        ("§7.2.3.5 two blocks", [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00], hello),
        ("§7.2.3.6 an empty message", [0x00], []),
        ("an empty final block", [0x03, 0x00, 0x00], []),
        (
            "several final blocks", [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
            hello + hello
        ),
    ]

    @Test("messages of the RFC, whole and cut into frames at every octet", arguments: examples)
    func example(name: String, payload: [UInt8], message: [UInt8]) throws {
        for configuration in [Self.takingNothing, Self.takingOver] {
            for first in 0...payload.count {
                for second in first...payload.count {
                    let pair = try DeflatePair(configuration)
                    let frames = [Array(payload[..<first]), Array(payload[first..<second]), Array(payload[second...])]
                    #expect(try inflate(frames, with: pair.server) == message)
                    #expect(try inflate([payload], with: pair.client) == message)
                }
            }
            let pair = try DeflatePair(configuration)
            for _ in 0..<3 { #expect(try inflate(payload.map { [$0] }, with: pair.server) == message, "octet by octet, again and again") }
        }
    }

    @Test("§7.2.3.1, §7.2.3.2: encoded messages equal the RFC's, in both roles")
    func sendsExamples() throws {
        let pair = try DeflatePair(Self.takingOver)
        for chain in [pair.server, pair.client] {
            #expect(deflate([Self.hello], with: chain) == [Self.helloDeflated])
            #expect(deflate([Self.hello], with: chain) == [[0xF2, 0x00, 0x11, 0x00, 0x00]], "the second one refers to the first")
            #expect(deflate([[]], with: chain) == [[0x00]])
        }
        let alone = try DeflatePair(Self.takingNothing)
        for chain in [alone.server, alone.client] {
            for _ in 0..<2 { #expect(deflate([Self.hello], with: chain) == [Self.helloDeflated], "each by itself") }
            #expect(deflate([[]], with: chain) == [[0x00]], "§7.2.3.6")
        }
    }

    @Test("§7.2.3.2: the window is kept with context takeover only")
    func sharedWindow() throws {
        let pair = try DeflatePair(Self.takingOver)
        #expect(try inflate([Self.helloDeflated], with: pair.server) == Self.hello)
        #expect(try inflate([[0xF2, 0x00, 0x11, 0x00, 0x00]], with: pair.server) == Self.hello)
        #expect(try inflate([[0xF2], [0x00, 0x11], [0x00, 0x00]], with: pair.server) == Self.hello)
        let alone = try DeflatePair(Self.takingNothing)
        #expect(try inflate([Self.helloDeflated], with: alone.server) == Self.hello)
        #expect(throws: FrameViolation.self) { _ = try inflate([[0xF2, 0x00, 0x11, 0x00, 0x00]], with: alone.server) }
    }

    @Test("the window is kept after a final block, which begins a new stream")
    func windowBehindFinalBlock() throws {
        let pair = try DeflatePair(Self.takingOver)
        #expect(try inflate([[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00]], with: pair.server) == Self.hello)
        #expect(try inflate([[0xF2, 0x00, 0x11, 0x00, 0x00]], with: pair.server) == Self.hello)
        // Without the next octet: the following message finds the stream at its end.
        #expect(try inflate([[0xF3, 0x00, 0x11, 0x00]], with: pair.server) == Self.hello)
        #expect(try inflate([[0xF2, 0x00, 0x11, 0x00, 0x00]], with: pair.server) == Self.hello)
    }

    @Test("a message without RSV1 is unchanged, and does not change the window")
    func plain() throws {
        let pair = try DeflatePair(Self.takingOver)
        #expect(try inflate([Self.helloDeflated], with: pair.server) == Self.hello)
        var output: [UInt8] = []
        let piece = ExtensionPiece(kind: .text, reservedBits: [], startsMessage: true, endsMessage: true)
        #expect(try pair.server.receive(Self.helloDeflated.rawSpan, piece, into: &output, maxBytes: 100) == .unchanged)
        #expect(output.isEmpty)
        #expect(try inflate([[0xF2, 0x00, 0x11, 0x00, 0x00]], with: pair.server) == Self.hello)
    }

    // MARK: Round trips

    /// Partly repetitive, partly noise.
    static func sample(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        return (0..<count).map { $0 % 7 < 4 ? UInt8($0 / 7 & 0xFF) : UInt8.random(in: 0...255, using: &generator) }
    }

    static func noise(_ count: Int) -> [UInt8] {
        var generator = SeededGenerator(seed: UInt64(count))
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    /// Sizes around the edges of frames, windows, zlib's blocks and our buffers' growth.
    static let sizes =
        Array(0...70) + [125, 126, 127, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 16_383, 16_384, 32_767, 32_768, 32_769]
        + [65_533, 65_534, 65_535, 65_536, 65_537, 131_072, 200_000]

    @Test("messages round-trip at every size and setting", arguments: DeflateConfiguration.varieties)
    func roundTrip(configuration: DeflateConfiguration) throws {
        let pair = try DeflatePair(configuration)
        for size in Self.sizes {
            for message in [Self.sample(size), [UInt8](repeating: 0x61, count: size), size < 70_000 ? Self.noise(size) : []] {
                for (sender, receiver) in [(pair.server, pair.client), (pair.client, pair.server)] {
                    let frames = try #require(deflate([message], with: sender))
                    #expect(frames.count == 1 && !frames[0].isEmpty)
                    guard try inflate(frames, with: receiver) == message else {
                        return #expect(Bool(false), "\(message.count) bytes came changed")
                    }
                }
            }
        }
    }

    @Test("messages round-trip at every level and memory level", arguments: 1...9)
    func levels(level: Int) throws {
        for memoryLevel in 1...9 {
            let pair = try DeflatePair(
                .with {
                    $0 = Self.takingOver
                    $0.level = level
                    $0.memoryLevel = memoryLevel
                })
            for size in [0, 1, 100, 40_000] {
                let message = Self.sample(size)
                #expect(try inflate(try #require(deflate([message], with: pair.server)), with: pair.client) == message)
            }
        }
    }

    @Test("messages from the threshold on are compressed; fragments always are", arguments: [0, 1, 64, 1000])
    func threshold(threshold: Int) throws {
        let pair = try DeflatePair(.with { $0.threshold = threshold })
        for size in max(0, threshold - 2)...threshold + 2 {
            #expect((deflate([Self.sample(size)], with: pair.server) == nil) == (size < threshold))
        }
        let pieces = [[UInt8]()] + [Self.sample(1), []]
        #expect(try inflate(try #require(deflate(pieces, with: pair.server)), with: pair.client) == Self.sample(1))
        #expect((deflate([[]], with: pair.server) == nil) == (threshold > 0), "the next message decides for itself")
    }

    @Test("messages sent in pieces, also empty ones, are received in frames cut at every octet")
    func pieces() throws {
        let message = Self.sample(90)
        for configuration in [Self.takingNothing, Self.takingOver] {
            let pair = try DeflatePair(configuration)
            for cut in 0...message.count {
                let pieces = [Array(message[..<cut]), [], Array(message[cut...])]
                let frames = try #require(deflate(pieces, with: pair.client))
                #expect(frames.count == 3)
                #expect(try inflate(frames, with: pair.server) == message)
            }
            for _ in 0..<2 {
                let wire = try #require(deflate([message, message], with: pair.client)).flatMap { $0 }
                #expect(try inflate(wire.map { [$0] }, with: pair.server) == message + message)
            }
        }
    }

    @Test("connections with interleaved messages do not disturb one another")
    func interleaved() throws {
        let client = PerMessageDeflate(Self.takingNothing)
        let server = PerMessageDeflate(Self.takingNothing)
        let offers = try #require(ExtensionNegotiation.offers(of: [client]))
        let pairs = try (0..<200).map { _ in
            let agreement = try #require(try ExtensionNegotiation.answer(offers, with: [server]) { _ in true })
            return (agreement.chain, try #require(try ExtensionNegotiation.agree(to: agreement.answer, with: [client])))
        }
        let messages = pairs.indices.map { Self.sample(300 + $0, seed: UInt64($0 + 1)) }
        var outputs = [[UInt8]](repeating: [], count: pairs.count)
        for part in 0..<3 {
            for (index, (server, client)) in pairs.enumerated() {
                let piece = ExtensionPiece(kind: .binary, reservedBits: .rsv1, startsMessage: part == 0, endsMessage: part == 2)
                var frame: [UInt8] = []
                _ = client.send(
                    Array(messages[index][part * 100..<(part == 2 ? 300 + index : part * 100 + 100)]).rawSpan, piece, into: &frame)
                _ = try server.receive(frame.rawSpan, piece, into: &outputs[index], maxBytes: 1 << 20)
            }
        }
        #expect(outputs == messages)
    }

    @Test("with a sharing key, a compressed message does not depend on earlier ones")
    func deterministic() throws {
        let server = PerMessageDeflate(Self.takingNothing)
        func chain() throws -> ExtensionChain {
            try #require(try ExtensionNegotiation.answer("permessage-deflate", with: [server]) { _ in true }).chain
        }
        let (one, other) = (try chain(), try chain())
        #expect(one.sharingKey != nil && one.sharingKey == other.sharingKey)
        let first = deflate([Self.sample(5000)], with: one)
        _ = deflate([Self.sample(777, seed: 7)], with: one)
        #expect(deflate([Self.sample(5000)], with: one) == first)
        #expect(deflate([Self.sample(5000)], with: other) == first)
        let narrow = try #require(
            try ExtensionNegotiation.answer("permessage-deflate; server_max_window_bits=9", with: [server]) { _ in true })
        #expect(narrow.chain.sharingKey != one.sharingKey, "another window makes other bytes")
        let keeping = try DeflatePair(Self.takingOver)
        #expect(keeping.server.sharingKey == nil && keeping.client.sharingKey == nil)
    }

    @Test("a window of 9 bits is respected: no reference goes farther back")
    func window() throws {
        // 600 octets of noise, twice: a larger window would halve the second copy.
        let message = Self.noise(600)
        func size(_ bits: Int) throws -> Int {
            let pair = try DeflatePair(
                .with {
                    $0 = Self.takingOver
                    $0.serverMaxWindowBits = bits
                })
            _ = deflate([message], with: pair.server)
            return try #require(deflate([message], with: pair.server)?.first).count
        }
        #expect(try size(9) > 590)
        #expect(try size(11) < 100)
    }

    @Test("a window of 8 bits is respected in both directions with context takeover: only runs and frequent octets are compressed")
    func narrowestWindow() throws {
        let extensions = [PerMessageDeflate(Self.takingOver)]
        let offer = "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8"
        let agreement = try #require(try ExtensionNegotiation.answer(offer, with: extensions) { _ in true })
        let client = try #require(try ExtensionNegotiation.agree(to: agreement.answer, with: extensions))
        for (sender, receiver) in [(agreement.chain, client), (client, agreement.chain)] {
            // 300 octets of noise, twice: farther apart than a window of 256.
            for (message, sizes) in [
                (Self.noise(300) + Self.noise(300), 590...700), (Self.noise(200), 195...250),
                ([UInt8](repeating: 0x61, count: 9_000), 1...99),
                (Self.sample(70_000), 40_000...60_000),
            ] {
                let frames = try #require(deflate([message], with: sender))
                #expect(sizes.contains(frames[0].count), "\(frames[0].count) for \(message.count)")
                #expect(try inflate(frames, with: receiver) == message)
            }
        }
    }
}
