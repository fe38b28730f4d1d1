/// A request method (RFC 9110 §9): case-sensitive, any token.
public struct HTTPMethod: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The method as it stands in the request line.
    public let rawValue: String

    public init(rawValue: String) { self.rawValue = rawValue }

    public static var get: HTTPMethod { HTTPMethod(rawValue: "GET") }
    public static var head: HTTPMethod { HTTPMethod(rawValue: "HEAD") }
    public static var post: HTTPMethod { HTTPMethod(rawValue: "POST") }
    public static var put: HTTPMethod { HTTPMethod(rawValue: "PUT") }
    public static var delete: HTTPMethod { HTTPMethod(rawValue: "DELETE") }
    public static var options: HTTPMethod { HTTPMethod(rawValue: "OPTIONS") }
    /// RFC 5789.
    public static var patch: HTTPMethod { HTTPMethod(rawValue: "PATCH") }
    public static var connect: HTTPMethod { HTTPMethod(rawValue: "CONNECT") }
    public static var trace: HTTPMethod { HTTPMethod(rawValue: "TRACE") }

    public var description: String { rawValue }

    /// Whether the method is a token, so that it may stand in a request line.
    package var isToken: Bool {
        let utf8 = rawValue.utf8
        return utf8.span.isToken(0..<utf8.count)
    }
}
