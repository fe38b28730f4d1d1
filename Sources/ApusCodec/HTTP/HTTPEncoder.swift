/// Encodes heads and chunks (RFC 9112 §3, §4, §7.1).
package enum HTTPEncoder {
    /// The persistence that the head announces (RFC 9112 §9.3).
    package enum Persistence: Hashable, Sendable {
        /// No field: in HTTP/1.1 the connection persists.
        case implied
        /// `Connection: keep-alive`, for an HTTP/1.0 client that sent it.
        case keepAlive
        /// `Connection: close`.
        case close
    }

    /// Appends a status line, fields and the empty line.
    ///
    /// The encoder writes framing and connection fields itself: `Content-Length`,
    /// `Transfer-Encoding`, `Connection` and `Keep-Alive` among `fields` are left out. With an
    /// `Upgrade` field, `Connection` lists `Upgrade` (RFC 9110 §7.8).
    ///
    /// - Parameters:
    ///   - framing: `counted` writes `Content-Length` (also 0), `chunked` writes
    ///     `Transfer-Encoding`, `none` and `untilClose` write nothing. A 1xx or 204 response never
    ///     has either field (RFC 9110 §8.6). For a response to HEAD, and for 304, pass the framing
    ///     of a response to GET.
    ///   - date: An IMF-fixdate for `Date`, unless `fields` contains one; empty omits the field.
    package static func appendResponseHead(
        status: HTTPStatus, fields: borrowing HTTPFields, framing: HTTPBodyFraming, persistence: Persistence, date: Span<UInt8>,
        to output: inout [UInt8]
    ) {
        appendStatusLine(status, to: &output)
        var hasDate = false
        var hasUpgrade = false
        for entry in fields.entries {
            let bytes = fields.storage.span
            switch Int(entry.nameCount) {
            case 4 where bytes.matches(entry.name, lowercase: "date"): hasDate = true
            case 7 where bytes.matches(entry.name, lowercase: "upgrade"): hasUpgrade = true
            case 10, 14, 17:
                if isOwnField(bytes, entry.name) { continue }
            default: break
            }
            append(entry, of: fields.storage, to: &output)
        }
        if !hasDate, !date.isEmpty {
            output.append("Date: ")
            append(date, to: &output)
            appendLineEnd(to: &output)
        }
        if status.code >= 200, status.code != 204 { appendFraming(framing, to: &output) }
        appendConnection(persistence, upgrades: hasUpgrade, to: &output)
        appendLineEnd(to: &output)
    }

    /// Appends a request line, fields and the empty line.
    ///
    /// - Parameters:
    ///   - target: In the form that the method requires, percent-encoded: `/path?query`,
    ///     `host:port`, `*`.
    ///   - host: The value of Host: `host[:port]`.
    ///   - fields: Any fields but those that the encoder writes: Host, Connection, Content-Length,
    ///     Transfer-Encoding, Keep-Alive.
    ///   - framing: `counted` writes `Content-Length`, `chunked` writes `Transfer-Encoding`, others
    ///     write nothing.
    /// - Throws: `HTTPFieldError`; nothing is appended.
    package static func appendRequestHead(
        method: HTTPMethod, target: String, host: String, fields: borrowing HTTPFields, framing: HTTPBodyFraming = .none,
        persistence: Persistence = .implied, to output: inout [UInt8]
    ) throws(HTTPFieldError) {
        guard method.isToken else { throw .invalidMethod(method.rawValue) }
        try checkRequest(target: target, host: host)
        let bytes = fields.storage.span
        for entry in fields.entries where bytes.matches(entry.name, lowercase: "host") || isOwnField(bytes, entry.name) {
            throw .reservedName(String(decoding: fields.storage[entry.name], as: UTF8.self))
        }
        appendRequestLine(method, target, host: host, to: &output)
        for entry in fields.entries { append(entry, of: fields.storage, to: &output) }
        appendFraming(framing, to: &output)
        appendConnection(persistence, upgrades: false, to: &output)
        appendLineEnd(to: &output)
    }

    /// Whether the encoder writes the field itself.
    private static func isOwnField(_ bytes: Span<UInt8>, _ name: Range<Int>) -> Bool {
        bytes.matches(name, lowercase: "connection") || bytes.matches(name, lowercase: "keep-alive")
            || bytes.matches(name, lowercase: "content-length") || bytes.matches(name, lowercase: "transfer-encoding")
    }

    private static func appendFraming(_ framing: HTTPBodyFraming, to output: inout [UInt8]) {
        switch framing {
        case .counted(let count):
            output.append("Content-Length: ")
            append(decimal: count, to: &output)
            appendLineEnd(to: &output)
        case .chunked: output.append("Transfer-Encoding: chunked\r\n")
        case .none, .untilClose: break
        }
    }

    private static func appendConnection(_ persistence: Persistence, upgrades: Bool, to output: inout [UInt8]) {
        switch (persistence, upgrades) {
        case (.implied, false): break
        case (.implied, true): output.append("Connection: Upgrade\r\n")
        case (.keepAlive, false): output.append("Connection: keep-alive\r\n")
        case (.keepAlive, true): output.append("Connection: keep-alive, Upgrade\r\n")
        case (.close, false): output.append("Connection: close\r\n")
        case (.close, true): output.append("Connection: close, Upgrade\r\n")
        }
    }
}

// Shared with the opening handshake.
extension HTTPEncoder {
    /// Checks that the target is visible ASCII without `#` and the host is `host[:port]`.
    static func checkRequest(target: String, host: String) throws(HTTPFieldError) {
        guard !target.isEmpty, target.utf8.allSatisfy({ ByteClass.isVisible($0) && $0 != UInt8(ascii: "#") }) else {
            throw .invalidTarget(target)
        }
        let utf8 = host.utf8
        guard Authority(utf8.span, 0..<utf8.count) != nil else { throw .invalidHost(host) }
    }

    static func appendRequestLine(_ method: HTTPMethod, _ target: String, host: String, to output: inout [UInt8]) {
        output.append(method.rawValue)
        output.append(ByteClass.space)
        output.append(target)
        output.append(" HTTP/1.1\r\nHost: ")
        output.append(host)
        appendLineEnd(to: &output)
    }

    static func appendStatusLine(_ status: HTTPStatus, to output: inout [UInt8]) {
        // Most responses.
        if status.code == 200 { return output.append("HTTP/1.1 200 OK\r\n") }
        output.append("HTTP/1.1 ")
        append(decimal: Int(status.code), to: &output)
        output.append(ByteClass.space)
        output.append(status.reasonPhrase)
        appendLineEnd(to: &output)
    }

    static func append(_ entry: HTTPFields.Entry, of storage: [UInt8], to output: inout [UInt8]) {
        let bytes = storage.rawSpan
        output.append(bytes.extracting(entry.name))
        output.append(": ")
        output.append(bytes.extracting(entry.value))
        appendLineEnd(to: &output)
    }

    static func appendLineEnd(to output: inout [UInt8]) { output.append("\r\n") }

    static func append(_ bytes: Span<UInt8>, to output: inout [UInt8]) { output.append(bytes) }

    /// Appends a non-negative number without leading zeros.
    static func append(decimal number: Int, to output: inout [UInt8]) {
        precondition(number >= 0, "no length or code is negative")
        var divisor = 1
        while number / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            output.append(0x30 + UInt8(number / divisor % 10))
            divisor /= 10
        }
    }
}

// Chunks (RFC 9112 §7.1).
extension HTTPEncoder {
    /// Appends the line before `count` bytes of content: the size in hexadecimal and CRLF. CRLF
    /// must follow the content.
    ///
    /// - Precondition: `count` is positive: an empty chunk ends the body.
    package static func appendChunkHeader(count: Int, to output: inout [UInt8]) {
        precondition(count > 0, "an empty chunk ends the body")
        output.append(String(count, radix: 16))
        appendLineEnd(to: &output)
    }

    /// Appends one complete chunk; nothing if `content` is empty.
    package static func appendChunk(_ content: Span<UInt8>, to output: inout [UInt8]) {
        guard !content.isEmpty else { return }
        appendChunkHeader(count: content.count, to: &output)
        append(content, to: &output)
        appendLineEnd(to: &output)
    }

    /// Appends the last chunk and the trailer section, without the fields that the encoder writes
    /// itself in heads.
    package static func appendLastChunk(trailers: borrowing HTTPFields = HTTPFields(), to output: inout [UInt8]) {
        output.append("0\r\n")
        let bytes = trailers.storage.span
        for entry in trailers.entries where !isOwnField(bytes, entry.name) { append(entry, of: trailers.storage, to: &output) }
        appendLineEnd(to: &output)
    }
}
