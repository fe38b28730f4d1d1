/// Records that come in parts, by sender.
package struct RecordAssembly {
    private struct Partial {
        let process: UInt32
        var bytes: [UInt8] = []
    }

    private var partial: [UInt16: Partial] = [:]

    package init() {}

    package mutating func forget(_ sender: UInt16) { partial[sender] = nil }

    /// Adds a part. Gives the whole record behind the last one; nil as well for a part that does not follow the one before it.
    ///
    /// - Throws: `PacketViolation.recordTooLarge`; the record's other parts are left alone.
    package mutating func add(
        _ bytes: borrowing RawSpan, at offset: Int, isLast: Bool, from sender: Packet.Header, maxBytes: Int
    ) throws(PacketViolation) -> [UInt8]? {
        // A record of which this process has not seen the beginning was its predecessor's, or its sender died on the way: what comes in
        // the middle of a payload must never be taken for a record.
        if offset == 0 { partial[sender.sender] = Partial(process: sender.process) }
        guard let known = partial[sender.sender], known.process == sender.process, known.bytes.count == offset else {
            partial[sender.sender] = nil
            return nil
        }
        guard offset + bytes.byteCount <= maxBytes else {
            partial[sender.sender] = nil
            throw .recordTooLarge(limit: maxBytes)
        }
        // SAFETY: the pointer is used only inside the closure.
        unsafe bytes.withUnsafeBytes { unsafe partial[sender.sender]?.bytes.append(contentsOf: $0) }
        return isLast ? partial.removeValue(forKey: sender.sender)?.bytes : nil
    }
}
