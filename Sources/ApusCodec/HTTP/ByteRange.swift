/// The part of a representation that a `Range` field asks for (RFC 9110 §14).
package enum ByteRange: Equatable {
    /// All of it: there is no field, its unit is none we know, it is malformed, or it asks for several parts, which we may answer with all.
    case whole
    case part(Range<Int>)
    /// No byte of it is there: 416.
    case unsatisfiable

    /// - Parameters:
    ///   - field: the value of `Range`.
    ///   - count: bytes that the whole has.
    package init(_ field: String?, of count: Int) {
        self = .whole
        guard let field, let equals = field.firstIndex(of: "="), field[..<equals].lowercased() == "bytes" else { return }
        // Empty list elements are ignored (RFC 9110 §5.6.1.2).
        let specifiers = field[field.index(after: equals)...].filter { $0 != " " && $0 != "\t" }.split(separator: ",")
        guard specifiers.count == 1, let text = specifiers.first else { return }
        let ends = text.split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, ends.allSatisfy({ $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }) else { return }
        // What does not fit lies behind every end.
        let (first, last) = (Self.number(ends[0]), Self.number(ends[1]))
        switch (first, last) {
        case (nil, nil): return
        case (let first?, let last):
            let last = min(last ?? .max, count - 1)
            if first >= count { self = .unsatisfiable } else if first <= last { self = .part(first..<last + 1) }
        case (nil, let suffix?):
            // A suffix longer than the whole is the whole, of nothing too: no part of nothing can be described (§14.1.2).
            if suffix == 0 { self = .unsatisfiable } else if count > 0 { self = .part(max(0, count - suffix)..<count) }
        }
    }

    private static func number(_ digits: some StringProtocol) -> Int? { digits.isEmpty ? nil : Int(digits) ?? .max }
}
