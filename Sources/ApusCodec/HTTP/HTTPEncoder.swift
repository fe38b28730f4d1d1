/// Writes heads and chunks (RFC 9112 §3, §4, §7.1).
package enum HTTPEncoder {
    /// What the head says about the connection (RFC 9112 §9.3).
    package enum Persistence: Hashable, Sendable {
        /// Nothing: in HTTP/1.1 the connection persists.
        case implied
        /// `Connection: keep-alive`, for an HTTP/1.0 client that asked for it.
        case keepAlive
        /// `Connection: close`.
        case close
    }

    /// Appends a status line and fields, the empty line included.
    ///
    /// The encoder owns the framing and the connection: `Content-Length`, `Transfer-Encoding`, `Connection` and `Keep-Alive` among
    /// `fields` are left out. With an `Upgrade` field, `Connection` lists `Upgrade` (RFC 9110 §7.8).
    ///
    /// - Parameters:
    ///   - framing: What is said about the body: `counted` writes `Content-Length` (0 as well), `chunked` Transfer-Encoding, `none` and
    ///     `untilClose` nothing. A 1xx or 204 response never has either (RFC 9110 §8.6). For an answer to HEAD, and for 304, give the framing
    ///     that GET would have had.
    ///   - date: An IMF-fixdate for the `Date` field, unless `fields` has one; empty for none.
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
            output.append(contentsOf: "Date: ".utf8)
            append(date, to: &output)
            appendLineEnd(to: &output)
        }
        if status.code >= 200, status.code != 204 { appendFraming(framing, to: &output) }
        appendConnection(persistence, upgrades: hasUpgrade, to: &output)
        appendLineEnd(to: &output)
    }

    /// Appends a request line and fields, the empty line included.
    ///
    /// - Parameters:
    ///   - target: In the form the method wants, encoded already: `/path?query`, `host:port`, `*`.
    ///   - host: The value of Host: `host[:port]`.
    ///   - fields: Any but those that the encoder writes: Host, Connection, Content-Length, Transfer-Encoding, Keep-Alive.
    ///   - framing: `counted` writes `Content-Length`, `chunked` Transfer-Encoding, anything else nothing.
    /// - Throws: `HTTPFieldError`; then nothing was appended.
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

    /// Whether the field belongs to the encoder.
    private static func isOwnField(_ bytes: Span<UInt8>, _ name: Range<Int>) -> Bool {
        bytes.matches(name, lowercase: "connection") || bytes.matches(name, lowercase: "keep-alive")
            || bytes.matches(name, lowercase: "content-length") || bytes.matches(name, lowercase: "transfer-encoding")
    }

    private static func appendFraming(_ framing: HTTPBodyFraming, to output: inout [UInt8]) {
        switch framing {
        case .counted(let count):
            output.append(contentsOf: "Content-Length: ".utf8)
            append(decimal: count, to: &output)
            appendLineEnd(to: &output)
        case .chunked: output.append(contentsOf: "Transfer-Encoding: chunked\r\n".utf8)
        case .none, .untilClose: break
        }
    }

    private static func appendConnection(_ persistence: Persistence, upgrades: Bool, to output: inout [UInt8]) {
        switch (persistence, upgrades) {
        case (.implied, false): break
        case (.implied, true): output.append(contentsOf: "Connection: Upgrade\r\n".utf8)
        case (.keepAlive, false): output.append(contentsOf: "Connection: keep-alive\r\n".utf8)
        case (.keepAlive, true): output.append(contentsOf: "Connection: keep-alive, Upgrade\r\n".utf8)
        case (.close, false): output.append(contentsOf: "Connection: close\r\n".utf8)
        case (.close, true): output.append(contentsOf: "Connection: close, Upgrade\r\n".utf8)
        }
    }
}

// The pieces that the handshake shares.
extension HTTPEncoder {
    /// The target must be visible ASCII without `#`, the host `host[:port]`.
    static func checkRequest(target: String, host: String) throws(HTTPFieldError) {
        guard !target.isEmpty, target.utf8.allSatisfy({ ByteClass.isVisible($0) && $0 != UInt8(ascii: "#") }) else {
            throw .invalidTarget(target)
        }
        let utf8 = host.utf8
        guard Authority(utf8.span, 0..<utf8.count) != nil else { throw .invalidHost(host) }
    }

    static func appendRequestLine(_ method: HTTPMethod, _ target: String, host: String, to output: inout [UInt8]) {
        output.append(contentsOf: method.rawValue.utf8)
        output.append(ByteClass.space)
        output.append(contentsOf: target.utf8)
        output.append(contentsOf: " HTTP/1.1\r\nHost: ".utf8)
        output.append(contentsOf: host.utf8)
        appendLineEnd(to: &output)
    }

    static func appendStatusLine(_ status: HTTPStatus, to output: inout [UInt8]) {
        output.append(contentsOf: "HTTP/1.1 ".utf8)
        append(decimal: Int(status.code), to: &output)
        output.append(ByteClass.space)
        output.append(contentsOf: status.reasonPhrase.utf8)
        appendLineEnd(to: &output)
    }

    static func append(_ entry: HTTPFields.Entry, of storage: [UInt8], to output: inout [UInt8]) {
        output.append(contentsOf: storage[entry.name])
        output.append(contentsOf: ": ".utf8)
        output.append(contentsOf: storage[entry.value])
        appendLineEnd(to: &output)
    }

    static func appendLineEnd(to output: inout [UInt8]) { output.append(contentsOf: "\r\n".utf8) }

    static func append(_ bytes: Span<UInt8>, to output: inout [UInt8]) {
        output.append(addingCapacity: bytes.count) { span in
            for index in 0..<bytes.count { span.append(bytes[index]) }
        }
    }

    /// Appends a number that is not negative, without leading zeros.
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
    /// Appends what stands before `count` bytes of content: the size in hexadecimal and CRLF. CRLF must follow the content.
    ///
    /// - Precondition: `count` is above 0: an empty chunk would end the body.
    package static func appendChunkHeader(count: Int, to output: inout [UInt8]) {
        precondition(count > 0, "an empty chunk ends the body")
        output.append(contentsOf: String(count, radix: 16).utf8)
        appendLineEnd(to: &output)
    }

    /// Appends one whole chunk; nothing if `content` is empty.
    package static func appendChunk(_ content: Span<UInt8>, to output: inout [UInt8]) {
        guard !content.isEmpty else { return }
        appendChunkHeader(count: content.count, to: &output)
        append(content, to: &output)
        appendLineEnd(to: &output)
    }

    /// Appends the last chunk and an empty trailer section.
    package static func appendLastChunk(to output: inout [UInt8]) { output.append(contentsOf: "0\r\n\r\n".utf8) }
}
