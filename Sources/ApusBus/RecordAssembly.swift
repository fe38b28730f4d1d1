/// Assembles records sent in parts, by sender. The memory for incomplete records is bounded,
/// whatever is sent.
package struct RecordAssembly {
    /// A record's sender: the owner of a mailbox, or one of the processes without a mailbox.
    private struct Sender: Hashable {
        let place: UInt16
        let externalSender: UInt32

        init(_ header: Packet.Header) {
            place = header.sender
            externalSender = header.sender == Packet.externalSender ? header.process : 0
        }
    }

    private struct Partial {
        let process: UInt32
        var bytes: [UInt8] = []
        /// The value of `parts` when its last part arrived.
        var lastPart = 0
    }

    private let maxRecordBytes: Int
    private let maxBytes: Int
    private let maxRecords: Int
    private var partial: [Sender: Partial] = [:]
    private var parts = 0
    /// Bytes of all incomplete records.
    package private(set) var byteCount = 0
    /// Number of incomplete records.
    package var count: Int { partial.count }

    /// - Parameter maxRecordBytes: of one record.
    /// - Parameter maxBytes: of all incomplete records; at least `maxRecordBytes`.
    /// - Parameter maxRecords: most incomplete records; at least one.
    package init(maxRecordBytes: Int, maxBytes: Int, maxRecords: Int) {
        precondition(maxRecordBytes <= maxBytes && maxRecords > 0, "expected maxRecordBytes <= maxBytes and maxRecords > 0")
        self.maxRecordBytes = maxRecordBytes
        self.maxBytes = maxBytes
        self.maxRecords = maxRecords
    }

    /// Discards the sender's incomplete record, because its packet reports lost records.
    package mutating func forget(_ sender: Packet.Header) { _ = take(Sender(sender)) }

    /// Adds a part.
    ///
    /// If the memory is full, the records that have not grown for longest are dropped.
    ///
    /// - Parameter whenDropped: called with the sender's mailbox index for each dropped record.
    /// - Returns: the record if this was its last part; nil otherwise, and for a part that does not
    ///   follow the previous one.
    /// - Throws: `PacketViolation.recordTooLarge`; later parts of the record are ignored.
    package mutating func add(
        _ bytes: borrowing RawSpan, at offset: Int, isLast: Bool, from header: Packet.Header, whenDropped: (UInt16) -> Void
    ) throws(PacketViolation) -> [UInt8]? {
        let sender = Sender(header)
        // A record whose beginning is missing was for an earlier owner of the mailbox, or its
        // sender died: payload bytes must never be decoded as a record.
        let begun = take(sender)
        guard var record = offset == 0 ? Partial(process: header.process) : consume begun, record.process == header.process,
            record.bytes.count == offset
        else { return nil }
        let size = offset + bytes.byteCount
        guard size <= maxRecordBytes else { throw .recordTooLarge(limit: maxRecordBytes) }
        while byteCount + size > maxBytes { dropOldest(whenDropped) }
        // SAFETY: the pointer is used only inside the closure.
        unsafe bytes.withUnsafeBytes { unsafe record.bytes.append(contentsOf: $0) }
        if isLast { return record.bytes }
        if partial.count == maxRecords { dropOldest(whenDropped) }
        parts &+= 1
        record.lastPart = parts
        byteCount += size
        partial[sender] = record
        return nil
    }

    private mutating func take(_ sender: Sender) -> Partial? {
        guard let record = partial.removeValue(forKey: sender) else { return nil }
        byteCount -= record.bytes.count
        return record
    }

    private mutating func dropOldest(_ whenDropped: (UInt16) -> Void) {
        guard let oldest = partial.min(by: { $0.value.lastPart < $1.value.lastPart })?.key else {
            preconditionFailure("one record alone has room")
        }
        _ = take(oldest)
        whenDropped(oldest.place)
    }
}
