import ApusPlatform
import ApusTransport
import Glibc
import Testing
import TestSupport

@Suite("The write queue")
struct WriteQueueTests {
    /// Writes until the queue is empty while the far end reads whenever the kernel takes no more.
    static func drain(_ queue: inout WriteQueue, through pair: SocketPair) throws -> (bytes: [UInt8], blocked: Int) {
        var bytes: [UInt8] = []
        var blocked = 0
        while try queue.write(to: pair.near) == .blocked {
            blocked += 1
            let arrived = pair.received()
            try #require(!arrived.isEmpty, "blocked although the far end has read everything")
            bytes += arrived
        }
        return (bytes + pair.received(), blocked)
    }

    static func append(_ bytes: [UInt8], to queue: inout WriteQueue) {
        bytes.withUnsafeBytes { queue.append(copying: $0) }
    }

    static func chunk(_ bytes: [UInt8], capacity: Int? = nil) -> ByteChunk {
        let chunk = ByteChunk(capacity: capacity ?? bytes.count)
        bytes.withUnsafeBytes { chunk.append($0) }
        return chunk
    }

    @Test("a mixture of pieces leaves in order through a tiny buffer", arguments: 1...12 as ClosedRange<UInt64>)
    func order(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let pair = try SocketPair(sendBufferBytes: 4608)
        let content = pattern(300_000)
        let file = SharedFile(try temporaryFile(content))
        let shared = (0..<5).map { Self.chunk(pattern($0 * 1000 + 1, from: $0)) }
        var queue = WriteQueue()
        var expected: [UInt8] = []
        var found: [UInt8] = []
        for _ in 0..<60 {
            switch Int.random(in: 0..<6, using: &generator) {
            case 0:
                let offset = Int.random(in: 0..<200_000, using: &generator)
                let count = Int.random(in: 0...40_000, using: &generator)
                queue.append(file, offset: offset, count: count)
                expected += content[offset..<offset + count]
            case 1:
                let chunk = shared[Int.random(in: 0..<shared.count, using: &generator)]
                queue.append(chunk)
                expected += chunk.bytes
            case 2:
                // Writing in between leaves pieces half sent, onto which more is put.
                _ = try queue.write(to: pair.near)
                found += pair.received()
            default:
                let bytes = pattern(Int.random(in: 0...9000, using: &generator), from: expected.count)
                Self.append(bytes, to: &queue)
                expected += bytes
            }
            #expect(queue.byteCount <= expected.count - found.count)
        }
        found += try Self.drain(&queue, through: pair).bytes
        #expect(found == expected, "seed \(seed)")
        #expect(queue.isEmpty == true)
        #expect(queue.byteCount == 0)
    }

    @Test("byteCount falls by what the kernel took, and a blocked queue keeps the rest")
    func partial() throws {
        let pair = try SocketPair(sendBufferBytes: 4608)
        let bytes = pattern(100_000)
        var queue = WriteQueue()
        Self.append(bytes, to: &queue)
        #expect(queue.byteCount == 100_000)
        #expect(try queue.write(to: pair.near) == .blocked)
        let first = pair.received()
        #expect(!first.isEmpty)
        #expect(queue.byteCount == 100_000 - first.count)
        #expect(queue.isEmpty == false)
        let rest = try Self.drain(&queue, through: pair)
        #expect(first + rest.bytes == bytes)
        #expect(rest.blocked > 1, "the buffer was too large for this test")
    }

    @Test("more pieces than one call takes")
    func manyPieces() throws {
        let pair = try SocketPair()
        var queue = WriteQueue()
        var expected: [UInt8] = []
        for index in 0..<500 {
            let bytes = pattern(3, from: index)
            queue.append(Self.chunk(bytes))
            expected += bytes
        }
        #expect(queue.byteCount == 1500)
        #expect(try Self.drain(&queue, through: pair).bytes == expected)
    }

    @Test("one chunk in two queues: each sends it whole, at its own pace, and owns nothing of it")
    func sharedChunk() throws {
        let fast = try SocketPair()
        let slow = try SocketPair(sendBufferBytes: 4608)
        weak var watched: ByteChunk?
        var fastQueue = WriteQueue()
        var slowQueue = WriteQueue()
        let bytes = pattern(50_000)
        do {
            let chunk = Self.chunk(bytes, capacity: 60_000)
            watched = chunk
            fastQueue.append(chunk)
            slowQueue.append(chunk)
            // What one queue appends behind it must not grow into the room that the chunk has left.
            Self.append([1, 2, 3], to: &fastQueue)
            #expect(chunk.count == 50_000)
        }
        #expect(try Self.drain(&fastQueue, through: fast).bytes == bytes + [1, 2, 3])
        #expect(watched != nil)
        #expect(try Self.drain(&slowQueue, through: slow).bytes == bytes)
        #expect(watched == nil, "freed with the last queue that sent it")
    }

    @Test("what is appended behind a half-sent piece comes behind it")
    func appendBehindPartial() throws {
        let pair = try SocketPair(sendBufferBytes: 4608)
        var queue = WriteQueue()
        Self.append(pattern(10), to: &queue)
        Self.append(pattern(15_000, from: 10), to: &queue)
        #expect(try queue.write(to: pair.near) == .blocked)
        Self.append(pattern(500, from: 15_010), to: &queue)
        #expect(try Self.drain(&queue, through: pair).bytes == pattern(15_510))
    }

    @Test("a file is closed with the last piece of it")
    func fileClosed() throws {
        let pair = try SocketPair()
        var queue = WriteQueue()
        let number: Int32
        do {
            let file = SharedFile(try temporaryFile(pattern(10)))
            number = file.descriptor.rawValue
            queue.append(file, offset: 2, count: 3)
            queue.append(file, offset: 0, count: 2)
        }
        #expect(fcntl(number, F_GETFD) >= 0)
        let content = pattern(10)
        #expect(try Self.drain(&queue, through: pair).bytes == Array(content[2..<5] + content[0..<2]))
    }

    @Test("a file that became shorter than was promised is an error, not a wait for ever", arguments: [0, 10, 5000])
    func shrunk(left: Int) throws {
        let pair = try SocketPair()
        let descriptor = try temporaryFile(pattern(20_000))
        try #require(ftruncate(descriptor.rawValue, left) == 0)
        var queue = WriteQueue()
        queue.append(SharedFile(descriptor), offset: 0, count: 20_000)
        var failure: SystemError?
        do throws(SystemError) {
            // What is there is sent first; a short send may count as blocked.
            for _ in 0..<3 { _ = try queue.write(to: pair.near) }
        } catch {
            failure = error
        }
        #expect(failure?.code == EIO)
        #expect(pair.received() == pattern(left))
    }

    @Test("a peer that has gone is an error without a signal")
    func brokenPipe() throws {
        let pair = try SocketPair()
        pair.closeFar()
        var queue = WriteQueue()
        Self.append([1], to: &queue)
        var failure: SystemError?
        do throws(SystemError) { _ = try queue.write(to: pair.near) } catch { failure = error }
        #expect(failure?.code == EPIPE)
    }

    @Test("dropping leaves nothing behind")
    func dropping() throws {
        let pair = try SocketPair(sendBufferBytes: 4608)
        var queue = WriteQueue()
        Self.append(pattern(50_000), to: &queue)
        queue.append(Self.chunk([1]))
        #expect(try queue.write(to: pair.near) == .blocked)
        queue.removeAll()
        #expect(queue.isEmpty == true)
        #expect(queue.byteCount == 0)
        #expect(try queue.write(to: pair.near) == .empty)
        _ = pair.received()
        Self.append([7], to: &queue)
        #expect(try queue.write(to: pair.near) == .empty)
        #expect(pair.received() == [7])
    }

    @Test("appending nothing queues nothing")
    func nothing() throws {
        var queue = WriteQueue()
        Self.append([], to: &queue)
        queue.append(ByteChunk(capacity: 10))
        queue.append(SharedFile(try temporaryFile([])), offset: 0, count: 0)
        #expect(queue.isEmpty == true)
    }
}
