package import ApusPlatform

/// ApusTransport moves bytes between a worker's buffers and its sockets: it accepts connections,
/// receives into the one receive buffer, corks the output of one event into one write, and queues
/// what the kernel did not take. It knows no protocol.

/// Bytes that are written once and then shared by reference: one encoded frame in thousands of
/// queues, or a large message that is echoed without a copy.
@safe package final class ByteChunk {
    private var storage: UnsafeMutableRawBufferPointer
    /// The pool that owns the memory; nil if the chunk owns it.
    private let pool: BufferPool?
    /// Bytes written.
    package private(set) var count = 0

    /// - Parameter pool: the worker's pool, which counts the memory; nil for memory of no worker.
    package init(capacity: Int, from pool: BufferPool? = nil) {
        self.pool = pool
        if let pool { unsafe storage = pool.take(capacity) } else { unsafe storage = .allocate(byteCount: max(capacity, 1), alignment: 16) }
    }

    deinit {
        if let pool { unsafe pool.giveBack(storage) } else { unsafe storage.deallocate() }
    }

    package var capacity: Int { unsafe storage.count }

    /// The written bytes; valid while the chunk is alive and does not grow.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: storage[..<count]) }

    /// The written bytes.
    package var span: RawSpan {
        @_lifetime(borrow self)
        get {
            // SAFETY: a chunk is complete when it is read: its owner no longer writes to it, so the
            // memory neither moves nor changes.
            unsafe _overrideLifetime(RawSpan(_unsafeBytes: bytes), borrowing: self)
        }
    }

    /// Enlarges the capacity to `capacity` bytes. Only for the owner of a pooled chunk that is not
    /// shared yet.
    package func reserve(_ capacity: Int) {
        guard let pool else { return precondition(capacity <= self.capacity, "a chunk without a pool does not grow") }
        unsafe storage = pool.grow(storage, to: capacity, keeping: count)
    }

    /// Appends bytes, for which there must be room.
    package func append(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count <= capacity - count, "the caller made room")
        // SAFETY: the room was checked, and `bytes` does not overlap memory that only this chunk
        // hands out.
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[count...]).copyMemory(from: bytes)
        count += bytes.count
    }

    package func append(_ bytes: borrowing RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe append($0) }
    }

    package func append(contentsOf other: ByteChunk) { unsafe append(other.bytes) }

    /// Receives once behind the written bytes, at most `most` bytes, for which there must be room.
    ///
    /// - Returns: `.done(0)` at the end of input.
    package func receive(from transport: Transport, atMost most: Int) throws(SystemError) -> IOResult<Int> {
        // The slice is checked against the storage.
        let result = try unsafe transport.receive(into: UnsafeMutableRawBufferPointer(rebasing: storage[count..<count + most]))
        if case .done(let received) = result { count += received }
        return result
    }

    /// Calls `body` with the last `size` bytes, to change them in place, such as to unmask them.
    /// Only for the owner, as `reserve`.
    package func withLast<Failure>(_ size: Int, _ body: (inout MutableRawSpan) throws(Failure) -> Void) throws(Failure) {
        // SAFETY: the slice is checked against the storage, its bytes are filled in, and only this
        // chunk refers to them.
        var span = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: storage[count - size..<count]))
        try body(&span)
    }

    /// The offset of `bytes` in the chunk; nil unless they are the end of its written bytes.
    func offset(ofEnd bytes: UnsafeRawBufferPointer) -> Int? {
        guard let start = bytes.baseAddress, let first = unsafe storage.baseAddress, unsafe start >= UnsafeRawPointer(first),
            unsafe start + bytes.count == UnsafeRawPointer(first) + count
        else { return nil }
        return unsafe start - UnsafeRawPointer(first)
    }

    /// A copy of a range of the written bytes.
    package func copy(_ range: Range<Int>) -> [UInt8] { unsafe Array(UnsafeRawBufferPointer(rebasing: bytes[range])) }
}

/// An unowned reference to a chunk.
@safe package struct SharedChunk {
    private let reference: Unmanaged<ByteChunk>

    /// - Parameter chunk: must stay alive while this value is used; a message that holds it cannot
    ///   escape the handler's call.
    package init(_ chunk: ByteChunk) { unsafe reference = Unmanaged.passUnretained(chunk) }

    // SAFETY: see `init`.
    package var chunk: ByteChunk { unsafe reference.takeUnretainedValue() }
}
