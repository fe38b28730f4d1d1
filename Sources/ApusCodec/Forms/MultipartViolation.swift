/// Why a body is not `multipart/form-data`, or exceeds a limit.
package enum MultipartViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// The Content-Type is another one, or missing.
    case notFormData
    case boundaryMissing
    /// The boundary does not have 1 to 70 of the characters allowed (RFC 2046 §5.1.1), or occurs
    /// twice.
    case boundaryMalformed
    /// No boundary within so many bytes.
    case boundaryNotFound(limit: Int)
    /// A boundary is followed neither by a line end nor by two hyphens.
    case boundaryNotTerminated
    case tooManyParts(limit: Int)
    case headTooLarge(limit: Int)
    /// The head of a part is malformed.
    case headMalformed(HTTPViolation)
    /// A part without Content-Disposition (RFC 7578 §4.2).
    case dispositionMissing
    /// The Content-Disposition is not `form-data` with one name.
    case dispositionMalformed
    /// The content of a part is encoded, which RFC 7578 §4.7 deprecates.
    case transferEncodingNotSupported
    /// The body ended before its last boundary.
    case cutShort

    /// The status of the response.
    package var status: HTTPStatus {
        switch self {
        case .notFormData: .unsupportedMediaType
        case .tooManyParts, .headTooLarge: .contentTooLarge
        case .boundaryMissing, .boundaryMalformed, .boundaryNotFound, .boundaryNotTerminated, .headMalformed, .dispositionMissing,
            .dispositionMalformed, .transferEncodingNotSupported, .cutShort:
            .badRequest
        }
    }

    /// What is expected; contains none of the peer's text.
    package var description: String {
        switch self {
        case .notFormData: "expected a body of the type multipart/form-data, got another one"
        case .boundaryMissing: "expected a boundary in Content-Type, got none"
        case .boundaryMalformed: "expected a boundary of 1 to 70 characters of RFC 2046 in Content-Type, got another one"
        case .boundaryNotFound(let limit): "expected a boundary within \(limit) bytes, got none"
        case .boundaryNotTerminated: "expected CRLF or two hyphens after a boundary, got another byte"
        case .tooManyParts(let limit): "expected at most \(limit) parts, got more"
        case .headTooLarge(let limit): "expected at most \(limit) bytes in the head of a part, got more"
        case .headMalformed(let violation): "head of a part: \(violation)"
        case .dispositionMissing: "expected Content-Disposition in the head of a part, got none"
        case .dispositionMalformed: "expected Content-Disposition: form-data with one name, got another value"
        case .transferEncodingNotSupported: "expected the content of a part without an encoding, got one with it"
        case .cutShort: "expected a boundary at the end of the body, got the end before it"
        }
    }
}
