/// The cookies of a request (RFC 6265bis §4.2).
///
/// Names and values are as the client sent them: nothing is decoded, and quotes around a value are
/// a part of it. What is not `name=value` is left out. A name may occur more than once, for other
/// paths or domains; the client sends the most specific one first.
public struct Cookies: Sendable {
    private let pairs: [(name: String, value: String)]

    /// The cookies in all `Cookie` fields of a request.
    public init(_ fields: HTTPFields) {
        var pairs: [(name: String, value: String)] = []
        var index = fields.firstIndex(of: "cookie")
        while let found = index {
            Self.append(fields.valueBytes(at: found), to: &pairs)
            index = fields.nextIndex(of: "cookie", after: found)
        }
        self.pairs = pairs
    }

    private static func append(_ bytes: Span<UInt8>, to pairs: inout [(name: String, value: String)]) {
        var start = 0
        while start < bytes.count {
            let end = bytes.firstIndex(of: UInt8(ascii: ";"), in: start..<bytes.count) ?? bytes.count
            if let equals = bytes.firstIndex(of: UInt8(ascii: "="), in: start..<end) {
                let name = bytes.trimmed(start..<equals)
                // A cookie without a name could pretend to have any: `=__Host-id=1`.
                if !name.isEmpty { pairs.append((text(bytes, name), text(bytes, bytes.trimmed(equals + 1..<end)))) }
            }
            start = end + 1
        }
    }

    private static func text(_ bytes: Span<UInt8>, _ range: Range<Int>) -> String {
        var copy: [UInt8] = []
        copy.reserveCapacity(range.count)
        for index in range { copy.append(bytes[index]) }
        return String(decoding: copy, as: UTF8.self)
    }

    /// The number of cookies.
    public var count: Int { pairs.count }

    /// Whether there are no cookies.
    public var isEmpty: Bool { pairs.isEmpty }

    /// The value of the first cookie `name`, with regard to case; nil without one.
    public subscript(name: String) -> String? { pairs.first { $0.name == name }?.value }
}

extension Cookies: Sequence {
    /// An iterator over names and values, in the order of the fields.
    public func makeIterator() -> IndexingIterator<[(name: String, value: String)]> { pairs.makeIterator() }

    /// The same as `count`.
    public var underestimatedCount: Int { pairs.count }
}
