import ApusPlatform

/// Bytes on their way out: a worker's cork, where what handlers send during one readiness event is collected to leave in one write.
///
/// Public only to be inlined (see ApusCodec/WebSocket/Frame.swift). The count lies beside the bytes, behind a pointer: a stored property would cost an exclusivity check with each frame.
@safe public final class OutputBuffer {
    @usableFromInline let storage: UnsafeMutableRawPointer
    @usableFromInline let used: UnsafeMutablePointer<Int>
    public let capacity: Int

    /// Room that `append` of a header wants, whatever the header's length, in bytes.
    @usableFromInline static let headerRoom = 16

    /// - Parameter capacity: in bytes; larger sends bypass the cork.
    package init(capacity: Int) {
        self.capacity = capacity
        unsafe storage = .allocate(byteCount: capacity, alignment: 64)
        unsafe used = .allocate(capacity: 1)
        unsafe used.initialize(to: 0)
    }

    /// A buffer with room for one header and a payload of this many bytes.
    package convenience init(payloadBytes: Int) { self.init(capacity: payloadBytes + Self.headerRoom) }

    deinit {
        unsafe storage.deallocate()
        unsafe used.deallocate()
    }

    /// Bytes collected.
    @inlinable
    public var count: Int { unsafe used.pointee }
    package var isEmpty: Bool { count == 0 }
    /// Whether a header and a payload of this many bytes can be appended.
    package func hasRoom(payloadBytes: Int) -> Bool { payloadBytes <= capacity &- count &- Self.headerRoom }
    /// What was collected; valid until the next change.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: storage, count: count) }

    /// Appends a header, given as two words, lowest octet first, of which `headerBytes` (at most 16) octets count, and a payload.
    /// Gives false, and appends nothing, if there is no room.
    @inlinable @inline(__always)
    public func append(low: UInt64, high: UInt64, headerBytes: Int, _ payload: borrowing RawSpan) -> Bool {
        let start = unsafe used.pointee
        let size = payload.byteCount
        guard size <= capacity &- start &- Self.headerRoom, headerBytes <= Self.headerRoom else { return false }
        let at = unsafe storage + start
        // SAFETY: room for 16 octets and the payload was checked; the span cannot overlap memory that only this buffer owns.
        unsafe at.storeBytes(of: low.littleEndian, as: UInt64.self)
        unsafe (at + 8).storeBytes(of: high.littleEndian, as: UInt64.self)
        unsafe payload.withUnsafeBytes { source in
            if let base = source.baseAddress { unsafe (at + headerBytes).copyMemory(from: base, byteCount: size) }
        }
        unsafe used.pointee = start &+ headerBytes &+ size
        return true
    }

    /// Appends bytes as they are; false if there is no room.
    package func append(_ bytes: borrowing RawSpan) -> Bool { append(low: 0, high: 0, headerBytes: 0, bytes) }

    /// Bytes that can be appended as they are.
    var room: Int { capacity - count - Self.headerRoom }

    /// Appends `count` bytes of a file, for which there is room, and gives how many there were: 0 at its end.
    func append(_ file: Int32, offset: Int, count: Int) throws(SystemError) -> Int {
        precondition(count <= room)
        // SAFETY: the room was checked.
        let got = try unsafe FileSystem.read(
            file, into: UnsafeMutableRawBufferPointer(start: storage + self.count, count: count), at: offset)
        unsafe used.pointee += got
        return got
    }

    /// Gives the last `size` bytes to `body` to be changed in place, such as masked.
    package func withLast(_ size: Int, _ body: (inout MutableRawSpan) -> Void) {
        precondition(size <= count)
        // SAFETY: the last `size` bytes are initialised and only this buffer refers to them.
        var span = unsafe MutableRawSpan(_unsafeStart: storage + (count - size), byteCount: size)
        body(&span)
    }

    package func removeAll() { unsafe used.pointee = 0 }
}
