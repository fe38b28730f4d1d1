import ApusCodec
import ApusTransport

/// Adds fields to all responses that make browsers stricter. A field that a response has already is
/// kept: use it behind amendments of your own that set one.
public struct SecurityHeaders: Middleware, Sendable, Hashable {
    /// `X-Content-Type-Options: nosniff`: browsers do not guess media types.
    public var preventsSniffing = true
    /// `X-Frame-Options`: which pages may show the response in a frame; nil: no field.
    public var frameOptions: String? = "DENY"
    /// `Referrer-Policy`: what other origins learn about the page that a link is on; nil: no field.
    public var referrerPolicy: String? = "strict-origin-when-cross-origin"
    /// `Content-Security-Policy`, such as `default-src 'self'`; nil: no field.
    public var contentSecurityPolicy: String?
    /// `Strict-Transport-Security` (RFC 6797), sent over TLS only: browsers use TLS for this host
    /// from then on; nil: no field.
    public var strictTransportSecurity: String? = "max-age=31536000"

    public init() {}

    private func fields(isSecure: Bool) -> [(name: String, value: String?)] {
        [
            ("X-Content-Type-Options", preventsSniffing ? "nosniff" : nil), ("X-Frame-Options", frameOptions),
            ("Referrer-Policy", referrerPolicy), ("Content-Security-Policy", contentSecurityPolicy),
            ("Strict-Transport-Security", isSecure ? strictTransportSecurity : nil),
        ]
    }

    public var fault: String? {
        for case (let name, let value?) in fields(isSecure: true) {
            if let fault = ([name: value] as HTTPFields).literalFault { return fault }
        }
        return nil
    }

    public func amend(_ request: HTTPRequest, _ response: inout Response) {
        for case (let name, let value?) in fields(isSecure: request.security.isTLS) where !response.fields.contains(name) {
            response.fields.append(contentsOf: [name: value])
        }
    }
}
