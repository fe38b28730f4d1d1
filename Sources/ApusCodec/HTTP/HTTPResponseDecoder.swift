/// Decodes response heads from a byte stream (RFC 9112 §4, §5), cut at any place. Interim (1xx)
/// heads are returned like final ones.
///
/// The checks are those of the request decoder, but a folded field is unfolded, as a user agent
/// must (RFC 9112 §5.2). An idle decoder owns no heap memory. The decoder must not be used after an
/// error.
package struct HTTPResponseDecoder: Equatable, Sendable {
    private struct StatusLine: Equatable, Sendable {
        let version: HTTPVersion
        let status: HTTPStatus
        let reason: Range<Int>
    }

    private struct Progress: Equatable, Sendable {
        var reader = HeadReader()
        var statusLine: StatusLine?
        var framing = FramingFields()
        /// The last field, which a folded line may continue.
        var lastField: HTTPFields.Entry?

        /// Reads the last field, which is complete.
        mutating func readLastField(version: HTTPVersion) throws(HTTPViolation) {
            guard let field = lastField else { return }
            lastField = nil
            var updated = framing
            try updated.read(field, in: reader.storage.span, version: version)
            framing = updated
        }
    }

    private let maxHeadBytes: UInt32
    private let maxFields: UInt32
    /// The head that is not complete, if any. An array of one element is a box that takes a pointer
    /// while it is empty.
    private var pending: [Progress] = []

    package init(limits: HTTPHeadLimits = HTTPHeadLimits()) {
        maxHeadBytes = UInt32(clamping: limits.maxHeadBytes)
        maxFields = UInt32(clamping: limits.maxFields)
    }

    /// Whether no byte of the next head has been taken.
    package var isIdle: Bool { pending.isEmpty }

    /// Takes bytes from the start of `bytes` and returns the head when it is complete; nil when all
    /// bytes are taken.
    ///
    /// - Parameter consumed: Set to the number of bytes taken; the rest is the body, the next
    ///   response, frames or tunnelled bytes.
    /// - Throws: `HTTPViolation`; its status does not matter to a client.
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
            // Input that is not a response is refused at its first byte.
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
                try progress.readLastField(version: statusLine.version)
                if line.isEmpty {
                    return HTTPResponseHead(
                        status: statusLine.status, version: statusLine.version, reason: statusLine.reason, framing: progress.framing,
                        fields: HTTPFields(storage: progress.reader.storage, entries: progress.reader.entries))
                }
                progress.lastField = try progress.reader.addField(line, maxFields: Int(maxFields))
            }
        }
        return nil
    }

    /// `HTTP/1.1 200 OK`. The reason may be empty; many servers omit the space before an empty one.
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
