package import ApusPlatform

/// The one buffer that a worker receives into: what arrives is decoded where it lies, so an idle connection holds none.
@safe package final class ReceiveBuffer {
    /// Room in front of what is received, in bytes: for what a decoder left of the arrival before.
    package static let headroom = 256

    private let storage: UnsafeMutableRawBufferPointer
    /// What one call receives at most, in bytes.
    package let capacity: Int

    /// - Parameter capacity: what one call receives at most, in bytes. `put` has room for as many and what was in front of them.
    package init(capacity: Int) {
        self.capacity = capacity
        unsafe storage = .allocate(byteCount: 2 * Self.headroom + capacity, alignment: 64)
    }

    deinit { unsafe storage.deallocate() }

    /// All of it, headroom first. One user at a time: whoever serves a connection's event.
    package var span: MutableRawSpan {
        @_lifetime(borrow self)
        get {
            // SAFETY: the memory lives as long as the buffer, and what arrived later overwrites octets with octets.
            unsafe _overrideLifetime(MutableRawSpan(_unsafeBytes: storage), borrowing: self)
        }
    }

    package var bytes: RawSpan {
        @_lifetime(borrow self)
        get {
            // SAFETY: as above.
            unsafe _overrideLifetime(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(storage)), borrowing: self)
        }
    }

    /// Receives behind the headroom; `.done(0)` is the end.
    package func receive(from transport: Transport) throws(SystemError) -> IOResult<Int> {
        try unsafe transport.receive(into: room)
    }

    /// Receives what nobody wants.
    package func discard(from transport: Transport) throws(SystemError) -> IOResult<Int> { try unsafe transport.discard(into: room) }

    private var room: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[Self.headroom..<Self.headroom + capacity])
    }

    /// Puts what came right behind a TLS handshake behind the headroom.
    package func openReceived(from transport: Transport) throws(SystemError) -> IOResult<Int> {
        try unsafe transport.openReceived(into: room)
    }

    /// Puts bytes right in front of what is received next, and gives where they begin. They are at most as many as the headroom.
    package func putBefore(_ bytes: [UInt8]) -> Int {
        precondition(bytes.count <= Self.headroom, "there is no room in front")
        let start = Self.headroom - bytes.count
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[start..<Self.headroom]).copyBytes(from: bytes)
        return start
    }

    /// Puts bytes where received ones would be, and gives where they end.
    package func put(_ bytes: [UInt8]) -> Int {
        let end = Self.headroom + bytes.count
        unsafe precondition(end <= storage.count, "more than an arrival and what was in front of it")
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[Self.headroom..<end]).copyBytes(from: bytes)
        return end
    }
}
