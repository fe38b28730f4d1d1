/// Why a server's answer does not open a WebSocket (RFC 6455 §4.1, last list).
public enum ClientHandshakeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The server answered with something other than 101, such as a redirection or 401.
    case status(HTTPStatus)
    /// The answer is not HTTP/1.1.
    case httpVersion(HTTPVersion)
    /// `Upgrade` is missing or is not `websocket`.
    case upgradeMissing
    /// `Connection` does not list `Upgrade`.
    case connectionMissing
    /// `Sec-WebSocket-Accept` is missing.
    case acceptMissing
    /// `Sec-WebSocket-Accept` does not answer the key that was sent.
    case acceptWrong
    /// The server chose a subprotocol that was not offered.
    case subprotocolNotOffered(String)
    /// A field that may stand once stands twice.
    case fieldRepeated(String)

    /// What is wrong with the answer; text of the peer's is quoted with its control characters escaped.
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
    ///   - host: The value of Host, `host[:port]`; without the port if it is the scheme's own.
    ///   - target: Path and query, encoded already; starts with `/`.
    ///   - key: 24 bytes: 16 random ones in base 64, new for each connection. `makeKey` encodes them.
    ///   - subprotocols: In order of preference; empty writes no field.
    ///   - extensions: The offers; nil writes no field.
    ///   - origin: The value of Origin; nil writes no field.
    ///   - fields: The application's own.
    /// - Throws: `HTTPFieldError` if anything cannot stand in a head, or `fields` has one that the handshake owns; nothing was appended.
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
        // Checked like any other field: the application gives both.
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

    /// `Sec-WebSocket-Key` from 16 random bytes: 24 bytes of base 64 (RFC 6455 §4.1 item 7).
    ///
    /// - Precondition: `nonce` has 16 bytes.
    package static func makeKey(nonce: Span<UInt8>) -> [UInt8] {
        precondition(nonce.count == 16, "the nonce of a handshake has 16 bytes")
        var key: [UInt8] = []
        key.reserveCapacity(24)
        Base64.append(nonce, to: &key)
        return key
    }

    /// Checks a server's answer (RFC 6455 §4.1); what it says of extensions is returned unread.
    ///
    /// - Parameter key: The `Sec-WebSocket-Key` that was sent.
    /// - Returns: The subprotocol the server chose, and its extensions; nil where the server named none.
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
        // A 1xx response ends at the empty line, whatever its fields say of a body (RFC 9112 §6.3).
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
