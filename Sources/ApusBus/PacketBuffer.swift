import ApusPlatform

/// A packet to send: a fixed allocation, written once.
///
/// State that changes with each record is behind a pointer: a stored property would cost an
/// exclusivity check per access.
@safe package final class PacketBuffer {
    private struct State {
        var count = 0
        var records: UInt32 = 0
        var lost: UInt32 = 0
    }

    private let storage: UnsafeMutableRawPointer
    private let state: UnsafeMutablePointer<State>
    private let capacity: Int

    /// Bytes written.
    package var count: Int { unsafe state.pointee.count }
    /// Number of records that end in the packet.
    var records: UInt32 { unsafe state.pointee.records }
    /// Number of lost records in its header.
    var lost: UInt32 { unsafe state.pointee.lost }

    /// - Parameter capacity: in bytes; more than `Packet.maxBytes` only for a record to be sent in
    ///   parts.
    package init(capacity: Int = Packet.maxBytes) {
        self.capacity = capacity
        unsafe storage = .allocate(byteCount: capacity, alignment: 16)
        unsafe state = .allocate(capacity: 1)
        unsafe state.initialize(to: State())
    }

    deinit {
        unsafe storage.deallocate()
        unsafe state.deallocate()
    }

    /// The bytes written; valid until the next change.
    var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: storage, count: count) }
    /// A copy of the bytes written.
    package var array: [UInt8] { unsafe Array(bytes) }

    func hasRoom(for bytes: Int) -> Bool { bytes <= capacity - count }

    /// Starts a packet, discarding what was written.
    package func begin(_ header: Packet.Header) {
        unsafe state.pointee = State(lost: header.lost)
        put(Packet.version)
        put(0 as UInt8)
        put(header.sender)
        put(header.lost)
        put(header.process)
        put(header.receiver)
    }

    /// - Parameter topic: at most 65,535 bytes.
    package func appendPublication(topic: borrowing RawSpan, hash: UInt32, isText: Bool, payload: borrowing RawSpan) {
        precondition(topic.byteCount <= Int(UInt16.max), "expected a topic of at most 65535 bytes, got \(topic.byteCount)")
        appendHeader(.publication, flags: isText ? 1 : 0, UInt16(topic.byteCount), hash, count: topic.byteCount + payload.byteCount)
        put(topic)
        put(payload)
        unsafe state.pointee.records += 1
    }

    package func appendSignal(protocolIndex: UInt16, signal: UInt32, payload: borrowing RawSpan) {
        appendHeader(.signal, flags: 0, protocolIndex, signal, count: payload.byteCount)
        put(payload)
        unsafe state.pointee.records += 1
    }

    package func appendPart(offset: UInt32, isLast: Bool, _ bytes: borrowing RawSpan) {
        appendHeader(.part, flags: isLast ? 1 : 0, 0, offset, count: bytes.byteCount)
        put(bytes)
        if isLast { unsafe state.pointee.records += 1 }
    }

    /// Appends an encoded record.
    func append(encoded record: borrowing RawSpan) {
        put(record)
        unsafe state.pointee.records += 1
    }

    private func appendHeader(_ kind: Packet.Kind, flags: UInt8, _ small: UInt16, _ large: UInt32, count size: Int) {
        precondition(hasRoom(for: Packet.recordHeaderBytes + size), "the caller made room")
        put(UInt64(kind.rawValue) | UInt64(flags) << 8 | UInt64(small) << 16 | UInt64(large) << 32)
        put(UInt32(size))
    }

    @inline(__always)
    private func put(_ number: some FixedWidthInteger & BitwiseCopyable) {
        let size = number.bitWidth / 8
        precondition(hasRoom(for: size))
        // SAFETY: there is room; the store need not be aligned.
        unsafe (storage + count).storeBytes(of: number.littleEndian, as: type(of: number))
        unsafe state.pointee.count += size
    }

    @inline(__always)
    private func put(_ bytes: borrowing RawSpan) {
        precondition(hasRoom(for: bytes.byteCount))
        // SAFETY: there is room, and the span cannot overlap memory that only this buffer owns.
        unsafe bytes.withUnsafeBytes { source in
            if let base = source.baseAddress { unsafe (storage + count).copyMemory(from: base, byteCount: source.count) }
        }
        unsafe state.pointee.count += bytes.byteCount
    }
}
