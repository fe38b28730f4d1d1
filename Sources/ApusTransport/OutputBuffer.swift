/// A worker's cork: what handlers send during one readiness event is collected here and leaves in one write.
@safe package struct OutputBuffer: ~Copyable {
    private let storage: UnsafeMutableRawPointer
    /// Bytes collected.
    package private(set) var count = 0
    package let capacity: Int

    /// - Parameter capacity: in bytes; larger sends bypass the cork.
    package init(capacity: Int) {
        self.capacity = capacity
        unsafe storage = .allocate(byteCount: capacity, alignment: 64)
    }

    deinit { unsafe storage.deallocate() }

    package var isEmpty: Bool { count == 0 }
    /// What was collected; valid until the next change.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: storage, count: count) }

    /// Appends up to 16 bytes given as two words, lowest first, of which `byteCount` count. Takes 16 bytes of room.
    @inline(__always)
    package mutating func append(low: UInt64, high: UInt64, byteCount: Int) {
        precondition(byteCount <= 16 && count &+ 16 <= capacity, "the caller made room")
        // SAFETY: 16 bytes of room were checked.
        unsafe (storage + count).storeBytes(of: low.littleEndian, as: UInt64.self)
        unsafe (storage + count + 8).storeBytes(of: high.littleEndian, as: UInt64.self)
        count &+= byteCount
    }

    @inline(__always)
    package mutating func append(_ bytes: borrowing RawSpan) {
        let size = bytes.byteCount
        precondition(size <= capacity &- count, "the caller made room")
        // SAFETY: the room was checked; the span cannot overlap memory that only this buffer owns.
        unsafe bytes.withUnsafeBytes { source in
            if let base = source.baseAddress { unsafe (storage + count).copyMemory(from: base, byteCount: size) }
        }
        count &+= size
    }

    /// Gives the last `size` bytes to `body` to be changed in place, such as masked.
    package mutating func withLast(_ size: Int, _ body: (inout MutableRawSpan) -> Void) {
        precondition(size <= count)
        // SAFETY: the last `size` bytes are initialised and only this buffer refers to them.
        var span = unsafe MutableRawSpan(_unsafeStart: storage + (count - size), byteCount: size)
        body(&span)
    }

    package mutating func removeAll() { count = 0 }
}
