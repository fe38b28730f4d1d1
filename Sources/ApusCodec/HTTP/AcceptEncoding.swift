/// A content coding that responses may have (RFC 9110 §8.4.1, RFC 7932, RFC 8878).
package enum ContentCoding: String, Hashable, Sendable, CaseIterable {
    case br
    case zstd
    case gzip
    /// No coding.
    case identity

    /// The position among all codings.
    fileprivate var index: Int {
        switch self {
        case .br: 0
        case .zstd: 1
        case .gzip: 2
        case .identity: 3
        }
    }
}

/// The content codings that a client accepts, and how much it prefers each (RFC 9110 §12.5.3).
package struct AcceptEncoding: Hashable, Sendable {
    /// Weights in thousandths by the codings' indices; -1 for a coding that is not listed.
    private var weights = SIMD4<Int16>(repeating: -1)
    /// The weight of `*`: codings that are not listed.
    private var weightOfOthers: Int?

    /// Reads all `Accept-Encoding` fields of a request. Elements that are malformed or name other
    /// codings are ignored; of a repeated coding, the first counts.
    ///
    /// Without the field, only `identity` is acceptable: the RFC allows any coding then, but such a
    /// client probably supports none.
    package init(_ fields: HTTPFields) {
        var index = fields.firstIndex(of: "accept-encoding")
        while let found = index {
            read(fields.valueBytes(at: found))
            index = fields.nextIndex(of: "accept-encoding", after: found)
        }
    }

    private mutating func read(_ bytes: Span<UInt8>) {
        var rest: Range<Int>? = 0..<bytes.count
        while let element = bytes.nextListElement(&rest) {
            let semicolon = bytes.firstIndex(of: UInt8(ascii: ";"), in: element) ?? element.upperBound
            let name = bytes.trimmed(element.lowerBound..<semicolon)
            guard let weight = Self.weight(bytes, semicolon..<element.upperBound) else { continue }
            if name.count == 1, bytes[name.lowerBound] == UInt8(ascii: "*") {
                weightOfOthers = weightOfOthers ?? weight
            } else if let coding = Self.coding(bytes, name) {
                if weights[coding.index] < 0 { weights[coding.index] = Int16(weight) }
            }
        }
    }

    private static func coding(_ bytes: Span<UInt8>, _ name: Range<Int>) -> ContentCoding? {
        // "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"" (§8.4.1.3).
        if bytes.matches(name, lowercase: "x-gzip") { return .gzip }
        for coding in ContentCoding.allCases where bytes.matches(name, lowercase: coding.rawValue) { return coding }
        return nil
    }

    /// The weight after a coding: nothing, or `;q=` and 0 to 1 with at most three digits after the
    /// point (§12.4.2), in thousandths; nil for any other text.
    private static func weight(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Int? {
        guard !range.isEmpty else { return 1000 }
        // Without the semicolon.
        let text = bytes.trimmed(range.lowerBound + 1..<range.upperBound)
        guard (3...7).contains(text.count), bytes.matches(text.lowerBound..<text.lowerBound + 2, lowercase: "q=") else { return nil }
        let digits = text.lowerBound + 2..<text.upperBound
        var weight = 0
        var unit = 1000
        for index in digits {
            if index == digits.lowerBound + 1 {
                guard bytes[index] == UInt8(ascii: ".") else { return nil }
            } else {
                guard ByteClass.isDigit(bytes[index]) else { return nil }
                weight += Int(bytes[index] - 0x30) * unit
                unit /= 10
            }
        }
        return weight <= 1000 ? weight : nil
    }

    /// How much the client prefers a coding: 1 to 1000, or 0 if it does not accept it.
    package func weight(of coding: ContentCoding) -> Int {
        if weights[coding.index] >= 0 { return Int(weights[coding.index]) }
        if let weightOfOthers { return weightOfOthers }
        // Acceptable, but less than each one that is listed.
        return coding == .identity ? 1 : 0
    }

    /// The coding for a response.
    ///
    /// - Parameter available: The codings that the server has, the best one for it first. It
    ///   decides between codings that the client prefers equally.
    /// - Returns: The available coding that the client prefers; nil if it accepts none of them,
    ///   which may be answered with 406 or with `identity`.
    package func preferred(of available: [ContentCoding]) -> ContentCoding? {
        var best: (coding: ContentCoding, weight: Int)?
        for coding in available {
            let weight = weight(of: coding)
            if weight > best?.weight ?? 0 { best = (coding, weight) }
        }
        return best?.coding
    }
}
