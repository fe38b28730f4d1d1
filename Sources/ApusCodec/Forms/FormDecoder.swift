/// Decodes a form as browsers send it: `application/x-www-form-urlencoded` (URL standard §5.1).
///
/// `&` separates pairs, the first `=` ends a name, `+` is a space, `%xx` is decoded. Nothing is
/// refused but what exceeds a limit: an invalid escape is kept as it is, bytes that are not UTF-8
/// become U+FFFD, and empty pairs are left out.
package struct FormDecoder: Sendable {
    /// How large a form may be.
    package struct Limits: Hashable, Sendable {
        /// Encoded bytes.
        package var maxBytes: Int
        /// Pairs of a name and a value.
        package var maxPairs: Int

        package init(maxBytes: Int = 1 << 20, maxPairs: Int = 1000) {
            self.maxBytes = maxBytes
            self.maxPairs = maxPairs
        }
    }

    private let limits: Limits
    private var pairs: [(name: String, value: String)] = []
    /// The encoded bytes of the pair that is not complete.
    private var pending: [UInt8] = []
    private var receivedBytes = 0

    package init(limits: Limits = Limits()) { self.limits = limits }

    /// The pairs of a whole form, in their order.
    ///
    /// - Throws: `FormViolation`.
    package static func decode(
        _ bytes: Span<UInt8>, limits: Limits = Limits()
    ) throws(FormViolation) -> [(name: String, value: String)] {
        var decoder = FormDecoder(limits: limits)
        try decoder.receive(bytes)
        return try decoder.finish()
    }

    /// Takes the next bytes of the form.
    ///
    /// - Throws: `FormViolation`. The decoder must not be used after it.
    package mutating func receive(_ bytes: Span<UInt8>) throws(FormViolation) {
        guard bytes.count <= limits.maxBytes - receivedBytes else { throw .tooLarge(limit: limits.maxBytes) }
        receivedBytes += bytes.count
        for index in 0..<bytes.count {
            if bytes[index] == UInt8(ascii: "&") { try endPair() } else { pending.append(bytes[index]) }
        }
    }

    /// The pairs of the form, which has ended, in their order.
    ///
    /// - Throws: `FormViolation.tooManyPairs`.
    package mutating func finish() throws(FormViolation) -> [(name: String, value: String)] {
        try endPair()
        return pairs
    }

    private mutating func endPair() throws(FormViolation) {
        guard !pending.isEmpty else { return }
        guard pairs.count < limits.maxPairs else { throw .tooManyPairs(limit: limits.maxPairs) }
        let count = pending.count
        let equals = pending.span.firstIndex(of: UInt8(ascii: "="), in: 0..<count) ?? count
        let name = Self.decode(pending.span, 0..<equals)
        let value = Self.decode(pending.span, min(equals + 1, count)..<count)
        pairs.append((name, value))
        pending.removeAll(keepingCapacity: true)
    }

    /// A name or a value.
    private static func decode(_ bytes: Span<UInt8>, _ range: Range<Int>) -> String {
        var output: [UInt8] = []
        output.reserveCapacity(range.count)
        var index = range.lowerBound
        while index < range.upperBound {
            let byte = bytes[index]
            if byte == UInt8(ascii: "%"), index + 2 < range.upperBound, let high = ByteClass.hexValue(bytes[index + 1]),
                let low = ByteClass.hexValue(bytes[index + 2])
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

/// Why a form is refused.
package enum FormViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// More encoded bytes than the limit.
    case tooLarge(limit: Int)
    /// More pairs than the limit.
    case tooManyPairs(limit: Int)

    /// The status of the response.
    package var status: HTTPStatus { .contentTooLarge }

    /// What is expected; contains none of the peer's text.
    package var description: String {
        switch self {
        case .tooLarge(let limit): "expected a form of at most \(limit) bytes, got more"
        case .tooManyPairs(let limit): "expected at most \(limit) fields in a form, got more"
        }
    }
}
