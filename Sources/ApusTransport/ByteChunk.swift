package import ApusPlatform

/// ApusTransport moves bytes between a worker's buffers and its sockets: it accepts, receives into the one receive buffer,
/// corks what is sent during one event into one write, and queues what the kernel did not take. It knows no protocol.

/// Bytes that are filled in once and then shared by reference: one encoded frame stands in thousands of queues, and a large message leaves
/// from where it was put together.
@safe package final class ByteChunk {
    private var storage: UnsafeMutableRawBufferPointer
    /// Where the memory is from; nil if it is the chunk's own.
    private let pool: BufferPool?
    /// Bytes filled in.
    package private(set) var count = 0

    /// - Parameter pool: a worker's, which counts the memory; nil for what does not belong to one.
    package init(capacity: Int, from pool: BufferPool? = nil) {
        self.pool = pool
        if let pool { unsafe storage = pool.take(capacity) } else { unsafe storage = .allocate(byteCount: max(capacity, 1), alignment: 16) }
    }

    deinit {
        if let pool { unsafe pool.giveBack(storage) } else { unsafe storage.deallocate() }
    }

    package var capacity: Int { unsafe storage.count }

    /// The filled bytes; valid while the chunk is alive and does not grow.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: storage[..<count]) }

    /// The filled bytes.
    package var span: RawSpan {
        @_lifetime(borrow self)
        get {
            // SAFETY: a chunk that somebody reads is complete: its owner fills it no more, so the memory stays where and as it is.
            unsafe _overrideLifetime(RawSpan(_unsafeBytes: bytes), borrowing: self)
        }
    }

    /// Makes room for `capacity` bytes in all. Only for the owner of a chunk of a pool that nobody else has seen yet.
    package func reserve(_ capacity: Int) {
        guard let pool else { return precondition(capacity <= self.capacity, "a chunk without a pool does not grow") }
        unsafe storage = pool.grow(storage, to: capacity, keeping: count)
    }

    /// Appends bytes that fit.
    package func append(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count <= capacity - count, "the caller made room")
        // SAFETY: the room was checked, and `bytes` does not overlap memory that only this chunk hands out.
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[count...]).copyMemory(from: bytes)
        count += bytes.count
    }

    package func append(_ bytes: borrowing RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe append($0) }
    }

    package func append(contentsOf other: ByteChunk) { unsafe append(other.bytes) }

    /// Receives once behind the filled bytes, at most `most` bytes, for which there must be room; `.done(0)` is the end.
    package func receive(from transport: Transport, atMost most: Int) throws(SystemError) -> IOResult<Int> {
        // The slice is checked against the storage.
        let result = try unsafe transport.receive(into: UnsafeMutableRawBufferPointer(rebasing: storage[count..<count + most]))
        if case .done(let received) = result { count += received }
        return result
    }

    /// Gives the last `size` bytes to `body` to be changed in place, such as unmasked. Only for the owner, as `reserve`.
    package func withLast<Failure>(_ size: Int, _ body: (inout MutableRawSpan) throws(Failure) -> Void) throws(Failure) {
        // SAFETY: the slice is checked against the storage, its bytes are filled in, and only this chunk refers to them.
        var span = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: storage[count - size..<count]))
        try body(&span)
    }

    /// Where in the chunk `bytes` begin, if they are its filled bytes from somewhere to their end.
    func offset(ofEnd bytes: UnsafeRawBufferPointer) -> Int? {
        guard let start = bytes.baseAddress, let first = unsafe storage.baseAddress, unsafe start >= UnsafeRawPointer(first),
            unsafe start + bytes.count == UnsafeRawPointer(first) + count
        else { return nil }
        return unsafe start - UnsafeRawPointer(first)
    }

    /// A copy of a part of the filled bytes.
    package func copy(_ range: Range<Int>) -> [UInt8] { unsafe Array(UnsafeRawBufferPointer(rebasing: bytes[range])) }
}
