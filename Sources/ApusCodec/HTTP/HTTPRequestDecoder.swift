/// Decodes request heads from a byte stream (RFC 9112 §2–§5), cut at any place.
///
/// Each line is validated when it is complete; a byte that no line can contain is refused at once.
/// An idle decoder owns no heap memory. The decoder must not be used after an error.
package struct HTTPRequestDecoder: Equatable, Sendable {
    private struct StartLine: Equatable, Sendable {
        let method: HTTPMethod
        let target: Range<Int>
        let parts: RequestTarget.Parts
        let version: HTTPVersion
    }

    /// A head that is not complete.
    private struct Progress: Equatable, Sendable {
        var reader = HeadReader()
        var startLine: StartLine?
        var framing = FramingFields()

        /// Whether the method is HEAD, as far as it is known.
        ///
        /// - Parameter rest: The bytes after those in storage.
        func isHeadMethod(followedBy rest: Span<UInt8>) -> Bool {
            if let startLine { return startLine.method == .head }
            let stored = reader.storage
            var index = 0
            for byte in "HEAD ".utf8 {
                if index < stored.count {
                    guard stored[index] == byte else { return false }
                } else {
                    guard index - stored.count < rest.count, rest[index - stored.count] == byte else { return false }
                }
                index += 1
            }
            return true
        }
    }

    // 32 bits, because every connection stores them.
    private let maxHeadBytes: UInt32
    private let maxTargetBytes: UInt32
    private let maxFields: UInt32
    private var hasSkippedEmptyLine = false
    /// `decode` threw an error for a HEAD request.
    private var hasRefusedHeadMethod = false
    /// The head that is not complete, if any. An array of one element is a box that takes a pointer
    /// while it is empty.
    private var pending: [Progress] = []

    package init(limits: HTTPHeadLimits = HTTPHeadLimits()) {
        maxHeadBytes = UInt32(clamping: limits.maxHeadBytes)
        maxTargetBytes = UInt32(clamping: limits.maxTargetBytes)
        maxFields = UInt32(clamping: limits.maxFields)
    }

    /// Whether no byte of the next head has been taken. An empty line before it does not count.
    package var isIdle: Bool { pending.isEmpty }

    /// Whether the method of the incomplete or refused head is HEAD, so that the response has no
    /// body (RFC 9110 §9.3.2).
    package var isHeadMethod: Bool { hasRefusedHeadMethod || pending.first?.isHeadMethod(followedBy: Span()) == true }

    /// Takes bytes from the start of `bytes` and returns the head when it is complete; nil when all
    /// bytes are taken.
    ///
    /// - Parameter consumed: Set to the number of bytes taken; the rest is the body, the next
    ///   request or WebSocket frames.
    /// - Throws: `HTTPViolation`; `consumed` then counts at least the bytes before the invalid
    ///   line.
    package mutating func decode(_ bytes: Span<UInt8>, consumed: inout Int) throws(HTTPViolation) -> HTTPRequestHead? {
        consumed = 0
        guard !bytes.isEmpty else { return nil }
        var progress = pending.popLast() ?? Progress()
        let head: HTTPRequestHead?
        do throws(HTTPViolation) {
            head = try advance(&progress, bytes, &consumed)
        } catch {
            hasRefusedHeadMethod = progress.isHeadMethod(followedBy: bytes.extracting(consumed...))
            throw error
        }
        if let head {
            pending = []
            hasSkippedEmptyLine = false
            return head
        }
        if progress.reader.storage.isEmpty {
            pending = []
        } else {
            pending.append(progress)
        }
        return nil
    }

    private mutating func advance(
        _ progress: inout Progress, _ bytes: Span<UInt8>, _ offset: inout Int
    ) throws(HTTPViolation) -> HTTPRequestHead? {
        while offset < bytes.count {
            guard let startLine = progress.startLine else {
                progress.startLine = try readStartLine(&progress.reader, bytes, &offset)
                continue
            }
            switch try progress.reader.readLine(bytes, &offset, limit: Int(maxHeadBytes)) {
            case .incomplete: return nil
            case .limitReached: throw .headTooLarge(limit: Int(maxHeadBytes))
            case .complete(let line) where line.isEmpty: return try complete(progress, startLine)
            case .complete(let line):
                let field = try progress.reader.addField(line, maxFields: Int(maxFields))
                var framing = progress.framing
                try framing.read(field, in: progress.reader.storage.span, version: startLine.version)
                progress.framing = framing
            }
        }
        return nil
    }

    /// RFC 9112 §3.2: HTTP/1.1 requires Host, even with a target in absolute form, which then
    /// overrides it (§3.2.2).
    private func complete(_ progress: Progress, _ startLine: StartLine) throws(HTTPViolation) -> HTTPRequestHead {
        guard progress.framing.hasHost || startLine.version < .http11 else { throw .hostMissing }
        return HTTPRequestHead(
            method: startLine.method, version: startLine.version, target: startLine.target, parts: startLine.parts,
            framing: progress.framing, fields: HTTPFields(storage: progress.reader.storage, entries: progress.reader.entries))
    }
}

// The request line (RFC 9112 §3).
extension HTTPRequestDecoder {
    private mutating func readStartLine(
        _ reader: inout HeadReader, _ bytes: Span<UInt8>, _ offset: inout Int
    ) throws(HTTPViolation) -> StartLine? {
        // Input that is not a request, such as a TLS record, is refused at its first byte.
        let first = bytes[offset]
        if reader.storage.isEmpty, !ByteClass.isToken(first), !ByteClass.isControl(first) { throw .malformedRequestLine }
        let lineLimit = HTTPHeadLimits.maxMethodBytes + 1 + Int(maxTargetBytes) + 1 + 8 + 2
        switch try reader.readLine(bytes, &offset, limit: min(lineLimit, Int(maxHeadBytes))) {
        case .incomplete: return nil
        case .limitReached: throw excess(reader.storage.span, lineLimit)
        case .complete(let line) where line.isEmpty:
            // RFC 9112 §2.2: "a server that is expecting to receive and parse a request-line SHOULD
            // ignore at least one empty line".
            guard !hasSkippedEmptyLine else { throw .tooManyEmptyLines }
            hasSkippedEmptyLine = true
            reader = HeadReader()
            return nil
        case .complete(let line):
            return try parseStartLine(reader.storage.span, line)
        }
    }

    /// Which part of an unterminated request line is too long.
    private func excess(_ bytes: Span<UInt8>, _ lineLimit: Int) -> HTTPViolation {
        let method = bytes.firstIndex(of: ByteClass.space, in: 0..<bytes.count)
        if method ?? bytes.count > HTTPHeadLimits.maxMethodBytes { return .methodTooLong(limit: HTTPHeadLimits.maxMethodBytes) }
        return bytes.count < lineLimit ? .headTooLarge(limit: Int(maxHeadBytes)) : .targetTooLong(limit: Int(maxTargetBytes))
    }

    private func parseStartLine(_ bytes: Span<UInt8>, _ line: Range<Int>) throws(HTTPViolation) -> StartLine {
        guard let methodEnd = bytes.firstIndex(of: ByteClass.space, in: line) else { throw .malformedRequestLine }
        let method = line.lowerBound..<methodEnd
        guard bytes.isToken(method) else { throw .malformedRequestLine }
        guard method.count <= HTTPHeadLimits.maxMethodBytes else { throw .methodTooLong(limit: HTTPHeadLimits.maxMethodBytes) }
        let rest = methodEnd + 1..<line.upperBound
        guard let targetEnd = bytes.firstIndex(of: ByteClass.space, in: rest) else { throw .versionMissing }
        guard let version = HTTPVersion(bytes, targetEnd + 1..<line.upperBound) else { throw .malformedRequestLine }
        guard version.major > 0 else { throw .versionMissing }
        guard version.major == 1 else { throw .versionNotSupported(version) }
        let target = rest.lowerBound..<targetEnd
        guard target.count <= Int(maxTargetBytes) else { throw .targetTooLong(limit: Int(maxTargetBytes)) }
        let name = Self.method(bytes, method)
        let parts = try RequestTarget.parse(bytes, target, method: name)
        return StartLine(method: name, target: target, parts: parts, version: version)
    }

    private static func method(_ bytes: Span<UInt8>, _ range: Range<Int>) -> HTTPMethod {
        let start = range.lowerBound
        if range.count == 3, bytes[start] == UInt8(ascii: "G"), bytes[start + 1] == UInt8(ascii: "E"),
            bytes[start + 2] == UInt8(ascii: "T")
        {
            return .get
        }
        var name: [UInt8] = []
        for index in range { name.append(bytes[index]) }
        return HTTPMethod(rawValue: String(decoding: name, as: UTF8.self))
    }
}
