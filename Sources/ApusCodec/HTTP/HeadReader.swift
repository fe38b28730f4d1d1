/// Collects the lines of a head (or a trailer section) in one array, each byte looked at once however the input is cut.
///
/// Every line ends in CRLF (RFC 9112 §2.2; a bare CR or LF is refused) and holds no control character but HTAB. The line in progress
/// lies in `storage` with what was seen of its CR, so no further scan position is needed: what is stored has been scanned.
struct HeadReader {
    /// Every line so far with its CRLF; never more than the limit given to `readLine`.
    private(set) var storage: [UInt8] = []
    private(set) var entries: [HTTPFields.Entry] = []
    private var lineStart = 0

    enum Line: Equatable {
        /// The line's place in `storage`, without its CRLF.
        case complete(Range<Int>)
        /// The input is used up.
        case incomplete
        /// `storage` has reached the limit and the line has not ended.
        case limitReached
    }

    /// Takes bytes from `offset` on until a line is complete, the input ends, or `storage` holds `limit` bytes.
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

    /// The position of the first control character from `start` on, or `end`.
    private static func firstControl(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int {
        let rest = bytes.extracting(start..<end)
        for index in 0..<rest.count where ByteClass.isControl(rest[index]) { return start &+ index }
        return end
    }

    private mutating func completeLine(_ bytes: Span<UInt8>, _ offset: inout Int, upTo end: Int) -> Line {
        store(bytes, offset..<end)
        offset = end
        let line = lineStart..<storage.count - 2
        lineStart = storage.count
        return .complete(line)
    }

    private mutating func store(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        // Most heads arrive whole: one allocation for all that is there. The bound keeps a large body behind a small head out.
        if storage.isEmpty { storage.reserveCapacity(min(bytes.count - range.lowerBound, 1024)) }
        let source = bytes.extracting(range)
        storage.append(addingCapacity: source.count) { output in
            // Filled and then overwritten: this loop becomes vector moves, appending byte by byte does not.
            output.append(repeating: 0, count: source.count)
            var target = output.mutableSpan
            for index in 0..<min(source.count, target.count) { target[index] = source[index] }
        }
    }

    /// Parses the field line in `line` and adds it to `entries`: `name ":" OWS value OWS` (RFC 9112 §5).
    ///
    /// - Throws: `HTTPViolation` if it is folded, has no valid name or no colon, or is one more than `maxFields`.
    mutating func addField(_ line: Range<Int>, maxFields: Int) throws(HTTPViolation) -> HTTPFields.Entry {
        guard entries.count < maxFields else { throw .tooManyFields(limit: maxFields) }
        let entry = try Self.parseField(storage.span, line)
        if entries.isEmpty { entries.reserveCapacity(12) }
        entries.append(entry)
        return entry
    }

    /// Joins a folded line to the field before it: the line end and the white space that begins the line become spaces (RFC 9112 §5.2).
    ///
    /// - Returns: The field with its longer value; nil if the line is not folded or there is no field before it.
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
