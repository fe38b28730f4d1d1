/// ApusBus carries records between a server's processes: mailboxes for what must arrive in order, shared memory for what only has to be
/// noticed. It knows nothing of WebSocket: protocols are numbers here, topics and payloads are bytes.

/// One thing a process tells another.
package enum Record: Equatable, Sendable {
    /// A publication for everybody who subscribed to the topic.
    case publication(topic: [UInt8], isText: Bool, payload: [UInt8])
    /// An application's signal for every connection that uses a protocol.
    case signal(protocolIndex: UInt16, signal: UInt32, payload: [UInt8])
    /// A part of a record that is larger than a packet, and where in the record it stands; the parts of a sender come in order and without
    /// others between. A reader that was not there for the first of them leaves the rest alone.
    case part(offset: UInt32, isLast: Bool, bytes: [UInt8])
}

/// Why a packet is refused. What comes from another process is checked like what comes from the network.
package enum PacketViolation: Error, Equatable, Sendable {
    case version(UInt8)
    case cutShort
    case unknownKind(UInt8)
    case trailingBytes(Int)
    /// A record made of parts grew over the limit, in bytes.
    case recordTooLarge(limit: Int)
    /// Parts do not make a record.
    case malformedParts
}

/// What travels in one datagram: who sends, what was lost before it, and records.
///
/// Layout, integers little-endian: version (1), flags (1, zero), sender slot (2), lost records (4), then records: kind (1), flags (1),
/// a number (2), a second number (4), payload length (4), then the bytes: for a publication the topic (as many as the number says) and the
/// payload, for the others the payload. A signal's numbers are its protocol and itself; a part's second number is its offset.
package struct Packet: Equatable, Sendable {
    /// The sender's slot; `master` for the master.
    package var sender: UInt16
    /// Records to this receiver that the sender had to drop since its last packet: a gap in front of this one.
    package var lost: UInt32
    package var records: [Record]

    package static let version: UInt8 = 1
    package static let master = UInt16.max
    /// Bytes that a packet has at most; records are gathered up to it.
    package static let maxBytes = 64 * 1024
    static let headerBytes = 8
    static let recordHeaderBytes = 12

    package init(sender: UInt16, lost: UInt32 = 0, records: [Record] = []) {
        self.sender = sender
        self.lost = lost
        self.records = records
    }

    // MARK: Encoding

    static func appendHeader(sender: UInt16, lost: UInt32, to output: inout [UInt8]) {
        output.append(version)
        output.append(0)
        output.append(littleEndian: sender)
        output.append(littleEndian: lost)
    }

    private static func appendRecordHeader(
        _ kind: Kind, flags: UInt8, _ small: UInt16, _ large: UInt32, count: Int, to output: inout [UInt8]
    ) {
        output.append(kind.rawValue)
        output.append(flags)
        output.append(littleEndian: small)
        output.append(littleEndian: large)
        output.append(littleEndian: UInt32(count))
    }

    /// Bytes that `append` takes for a publication.
    static func publicationBytes(topic: Int, payload: Int) -> Int { recordHeaderBytes + topic + payload }

    static func appendPublication(topic: [UInt8], isText: Bool, payload: [UInt8], to output: inout [UInt8]) {
        precondition(topic.count <= Int(UInt16.max), "a topic has at most 65535 bytes")
        appendRecordHeader(.publication, flags: isText ? 1 : 0, UInt16(topic.count), 0, count: topic.count + payload.count, to: &output)
        output.append(contentsOf: topic)
        output.append(contentsOf: payload)
    }

    static func appendSignal(protocolIndex: UInt16, signal: UInt32, payload: [UInt8], to output: inout [UInt8]) {
        appendRecordHeader(.signal, flags: 0, protocolIndex, signal, count: payload.count, to: &output)
        output.append(contentsOf: payload)
    }

    static func appendPart(offset: UInt32, isLast: Bool, _ bytes: ArraySlice<UInt8>, to output: inout [UInt8]) {
        appendRecordHeader(.part, flags: isLast ? 1 : 0, 0, offset, count: bytes.count, to: &output)
        output.append(contentsOf: bytes)
    }

    package static func append(_ record: Record, to output: inout [UInt8]) {
        switch record {
        case .publication(let topic, let isText, let payload):
            appendPublication(topic: topic, isText: isText, payload: payload, to: &output)
        case .signal(let index, let signal, let payload):
            appendSignal(protocolIndex: index, signal: signal, payload: payload, to: &output)
        case .part(let offset, let isLast, let bytes): appendPart(offset: offset, isLast: isLast, bytes[...], to: &output)
        }
    }

    package var bytes: [UInt8] {
        var output: [UInt8] = []
        Self.appendHeader(sender: sender, lost: lost, to: &output)
        for record in records { Self.append(record, to: &output) }
        return output
    }

    // MARK: Decoding

    private enum Kind: UInt8 {
        case publication = 1
        case signal = 2
        case part = 3
    }

    /// - Throws: `PacketViolation` if the bytes are no packet of this version, whole and with nothing behind it.
    package init(_ bytes: [UInt8]) throws(PacketViolation) {
        var reader = Reader(bytes)
        let version = try reader.byte()
        guard version == Self.version else { throw .version(version) }
        _ = try reader.byte()
        sender = UInt16(try reader.number(2))
        lost = UInt32(try reader.number(4))
        records = []
        while !reader.isAtEnd { records.append(try Self.record(&reader)) }
    }

    /// Decodes one record that fills all of `bytes`, such as one that came in parts.
    static func record(from bytes: [UInt8]) throws(PacketViolation) -> Record {
        var reader = Reader(bytes)
        let record = try record(&reader)
        guard reader.isAtEnd else { throw .trailingBytes(reader.left) }
        return record
    }

    private static func record(_ reader: inout Reader) throws(PacketViolation) -> Record {
        let code = try reader.byte()
        guard let kind = Kind(rawValue: code) else { throw .unknownKind(code) }
        let flags = try reader.byte()
        let small = UInt16(try reader.number(2))
        let large = UInt32(try reader.number(4))
        let count = Int(try reader.number(4))
        switch kind {
        case .publication:
            guard Int(small) <= count else { throw .cutShort }
            let topic = try reader.bytes(Int(small))
            return .publication(topic: topic, isText: flags & 1 != 0, payload: try reader.bytes(count - Int(small)))
        case .signal: return .signal(protocolIndex: small, signal: large, payload: try reader.bytes(count))
        case .part: return .part(offset: large, isLast: flags & 1 != 0, bytes: try reader.bytes(count))
        }
    }
}

/// Takes numbers and runs of bytes from the front.
private struct Reader {
    private let bytesToRead: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { bytesToRead = bytes }

    var left: Int { bytesToRead.count - position }
    var isAtEnd: Bool { left == 0 }

    mutating func byte() throws(PacketViolation) -> UInt8 { UInt8(try number(1)) }

    mutating func number(_ width: Int) throws(PacketViolation) -> UInt64 {
        guard width <= left else { throw .cutShort }
        defer { position += width }
        return (0..<width).reduce(0) { $0 | UInt64(bytesToRead[position + $1]) << UInt64(8 * $1) }
    }

    mutating func bytes(_ count: Int) throws(PacketViolation) -> [UInt8] {
        guard count <= left else { throw .cutShort }
        defer { position += count }
        return Array(bytesToRead[position..<position + count])
    }
}

extension [UInt8] {
    fileprivate mutating func append(littleEndian number: some FixedWidthInteger & UnsignedInteger) {
        for index in 0..<number.bitWidth / 8 { append(UInt8(truncatingIfNeeded: number >> (8 * index))) }
    }
}
