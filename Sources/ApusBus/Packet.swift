/// ApusBus carries records between a server's processes: mailboxes for what must arrive in order, shared memory for what only has to be
/// noticed. It knows nothing of WebSocket: protocols are numbers here, topics and payloads are bytes.

/// One thing a process tells another, where it lies in a packet.
package enum Record: ~Escapable {
    /// A publication for everybody who subscribed to the topic. The hash only says where to look: see `TopicHash`.
    case publication(topic: RawSpan, hash: UInt32, isText: Bool, payload: RawSpan)
    /// An application's signal for every connection that uses a protocol.
    case signal(protocolIndex: UInt16, signal: UInt32, payload: RawSpan)
    /// A part of a record that is larger than a packet, and where in the record it stands; the parts of a sender come in order and without
    /// others between. A reader that was not there for the first of them leaves the rest alone.
    case part(offset: UInt32, isLast: Bool, bytes: RawSpan)
}

/// Why a packet is refused. What comes from another process is checked like what comes from the network.
package enum PacketViolation: Error, Equatable, Sendable {
    case version(UInt8)
    case cutShort
    case unknownKind(UInt8)
    case trailingBytes(Int)
    /// There is no such place.
    case unknownSender(UInt16)
    /// A record made of parts grew over the limit, in bytes.
    case recordTooLarge(limit: Int)
    /// Parts do not make a record.
    case malformedParts
}

/// What travels in one datagram: who sends to whom, what was lost before it, and records. Decoded where it lies: nothing is copied or allocated.
///
/// Layout, integers little-endian: version (1), flags (1, zero), sender (2), lost records (4), the sender's process (4), the receiver's
/// generation (4), then records: kind (1), flags (1), a number (2), a second number (4), count of bytes (4), then the bytes: for a publication
/// the topic (as many as the number says) and the payload, for the others the payload. A publication's second number is the topic's hash; a
/// signal's numbers are its protocol and itself; a part's second number is its offset.
package struct Packet: ~Escapable {
    /// Who speaks to whom.
    package struct Header: Equatable, Sendable {
        /// The sender's place in the interest table; `Packet.outsider` for a process that has none, such as the master.
        package var sender: UInt16
        /// Records to this receiver that the sender had to drop since its last packet: a gap in front of this one.
        package var lost: UInt32 = 0
        /// Tells one process at the sender's place from the next: a worker's generation, an outsider's pid.
        package var process: UInt32 = 0
        /// Which process it is for. Its successor in the same mailbox leaves it alone.
        package var receiver: UInt32 = 0

        package init(sender: UInt16, lost: UInt32 = 0, process: UInt32 = 0, receiver: UInt32 = 0) {
            self.sender = sender
            self.lost = lost
            self.process = process
            self.receiver = receiver
        }
    }

    package static let version: UInt8 = 2
    package static let outsider = UInt16.max
    /// Bytes that a packet has at most; records are gathered up to it.
    package static let maxBytes = 64 * 1024
    static let headerBytes = 16
    static let recordHeaderBytes = 12
    /// Bytes of one record, its own header included, that fit into a packet.
    static let room = maxBytes - headerBytes

    package let header: Header
    private let bytes: RawSpan
    private var position = Packet.headerBytes

    /// - Throws: `PacketViolation` if the bytes are no packet of this version, whole and with nothing behind it.
    @_lifetime(copy bytes)
    package init(_ bytes: RawSpan) throws(PacketViolation) {
        guard let version = bytes.first else { throw .cutShort }
        guard version == Self.version else { throw .version(version) }
        guard bytes.byteCount >= Self.headerBytes else { throw .cutShort }
        header = Header(sender: bytes.word16(at: 2), lost: bytes.word(at: 4), process: bytes.word(at: 8), receiver: bytes.word(at: 12))
        self.bytes = bytes
        var at = Self.headerBytes
        while at < bytes.byteCount { at = try Self.check(bytes, at) }
    }

    /// The next record; nil after the last.
    @_lifetime(copy self)
    package mutating func next() -> Record? {
        guard position < bytes.byteCount else { return nil }
        let start = position
        position = Self.end(bytes, start)
        return Self.record(bytes, start)
    }

    /// Decodes one record that fills all of `bytes`, such as one that came in parts.
    @_lifetime(copy bytes)
    package static func record(from bytes: RawSpan) throws(PacketViolation) -> Record {
        guard !bytes.isEmpty else { throw .cutShort }
        let end = try check(bytes, 0)
        guard end == bytes.byteCount else { throw .trailingBytes(bytes.byteCount - end) }
        return record(bytes, 0)
    }

    // MARK: Records

    enum Kind: UInt8 {
        case publication = 1
        case signal = 2
        case part = 3
    }

    /// Where a record ends that was checked.
    private static func end(_ bytes: borrowing RawSpan, _ start: Int) -> Int {
        start + recordHeaderBytes + Int(bytes.word(at: start + 8))
    }

    /// Gives where the record at `start`, a place in the bytes, ends.
    private static func check(_ bytes: borrowing RawSpan, _ start: Int) throws(PacketViolation) -> Int {
        let code = bytes.octet(at: start)
        guard let kind = Kind(rawValue: code) else { throw .unknownKind(code) }
        guard bytes.byteCount - start >= recordHeaderBytes else { throw .cutShort }
        let count = Int(bytes.word(at: start + 8))
        guard count <= bytes.byteCount - start - recordHeaderBytes else { throw .cutShort }
        if case .publication = kind, Int(bytes.word16(at: start + 2)) > count { throw .cutShort }
        return start + recordHeaderBytes + count
    }

    @_lifetime(copy bytes)
    private static func record(_ bytes: RawSpan, _ start: Int) -> Record {
        let (flags, small, large) = (bytes.octet(at: start + 1), bytes.word16(at: start + 2), bytes.word(at: start + 4))
        let body = start + recordHeaderBytes
        let end = end(bytes, start)
        switch Kind(rawValue: bytes.octet(at: start)) {
        case .publication:
            let split = body + Int(small)
            return .publication(
                topic: bytes.extracting(body..<split), hash: large, isText: flags & 1 != 0, payload: bytes.extracting(split..<end))
        case .signal: return .signal(protocolIndex: small, signal: large, payload: bytes.extracting(body..<end))
        case .part: return .part(offset: large, isLast: flags & 1 != 0, bytes: bytes.extracting(body..<end))
        case nil: preconditionFailure("only what was checked is decoded")
        }
    }
}

extension RawSpan {
    fileprivate var first: UInt8? { isEmpty ? nil : octet(at: 0) }

    // SAFETY: integers have no invalid bit patterns, and each load is checked against the span's bounds.
    fileprivate func octet(at offset: Int) -> UInt8 { unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self) }
    fileprivate func word16(at offset: Int) -> UInt16 {
        UInt16(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    fileprivate func word(at offset: Int) -> UInt32 {
        UInt32(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}

extension RawSpan {
    /// A copy of the bytes.
    package var array: [UInt8] { unsafe withUnsafeBytes { unsafe Array($0) } }
}
