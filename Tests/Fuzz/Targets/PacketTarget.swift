package import ApusBus
import ApusCodec

/// What travels between workers: a packet is refused, or it says the same when it is written again; and parts of records, in whatever order
/// they come, never make a record that nobody sent. What they make is refused as well, or says the same when it is written again.
enum PacketTarget {
    /// Bytes that a record in parts may have here.
    private static let maxBytes = 600
    /// Bytes of all that are not whole, and how many these may be.
    private static let maxBytesTogether = 1000
    private static let maxRecords = 3

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        if input.byte() & 1 == 0 { check(input.remaining()) } else { assemble(&input) }
    }

    private static func check(_ bytes: [UInt8]) {
        guard let packet = try? CopiedPacket(bytes) else { return }
        // Flags without a meaning, and numbers that a kind does not use, are not kept.
        let written = packet.bytes
        require(written.count == bytes.count, "\(packet)")
        require((try? CopiedPacket(written)) == packet, "\(packet)")
        for cut in 0..<bytes.count {
            guard let shorter = try? CopiedPacket(Array(bytes[..<cut])) else { continue }
            require(packet.records.starts(with: shorter.records) && packet.records.count > shorter.records.count, "cut at \(cut)")
        }
    }

    /// Each step is a part of a record of one of three senders with a place or two without, as it should be, or with another offset, process or
    /// end.
    private static func assemble(_ input: inout FuzzInput) {
        var assembly = RecordAssembly(maxRecordBytes: maxBytes, maxBytes: maxBytesTogether, maxRecords: maxRecords)
        var expected: [Unfinished] = []
        while !input.isEmpty {
            let step = input.byte()
            let place = step & 3 == 3 ? Packet.externalSender : UInt16(step & 3)
            let header = Packet.Header(sender: place, process: UInt32(step >> 2 & 1))
            let isLast = step & 8 != 0
            let known = expected.firstIndex { $0.sender == Unfinished.sender(header) }
            if step & 0xF0 == 0xF0 {
                assembly.forget(header)
                if let known { expected.remove(at: known) }
                continue
            }
            let bytes = input.bytes(Int(input.byte()))
            let begun = known.map { expected.remove(at: $0) }
            var offset = step & 16 != 0 ? 0 : begun?.bytes.count ?? 0
            if step & 32 != 0 { offset += 1 }
            let record = offset == 0 ? Unfinished(header) : begun
            let fits = record.map { $0.process == header.process && $0.bytes.count == offset } ?? false
            let isTooLarge = fits && offset + bytes.count > maxBytes
            var dropped: [UInt16] = []
            var expectedWhole: [UInt8]?
            if var record, fits, !isTooLarge {
                record.bytes += bytes
                while expected.reduce(record.bytes.count, { $0 + $1.bytes.count }) > maxBytesTogether {
                    dropped.append(expected.removeFirst().place)
                }
                if isLast {
                    expectedWhole = record.bytes
                } else {
                    if expected.count == maxRecords { dropped.append(expected.removeFirst().place) }
                    expected.append(record)
                }
            }
            var told: [UInt16] = []
            do {
                let whole = try assembly.add(bytes.rawSpan, at: offset, isLast: isLast, from: header) { told.append($0) }
                require(!isTooLarge && whole == expectedWhole)
                if let whole { checkRecord(whole) }
            } catch {
                require(isTooLarge && error == .recordTooLarge(limit: maxBytes))
            }
            require(told == dropped)
            require(assembly.count == expected.count && assembly.byteCount == expected.reduce(0) { $0 + $1.bytes.count })
        }
    }

    /// A record of which parts are to come; in the order of their last parts.
    private struct Unfinished {
        let sender: [UInt32]
        let place: UInt16
        let process: UInt32
        var bytes: [UInt8] = []

        init(_ header: Packet.Header) {
            sender = Self.sender(header)
            place = header.sender
            process = header.process
        }

        /// What tells senders apart: of processes at one place the last one counts.
        static func sender(_ header: Packet.Header) -> [UInt32] {
            [UInt32(header.sender)] + (header.sender == Packet.externalSender ? [header.process] : [])
        }
    }

    private static func checkRecord(_ bytes: [UInt8]) {
        guard let record = try? CopiedRecord(whole: bytes) else { return }
        // In a packet it is the same, and takes as much room.
        let packet = CopiedPacket(Packet.Header(sender: 1), [record]).bytes
        require(packet.count == CopiedPacket(Packet.Header(sender: 1)).bytes.count + bytes.count, "\(record)")
        require((try? CopiedPacket(packet))?.records == [record], "\(record)")
    }
}

/// A packet taken out of the bytes it lay in.
package struct CopiedPacket: Equatable {
    package var header: Packet.Header
    package var records: [CopiedRecord]

    package init(_ header: Packet.Header, _ records: [CopiedRecord] = []) {
        self.header = header
        self.records = records
    }

    package init(_ bytes: [UInt8]) throws(PacketViolation) {
        var packet = try Packet(bytes.rawSpan)
        header = packet.header
        records = []
        while let record = packet.next() { records.append(CopiedRecord(record)) }
    }

    package var bytes: [UInt8] {
        let buffer = PacketBuffer()
        buffer.begin(header)
        for record in records {
            switch record {
            case .publication(let topic, let hash, let isText, let payload):
                buffer.appendPublication(topic: topic.rawSpan, hash: hash, isText: isText, payload: payload.rawSpan)
            case .signal(let index, let signal, let payload):
                buffer.appendSignal(protocolIndex: index, signal: signal, payload: payload.rawSpan)
            case .part(let offset, let isLast, let bytes): buffer.appendPart(offset: offset, isLast: isLast, bytes.rawSpan)
            }
        }
        return buffer.array
    }
}

package enum CopiedRecord: Equatable {
    case publication(topic: [UInt8], hash: UInt32, isText: Bool, payload: [UInt8])
    case signal(protocolIndex: UInt16, signal: UInt32, payload: [UInt8])
    case part(offset: UInt32, isLast: Bool, bytes: [UInt8])

    /// A record that fills the bytes, such as one that came in parts.
    package init(whole bytes: [UInt8]) throws(PacketViolation) { self.init(try Packet.record(from: bytes.rawSpan)) }

    package init(_ record: Record) {
        switch record {
        case .publication(let topic, let hash, let isText, let payload):
            self = .publication(topic: topic.copied, hash: hash, isText: isText, payload: payload.copied)
        case .signal(let index, let signal, let payload): self = .signal(protocolIndex: index, signal: signal, payload: payload.copied)
        case .part(let offset, let isLast, let bytes): self = .part(offset: offset, isLast: isLast, bytes: bytes.copied)
        }
    }
}
