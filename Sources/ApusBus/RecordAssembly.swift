/// Records that come in parts, by sender. What is kept of records that are not whole has a limit, whoever says to send them.
package struct RecordAssembly {
    /// Who sends a record: the process at a place, of which there is one at a time, or one of those that have none.
    private struct Sender: Hashable {
        let place: UInt16
        let outsider: UInt32

        init(_ header: Packet.Header) {
            place = header.sender
            outsider = header.sender == Packet.outsider ? header.process : 0
        }
    }

    private struct Partial {
        let process: UInt32
        var bytes: [UInt8] = []
        /// When its last part came, as a number of parts.
        var lastPart = 0
    }

    private let maxRecordBytes: Int
    private let maxBytes: Int
    private let maxRecords: Int
    private var partial: [Sender: Partial] = [:]
    private var parts = 0
    /// Bytes of all that are not whole.
    package private(set) var byteCount = 0
    /// Records that are not whole.
    package var count: Int { partial.count }

    /// - Parameter maxRecordBytes: of one record.
    /// - Parameter maxBytes: of all records that are not whole; at least as many as one may have.
    /// - Parameter maxRecords: that are not whole; at least one.
    package init(maxRecordBytes: Int, maxBytes: Int, maxRecords: Int) {
        precondition(maxRecordBytes <= maxBytes && maxRecords > 0, "there is room for a record")
        self.maxRecordBytes = maxRecordBytes
        self.maxBytes = maxBytes
        self.maxRecords = maxRecords
    }

    /// The sender's packet says that records before it were lost.
    package mutating func forget(_ sender: Packet.Header) { _ = take(Sender(sender)) }

    /// Adds a part. Gives the whole record behind the last one; nil as well for a part that does not follow the one before it.
    ///
    /// When there is no room, those go to which nothing was added for longest.
    ///
    /// - Parameter whenDropped: called with the place of each sender whose record went.
    /// - Throws: `PacketViolation.recordTooLarge`; the record's other parts are left alone.
    package mutating func add(
        _ bytes: borrowing RawSpan, at offset: Int, isLast: Bool, from header: Packet.Header, whenDropped: (UInt16) -> Void
    ) throws(PacketViolation) -> [UInt8]? {
        let sender = Sender(header)
        // A record of which this process has not seen the beginning was its predecessor's, or its sender died on the way: what comes in
        // the middle of a payload must never be taken for a record.
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
