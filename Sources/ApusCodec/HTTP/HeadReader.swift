/// Collects the lines of a head or a trailer section in one array. Each byte is scanned once,
/// however the input is cut.
///
/// Every line ends with CRLF (RFC 9112 §2.2; a bare CR or LF is refused) and contains no control
/// character except HTAB. An incomplete line is in `storage`, with its CR if that has arrived, so
/// no scan position is needed: stored bytes have been scanned.
struct HeadReader: Equatable {
    /// The lines so far with their CRLF; at most the limit passed to `readLine`.
    private(set) var storage: [UInt8] = []
    private(set) var entries: [HTTPFields.Entry] = []
    private var lineStart = 0

    enum Line: Equatable {
        /// The line's range in `storage`, without its CRLF.
        case complete(Range<Int>)
        /// The input is consumed.
        case incomplete
        /// `storage` has reached the limit before the line ended.
        case limitReached
    }

    /// Takes bytes from `offset` on until a line is complete, the input ends, or `storage` has
    /// `limit` bytes.
    ///
    /// - Throws: `HTTPViolation` at the first byte that cannot be part of a line.
    mutating func readLine(_ bytes: Span<UInt8>, _ offset: inout Int, limit: Int) throws(HTTPViolation) -> Line {
        let allowance = limit - storage.count
        guard allowance > 0 else { return .limitReached }
        let start = offset
        let end = min(bytes.count, start + allowance)
        var index = start
        if index < end, storage.count > lineStart, storage[storage.count - 1] == ByteClass.carriageReturn {
            guard bytes[index] == ByteClass.lineFeed else { throw .bareCarriageReturn }
            return completeLine(bytes, &offset, upTo: index + 1)
        }
        while index < end {
            index = Self.firstControl(bytes, index, end)
            guard index < end else { break }
            let byte = bytes[index]
            index += 1
            guard byte != ByteClass.tab else { continue }
            guard byte == ByteClass.carriageReturn else {
                throw byte == ByteClass.lineFeed ? .bareLineFeed : .controlCharacter(byte)
            }
            guard index < end else { break }
            guard bytes[index] == ByteClass.lineFeed else { throw .bareCarriageReturn }
            return completeLine(bytes, &offset, upTo: index + 1)
        }
        store(bytes, start..<end)
        offset = end
        return storage.count < limit ? .incomplete : .limitReached
    }

    /// The index of the first control character from `start` on, or `end`.
    private static func firstControl(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int {
        var index = start
        // Eight at a time.
        while index &+ 8 <= end {
            if ByteClass.hasControl(bytes.word(at: index)) { break }
            index &+= 8
        }
        while index < end, !ByteClass.isControl(bytes[index]) { index &+= 1 }
        return index
    }

    private mutating func completeLine(_ bytes: Span<UInt8>, _ offset: inout Int, upTo end: Int) -> Line {
        store(bytes, offset..<end)
        offset = end
        let line = lineStart..<storage.count - 2
        lineStart = storage.count
        return .complete(line)
    }

    private mutating func store(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        // Most heads arrive complete: one allocation for all of it. The bound excludes a large body
        // behind a small head.
        if storage.isEmpty { storage.reserveCapacity(min(bytes.count - range.lowerBound, 1024)) }
        storage.append(bytes.extracting(range))
    }

    /// Parses the field line in `line` and adds it to `entries`: `name ":" OWS value OWS` (RFC 9112
    /// §5).
    ///
    /// - Throws: `HTTPViolation` if the line is folded, has no valid name or no colon, or exceeds
    ///   `maxFields`.
    mutating func addField(_ line: Range<Int>, maxFields: Int) throws(HTTPViolation) -> HTTPFields.Entry {
        guard entries.count < maxFields else { throw .tooManyFields(limit: maxFields) }
        let entry = try Self.parseField(storage.span, line)
        if entries.isEmpty { entries.reserveCapacity(12) }
        entries.append(entry)
        return entry
    }

    /// Joins a folded line to the field before it: the line end becomes spaces (RFC 9112 §5.2).
    ///
    /// - Returns: The field with its longer value; nil if the line is not folded or no field
    ///   precedes it.
    mutating func unfold(_ line: Range<Int>) -> HTTPFields.Entry? {
        guard let last = entries.last, !line.isEmpty, ByteClass.isBlank(storage[line.lowerBound]) else { return nil }
        for index in line.lowerBound - 2..<line.lowerBound { storage[index] = ByteClass.space }
        let value = storage.span.trimmed(last.name.upperBound + 1..<line.upperBound)
        let entry = HTTPFields.Entry(name: last.name, value: value)
        entries[entries.count - 1] = entry
        return entry
    }

    private static func parseField(_ bytes: Span<UInt8>, _ line: Range<Int>) throws(HTTPViolation) -> HTTPFields.Entry {
        let name = try fieldName(bytes, line)
        return HTTPFields.Entry(name: name, value: bytes.trimmed(name.upperBound + 1..<line.upperBound))
    }

    private static func fieldName(_ bytes: Span<UInt8>, _ line: Range<Int>) throws(HTTPViolation) -> Range<Int> {
        var index = line.lowerBound
        while index < line.upperBound, ByteClass.isToken(bytes[index]) { index += 1 }
        guard index < line.upperBound else { throw .fieldWithoutColon }
        let byte = bytes[index]
        if byte == UInt8(ascii: ":") {
            guard index > line.lowerBound else { throw .fieldNameEmpty }
            return line.lowerBound..<index
        }
        guard ByteClass.isBlank(byte) else { throw .fieldNameInvalid(byte) }
        guard index > line.lowerBound else { throw .foldedLine }
        var next = index
        while next < line.upperBound, ByteClass.isBlank(bytes[next]) { next += 1 }
        throw next < line.upperBound && bytes[next] == UInt8(ascii: ":") ? .spaceBeforeColon : .fieldWithoutColon
    }
}
