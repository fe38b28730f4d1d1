/// ApusTransport moves bytes between a worker's buffers and its sockets: it accepts, receives into the one receive buffer,
/// corks what is sent during one event into one write, and queues what the kernel did not take. It knows no protocol.

/// Bytes with a fixed address, filled once and then shared by reference: one encoded frame stands in thousands of queues.
@safe package final class ByteChunk {
    private let storage: UnsafeMutableRawBufferPointer
    /// Bytes filled in.
    package private(set) var count = 0

    package init(capacity: Int) {
        unsafe storage = .allocate(byteCount: max(capacity, 1), alignment: 16)
    }

    deinit { unsafe storage.deallocate() }

    package var capacity: Int { unsafe storage.count }

    /// The filled bytes; valid while the chunk is alive.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: storage[..<count]) }

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

    /// A copy of a part of the filled bytes.
    package func copy(_ range: Range<Int>) -> [UInt8] { unsafe Array(UnsafeRawBufferPointer(rebasing: bytes[range])) }
}
