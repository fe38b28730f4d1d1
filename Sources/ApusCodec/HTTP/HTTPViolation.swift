/// Why the peer's bytes are not an acceptable HTTP/1.1 message, and how a server responds.
///
/// The position of the next message is unknown afterwards: respond with `status` and close the
/// connection.
package enum HTTPViolation: Error, Hashable, Sendable {
    // Lines (RFC 9112 §2.2)
    case controlCharacter(UInt8)
    case bareCarriageReturn
    case bareLineFeed
    case tooManyEmptyLines

    // Start line (RFC 9112 §3, §4)
    case malformedRequestLine
    case malformedStatusLine
    case methodTooLong(limit: Int)  // bytes
    case versionMissing
    case versionNotSupported(HTTPVersion)
    case targetTooLong(limit: Int)  // bytes
    case targetMalformed(TargetFault)

    // Fields (RFC 9112 §5)
    case headTooLarge(limit: Int)  // bytes
    case tooManyFields(limit: Int)
    case foldedLine
    case fieldWithoutColon
    case fieldNameEmpty
    case fieldNameInvalid(UInt8)
    case spaceBeforeColon

    // Host (RFC 9112 §3.2)
    case hostMissing
    case hostRepeated
    case hostMalformed

    // Framing (RFC 9112 §6, §7)
    case contentLengthMalformed
    case contentLengthRepeated
    case contentLengthWithTransferEncoding
    case transferEncodingMalformed
    case transferEncodingNotSupported
    case transferEncodingNotAllowed
    case bodyTooLarge(limit: Int)  // bytes
    case chunkSizeMalformed
    case chunkSizeTooLong(limit: Int)  // digits
    case chunkExtensionMalformed
    case chunkExtensionsTooLong(limit: Int)  // bytes
    case chunkNotTerminated
    case bodyCutShort

    // Exchanges; only a client gets these (RFC 9110 §7.8, §15.2)
    case tooManyInterimResponses(limit: Int)
    case switchNotRequested
    case responseWithoutRequest

    /// What is wrong with a request target (RFC 9112 §3.2, RFC 3986).
    package enum TargetFault: Hashable, Sendable {
        case empty
        case formNotAllowed
        case invalidByte(UInt8)
        case schemeNotSupported
        case authorityMalformed
        case percentEncodingMalformed
        case encodedNull
        case encodedSlash
        case backslash
        case leavesRoot
        case notUTF8
    }

    /// The status of the response: 400, 413, 414, 431, 501 or 505.
    package var status: HTTPStatus {
        switch self {
        case .methodTooLong, .transferEncodingNotSupported: .notImplemented
        case .versionNotSupported: .httpVersionNotSupported
        case .targetTooLong: .uriTooLong
        case .headTooLarge, .tooManyFields: .requestHeaderFieldsTooLarge
        case .bodyTooLarge: .contentTooLarge
        case .controlCharacter, .bareCarriageReturn, .bareLineFeed, .tooManyEmptyLines, .malformedRequestLine,
            .malformedStatusLine, .versionMissing, .targetMalformed, .foldedLine, .fieldWithoutColon, .fieldNameEmpty,
            .fieldNameInvalid, .spaceBeforeColon, .hostMissing, .hostRepeated, .hostMalformed,
            .contentLengthMalformed, .contentLengthRepeated, .contentLengthWithTransferEncoding,
            .transferEncodingMalformed, .transferEncodingNotAllowed, .chunkSizeMalformed, .chunkSizeTooLong,
            .chunkExtensionMalformed, .chunkExtensionsTooLong, .chunkNotTerminated, .bodyCutShort, .tooManyInterimResponses,
            .switchNotRequested, .responseWithoutRequest:
            .badRequest
        }
    }
}

extension HTTPViolation: CustomStringConvertible {
    /// What is wrong, for a log line; contains none of the peer's text.
    package var description: String {
        switch self {
        case .controlCharacter(let byte): "control character 0x\(hexadecimal(byte)) in the head"
        case .bareCarriageReturn: "CR without LF"
        case .bareLineFeed: "LF without CR"
        case .tooManyEmptyLines: "more than one empty line before the request line"
        case .malformedRequestLine: "request line is not 'method SP target SP version'"
        case .malformedStatusLine: "status line is not 'version SP code SP reason'"
        case .methodTooLong(let limit): "method is longer than \(limit) bytes"
        case .versionMissing: "request line has no version (HTTP/0.9)"
        case .versionNotSupported(let version): "\(version) is not HTTP/1.x"
        case .targetTooLong(let limit): "request target is longer than \(limit) bytes"
        case .targetMalformed(let fault): "request target: \(fault)"
        case .headTooLarge(let limit): "head is larger than \(limit) bytes"
        case .tooManyFields(let limit): "head has more than \(limit) fields"
        case .foldedLine: "field line starts with white space (obsolete line folding)"
        case .fieldWithoutColon: "field line has no colon"
        case .fieldNameEmpty: "field name is empty"
        case .fieldNameInvalid(let byte): "byte 0x\(hexadecimal(byte)) in a field name"
        case .spaceBeforeColon: "white space between field name and colon"
        case .hostMissing: "HTTP/1.1 request without Host"
        case .hostRepeated: "more than one Host field"
        case .hostMalformed: "Host is not host[:port]"
        case .contentLengthMalformed: "Content-Length is not one decimal number that fits 63 bits"
        case .contentLengthRepeated: "more than one Content-Length"
        case .contentLengthWithTransferEncoding: "Content-Length together with Transfer-Encoding"
        case .transferEncodingMalformed: "Transfer-Encoding is not exactly one 'chunked'"
        case .transferEncodingNotSupported: "transfer coding other than chunked"
        case .transferEncodingNotAllowed: "Transfer-Encoding where it is not allowed (HTTP/1.0, or an answer to CONNECT)"
        case .bodyTooLarge(let limit): "body is larger than \(limit) bytes"
        case .chunkSizeMalformed: "chunk size is not a plain hexadecimal number"
        case .chunkSizeTooLong(let limit): "chunk size has more than \(limit) digits"
        case .chunkExtensionMalformed: "chunk extension is not '; name' or '; name=value'"
        case .chunkExtensionsTooLong(let limit): "chunk extensions exceed the data by more than \(limit) bytes"
        case .chunkNotTerminated: "chunk data is not followed by CRLF"
        case .bodyCutShort: "connection ended inside the body"
        case .tooManyInterimResponses(let limit): "more than \(limit) interim answers"
        case .switchNotRequested: "101 without having been asked to switch"
        case .responseWithoutRequest: "expected no response before the next request, got one"
        }
    }
}

extension HTTPViolation.TargetFault: CustomStringConvertible {
    package var description: String {
        switch self {
        case .empty: "it is empty"
        case .formNotAllowed: "its form does not fit the method"
        case .invalidByte(let byte): "byte 0x\(hexadecimal(byte)) is not allowed"
        case .schemeNotSupported: "scheme is not http, https, ws or wss"
        case .authorityMalformed: "authority is not host[:port]"
        case .percentEncodingMalformed: "'%' is not followed by two hexadecimal digits"
        case .encodedNull: "'%00' is not allowed"
        case .encodedSlash: "'%2F' is not allowed"
        case .backslash: "'\\' is not allowed"
        case .leavesRoot: "'..' leaves the root"
        case .notUTF8: "path is not UTF-8"
        }
    }
}

/// Two upper-case hexadecimal digits.
func hexadecimal(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16, uppercase: true)
    return byte < 0x10 ? "0" + digits : digits
}
