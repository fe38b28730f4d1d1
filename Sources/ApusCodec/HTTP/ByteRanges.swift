/// The parts of a representation that a `Range` field requests (RFC 9110 §14).
package enum ByteRanges: Equatable {
    /// All of it: without a field, with an unknown unit, a malformed value, or with ranges that
    /// cost more than all of it (§14.2).
    case whole
    case part(Range<Int>)
    /// Two parts or more, without overlaps, in the order in which they were requested (§15.3.7.2).
    case parts([Range<Int>])
    /// No byte of any range exists: 416.
    case unsatisfiable

    /// Ranges that are requested at most; more are answered with the whole. Clients that read a
    /// document in pieces request a few.
    package static var defaultMaxRanges: Int { 16 }
    /// Bytes of a part's head, about. Ranges with a smaller gap are joined (§15.3.7.2).
    static var overheadBytes: Int { 80 }

    /// - Parameters:
    ///   - field: The value of `Range`.
    ///   - count: Bytes of the representation.
    ///   - maxRanges: More ranges than this are answered with the whole.
    package init(_ field: String?, of count: Int, maxRanges: Int = Self.defaultMaxRanges) {
        self = .whole
        guard let field, let equals = field.utf8.firstIndex(of: UInt8(ascii: "=")), field[..<equals].lowercased() == "bytes",
            let specifiers = Self.specifiers(field[equals...].dropFirst(), maxRanges: maxRanges), !specifiers.isEmpty
        else { return }
        let ranges = specifiers.map { $0.range(of: count) }
        // A suffix of an empty representation means all of it: no part of an empty one can be
        // described (§14.1.2).
        if count == 0, specifiers.contains(where: { $0.isPositiveSuffix }) { return }
        let satisfiable = ranges.compactMap { $0 }
        guard !satisfiable.isEmpty else {
            self = .unsatisfiable
            return
        }
        // §14.2: more than two overlapping ranges are "indications of either a broken client or a
        // deliberate denial-of-service attack".
        guard Self.overlaps(satisfiable) <= 1 else { return }
        let parts = Self.joined(satisfiable)
        if parts.count == 1 {
            self = .part(parts[0])
        } else if parts.reduce(0, { $0 + $1.count + Self.overheadBytes }) < count {
            self = .parts(parts)
        }
    }

    /// One element of the list: `0-4`, `10-` or `-5`.
    private struct Specifier {
        let first: Int?
        let last: Int?

        var isPositiveSuffix: Bool { first == nil && last != 0 }

        /// The bytes that exist; nil if none do.
        func range(of count: Int) -> Range<Int>? {
            guard let first else {
                let suffix = min(last ?? 0, count)
                return suffix > 0 ? count - suffix..<count : nil
            }
            guard first < count else { return nil }
            return first..<min(last ?? .max, count - 1) + 1
        }
    }

    /// - Returns: nil if the list is malformed or has more than `maxRanges` elements.
    private static func specifiers(_ list: Substring, maxRanges: Int) -> [Specifier]? {
        var specifiers: [Specifier] = []
        // Empty list elements are ignored (RFC 9110 §5.6.1.2).
        for element in list.utf8.split(separator: UInt8(ascii: ",")) {
            let text = element.filter { !ByteClass.isBlank($0) }
            if text.isEmpty { continue }
            let ends = text.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
            guard specifiers.count < maxRanges, ends.count == 2, ends.allSatisfy({ $0.allSatisfy(ByteClass.isDigit) }) else { return nil }
            let specifier = Specifier(first: number(ends[0]), last: number(ends[1]))
            switch (specifier.first, specifier.last) {
            case (nil, nil): return nil
            case (let first?, let last?) where first > last: return nil
            case (_, _): specifiers.append(specifier)
            }
        }
        return specifiers
    }

    /// A number that overflows is larger than any length.
    private static func number(_ digits: ArraySlice<UInt8>) -> Int? {
        digits.isEmpty ? nil : Int(String(decoding: digits, as: UTF8.self)) ?? .max
    }

    /// How many pairs of ranges overlap.
    private static func overlaps(_ ranges: [Range<Int>]) -> Int {
        var count = 0
        for (index, range) in ranges.enumerated() {
            for other in ranges[..<index] where range.overlaps(other) { count += 1 }
        }
        return count
    }

    /// Joins ranges that overlap or have a gap that is not worth a part. Each is at the place of
    /// the first one in it.
    private static func joined(_ ranges: [Range<Int>]) -> [Range<Int>] {
        var joined: [(place: Int, range: Range<Int>)] = []
        for (place, range) in ranges.enumerated().sorted(by: { $0.element.lowerBound < $1.element.lowerBound }) {
            if let last = joined.last, range.lowerBound - last.range.upperBound < overheadBytes {
                let union = last.range.lowerBound..<max(last.range.upperBound, range.upperBound)
                joined[joined.count - 1] = (min(last.place, place), union)
            } else {
                joined.append((place, range))
            }
        }
        return joined.sorted { $0.place < $1.place }.map(\.range)
    }
}

/// The framing of a body of the type `multipart/byteranges` (RFC 9110 §14.6): a head before the
/// bytes of each part, and an end.
package struct ByteRangesBody: Sendable {
    /// The parts, of which the server sends the bytes.
    package let parts: [Range<Int>]
    /// Before each part: a boundary and the part's fields.
    private let heads: [[UInt8]]
    /// After the last part.
    package let end: [UInt8]
    /// The value of `Content-Type` of the response.
    package let contentType: String

    /// - Parameters:
    ///   - parts: Ranges of the representation that are not empty.
    ///   - count: Bytes of the representation.
    ///   - contentType: The media type of the representation, a valid value of a field.
    ///   - boundary: A text that the representation does not contain, such as a random one.
    package init(_ parts: [Range<Int>], of count: Int, contentType: String?, boundary: MultipartBoundary) {
        precondition(contentType?.utf8.allSatisfy { !ByteClass.isControl($0) } != false, "a media type is a valid field value")
        self.parts = parts
        heads = parts.map { part in
            var head = "\r\n--\(boundary)\r\n"
            if let contentType { head += "Content-Type: \(contentType)\r\n" }
            head += "Content-Range: bytes \(part.lowerBound)-\(part.upperBound - 1)/\(count)\r\n\r\n"
            return Array(head.utf8)
        }
        end = Array("\r\n--\(boundary)--\r\n".utf8)
        let isToken = boundary.bytes.allSatisfy(ByteClass.isToken)
        self.contentType = "multipart/byteranges; boundary=" + (isToken ? "\(boundary)" : "\"\(boundary)\"")
    }

    /// Parts with a random boundary.
    package init(_ parts: [Range<Int>], of count: Int, contentType: String?) {
        let text = String(UInt64.random(in: .min ... .max), radix: 36) + String(UInt64.random(in: .min ... .max), radix: 36)
        do throws(MultipartViolation) {
            self.init(parts, of: count, contentType: contentType, boundary: try MultipartBoundary(text))
        } catch {
            preconditionFailure("letters and digits are a boundary: \(error)")
        }
    }

    /// The bytes to send before a part.
    package func head(of part: Int) -> [UInt8] { heads[part] }

    /// The length of the body: all heads, the bytes of the parts, and the end.
    package var totalBytes: Int { heads.reduce(end.count) { $0 + $1.count } + parts.reduce(0) { $0 + $1.count } }
}
