/// A parsed request target (RFC 9112 §3.2).
///
/// Visible ASCII without `#` is allowed, in a path also without `\`. Characters that browsers send
/// unencoded against RFC 3986 (`|`, `{`, `"`, …) are accepted. Dot segments are removed (RFC 3986
/// §5.2.4), also encoded ones; a path that leaves the root is refused.
package struct RequestTarget: Sendable {
    /// The four forms of RFC 9112 §3.2.
    package enum Form: Sendable, Hashable {
        /// `/path?query`.
        case origin
        /// `http://host/path?query`.
        case absolute
        /// `host:port`, with CONNECT only.
        case authority
        /// `*`, with OPTIONS only.
        case asterisk
    }

    /// The ranges of the parts in the parsed bytes.
    struct Parts: Equatable, Sendable {
        var form: Form
        /// Host and port, in the absolute and the authority form.
        var authority: Range<Int>?
        /// The path as written; empty in the authority form and after an absolute form without one.
        var path: Range<Int>
        /// The part after the first `?`.
        var query: Range<Int>?
        /// The decoded path, where it differs from the bytes in `path`.
        var decodedPath: String?
    }

    let storage: [UInt8]
    let parts: Parts

    init(storage: [UInt8], parts: Parts) {
        self.storage = storage
        self.parts = parts
    }

    /// Parses `target` as in a request line with `method`.
    ///
    /// - Throws: `HTTPViolation.targetMalformed`.
    package init(parsing target: [UInt8], method: HTTPMethod = .get) throws(HTTPViolation) {
        parts = try Self.parse(target.span, 0..<target.count, method: method)
        storage = target
    }

    /// Parses the UTF-8 bytes of `target` as in a request line with `method`.
    ///
    /// - Throws: `HTTPViolation.targetMalformed`.
    package init(parsing target: String, method: HTTPMethod = .get) throws(HTTPViolation) {
        try self.init(parsing: Array(target.utf8), method: method)
    }

    package var form: Form { parts.form }

    /// Host and port as written in the absolute or authority form; nil in the others.
    package var authority: String? { parts.authority.map(text) }

    /// The path, percent-decoded once, without dot segments; starts with `/`. `*` in the asterisk
    /// form, empty in the authority form.
    ///
    /// Empty segments (`//`) and a trailing slash are kept. The path may contain any character
    /// except NUL and `\`, including line ends.
    package var path: String {
        if let decoded = parts.decodedPath { return decoded }
        return parts.path.isEmpty && parts.form == .absolute ? "/" : text(parts.path)
    }

    /// The non-empty segments of `path`. None is `.` or `..`, and none contains a slash, a
    /// backslash or a NUL.
    package var segments: [String] {
        switch parts.form {
        case .origin, .absolute: path.utf8.split(separator: UInt8(ascii: "/")).map { String(Substring($0)) }
        case .authority, .asterisk: []
        }
    }

    /// The part after the first `?`, as written; nil without one.
    package var queryString: String? { parts.query.map(text) }

    private func text(_ range: Range<Int>) -> String { String(decoding: storage[range], as: UTF8.self) }
}

extension RequestTarget {
    /// Finds and validates the parts of the target in `range`.
    static func parse(_ bytes: Span<UInt8>, _ range: Range<Int>, method: HTTPMethod) throws(HTTPViolation) -> Parts {
        guard let first = range.first else { throw .targetMalformed(.empty) }
        if method == .connect {
            return try parseAuthorityForm(bytes, range)
        }
        switch bytes[first] {
        case UInt8(ascii: "/"):
            var parts = Parts(form: .origin, path: range)
            try parsePathAndQuery(bytes, range, &parts)
            return parts
        case UInt8(ascii: "*") where range.count == 1:
            guard method == .options else { throw .targetMalformed(.formNotAllowed) }
            return Parts(form: .asterisk, path: range)
        default:
            return try parseAbsoluteForm(bytes, range)
        }
    }

    /// RFC 9112 §3.2.3: host and port, both required.
    private static func parseAuthorityForm(_ bytes: Span<UInt8>, _ range: Range<Int>) throws(HTTPViolation) -> Parts {
        guard let authority = Authority(bytes, range), authority.port != nil else {
            throw .targetMalformed(.authorityMalformed)
        }
        return Parts(form: .authority, authority: range, path: range.upperBound..<range.upperBound)
    }

    /// RFC 9112 §3.2.2, for http, https, ws and wss.
    private static func parseAbsoluteForm(_ bytes: Span<UInt8>, _ range: Range<Int>) throws(HTTPViolation) -> Parts {
        for index in range where !ByteClass.isVisible(bytes[index]) { throw .targetMalformed(.invalidByte(bytes[index])) }
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":"), in: range), colon + 2 < range.upperBound,
            bytes[colon + 1] == UInt8(ascii: "/"), bytes[colon + 2] == UInt8(ascii: "/")
        else { throw .targetMalformed(.formNotAllowed) }
        guard Authority.defaultPort(bytes, scheme: range.lowerBound..<colon) != nil else {
            throw .targetMalformed(.schemeNotSupported)
        }
        let start = colon + 3
        var end = start
        while end < range.upperBound, bytes[end] != UInt8(ascii: "/"), bytes[end] != UInt8(ascii: "?") { end += 1 }
        guard Authority(bytes, start..<end) != nil else { throw .targetMalformed(.authorityMalformed) }
        var parts = Parts(form: .absolute, authority: start..<end, path: end..<end)
        try parsePathAndQuery(bytes, end..<range.upperBound, &parts)
        return parts
    }

    /// Sets path, query and, if it differs, the decoded path.
    private static func parsePathAndQuery(
        _ bytes: Span<UInt8>, _ range: Range<Int>, _ parts: inout Parts
    ) throws(HTTPViolation) {
        var index = range.lowerBound
        var previous = UInt8(0)
        var isPlain = true
        while index < range.upperBound {
            let byte = bytes[index]
            if byte == UInt8(ascii: "?") { break }
            guard ByteClass.isVisible(byte), byte != UInt8(ascii: "#") else { throw .targetMalformed(.invalidByte(byte)) }
            if byte == UInt8(ascii: "\\") { throw .targetMalformed(.backslash) }
            // A segment that starts with a dot may be a dot segment, which `decodePath` handles.
            if byte == UInt8(ascii: "%") || (byte == UInt8(ascii: ".") && previous == UInt8(ascii: "/")) { isPlain = false }
            previous = byte
            index += 1
        }
        parts.path = range.lowerBound..<index
        if index < range.upperBound {
            let query = index + 1..<range.upperBound
            for index in query where !ByteClass.isVisible(bytes[index]) || bytes[index] == UInt8(ascii: "#") {
                throw .targetMalformed(.invalidByte(bytes[index]))
            }
            parts.query = query
        }
        if !isPlain { parts.decodedPath = try decodePath(bytes, parts.path) }
    }
}
