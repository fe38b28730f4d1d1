/// Decodes a body of the type `multipart/form-data` from a byte stream without copying its content
/// (RFC 7578, RFC 2046 §5.1).
///
/// Each byte is looked at a bounded number of times, however the input is cut. At most the head of
/// one part is kept. The decoder must not be used after an error.
package struct MultipartDecoder: Sendable {
    /// How large the parts may be, besides the limit of the body.
    package struct Limits: Hashable, Sendable {
        /// Parts of a body.
        package var maxParts: Int
        /// Bytes of the head of a part, and of what precedes the first part.
        package var maxHeadBytes: Int
        /// Fields in the head of a part.
        package var maxFields: Int

        package init(maxParts: Int = 1000, maxHeadBytes: Int = 16_384, maxFields: Int = 32) {
            self.maxParts = maxParts
            self.maxHeadBytes = maxHeadBytes
            self.maxFields = maxFields
        }
    }

    /// The next part of the body.
    package enum Event: Sendable {
        /// A part begins.
        case part(MultipartPart)
        /// Content of the part, a non-empty range of the input.
        case data(Range<Int>)
        /// Content of the part from earlier inputs, which looked like the beginning of a boundary:
        /// at most 73 bytes.
        case heldBack([UInt8])
        /// The part is complete.
        case endOfPart
        /// The body is complete. What follows is ignored.
        case end
    }

    private enum State {
        /// Before the first boundary, after so many bytes.
        case preamble(Int)
        case head
        case content
        /// After a boundary and white space, if `isPadded`.
        case afterBoundary(isPadded: Bool)
        /// After a boundary and one hyphen.
        case afterHyphen
        /// After a boundary and CR.
        case afterCarriageReturn
        case done
    }

    private let limits: Limits
    /// CRLF, two hyphens and the boundary. A CR is only its first byte, so that a search goes on
    /// where a comparison failed.
    private let delimiter: [UInt8]
    private var state = State.preamble(0)
    /// How many bytes of `delimiter` precede the input. At the beginning of the body and of a
    /// part's content, a CRLF is already behind.
    private var matched = 2
    /// How many of these are neither content nor in the preamble.
    private var uncounted = 2
    private var head = HeadReader()
    private var parts = 0

    package init(boundary: MultipartBoundary, limits: Limits = Limits()) {
        self.limits = limits
        delimiter = Array("\r\n--".utf8) + boundary.bytes
    }

    /// Whether `end` has been returned.
    package var isComplete: Bool {
        if case .done = state { return true }
        return false
    }

    /// Ends the body: no more bytes arrive.
    ///
    /// - Throws: `MultipartViolation.cutShort` unless `end` has been returned.
    package func finish() throws(MultipartViolation) {
        guard isComplete else { throw .cutShort }
    }

    /// The next event in `bytes` from `offset` on, which moves past it. Nil: all bytes are consumed
    /// and more are needed, or `end` was returned.
    ///
    /// - Throws: `MultipartViolation`.
    package mutating func next(_ bytes: Span<UInt8>, from offset: inout Int) throws(MultipartViolation) -> Event? {
        while offset < bytes.count {
            switch state {
            case .preamble(let count):
                if let event = search(bytes, &offset) {
                    try skipPreamble(event, after: count)
                }
            case .content:
                if let event = search(bytes, &offset) {
                    if case .endOfPart = event { state = .afterBoundary(isPadded: false) }
                    return event
                }
            case .head:
                if let part = try readHead(bytes, &offset) { return .part(part) }
            case .afterBoundary, .afterHyphen, .afterCarriageReturn:
                offset += 1
                if try step(bytes[offset - 1]) { return .end }
            case .done:
                offset = bytes.count
            }
        }
        return nil
    }

    /// Searches the delimiter: content before it, or `endOfPart` behind it. Nil: the input is
    /// consumed.
    private mutating func search(_ bytes: Span<UInt8>, _ offset: inout Int) -> Event? {
        let start = offset
        if matched > 0 {
            let before = matched
            let end = match(bytes, from: start)
            if matched == delimiter.count {
                offset = end
                matched = 0
                return .endOfPart
            }
            if end == bytes.count {
                offset = end
                return nil
            }
            // What was matched in this input is searched again: it is content, too.
            matched = 0
            if before > uncounted { return .heldBack(Array(delimiter[uncounted..<before])) }
        }
        uncounted = 0
        var index = start
        while let candidate = bytes.firstIndex(of: ByteClass.carriageReturn, in: index..<bytes.count) {
            index = match(bytes, from: candidate)
            let isPossible = matched == delimiter.count || index == bytes.count
            if isPossible, candidate == start {
                offset = index
                guard matched == delimiter.count else { return nil }
                matched = 0
                return .endOfPart
            }
            matched = 0
            if isPossible {
                // Found again by the next call.
                offset = candidate
                return .data(start..<candidate)
            }
        }
        offset = bytes.count
        return .data(start..<bytes.count)
    }

    /// Compares the input with the rest of the delimiter and counts in `matched`.
    ///
    /// - Returns: The index after the last byte that is equal.
    private mutating func match(_ bytes: Span<UInt8>, from start: Int) -> Int {
        var index = start
        while index < bytes.count, matched < delimiter.count, bytes[index] == delimiter[matched] {
            matched += 1
            index += 1
        }
        return index
    }

    private mutating func skipPreamble(_ event: Event, after count: Int) throws(MultipartViolation) {
        var count = count
        switch event {
        case .data(let range): count += range.count
        case .heldBack(let bytes): count += bytes.count
        case .part, .endOfPart, .end:
            state = .afterBoundary(isPadded: false)
            return
        }
        guard count <= limits.maxHeadBytes else { throw .boundaryNotFound(limit: limits.maxHeadBytes) }
        state = .preamble(count)
    }

    /// Processes one byte behind a boundary: white space and CRLF before a part, or two hyphens
    /// after the last one (RFC 2046 §5.1.1).
    ///
    /// - Returns: Whether the body is complete.
    private mutating func step(_ byte: UInt8) throws(MultipartViolation) -> Bool {
        switch (state, byte) {
        case (.afterBoundary(isPadded: false), UInt8(ascii: "-")): state = .afterHyphen
        case (.afterBoundary, ByteClass.space), (.afterBoundary, ByteClass.tab): state = .afterBoundary(isPadded: true)
        case (.afterBoundary, ByteClass.carriageReturn): state = .afterCarriageReturn
        case (.afterHyphen, UInt8(ascii: "-")):
            state = .done
            return true
        case (.afterCarriageReturn, ByteClass.lineFeed):
            guard parts < limits.maxParts else { throw .tooManyParts(limit: limits.maxParts) }
            parts += 1
            state = .head
        case (_, _): throw .boundaryNotTerminated
        }
        return false
    }

    private mutating func readHead(_ bytes: Span<UInt8>, _ offset: inout Int) throws(MultipartViolation) -> MultipartPart? {
        while true {
            let line: HeadReader.Line
            do { line = try head.readLine(bytes, &offset, limit: limits.maxHeadBytes) } catch { throw .headMalformed(error) }
            switch line {
            case .incomplete: return nil
            case .limitReached: throw .headTooLarge(limit: limits.maxHeadBytes)
            case .complete(let range) where !range.isEmpty:
                do { _ = try head.addField(range, maxFields: limits.maxFields) } catch { throw .headMalformed(error) }
            case .complete:
                let part = try MultipartPart(HTTPFields(storage: head.storage, entries: head.entries))
                head = HeadReader()
                state = .content
                // RFC 2046 §5.1.1: a part without content may end at the CRLF of its empty line.
                (matched, uncounted) = (2, 2)
                return part
            }
        }
    }
}
