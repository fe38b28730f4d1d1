/// Why a request is not an acceptable opening handshake (RFC 6455 §4.2), and how to respond.
///
/// The request was well-formed HTTP, so the connection may continue after the response unless the
/// request had a body.
package enum HandshakeViolation: Error, Hashable, Sendable {
    case httpVersion(HTTPVersion)
    case method(HTTPMethod)
    case hasBody
    case upgradeMissing
    case connectionMissing
    case versionNotSupported(String?)
    case versionRepeated
    case keyMissing
    case keyRepeated
    case keyMalformed
    case subprotocolsMalformed
    case subprotocolRepeated(String)
    case extensionsMalformed
    case originRepeated
    case originNotAllowed(String)

    /// The status of the response: 400, 403, 405 or 426.
    package var status: HTTPStatus {
        switch self {
        case .method: .methodNotAllowed
        case .versionNotSupported: .upgradeRequired
        case .originNotAllowed: .forbidden
        case .httpVersion, .hasBody, .upgradeMissing, .connectionMissing, .versionRepeated, .keyMissing, .keyRepeated,
            .keyMalformed, .subprotocolsMalformed, .subprotocolRepeated, .extensionsMalformed, .originRepeated:
            .badRequest
        }
    }

    /// The fields that the response must have: `Allow` with 405; `Sec-WebSocket-Version` (RFC 6455
    /// §4.4) and `Upgrade` with 426.
    package var fields: HTTPFields {
        var fields = HTTPFields()
        if case .method = self {
            fields.appendChecked("Allow", "GET")
        } else if case .versionNotSupported = self {
            fields.appendChecked("Upgrade", "websocket")
            fields.appendChecked("Sec-WebSocket-Version", "13")
        }
        return fields
    }
}

extension HandshakeViolation: CustomStringConvertible {
    /// What is wrong, for a log line; the peer's text is quoted, control characters are escaped.
    package var description: String {
        switch self {
        case .httpVersion(let version): "handshake in \(version): it takes HTTP/1.1"
        case .method(let method): "handshake by \(method): it takes GET"
        case .hasBody: "handshake with a body"
        case .upgradeMissing: "Upgrade does not list websocket"
        case .connectionMissing: "Connection does not list Upgrade"
        case .versionNotSupported(let version?): "Sec-WebSocket-Version is \(version.debugDescription): it must be 13"
        case .versionNotSupported(nil): "Sec-WebSocket-Version is missing: it must be 13"
        case .versionRepeated: "more than one Sec-WebSocket-Version"
        case .keyMissing: "Sec-WebSocket-Key is missing"
        case .keyRepeated: "more than one Sec-WebSocket-Key"
        case .keyMalformed: "Sec-WebSocket-Key is not 16 bytes in base 64"
        case .subprotocolsMalformed: "Sec-WebSocket-Protocol is not a list of tokens"
        case .subprotocolRepeated(let name): "Sec-WebSocket-Protocol lists \(name.debugDescription) twice"
        case .extensionsMalformed: "Sec-WebSocket-Extensions is not a list of extensions with parameters"
        case .originRepeated: "more than one Origin"
        case .originNotAllowed(let origin): "origin \(origin.debugDescription) is not allowed"
        }
    }
}
