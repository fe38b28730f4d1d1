import ApusPlatform

/// A buffer for output; a worker's cork collects what handlers send during one event, to send it in
/// one write.
///
/// Public only to be inlined (see ApusCodec/WebSocket/Frame.swift). The count is stored behind a
/// pointer, as a stored property would cost an exclusivity check per frame.
@safe public final class OutputBuffer {
    @usableFromInline let storage: UnsafeMutableRawPointer
    @usableFromInline let used: UnsafeMutablePointer<Int>
    public let capacity: Int

    /// Room that appending a header needs, whatever the header's length, in bytes.
    @usableFromInline static let headerRoom = 16

    /// - Parameter capacity: in bytes; larger payloads bypass the cork.
    package init(capacity: Int) {
        self.capacity = capacity
        unsafe storage = .allocate(byteCount: capacity, alignment: 64)
        unsafe used = .allocate(capacity: 1)
        unsafe used.initialize(to: 0)
    }

    /// A buffer with room for one header and `payloadBytes` bytes.
    package convenience init(payloadBytes: Int) { self.init(capacity: payloadBytes + Self.headerRoom) }

    deinit {
        unsafe storage.deallocate()
        unsafe used.deallocate()
    }

    /// Bytes written.
    @inlinable
    public var count: Int { unsafe used.pointee }
    package var isEmpty: Bool { count == 0 }
    /// Whether a header and `payloadBytes` bytes can be appended.
    package func hasRoom(payloadBytes: Int) -> Bool { payloadBytes <= capacity &- count &- Self.headerRoom }
    /// The bytes written; valid until the next change.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: storage, count: count) }

    /// Appends a header and a payload. The header is two little-endian words, of which the first
    /// `headerBytes` (at most 16) octets are used.
    ///
    /// - Returns: false, with nothing appended, if there is no room.
    @inlinable @inline(__always)
    public func append(low: UInt64, high: UInt64, headerBytes: Int, _ payload: borrowing RawSpan) -> Bool {
        let start = unsafe used.pointee
        let size = payload.byteCount
        guard size <= capacity &- start &- Self.headerRoom, headerBytes <= Self.headerRoom else { return false }
        let at = unsafe storage + start
        // SAFETY: room for 16 octets and the payload was checked; the span cannot overlap memory
        // that only this buffer owns.
        unsafe at.storeBytes(of: low.littleEndian, as: UInt64.self)
        unsafe (at + 8).storeBytes(of: high.littleEndian, as: UInt64.self)
        unsafe payload.withUnsafeBytes { source in
            if let base = source.baseAddress { unsafe (at + headerBytes).copyMemory(from: base, byteCount: size) }
        }
        unsafe used.pointee = start &+ headerBytes &+ size
        return true
    }

    /// Appends bytes.
    ///
    /// - Returns: false, with nothing appended, if there is no room.
    package func append(_ bytes: borrowing RawSpan) -> Bool { append(low: 0, high: 0, headerBytes: 0, bytes) }

    /// Bytes that can be appended without a header.
    var room: Int { capacity - count - Self.headerRoom }

    /// Appends `count` bytes of a file, for which there must be room.
    ///
    /// - Returns: the number of bytes read; 0 at the end of the file.
    func append(_ file: Int32, offset: Int, count: Int) throws(SystemError) -> Int {
        precondition(count <= room)
        // SAFETY: the room was checked.
        let got = try unsafe FileSystem.read(
            file, into: UnsafeMutableRawBufferPointer(start: storage + self.count, count: count), at: offset)
        unsafe used.pointee += got
        return got
    }

    /// Calls `body` with the last `size` bytes, to change them in place, such as to mask them.
    package func withLast(_ size: Int, _ body: (inout MutableRawSpan) -> Void) {
        precondition(size <= count)
        // SAFETY: the last `size` bytes are initialised and only this buffer refers to them.
        var span = unsafe MutableRawSpan(_unsafeStart: storage + (count - size), byteCount: size)
        body(&span)
    }

    package func removeAll() { unsafe used.pointee = 0 }
}
