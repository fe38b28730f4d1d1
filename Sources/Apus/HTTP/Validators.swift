import ApusCodec

/// What tells one version of a file from another, and what requests say about it (RFC 9110 §8.8, §13).
struct Validators {
    /// A strong entity tag.
    let tag: String
    /// Seconds since 1970.
    let modified: Int

    enum Verdict: Equatable {
        case met
        /// 304: the client has this version.
        case notModified
        /// 412: the client wants another version, or none.
        case failed
    }

    /// In the order of §13.2.2. Requests other than GET and HEAD do not get here.
    func judge(_ fields: HTTPFields) -> Verdict {
        if let wanted = fields["if-match"] {
            if !names(wanted, weakly: false) { return .failed }
        } else if let seconds = fields["if-unmodified-since"].flatMap({ HTTPDate.parse($0) }), modified > seconds {
            return .failed
        }
        if let known = fields["if-none-match"] { return names(known, weakly: true) ? .notModified : .met }
        if let seconds = fields["if-modified-since"].flatMap({ HTTPDate.parse($0) }), modified <= seconds { return .notModified }
        return .met
    }

    /// Whether `Range` counts: with `If-Range` only for the version that the client has a part of (§13.1.5).
    func allowsRange(_ fields: HTTPFields) -> Bool {
        guard let condition = fields["if-range"] else { return true }
        return condition == tag || HTTPDate.parse(condition) == modified
    }

    private func names(_ list: String, weakly: Bool) -> Bool {
        list.split(separator: ",").contains { candidate in
            var text = candidate.drop { $0 == " " || $0 == "\t" }
            while text.last == " " || text.last == "\t" { text.removeLast() }
            if text == "*" { return true }
            if text.hasPrefix("W/") {
                guard weakly else { return false }
                text = text.dropFirst(2)
            }
            return text == tag
        }
    }
}
