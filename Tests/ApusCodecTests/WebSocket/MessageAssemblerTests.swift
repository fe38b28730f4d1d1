import ApusCodec
import Testing

@Suite("Message assembler")
struct MessageAssemblerTests {
    /// Bytes by which the allocator may round up a reservation.
    static let slack = 64

    @Test("pieces are joined in order, and the assembler is empty afterwards")
    func joins() throws {
        var assembler = MessageAssembler(maxBytes: 10)
        #expect(assembler.isEmpty)
        try assembler.append(Array("Hel".utf8).rawSpan, remaining: 2)
        try assembler.append(Array("lo".utf8).rawSpan, remaining: 0)
        try assembler.append(RawSpan(), remaining: 0)
        #expect(!assembler.isEmpty)
        let message = assembler.take()
        #expect(message == Array("Hello".utf8))
        #expect(assembler.isEmpty)
        #expect(assembler.bytes.capacity == 0, "an idle connection owns no memory")
        try assembler.append(Array("0123456789".utf8).rawSpan, remaining: 0)
        let next = assembler.take()
        #expect(next == Array("0123456789".utf8))
    }

    @Test("an empty message is a message")
    func empty() {
        var assembler = MessageAssembler(maxBytes: 0)
        let message = assembler.take()
        #expect(message.isEmpty)
    }

    @Test("one byte over the limit is refused, and earlier bytes are kept", arguments: [0, 1, 5, 100])
    func limit(maxBytes: Int) throws {
        var assembler = MessageAssembler(maxBytes: maxBytes)
        let bytes = [UInt8](repeating: 7, count: maxBytes)
        try assembler.append(bytes.rawSpan, remaining: 0)
        var violation: FrameViolation?
        do throws(FrameViolation) { try assembler.append([1].rawSpan, remaining: 0) } catch { violation = error }
        #expect(violation == .messageTooBig(size: UInt64(maxBytes + 1), limit: UInt64(maxBytes)))
        let message = assembler.take()
        #expect(message == bytes)
    }

    @Test(
        "memory never exceeds the limit, however the message arrives",
        arguments: [1, 7, 100, 4096, 16_384], [100_000, 1 << 17, 200_000])
    func capacity(pieceBytes: Int, maxBytes: Int) throws {
        var assembler = MessageAssembler(maxBytes: maxBytes)
        let piece = [UInt8](repeating: 1, count: pieceBytes)
        var total = 0
        while total + pieceBytes <= maxBytes {
            try assembler.append(piece.rawSpan, remaining: 0)
            total += pieceBytes
            if assembler.bytes.capacity > maxBytes + Self.slack {
                Issue.record("capacity \(assembler.bytes.capacity) at \(total) of \(maxBytes)")
                return
            }
        }
        #expect(assembler.bytes.count == total)
    }

    @Test("at most 64 KiB are reserved for an announced length", arguments: [1000, 1 << 16, 1 << 40, .max] as [UInt64])
    func announced(remaining: UInt64) throws {
        var assembler = MessageAssembler(maxBytes: 1 << 30)
        try assembler.append([1].rawSpan, remaining: remaining)
        let expected = 1 + min(Int(clamping: remaining), 64 * 1024)
        #expect((expected...expected + Self.slack).contains(assembler.bytes.capacity))
    }
}
