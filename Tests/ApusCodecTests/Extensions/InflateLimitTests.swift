import ApusCodec
import Testing
import TestSupport

@Suite("permessage-deflate: hostile payload")
struct InflateLimitTests {
    static let settings = [PerMessageDeflateTests.takingNothing, PerMessageDeflateTests.takingOver]

    /// 100 MiB of zeros, deflated: about 100 KiB.
    static let bomb: [UInt8] = {
        guard let pair = try? DeflatePair(PerMessageDeflateTests.takingOver) else { return [] }
        let megabyte = [UInt8](repeating: 0, count: 1 << 20)
        return (deflate([[UInt8]](repeating: megabyte, count: 100), with: pair.client) ?? []).flatMap { $0 }
    }()

    @Test("100 MiB of zeros are refused at the limit, and take no more memory than it", arguments: settings, [1000, 1 << 20, 10 << 20])
    func bombs(configuration: DeflateConfiguration, limit: Int) throws {
        #expect(Self.bomb.count > 100_000 && Self.bomb.count < 1_000_000)
        // In one frame, and in the smallest frames.
        for frames in [[Self.bomb], Self.bomb.map { [$0] }] {
            let pair = try DeflatePair(configuration)
            var output: [UInt8] = []
            #expect(throws: FrameViolation.extensionFailed(.messageTooBig(limit: limit))) {
                try inflate(frames, with: pair.server, maxBytes: limit, into: &output)
            }
            #expect(output.count == limit)
            #expect(output.capacity <= limit + 64 * 1024, "\(output.capacity) bytes were set aside")
            #expect(output.allSatisfy { $0 == 0 })
        }
    }

    @Test(
        "exactly the limit is a message, one octet more is not", arguments: settings,
        [0, 1, 63, 64, 65, 255, 256, 257, 65_535, 65_536, 65_537, 1 << 20])
    func exact(configuration: DeflateConfiguration, limit: Int) throws {
        for message in [[UInt8](repeating: 0x61, count: limit + 1), PerMessageDeflateTests.sample(limit + 1)] {
            for cut in [limit + 1, limit / 2] {
                let pair = try DeflatePair(configuration)
                let fits = [Array(message.prefix(min(cut, limit))), Array(message[min(cut, limit)..<limit])]
                #expect(try inflate(try #require(deflate(fits, with: pair.client)), with: pair.server, maxBytes: limit).count == limit)
                let frames = try #require(deflate([Array(message[..<cut]), Array(message[cut...])], with: pair.client))
                #expect(throws: FrameViolation.extensionFailed(.messageTooBig(limit: limit))) {
                    _ = try inflate(frames, with: pair.server, maxBytes: limit)
                }
            }
        }
    }

    @Test("the limit Int.max does not overflow")
    func unlimited() throws {
        let pair = try DeflatePair(PerMessageDeflateTests.takingNothing)
        let frame = try #require(deflate([PerMessageDeflateTests.sample(100)], with: pair.client))
        #expect(try inflate(frame, with: pair.server, maxBytes: .max) == PerMessageDeflateTests.sample(100))
    }

    @Test("the limit includes earlier contents of the output")
    func before() throws {
        let pair = try DeflatePair(PerMessageDeflateTests.takingNothing)
        let frame = try #require(deflate([PerMessageDeflateTests.sample(100)], with: pair.client))
        var output = [UInt8](repeating: 1, count: 50)
        try inflate(frame, with: pair.server, maxBytes: 150, into: &output)
        #expect(output.count == 150)
        output = [UInt8](repeating: 1, count: 51)
        #expect(throws: FrameViolation.extensionFailed(.messageTooBig(limit: 150))) {
            try inflate(frame, with: pair.server, maxBytes: 150, into: &output)
        }
        #expect(output.count == 150, "what looks beyond the limit is taken back")
    }

    static let garbage: [(name: String, payload: [UInt8])] = [
        ("block type 3", [0x06]), ("ones", [UInt8](repeating: 0xFF, count: 10)),
        ("stored, length not complemented", [0x00, 0x05, 0x00, 0x00, 0x00, 0x41]),
        ("stored, cut", [0x00, 0x06, 0x00, 0xF9, 0xFF, 0x48]), ("a distance before the beginning", [0xF2, 0x00, 0x11, 0x00, 0x00]),
        ("Hello, cut", [0xF2, 0x48, 0xCD]), ("Hello, cut before its last octet", [0xF2, 0x48, 0xCD, 0xC9, 0xC9]),
        ("text", Array("Hello, world".utf8)), ("nothing", []), ("dynamic, too many lengths", [0x04, 0xFF, 0xFF, 0xFF]),
        ("gzip", [0x1F, 0x8B, 0x08, 0, 0, 0, 0, 0, 0, 3]), ("zlib", [0x78, 0x9C, 0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]),
        ("the flush is not removed, and cut", PerMessageDeflateTests.helloDeflated + [0x00, 0xFF]),
        ("garbage after a final block", [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0xFF, 0xFF, 0xFF]),
    ]

    @Test("invalid deflate data: close 1007", arguments: garbage)
    func refuses(name: String, payload: [UInt8]) throws {
        for configuration in Self.settings {
            for frames in [[payload], payload.map { [$0] } + [[]]] {
                let pair = try DeflatePair(configuration)
                do throws(FrameViolation) {
                    _ = try inflate(frames, with: pair.server)
                    Issue.record("\(name) was inflated")
                } catch {
                    guard case .extensionFailed(.invalidData) = error else {
                        Issue.record("\(error)")
                        return
                    }
                    #expect(error.closeCode == .invalidPayload)
                }
            }
        }
    }

    @Test("a message cut anywhere gives an error or a prefix of the message")
    func truncated() throws {
        let message = PerMessageDeflateTests.sample(500)
        let pair = try DeflatePair(PerMessageDeflateTests.takingNothing)
        let whole = try #require(deflate([message], with: pair.client)?.first)
        let fresh = try whole.map { _ in try DeflatePair(PerMessageDeflateTests.takingNothing).server }
        var refused = 0
        for end in whole.indices {
            do throws(FrameViolation) {
                let output = try inflate([Array(whole[..<end])], with: fresh[end])
                #expect(message.starts(with: output))
            } catch {
                #expect(error.closeCode == .invalidPayload)
                refused += 1
            }
        }
        #expect(refused >= whole.count - 1)
    }

    @Test("damaged streams give a message or an error", arguments: 1...40 as ClosedRange<UInt64>)
    func damaged(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let pair = try DeflatePair(Self.settings[Int(seed % 2)])
        for _ in 0..<50 {
            var bytes = try #require(deflate([PerMessageDeflateTests.sample(400, seed: seed)], with: pair.client)?.first)
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: bytes.indices, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            let cut = Int.random(in: bytes.indices, using: &generator)
            do throws(FrameViolation) {
                _ = try inflate([Array(bytes[..<cut]), Array(bytes[cut...])], with: pair.server, maxBytes: 10_000)
            } catch {
                #expect([.invalidPayload, .messageTooBig].contains(error.closeCode), "\(error)")
                return
            }
        }
    }

    @Test("a hundred thousand final blocks take linear time")
    func finalBlocks() throws {
        let pair = try DeflatePair(PerMessageDeflateTests.takingOver)
        // A full window, which each final block must carry over.
        _ = try inflate(try #require(deflate([PerMessageDeflateTests.noise(40_000)], with: pair.client)), with: pair.server)
        let empty: [UInt8] = [0x03, 0x00]
        let many = [[UInt8]](repeating: empty, count: 500_000).flatMap { $0 }
        let started = ContinuousClock.now
        #expect(try inflate([many], with: pair.server).isEmpty)
        // Copying 32 KiB for each block would take seconds.
        #expect(ContinuousClock.now - started < .seconds(1))
    }
}
