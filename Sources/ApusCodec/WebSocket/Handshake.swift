/// A client's opening handshake (RFC 6455 §4.2.1).
package struct ClientHandshake: Hashable, Sendable {
    /// `Sec-WebSocket-Key`: 24 bytes of base 64.
    package let key: [UInt8]
    /// The subprotocols in the client's order of preference, distinct tokens; empty without the
    /// field.
    package let subprotocols: [String]
    /// The extension offers as sent, several fields joined by ", "; nil without a non-empty field.
    package let extensions: String?
    /// The origin of the page that opens the connection; nil if the client is not a browser.
    package let origin: String?
}

/// The opening handshake of a WebSocket (RFC 6455 §4). This file contains the server's side.
package enum Handshake {
    /// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`: 28 bytes (RFC 6455 §4.2.2).
    package static func acceptKey(for key: Span<UInt8>) -> [UInt8] {
        var accept: [UInt8] = []
        accept.reserveCapacity(28)
        appendAcceptKey(for: key, to: &accept)
        return accept
    }

    /// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`: 28 bytes (RFC 6455 §4.2.2).
    package static func acceptKey(for key: [UInt8]) -> [UInt8] { acceptKey(for: key.span) }

    /// Appends the 28 bytes of `Sec-WebSocket-Accept` for `key`.
    private static func appendAcceptKey(for key: Span<UInt8>, to output: inout [UInt8]) {
        var message: [UInt8] = []
        message.reserveCapacity(key.count + 36)
        HTTPEncoder.append(key, to: &message)
        message.append(contentsOf: "258EAFA5-E914-47DA-95CA-C5AB0DC85B11".utf8)
        let digest = SHA1.digest(message.span)
        Base64.append(digest.span, to: &output)
    }

    /// Checks that a request is an opening handshake of version 13 (RFC 6455 §4.2.1).
    /// `originIsAllowed` checks the origin.
    ///
    /// - Throws: `HandshakeViolation`, with the status and the fields of the response.
    package static func validate(_ head: HTTPRequestHead) throws(HandshakeViolation) -> ClientHandshake {
        let fields = head.fields
        guard head.version >= .http11 else { throw .httpVersion(head.version) }
        guard head.method == .get else { throw .method(head.method) }
        guard head.wantsUpgradeToWebSocket else { throw .upgradeMissing }
        guard fields.containsToken("upgrade", in: "connection") else { throw .connectionMissing }
        // A body would have to be read before the switch (RFC 9110 §7.8). A handshake has none, so
        // one may be a smuggled request.
        guard head.bodyFraming == .none else { throw .hasBody }
        try checkVersion(fields)
        let key = try key(fields)
        guard fields.count(of: "origin") <= 1 else { throw .originRepeated }
        let extensions = fields["sec-websocket-extensions"]
        return ClientHandshake(
            key: key, subprotocols: try subprotocols(fields), extensions: extensions?.isEmpty == false ? extensions : nil,
            origin: fields["origin"])
    }

    private static func checkVersion(_ fields: HTTPFields) throws(HandshakeViolation) {
        guard let index = fields.firstIndex(of: "sec-websocket-version") else { throw .versionNotSupported(nil) }
        guard fields.nextIndex(of: "sec-websocket-version", after: index) == nil else { throw .versionRepeated }
        guard fields.value(at: index, equalsLowercase: "13") else { throw .versionNotSupported(fields.value(at: index)) }
    }

    private static func key(_ fields: HTTPFields) throws(HandshakeViolation) -> [UInt8] {
        guard let index = fields.firstIndex(of: "sec-websocket-key") else { throw .keyMissing }
        guard fields.nextIndex(of: "sec-websocket-key", after: index) == nil else { throw .keyRepeated }
        guard Base64.decodedCount(fields.valueBytes(at: index)) == 16 else { throw .keyMalformed }
        return Array(fields.storage[fields.entries[index].value])
    }

    /// RFC 6455 §4.1 item 10: distinct tokens. Several fields form one list (§11.3.4). Empty list
    /// elements are ignored (RFC 9110 §5.6.1.2).
    private static func subprotocols(_ fields: HTTPFields) throws(HandshakeViolation) -> [String] {
        var names: [String] = []
        var seen: Set<String> = []
        var index = fields.firstIndex(of: "sec-websocket-protocol")
        while let found = index {
            let bytes = fields.storage.span
            var rest: Range<Int>? = fields.entries[found].value
            while let element = bytes.nextListElement(&rest) {
                if element.isEmpty { continue }
                guard bytes.isToken(element) else { throw .subprotocolsMalformed }
                let name = String(decoding: fields.storage[element], as: UTF8.self)
                guard seen.insert(name).inserted else { throw .subprotocolRepeated(name) }
                names.append(name)
            }
            index = fields.nextIndex(of: "sec-websocket-protocol", after: found)
        }
        return names
    }

    /// Appends the response that opens the WebSocket: 101 (RFC 6455 §4.2.2).
    ///
    /// - Parameters:
    ///   - key: The client's `Sec-WebSocket-Key`.
    ///   - subprotocol: The selected one of the client's subprotocols; nil omits the field.
    ///   - extensions: The accepted extensions with their parameters; nil omits the field.
    ///   - fields: The application's fields. Those that the handshake or the framing writes are
    ///     left out.
    package static func appendResponse(
        key: Span<UInt8>, subprotocol: String?, extensions: String?, fields: borrowing HTTPFields, to output: inout [UInt8]
    ) {
        output.append(
            contentsOf: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                .utf8)
        appendAcceptKey(for: key, to: &output)
        HTTPEncoder.appendLineEnd(to: &output)
        if let subprotocol { appendField("Sec-WebSocket-Protocol: ", subprotocol, to: &output) }
        if let extensions { appendField("Sec-WebSocket-Extensions: ", extensions, to: &output) }
        for entry in fields.entries where !isReserved(fields.storage.span, entry.name) {
            HTTPEncoder.append(entry, of: fields.storage, to: &output)
        }
        HTTPEncoder.appendLineEnd(to: &output)
    }

    /// The first of the client's subprotocols that the server supports, compared byte by byte; nil
    /// if there is none.
    package static func chooseSubprotocol(client: [String], server: [String]) -> String? { client.first { server.contains($0) } }

    static func appendField(_ name: String, _ value: String, to output: inout [UInt8]) {
        output.append(contentsOf: name.utf8)
        output.append(contentsOf: value.utf8)
        HTTPEncoder.appendLineEnd(to: &output)
    }

    /// Whether the handshake or the framing writes the field, so that the application may not.
    static func isReserved(_ bytes: Span<UInt8>, _ name: Range<Int>) -> Bool {
        guard !name.isEmpty else { return false }
        if name.count > 14, bytes.matches(name.lowerBound..<name.lowerBound + 14, lowercase: "sec-websocket-") { return true }
        return switch name.count {
        case 4: bytes.matches(name, lowercase: "host")
        case 7: bytes.matches(name, lowercase: "upgrade")
        case 10: bytes.matches(name, lowercase: "connection") || bytes.matches(name, lowercase: "keep-alive")
        case 14: bytes.matches(name, lowercase: "content-length")
        case 17: bytes.matches(name, lowercase: "transfer-encoding")
        default: false
        }
    }
}
