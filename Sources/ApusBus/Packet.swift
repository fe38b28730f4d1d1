/// ApusBus carries records between a server's processes: mailboxes for ordered records, shared
/// memory for counts and requests. It knows nothing of WebSocket: protocols are numbers, topics and
/// payloads are bytes.

/// One record, in place in its packet.
package enum Record: ~Escapable {
    /// A publication to the subscribers of a topic. The hash is for lookup only; see `TopicHash`.
    case publication(topic: RawSpan, hash: UInt32, isText: Bool, payload: RawSpan)
    /// An application's signal to the connections of a protocol.
    case signal(protocolIndex: UInt16, signal: UInt32, payload: RawSpan)
    /// A part of a record larger than a packet, with its offset in the record. A sender's parts
    /// arrive in order, with no other records between them. A receiver that missed the first part
    /// ignores the rest.
    case part(offset: UInt32, isLast: Bool, bytes: RawSpan)
}

/// Why a packet is invalid. Input from another process is checked like input from the network.
package enum PacketViolation: Error, Equatable, Sendable {
    case version(UInt8)
    case cutShort
    case unknownKind(UInt8)
    case trailingBytes(Int)
    /// The sender's mailbox index does not exist.
    case unknownSender(UInt16)
    /// A record in parts exceeds the limit, in bytes.
    case recordTooLarge(limit: Int)
    /// The parts do not form a record.
    case malformedParts
}

/// One datagram: sender, receiver, the number of records lost before it, and records. Decoded in
/// place, without copies or allocations.
///
/// Layout, integers little-endian: version (1), flags (1, zero), sender (2), lost records (4), the
/// sender's process (4), the receiver's generation (4), then records. A record: kind (1), flags
/// (1), a number (2), a second number (4), byte count (4), then the bytes: for a publication the
/// topic (its length is the number) and the payload, otherwise the payload. The second number is a
/// publication's topic hash, a signal's value or a part's offset; a signal's first number is its
/// protocol.
package struct Packet: ~Escapable {
    /// Sender and receiver.
    package struct Header: Equatable, Sendable {
        /// The sender's mailbox index; `Packet.externalSender` for a process without one, such as
        /// the master.
        package var sender: UInt16
        /// Records to this receiver that were dropped since the sender's last packet.
        package var lost: UInt32 = 0
        /// Identifies the sending process: a worker's generation, or an external sender's PID.
        package var process: UInt32 = 0
        /// The receiving process. A later owner of the mailbox ignores the packet.
        package var receiver: UInt32 = 0

        package init(sender: UInt16, lost: UInt32 = 0, process: UInt32 = 0, receiver: UInt32 = 0) {
            self.sender = sender
            self.lost = lost
            self.process = process
            self.receiver = receiver
        }
    }

    package static let version: UInt8 = 2
    package static let externalSender = UInt16.max
    /// Most bytes of a packet; records are collected up to it.
    package static let maxBytes = 64 * 1024
    static let headerBytes = 16
    static let recordHeaderBytes = 12
    /// Most bytes of one record in a packet, with its header.
    static let room = maxBytes - headerBytes

    package let header: Header
    private let bytes: RawSpan
    private var position = Packet.headerBytes

    /// - Throws: `PacketViolation` unless the bytes are exactly one packet of this version.
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

    /// Returns the next record; nil after the last.
    @_lifetime(copy self)
    package mutating func next() -> Record? {
        guard position < bytes.byteCount else { return nil }
        let start = position
        position = Self.end(bytes, start)
        return Self.record(bytes, start)
    }

    /// Decodes one record that fills all of `bytes`, such as one received in parts.
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

    /// The end of a checked record, as a byte offset.
    private static func end(_ bytes: borrowing RawSpan, _ start: Int) -> Int {
        start + recordHeaderBytes + Int(bytes.word(at: start + 8))
    }

    /// Checks the record at the byte offset `start`.
    ///
    /// - Returns: the offset of its end.
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

    // SAFETY: integers have no invalid bit patterns, and each load is checked against the span's
    // bounds.
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
