/// Why a server's response does not open a WebSocket (RFC 6455 §4.1, last list).
public enum ClientHandshakeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The status is not 101, but a redirection or 401, for example.
    case status(HTTPStatus)
    /// The response is not HTTP/1.1.
    case httpVersion(HTTPVersion)
    /// `Upgrade` is missing or is not `websocket`.
    case upgradeMissing
    /// `Connection` does not list `Upgrade`.
    case connectionMissing
    /// `Sec-WebSocket-Accept` is missing.
    case acceptMissing
    /// `Sec-WebSocket-Accept` does not match the key that was sent.
    case acceptWrong
    /// The server selected a subprotocol that was not offered.
    case subprotocolNotOffered(String)
    /// A field occurs more than once.
    case fieldRepeated(String)

    /// What is wrong with the response; the peer's text is quoted, control characters are escaped.
    public var description: String {
        switch self {
        case .status(let status): "server answered \(status), not 101 Switching Protocols"
        case .httpVersion(let version): "server answered in \(version): a handshake takes HTTP/1.1"
        case .upgradeMissing: "Upgrade in the answer is not websocket"
        case .connectionMissing: "Connection in the answer does not list Upgrade"
        case .acceptMissing: "Sec-WebSocket-Accept is missing"
        case .acceptWrong: "Sec-WebSocket-Accept does not fit the key that was sent"
        case .subprotocolNotOffered(let name): "server chose subprotocol \(name.debugDescription), which was not offered"
        case .fieldRepeated(let name): "\(name) stands more than once in the answer"
        }
    }
}

extension Handshake {
    /// Appends a client's opening handshake (RFC 6455 §4.1).
    ///
    /// - Parameters:
    ///   - host: The value of Host, `host[:port]`, without the port if it is the scheme's default.
    ///   - target: Path and query, percent-encoded; starts with `/`.
    ///   - key: The 24 bytes of `makeKey`, new for each connection.
    ///   - subprotocols: In order of preference; empty omits the field.
    ///   - extensions: The offers; nil omits the field.
    ///   - origin: The value of Origin; nil omits the field.
    ///   - fields: The application's fields.
    /// - Throws: `HTTPFieldError` for a value that is not valid, or for a field in `fields` that
    ///   the handshake writes; nothing is appended.
    package static func appendRequest(
        host: String, target: String, key: Span<UInt8>, subprotocols: [String] = [], extensions: String? = nil,
        origin: String? = nil,
        fields: borrowing HTTPFields, to output: inout [UInt8]
    ) throws(HTTPFieldError) {
        try HTTPEncoder.checkRequest(target: target, host: host)
        guard target.utf8.first == UInt8(ascii: "/") else { throw .invalidTarget(target) }
        for (index, name) in subprotocols.enumerated() {
            let utf8 = name.utf8
            guard utf8.span.isToken(0..<utf8.count), !subprotocols[..<index].contains(name) else {
                throw .invalidSubprotocol(name)
            }
        }
        if origin != nil, fields.contains("origin") { throw .reservedName("Origin") }
        // Validated like other fields: both come from the application.
        var checked = HTTPFields()
        if let origin { try checked.append("Origin", origin) }
        if let extensions { try checked.append("Sec-WebSocket-Extensions", extensions) }
        for entry in fields.entries where isReserved(fields.storage.span, entry.name) {
            throw .reservedName(String(decoding: fields.storage[entry.name], as: UTF8.self))
        }
        HTTPEncoder.appendRequestLine(.get, target, host: host, to: &output)
        output.append(
            contentsOf: "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ".utf8)
        HTTPEncoder.append(key, to: &output)
        HTTPEncoder.appendLineEnd(to: &output)
        if !subprotocols.isEmpty { appendField("Sec-WebSocket-Protocol: ", subprotocols.joined(separator: ", "), to: &output) }
        for entry in checked.entries { HTTPEncoder.append(entry, of: checked.storage, to: &output) }
        for entry in fields.entries { HTTPEncoder.append(entry, of: fields.storage, to: &output) }
        HTTPEncoder.appendLineEnd(to: &output)
    }

    /// `Sec-WebSocket-Key` for 16 random bytes: 24 bytes of base 64 (RFC 6455 §4.1 item 7).
    ///
    /// - Precondition: `nonce` has 16 bytes.
    package static func makeKey(nonce: Span<UInt8>) -> [UInt8] {
        precondition(nonce.count == 16, "the handshake's nonce has 16 bytes")
        var key: [UInt8] = []
        key.reserveCapacity(24)
        Base64.append(nonce, to: &key)
        return key
    }

    /// Checks a server's response (RFC 6455 §4.1). Extensions are returned without a check.
    ///
    /// - Parameter key: The `Sec-WebSocket-Key` that was sent.
    /// - Returns: The subprotocol and the extensions that the server selected; nil where a field is
    ///   missing.
    /// - Throws: `ClientHandshakeError`: fail the connection.
    package static func validateResponse(
        _ head: HTTPResponseHead, key: Span<UInt8>, offeredSubprotocols: [String]
    ) throws(ClientHandshakeError) -> (subprotocol: String?, extensions: String?) {
        let fields = head.fields
        guard head.status == .switchingProtocols else { throw .status(head.status) }
        guard head.version >= .http11 else { throw .httpVersion(head.version) }
        guard let upgrade = fields.firstIndex(of: "upgrade"), fields.value(at: upgrade, equalsLowercase: "websocket"),
            fields.nextIndex(of: "upgrade", after: upgrade) == nil
        else { throw .upgradeMissing }
        guard fields.containsToken("upgrade", in: "connection") else { throw .connectionMissing }
        guard let accept = fields.firstIndex(of: "sec-websocket-accept") else { throw .acceptMissing }
        guard fields.nextIndex(of: "sec-websocket-accept", after: accept) == nil else {
            throw .fieldRepeated("Sec-WebSocket-Accept")
        }
        guard Array(fields.storage[fields.entries[accept].value]) == acceptKey(for: key) else { throw .acceptWrong }
        // A 1xx response ends at the empty line, whatever its framing fields contain (RFC 9112
        // §6.3).
        let extensions = fields["sec-websocket-extensions"]
        return (try subprotocol(fields, offered: offeredSubprotocols), extensions?.isEmpty == false ? extensions : nil)
    }

    private static func subprotocol(_ fields: HTTPFields, offered: [String]) throws(ClientHandshakeError) -> String? {
        guard let index = fields.firstIndex(of: "sec-websocket-protocol") else { return nil }
        guard fields.nextIndex(of: "sec-websocket-protocol", after: index) == nil else {
            throw .fieldRepeated("Sec-WebSocket-Protocol")
        }
        let name = fields.value(at: index)
        guard offered.contains(name) else { throw .subprotocolNotOffered(name) }
        return name
    }
}
