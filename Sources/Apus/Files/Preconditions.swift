import ApusCodec
import ApusPlatform

/// The validators of a file, and the evaluation of conditional requests (RFC 9110 §8.8, §13).
struct Preconditions {
    /// A strong entity tag; nil if the file's time is not reliable.
    let tag: String?
    /// Last-Modified in seconds since 1970, at most now (§8.8.2.1); nil if not reliable.
    let modified: Int?

    /// Placeholder times: archives and package stores give every version of a file time 0 or 1.
    private static let noTime = 0...1

    /// - Parameter now: seconds since 1970.
    init(_ file: FileInformation, now: Int) {
        guard !Self.noTime.contains(file.modified) else {
            (tag, modified) = (nil, nil)
            return
        }
        // The inode differs for another file of the same size and time. The change time moves with
        // every write and cannot be set.
        let parts = [
            file.modified, file.modifiedNanoseconds, file.size, Int(truncatingIfNeeded: file.inode), file.changed, file.changedNanoseconds,
        ]
        tag = "\"" + parts.map { String($0, radix: 16) }.joined(separator: "-") + "\""
        modified = min(file.modified, now)
    }

    enum Verdict: Equatable {
        case met
        /// 304: the client has this version.
        case notModified
        /// 412: the client requires another version.
        case failed
    }

    /// Evaluates the preconditions of a GET or HEAD request in the order of §13.2.2.
    func evaluate(_ fields: HTTPFields) -> Verdict {
        if let wanted = fields["if-match"] {
            if !names(wanted, weakly: false) { return .failed }
        } else if let seconds = fields["if-unmodified-since"].flatMap({ HTTPDate.parse($0) }), let modified, modified > seconds {
            return .failed
        }
        if let known = fields["if-none-match"] { return names(known, weakly: true) ? .notModified : .met }
        if let seconds = fields["if-modified-since"].flatMap({ HTTPDate.parse($0) }), let modified, modified <= seconds {
            return .notModified
        }
        return .met
    }

    /// Whether `Range` applies: `If-Range` limits it to the version that the client has a part of
    /// (§13.1.5).
    func allowsRange(_ fields: HTTPFields) -> Bool {
        guard let condition = fields["if-range"] else { return true }
        if let tag, condition == tag { return true }
        guard let modified, let date = HTTPDate.parse(condition) else { return false }
        return date == modified
    }

    /// Whether a list of entity tags (§8.8.3, §13.1.1) contains this version's; `*` alone matches
    /// any. Empty elements are ignored; a malformed list counts up to its error.
    private func names(_ list: String, weakly: Bool) -> Bool {
        var rest = Array(list.utf8)[...]
        let (blanks, quotationMark): ([UInt8], UInt8) = ([0x20, 0x09], 0x22)
        while let last = rest.last, blanks.contains(last) { rest.removeLast() }
        rest = rest.drop { blanks.contains($0) }
        if rest.elementsEqual("*".utf8) { return true }
        while true {
            rest = rest.drop { blanks.contains($0) || $0 == UInt8(ascii: ",") }
            let isWeak = rest.starts(with: "W/".utf8)
            if isWeak { rest = rest.dropFirst(2) }
            guard rest.first == quotationMark, let end = rest.dropFirst().firstIndex(of: quotationMark) else { return false }
            if weakly || !isWeak, let tag, rest[...end].elementsEqual(tag.utf8) { return true }
            rest = rest[(end + 1)...].drop { blanks.contains($0) }
            guard rest.first == UInt8(ascii: ",") else { return false }
        }
    }
}
