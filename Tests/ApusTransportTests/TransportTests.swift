import ApusPlatform
import ApusTransport
import Glibc
import TestSupport
import Testing

@Suite("Transport and its buffers")
struct TransportTests {
    static func span(_ bytes: [UInt8], _ body: (RawSpan) throws -> Void) rethrows { try body(bytes.span.bytes) }

    static func output(_ bytes: [UInt8]) -> OutputBuffer {
        let buffer = OutputBuffer(payloadBytes: bytes.count)
        let fits = buffer.append(bytes.span.bytes)
        #expect(fits)
        return buffer
    }

    /// Sends `count` bytes as the kernel takes them, and gives what arrived.
    static func drain(_ transport: Transport, _ pair: SocketPair) throws -> [UInt8] {
        var bytes = pair.received()
        while try transport.flush() == .blocked {
            let arrived = pair.received()
            try #require(!arrived.isEmpty)
            bytes += arrived
        }
        return bytes + pair.received()
    }

    @Test("a cork leaves at once when the kernel takes it")
    func atOnce() throws {
        let pair = try SocketPair()
        let transport = Transport(pair.takeNear())
        try transport.write(Self.output(pattern(1000)))
        #expect(transport.hasBufferedOutput == false)
        #expect(transport.bufferedBytes == 0)
        #expect(pair.received() == pattern(1000))
    }

    @Test(
        "a payload behind a cork in one call, whatever the kernel takes of both", arguments: [0, 10, 16_000], [1, 1000, 500_000])
    func twoRuns(first: Int, second: Int) throws {
        for buffer in [nil, 4608] as [Int32?] {
            let pair = try SocketPair(sendBufferBytes: buffer)
            let transport = Transport(pair.takeNear())
            let payload = pattern(second, from: first)
            try Self.span(payload) { try transport.write(Self.output(pattern(first)), $0) }
            let arrived = pair.received()
            #expect(transport.bufferedBytes == first + second - arrived.count)
            #expect(arrived + (try Self.drain(transport, pair)) == pattern(first + second))
        }
    }

    @Test("what must wait of a payload that is a chunk's end is shared, of any other copied", arguments: [0, 1000, 500_000])
    func chunkEnd(cut: Int) throws {
        let pool = BufferPool()
        let pair = try SocketPair(sendBufferBytes: 4608)
        let transport = Transport(pair.takeNear(), buffers: pool)
        let payload = pattern(600_000, from: 10)
        let chunk = ByteChunk(capacity: payload.count, from: pool)
        Self.span(payload) { chunk.append($0) }
        try transport.write(Self.output(pattern(10)), chunk.span.extracting(cut...), in: chunk)
        #expect(transport.bufferedBytes > 50_000)
        #expect(pool.usedBytes == chunk.capacity, "nothing was copied")
        // Behind what waits, and not up to the end.
        try transport.write(Self.output([]), chunk.span.extracting(..<1000), in: chunk)
        #expect(pool.usedBytes >= chunk.capacity + 1000)
        #expect(try Self.drain(transport, pair) == pattern(10) + payload[cut...] + payload[..<1000])
        #expect(pool.usedBytes == chunk.capacity)
    }

    @Test("a chunk receives behind what it has, and what came last can be changed in place")
    func receivingIntoChunk() throws {
        let pool = BufferPool()
        let pair = try SocketPair()
        let transport = Transport(pair.takeNear())
        let chunk = ByteChunk(capacity: 100, from: pool)
        Self.span(pattern(10)) { chunk.append($0) }
        guard case .wouldBlock = try chunk.receive(from: transport, atMost: 50) else { throw TestFailure("something came") }
        #expect(send(pair.far, pattern(40, from: 10), 40, 0) == 40)
        guard case .done(30) = try chunk.receive(from: transport, atMost: 30) else { throw TestFailure("not what was asked for") }
        #expect(chunk.copy(0..<chunk.count) == pattern(40))
        guard case .done(10) = try chunk.receive(from: transport, atMost: 50) else { throw TestFailure("not what was there") }
        chunk.withLast(2) { bytes in bytes.storeBytes(of: 0, as: UInt16.self) }
        #expect(chunk.copy(0..<chunk.count) == pattern(48) + [0, 0])
        pair.closeFar()
        guard case .done(0) = try chunk.receive(from: transport, atMost: 50) else { throw TestFailure("no end") }
        #expect(chunk.count == 50)
    }

    @Test("while something is queued, what is written stands behind it")
    func behindTheQueue() throws {
        let pair = try SocketPair(sendBufferBytes: 4608)
        let transport = Transport(pair.takeNear())
        try transport.write(Self.output(pattern(60_000)))
        #expect(transport.hasBufferedOutput == true)
        var arrived = pair.received()
        // There is room in the kernel now, but order comes first.
        try transport.write(Self.output(pattern(10, from: 60_000)))
        try Self.span(pattern(10, from: 60_010)) { try transport.write(Self.output([]), $0) }
        transport.enqueue(Self.output(pattern(10, from: 60_020)))
        Self.span(pattern(10, from: 60_030)) { transport.enqueue(copying: $0) }
        let chunk = ByteChunk(capacity: 10)
        Self.span(pattern(10, from: 60_040)) { chunk.append($0) }
        transport.enqueue(chunk)
        transport.enqueue(SharedFile(try temporaryFile(pattern(60_100))), offset: 60_050, count: 50)
        #expect(pair.received().isEmpty)
        arrived += try Self.drain(transport, pair)
        #expect(arrived == pattern(60_100))
    }

    @Test("closing drops what is queued and ends the stream, once")
    func closing() throws {
        let pair = try SocketPair(sendBufferBytes: 4608)
        let transport = Transport(pair.takeNear())
        try transport.write(Self.output(pattern(60_000)))
        transport.close()
        transport.close()
        #expect(transport.descriptor == -1)
        #expect(transport.bufferedBytes == 0)
        #expect(pair.received().count < 60_000)
        var byte: UInt8 = 0
        #expect(recv(pair.far, &byte, 1, 0) == 0)
    }

    @Test("output can be dropped without closing, and our side shut without dropping input")
    func shutdown() throws {
        let pair = try SocketPair(sendBufferBytes: 4608)
        let transport = Transport(pair.takeNear())
        try transport.write(Self.output(pattern(60_000)))
        transport.dropOutput()
        #expect(transport.hasBufferedOutput == false)
        #expect(try transport.flush() == .empty)
        _ = pair.received()
        transport.shutdownWrite()
        var byte: UInt8 = 0
        #expect(recv(pair.far, &byte, 1, 0) == 0)
        #expect(send(pair.far, [9 as UInt8], 1, 0) == 1)
        let buffer = ReceiveBuffer(capacity: 10)
        guard case .done(1) = try buffer.receive(from: transport) else {
            Issue.record("nothing came")
            return
        }
    }

    @Test("receiving: behind the headroom, with what was kept right in front")
    func receiving() throws {
        let pair = try SocketPair()
        let transport = Transport(pair.takeNear())
        let buffer = ReceiveBuffer(capacity: 8)
        guard case .wouldBlock = try buffer.receive(from: transport) else {
            Issue.record("something came")
            return
        }
        #expect(send(pair.far, pattern(20), 20, 0) == 20)
        let start = buffer.putBefore([201, 202, 203])
        #expect(start == ReceiveBuffer.headroom - 3)
        guard case .done(let count) = try buffer.receive(from: transport) else {
            Issue.record("nothing came")
            return
        }
        #expect(count == 8, "no more than the capacity")
        let found = (start..<ReceiveBuffer.headroom + count).map { buffer.bytes.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        #expect(found == [201, 202, 203] + pattern(8))
        #expect(buffer.put([1, 2, 3, 4, 5, 6, 7, 8]) == ReceiveBuffer.headroom + 8)
        #expect(buffer.putBefore([]) == ReceiveBuffer.headroom)
        #expect(buffer.putBefore([UInt8](repeating: 5, count: ReceiveBuffer.headroom)) == 0)
        pair.closeFar()
        _ = try buffer.receive(from: transport)
        _ = try buffer.receive(from: transport)
        guard case .done(0) = try buffer.receive(from: transport) else {
            Issue.record("no end")
            return
        }
    }

    // MARK: The cork

    @Test("the cork collects headers, payloads and bytes in order")
    func cork() {
        let cork = OutputBuffer(capacity: 64)
        #expect(cork.isEmpty)
        Self.span([11, 12, 13]) {
            let fits = cork.append(low: 0x0807_0605_0403_0201, high: 0x0A09, headerBytes: 10, $0)
            #expect(fits)
        }
        Self.span([]) {
            let fits = cork.append(low: 0x0E, high: .max, headerBytes: 1, $0)
            #expect(fits)
        }
        Self.span([15, 16]) {
            let fits = cork.append($0)
            #expect(fits)
        }
        #expect(Array(cork.bytes) == Array(1...16))
        #expect(cork.count == 16)
        cork.withLast(4) { last in
            for offset in 0..<last.byteCount {
                let octet = last.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
                last.storeBytes(of: octet &+ 100, toByteOffset: offset, as: UInt8.self)
            }
        }
        #expect(Array(cork.bytes) == Array(1...12) + [113, 114, 115, 116])
        cork.removeAll()
        #expect(cork.isEmpty)
        #expect(cork.capacity == 64)
    }

    @Test("a header has room for its 16 octets or is not appended, and then nothing changes", arguments: 0...33)
    func full(payloadBytes: Int) {
        let cork = OutputBuffer(capacity: 48)
        Self.span(pattern(10)) {
            let fits = cork.append($0)
            #expect(fits)
        }
        // 10 bytes are there, 16 are kept for any header: 22 are left.
        let hasRoom = payloadBytes <= 22
        #expect(cork.hasRoom(payloadBytes: payloadBytes) == hasRoom)
        Self.span(pattern(payloadBytes)) {
            let fits = cork.append(low: 0xFEFD, high: 0, headerBytes: 2, $0)
            #expect(fits == hasRoom)
        }
        #expect(Array(cork.bytes) == pattern(10) + (hasRoom ? [0xFD, 0xFE] + pattern(payloadBytes) : []))
    }

    @Test("the receive buffer holds what a call gives, and as much as its headroom in front of it")
    func receiveBuffer() {
        let buffer = ReceiveBuffer(capacity: 1024)
        let bytes = pattern(ReceiveBuffer.headroom + 1024)
        let end = buffer.put(bytes)
        #expect(buffer.bytes.extracting(ReceiveBuffer.headroom..<end).withUnsafeBytes { Array($0) } == bytes)
    }
}
