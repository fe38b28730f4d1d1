/// The fields of a head that determine framing and persistence, read line by line (RFC 9112 §6, §9;
/// RFC 9110 §7).
struct FramingFields: Equatable {
    /// Which field values occurred.
    struct Flags: OptionSet {
        let rawValue: UInt8
        /// `Connection: close`.
        static let close = Flags(rawValue: 1)
        /// `Connection: keep-alive`.
        static let keepAlive = Flags(rawValue: 2)
        /// `Upgrade: websocket`.
        static let upgradeToWebSocket = Flags(rawValue: 4)
        /// `Expect: 100-continue`.
        static let expectsContinue = Flags(rawValue: 8)
        /// `Transfer-Encoding: chunked`.
        static let chunked = Flags(rawValue: 16)
    }

    private(set) var flags: Flags = []
    /// The value of Content-Length, in bytes.
    private(set) var contentLength: Int?
    /// Whether there is a Host field.
    private(set) var hasHost = false

    /// Reads one field of a head of `version`.
    ///
    /// - Throws: `HTTPViolation` for a field that makes the framing or the host ambiguous.
    mutating func read(_ field: HTTPFields.Entry, in bytes: Span<UInt8>, version: HTTPVersion) throws(HTTPViolation) {
        // Compares the length first: most names need no further comparison.
        let name = field.name
        switch name.count {
        case 4 where bytes.matches(name, lowercase: "host"):
            guard !hasHost else { throw .hostRepeated }
            guard Authority(bytes, field.value) != nil else { throw .hostMalformed }
            hasHost = true
        case 6 where bytes.matches(name, lowercase: "expect"):
            if bytes.listContains(field.value, lowercase: "100-continue") { flags.insert(.expectsContinue) }
        // RFC 9110 §7.8: "A server MUST ignore an Upgrade header field that is received in an
        // HTTP/1.0 request".
        case 7 where version >= .http11 && bytes.matches(name, lowercase: "upgrade"):
            if bytes.listContains(field.value, lowercase: "websocket") { flags.insert(.upgradeToWebSocket) }
        case 10 where bytes.matches(name, lowercase: "connection"):
            if bytes.listContains(field.value, lowercase: "close") { flags.insert(.close) }
            if bytes.listContains(field.value, lowercase: "keep-alive") { flags.insert(.keepAlive) }
        case 14 where bytes.matches(name, lowercase: "content-length"):
            try readContentLength(field.value, bytes)
        case 17 where bytes.matches(name, lowercase: "transfer-encoding"):
            guard version >= .http11 else { throw .transferEncodingNotAllowed }
            try readTransferEncoding(field.value, bytes)
        default: break
        }
    }

    /// RFC 9112 §6.2: one decimal number. RFC 9110 §8.6 allows a recipient to accept a list of
    /// equal numbers; it is refused here.
    private mutating func readContentLength(_ value: Range<Int>, _ bytes: Span<UInt8>) throws(HTTPViolation) {
        guard contentLength == nil else { throw .contentLengthRepeated }
        guard !flags.contains(.chunked) else { throw .contentLengthWithTransferEncoding }
        guard !value.isEmpty, value.count <= 19 else { throw .contentLengthMalformed }
        var length = 0
        for index in value {
            guard ByteClass.isDigit(bytes[index]) else { throw .contentLengthMalformed }
            let (tens, tensOverflow) = length.multipliedReportingOverflow(by: 10)
            let (sum, sumOverflow) = tens.addingReportingOverflow(Int(bytes[index] - 0x30))
            guard !tensOverflow, !sumOverflow else { throw .contentLengthMalformed }
            length = sum
        }
        contentLength = length
    }

    /// RFC 9112 §6.1: only the coding `chunked` is supported, once and last. Empty list elements
    /// are ignored (RFC 9110 §5.6.1.2), but a list without any coding is refused, because it leaves
    /// the framing open.
    private mutating func readTransferEncoding(_ value: Range<Int>, _ bytes: Span<UInt8>) throws(HTTPViolation) {
        guard contentLength == nil else { throw .contentLengthWithTransferEncoding }
        var rest: Range<Int>? = value
        while let coding = bytes.nextListElement(&rest) {
            if coding.isEmpty { continue }
            guard bytes.isToken(coding) else { throw .transferEncodingMalformed }
            guard !flags.contains(.chunked) else { throw .transferEncodingMalformed }
            guard bytes.matches(coding, lowercase: "chunked") else { throw .transferEncodingNotSupported }
            flags.insert(.chunked)
        }
        guard flags.contains(.chunked) else { throw .transferEncodingMalformed }
    }

    /// Whether the connection persists after this message (RFC 9112 §9.3).
    func keepsAlive(_ version: HTTPVersion) -> Bool {
        if flags.contains(.close) { return false }
        return version >= .http11 || flags.contains(.keepAlive)
    }
}
