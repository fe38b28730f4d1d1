/// Reads response heads from a byte stream (RFC 9112 §4, §5), however it is cut; interim (1xx) heads come out like any other.
///
/// The checks are the request decoder's, but a folded field is unfolded, as a user agent must (RFC 9112 §5.2). An idle decoder owns no heap memory. After a throw the decoder must not be used again.
package struct HTTPResponseDecoder: Sendable {
    private struct StatusLine: Sendable {
        let version: HTTPVersion
        let status: HTTPStatus
        let reason: Range<Int>
    }

    private struct Progress: Sendable {
        var reader = HeadReader()
        var statusLine: StatusLine?
        var facts = MessageFacts()
        /// The last field, which a folded line may go on with.
        var lastField: HTTPFields.Entry?

        /// Notes the field that is complete now.
        mutating func noteLastField(version: HTTPVersion) throws(HTTPViolation) {
            guard let field = lastField else { return }
            lastField = nil
            var noted = facts
            try noted.note(field, in: reader.storage.span, version: version)
            facts = noted
        }
    }

    private let maxHeadBytes: UInt32
    private let maxFields: UInt32
    /// The head in the making, if any: an array of one is a box that costs a pointer while it is empty.
    private var pending: [Progress] = []

    /// An idle decoder that keeps to `limits`.
    package init(limits: HTTPHeadLimits = HTTPHeadLimits()) {
        maxHeadBytes = UInt32(clamping: limits.maxHeadBytes)
        maxFields = UInt32(clamping: limits.maxFields)
    }

    /// Whether no byte of a next head has been taken.
    package var isIdle: Bool { pending.isEmpty }

    /// Takes bytes from the start of `bytes` and returns the head once it is complete, else nil when all are taken.
    ///
    /// - Parameter consumed: Set to the number of bytes taken; the rest is the body, the next response, frames or tunnelled bytes.
    /// - Throws: `HTTPViolation`; its status is of no use to a client.
    package mutating func decode(_ bytes: Span<UInt8>, consumed: inout Int) throws(HTTPViolation) -> HTTPResponseHead? {
        consumed = 0
        guard !bytes.isEmpty else { return nil }
        var progress = pending.popLast() ?? Progress()
        if let head = try advance(&progress, bytes, &consumed) {
            pending = []
            return head
        }
        pending.append(progress)
        return nil
    }

    private func advance(
        _ progress: inout Progress, _ bytes: Span<UInt8>, _ offset: inout Int
    ) throws(HTTPViolation) -> HTTPResponseHead? {
        while offset < bytes.count {
            // Something that is no response is refused at its first byte.
            if progress.reader.storage.isEmpty, bytes[offset] != UInt8(ascii: "H") { throw .malformedStatusLine }
            switch try progress.reader.readLine(bytes, &offset, limit: Int(maxHeadBytes)) {
            case .incomplete: return nil
            case .limitReached: throw .headTooLarge(limit: Int(maxHeadBytes))
            case .complete(let line):
                guard let statusLine = progress.statusLine else {
                    progress.statusLine = try Self.parseStatusLine(progress.reader.storage.span, line)
                    continue
                }
                if let field = progress.reader.unfold(line) {
                    progress.lastField = field
                    continue
                }
                try progress.noteLastField(version: statusLine.version)
                if line.isEmpty {
                    return HTTPResponseHead(
                        status: statusLine.status, version: statusLine.version, reason: statusLine.reason, facts: progress.facts,
                        fields: HTTPFields(storage: progress.reader.storage, entries: progress.reader.entries))
                }
                progress.lastField = try progress.reader.addField(line, maxFields: Int(maxFields))
            }
        }
        return nil
    }

    /// `HTTP/1.1 200 OK`. The reason may be empty, and the space before an empty one missing, as many servers leave it out.
    private static func parseStatusLine(_ bytes: Span<UInt8>, _ line: Range<Int>) throws(HTTPViolation) -> StatusLine {
        let codeStart = line.lowerBound + 9
        let codeEnd = codeStart + 3
        guard codeEnd <= line.upperBound, let version = HTTPVersion(bytes, line.lowerBound..<codeStart - 1),
            bytes[codeStart - 1] == ByteClass.space
        else { throw .malformedStatusLine }
        guard version.major == 1 else { throw .versionNotSupported(version) }
        var code: UInt16 = 0
        for index in codeStart..<codeEnd {
            guard ByteClass.isDigit(bytes[index]) else { throw .malformedStatusLine }
            code = code * 10 + UInt16(bytes[index] - 0x30)
        }
        guard code >= 100, codeEnd == line.upperBound || bytes[codeEnd] == ByteClass.space else { throw .malformedStatusLine }
        let reason = min(codeEnd + 1, line.upperBound)..<line.upperBound
        return StatusLine(version: version, status: HTTPStatus(code: code), reason: reason)
    }
}
