package import ApusPlatform

/// The one buffer that a worker receives into. Input is decoded in place, so an idle connection
/// holds no buffer.
@safe package final class ReceiveBuffer {
    /// Room before the received bytes, in bytes, for what a decoder left unconsumed before.
    package static let headroom = 256

    private let storage: UnsafeMutableRawBufferPointer
    /// Most bytes per receive.
    package let capacity: Int

    /// - Parameter capacity: most bytes per receive. `put` has room for `headroom` more.
    package init(capacity: Int) {
        self.capacity = capacity
        unsafe storage = .allocate(byteCount: 2 * Self.headroom + capacity, alignment: 64)
    }

    deinit { unsafe storage.deallocate() }

    /// The whole buffer, headroom first, for the one connection whose event is being served.
    package var span: MutableRawSpan {
        @_lifetime(borrow self)
        get {
            // SAFETY: the memory lives as long as the buffer, and later input overwrites octets
            // with octets.
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

    /// Receives behind the headroom.
    ///
    /// - Returns: `.done(0)` at the end of input.
    package func receive(from transport: Transport) throws(SystemError) -> IOResult<Int> {
        try unsafe transport.receive(into: room)
    }

    /// Receives and discards bytes.
    package func discard(from transport: Transport) throws(SystemError) -> IOResult<Int> { try unsafe transport.discard(into: room) }

    private var room: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[Self.headroom..<Self.headroom + capacity])
    }

    /// Decrypts data received right behind the TLS handshake, behind the headroom.
    package func openReceived(from transport: Transport) throws(SystemError) -> IOResult<Int> {
        try unsafe transport.openReceived(into: room)
    }

    /// Copies at most `headroom` bytes directly before those received next.
    ///
    /// - Returns: the index of their start.
    package func putBefore(_ bytes: [UInt8]) -> Int {
        precondition(bytes.count <= Self.headroom, "expected at most \(Self.headroom) bytes, got \(bytes.count)")
        let start = Self.headroom - bytes.count
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[start..<Self.headroom]).copyBytes(from: bytes)
        return start
    }

    /// Copies bytes to where received ones would be.
    ///
    /// - Returns: the index of their end.
    package func put(_ bytes: [UInt8]) -> Int {
        let end = Self.headroom + bytes.count
        unsafe precondition(end <= storage.count, "expected at most headroom + capacity bytes, got \(bytes.count)")
        unsafe UnsafeMutableRawBufferPointer(rebasing: storage[Self.headroom..<end]).copyBytes(from: bytes)
        return end
    }
}
