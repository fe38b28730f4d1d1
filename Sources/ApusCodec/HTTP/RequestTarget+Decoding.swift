extension RequestTarget {
    /// Decodes `%xx` once and removes dot segments (RFC 3986 §2.1, §5.2.4) in a path that starts
    /// with a slash, in linear time.
    ///
    /// - Throws: `HTTPViolation.targetMalformed` for an invalid escape, `%00`, `%2F`, `%5C`, `..`
    ///   above the root, or bytes that are not UTF-8.
    static func decodePath(_ bytes: Span<UInt8>, _ path: Range<Int>) throws(HTTPViolation) -> String {
        var output: [UInt8] = []
        output.reserveCapacity(path.count)
        // Where each segment starts in `output`, at its slash, for `..` to return to.
        var starts: [Int] = []
        var index = path.lowerBound
        while index < path.upperBound {
            let start = output.count
            output.append(UInt8(ascii: "/"))
            index += 1
            while index < path.upperBound, bytes[index] != UInt8(ascii: "/") {
                output.append(try decodedByte(bytes, &index, end: path.upperBound))
            }
            let segment = output[(start + 1)...]
            switch segment.count {
            case 1 where segment.allSatisfy { $0 == UInt8(ascii: ".") }:
                output.removeSubrange(start...)
            case 2 where segment.allSatisfy { $0 == UInt8(ascii: ".") }:
                guard let parent = starts.popLast() else { throw .targetMalformed(.leavesRoot) }
                output.removeSubrange(parent...)
            default:
                starts.append(start)
                continue
            }
            // A dot segment at the end denotes a directory.
            if index == path.upperBound { output.append(UInt8(ascii: "/")) }
        }
        guard let text = String(validating: output, as: UTF8.self) else { throw .targetMalformed(.notUTF8) }
        return text
    }

    /// One byte of a segment; an escape counts as one byte. Moves `index` past it.
    private static func decodedByte(_ bytes: Span<UInt8>, _ index: inout Int, end: Int) throws(HTTPViolation) -> UInt8 {
        let byte = bytes[index]
        guard byte == UInt8(ascii: "%") else {
            index += 1
            return byte
        }
        guard index + 2 < end, let high = ByteClass.hexValue(bytes[index + 1]), let low = ByteClass.hexValue(bytes[index + 2])
        else {
            throw .targetMalformed(.percentEncodingMalformed)
        }
        index += 3
        switch high << 4 | low {
        case 0: throw .targetMalformed(.encodedNull)
        case UInt8(ascii: "/"): throw .targetMalformed(.encodedSlash)
        case UInt8(ascii: "\\"): throw .targetMalformed(.backslash)
        case let decoded: return decoded
        }
    }

    /// The query as names and values: `&` separates, the first `=` ends a name, `+` is a space,
    /// `%xx` is decoded (the URL standard's `application/x-www-form-urlencoded`).
    ///
    /// Nothing is refused: an invalid escape is kept as it is, and bytes that are not UTF-8 become
    /// U+FFFD. Empty pairs are left out.
    package var query: [(name: String, value: String)] {
        guard let range = parts.query else { return [] }
        var pairs: [(name: String, value: String)] = []
        for piece in storage[range].split(separator: UInt8(ascii: "&")) {
            let equals = piece.firstIndex(of: UInt8(ascii: "=")) ?? piece.endIndex
            pairs.append((Self.decodeQuery(piece[..<equals]), Self.decodeQuery(piece[equals...].dropFirst())))
        }
        return pairs
    }

    private static func decodeQuery(_ piece: ArraySlice<UInt8>) -> String {
        var output: [UInt8] = []
        output.reserveCapacity(piece.count)
        var index = piece.startIndex
        while index < piece.endIndex {
            let byte = piece[index]
            if byte == UInt8(ascii: "%"), index + 2 < piece.endIndex, let high = ByteClass.hexValue(piece[index + 1]),
                let low = ByteClass.hexValue(piece[index + 2])
            {
                output.append(high << 4 | low)
                index += 3
            } else {
                output.append(byte == UInt8(ascii: "+") ? ByteClass.space : byte)
                index += 1
            }
        }
        return String(decoding: output, as: UTF8.self)
    }
}
