import ApusTransport
import Testing

@Suite("A worker's buffers")
struct BufferPoolTests {
    /// Takes chunks of these sizes at a time, and gives them back.
    static func use(_ pool: BufferPool, _ sizes: Int...) { withExtendedLifetime(sizes.map { ByteChunk(capacity: $0, from: pool) }) {} }

    @Test("what is in use is counted, small and large, and nothing is left of it in the end")
    func counts() {
        let pool = BufferPool()
        for size in [0, 1, 1000, BufferPool.largeBytes - 1, BufferPool.largeBytes, 1 << 20, BufferPool.maxKeptBytes + 1] {
            do {
                let one = ByteChunk(capacity: size, from: pool)
                #expect(one.capacity >= size)
                #expect(pool.usedBytes == one.capacity)
                let other = ByteChunk(capacity: size, from: pool)
                #expect(pool.usedBytes == one.capacity + other.capacity)
            }
            #expect(pool.usedBytes == 0)
        }
    }

    @Test("a chunk grows from any size to any other, and keeps its bytes")
    func grows() {
        let pool = BufferPool()
        let chunk = ByteChunk(capacity: 10, from: pool)
        for size in [11, 1000, BufferPool.largeBytes, 100_000, 3 << 20, BufferPool.maxKeptBytes + 1] {
            chunk.reserve(size)
            #expect(chunk.capacity >= size)
            #expect(pool.usedBytes == chunk.capacity, "what it has outgrown is given back")
            TransportTests.span(pattern(size - chunk.count, from: chunk.count)) { chunk.append($0) }
        }
        #expect(chunk.copy(0..<chunk.count) == pattern(chunk.count))
        let capacity = chunk.capacity
        chunk.reserve(1)
        #expect(chunk.capacity == capacity)
    }

    @Test("large buffers are used again, the last one first, and grow if they must")
    func again() {
        let pool = BufferPool()
        Self.use(pool, 100_000, 1 << 20)
        let kept = pool.keptBytes
        #expect(kept >= 100_000 + 1 << 20)
        do {
            let first = ByteChunk(capacity: 2 << 20, from: pool)
            let second = ByteChunk(capacity: 50_000, from: pool)
            #expect(pool.keptBytes == 0)
            #expect(pool.usedBytes == first.capacity + second.capacity)
        }
        #expect(pool.keptBytes >= 2 << 20)
        // A small one is no use.
        let before = pool.keptBytes
        let small = ByteChunk(capacity: 100, from: pool)
        #expect(pool.keptBytes == before)
        withExtendedLifetime(small) {}
    }

    @Test("no more is kept than the cap")
    func cap() {
        let pool = BufferPool()
        let count = BufferPool.maxKeptBytes >> 20
        do {
            let chunks = (0..<3 * count).map { _ in ByteChunk(capacity: 1 << 20, from: pool) }
            #expect(pool.usedBytes >= 3 * count << 20)
            withExtendedLifetime(chunks) {}
        }
        #expect((BufferPool.maxKeptBytes / 2...BufferPool.maxKeptBytes).contains(pool.keptBytes))
        Self.use(pool, BufferPool.maxKeptBytes + 1)
        #expect(pool.keptBytes <= BufferPool.maxKeptBytes)
    }

    @Test("what nobody needed between two trims returns to the kernel, what somebody did stays")
    func trims() {
        let pool = BufferPool()
        var began = 0
        pool.whenKeeping = { began += 1 }
        Self.use(pool, 1 << 20, 1 << 20, 1 << 20)
        #expect(began == 1, "it is said once that something is kept")
        let each = pool.keptBytes / 3
        #expect(pool.trim(), "all were needed since the pool was made")
        #expect(pool.keptBytes == 3 * each)
        Self.use(pool, 1 << 20)
        #expect(pool.trim())
        #expect(pool.keptBytes == each, "two were not needed")
        Self.use(pool, 1 << 20)
        #expect(pool.trim())
        #expect(pool.keptBytes == each)
        #expect(!pool.trim())
        #expect(pool.keptBytes == 0)
        #expect(!pool.trim())
        let before = began
        Self.use(pool, 1 << 20)
        #expect(began == before + 1, "it is said again when something is kept again")
    }
}
