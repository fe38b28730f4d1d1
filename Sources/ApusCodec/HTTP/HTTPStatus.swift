/// The status code of a response (RFC 9110 §15, IANA registry).
public struct HTTPStatus: Hashable, Sendable, CustomStringConvertible {
    /// The three-digit code.
    public let code: UInt16

    /// A status of any three-digit code.
    ///
    /// - Precondition: `code` is in 100...999.
    public init(code: UInt16) {
        precondition((100...999).contains(code), "a status code has three digits")
        self.code = code
    }

    /// The code and its reason phrase, as in a status line: `404 Not Found`.
    public var description: String { "\(code) \(reasonPhrase)" }

    /// Whether the response is interim: 100–199.
    public var isInformational: Bool { code < 200 }

    /// Whether the response says that the request succeeded: 200–299.
    public var isSuccessful: Bool { (200...299).contains(code) }

    /// Whether a response of this status never has content, whatever its fields say: 1xx, 204 and 304 (RFC 9112 §6.3).
    package var forbidsContent: Bool { code < 200 || code == 204 || code == 304 }

    /// The registered reason phrase; empty for a code that is not registered, as RFC 9112 §4 allows.
    public var reasonPhrase: String {
        switch code {
        case 100: "Continue"
        case 101: "Switching Protocols"
        case 102: "Processing"
        case 103: "Early Hints"
        case 200: "OK"
        case 201: "Created"
        case 202: "Accepted"
        case 203: "Non-Authoritative Information"
        case 204: "No Content"
        case 205: "Reset Content"
        case 206: "Partial Content"
        case 207: "Multi-Status"
        case 208: "Already Reported"
        case 226: "IM Used"
        case 300: "Multiple Choices"
        case 301: "Moved Permanently"
        case 302: "Found"
        case 303: "See Other"
        case 304: "Not Modified"
        case 305: "Use Proxy"
        case 307: "Temporary Redirect"
        case 308: "Permanent Redirect"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 402: "Payment Required"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 406: "Not Acceptable"
        case 407: "Proxy Authentication Required"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 410: "Gone"
        case 411: "Length Required"
        case 412: "Precondition Failed"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 416: "Range Not Satisfiable"
        case 417: "Expectation Failed"
        case 421: "Misdirected Request"
        case 422: "Unprocessable Content"
        case 423: "Locked"
        case 424: "Failed Dependency"
        case 425: "Too Early"
        case 426: "Upgrade Required"
        case 428: "Precondition Required"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 451: "Unavailable For Legal Reasons"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        case 506: "Variant Also Negotiates"
        case 507: "Insufficient Storage"
        case 508: "Loop Detected"
        case 511: "Network Authentication Required"
        default: ""
        }
    }
}

extension HTTPStatus {
    public static var `continue`: HTTPStatus { HTTPStatus(code: 100) }
    public static var switchingProtocols: HTTPStatus { HTTPStatus(code: 101) }
    public static var processing: HTTPStatus { HTTPStatus(code: 102) }
    public static var earlyHints: HTTPStatus { HTTPStatus(code: 103) }
    public static var ok: HTTPStatus { HTTPStatus(code: 200) }
    public static var created: HTTPStatus { HTTPStatus(code: 201) }
    public static var accepted: HTTPStatus { HTTPStatus(code: 202) }
    public static var nonAuthoritativeInformation: HTTPStatus { HTTPStatus(code: 203) }
    public static var noContent: HTTPStatus { HTTPStatus(code: 204) }
    public static var resetContent: HTTPStatus { HTTPStatus(code: 205) }
    public static var partialContent: HTTPStatus { HTTPStatus(code: 206) }
    public static var multiStatus: HTTPStatus { HTTPStatus(code: 207) }
    public static var alreadyReported: HTTPStatus { HTTPStatus(code: 208) }
    public static var imUsed: HTTPStatus { HTTPStatus(code: 226) }
    public static var multipleChoices: HTTPStatus { HTTPStatus(code: 300) }
    public static var movedPermanently: HTTPStatus { HTTPStatus(code: 301) }
    public static var found: HTTPStatus { HTTPStatus(code: 302) }
    public static var seeOther: HTTPStatus { HTTPStatus(code: 303) }
    public static var notModified: HTTPStatus { HTTPStatus(code: 304) }
    public static var useProxy: HTTPStatus { HTTPStatus(code: 305) }
    public static var temporaryRedirect: HTTPStatus { HTTPStatus(code: 307) }
    public static var permanentRedirect: HTTPStatus { HTTPStatus(code: 308) }
    public static var badRequest: HTTPStatus { HTTPStatus(code: 400) }
    public static var unauthorized: HTTPStatus { HTTPStatus(code: 401) }
    public static var paymentRequired: HTTPStatus { HTTPStatus(code: 402) }
    public static var forbidden: HTTPStatus { HTTPStatus(code: 403) }
    public static var notFound: HTTPStatus { HTTPStatus(code: 404) }
    public static var methodNotAllowed: HTTPStatus { HTTPStatus(code: 405) }
    public static var notAcceptable: HTTPStatus { HTTPStatus(code: 406) }
    public static var proxyAuthenticationRequired: HTTPStatus { HTTPStatus(code: 407) }
    public static var requestTimeout: HTTPStatus { HTTPStatus(code: 408) }
    public static var conflict: HTTPStatus { HTTPStatus(code: 409) }
    public static var gone: HTTPStatus { HTTPStatus(code: 410) }
    public static var lengthRequired: HTTPStatus { HTTPStatus(code: 411) }
    public static var preconditionFailed: HTTPStatus { HTTPStatus(code: 412) }
    public static var contentTooLarge: HTTPStatus { HTTPStatus(code: 413) }
    public static var uriTooLong: HTTPStatus { HTTPStatus(code: 414) }
    public static var unsupportedMediaType: HTTPStatus { HTTPStatus(code: 415) }
    public static var rangeNotSatisfiable: HTTPStatus { HTTPStatus(code: 416) }
    public static var expectationFailed: HTTPStatus { HTTPStatus(code: 417) }
    public static var misdirectedRequest: HTTPStatus { HTTPStatus(code: 421) }
    public static var unprocessableContent: HTTPStatus { HTTPStatus(code: 422) }
    public static var locked: HTTPStatus { HTTPStatus(code: 423) }
    public static var failedDependency: HTTPStatus { HTTPStatus(code: 424) }
    public static var tooEarly: HTTPStatus { HTTPStatus(code: 425) }
    public static var upgradeRequired: HTTPStatus { HTTPStatus(code: 426) }
    public static var preconditionRequired: HTTPStatus { HTTPStatus(code: 428) }
    public static var tooManyRequests: HTTPStatus { HTTPStatus(code: 429) }
    public static var requestHeaderFieldsTooLarge: HTTPStatus { HTTPStatus(code: 431) }
    public static var unavailableForLegalReasons: HTTPStatus { HTTPStatus(code: 451) }
    public static var internalServerError: HTTPStatus { HTTPStatus(code: 500) }
    public static var notImplemented: HTTPStatus { HTTPStatus(code: 501) }
    public static var badGateway: HTTPStatus { HTTPStatus(code: 502) }
    public static var serviceUnavailable: HTTPStatus { HTTPStatus(code: 503) }
    public static var gatewayTimeout: HTTPStatus { HTTPStatus(code: 504) }
    public static var httpVersionNotSupported: HTTPStatus { HTTPStatus(code: 505) }
    public static var variantAlsoNegotiates: HTTPStatus { HTTPStatus(code: 506) }
    public static var insufficientStorage: HTTPStatus { HTTPStatus(code: 507) }
    public static var loopDetected: HTTPStatus { HTTPStatus(code: 508) }
    public static var networkAuthenticationRequired: HTTPStatus { HTTPStatus(code: 511) }
}
