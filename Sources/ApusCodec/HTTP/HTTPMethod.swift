/// A request method (RFC 9110 §9): any token, case-sensitive.
public struct HTTPMethod: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The method as written in the request line.
    public let rawValue: String

    /// Creates a method. The name is validated when a request is written.
    public init(rawValue: String) { self.rawValue = rawValue }

    /// RFC 9110 §9.3.1: transfer a representation.
    public static var get: HTTPMethod { HTTPMethod(rawValue: "GET") }
    /// RFC 9110 §9.3.2: like GET, without the content.
    public static var head: HTTPMethod { HTTPMethod(rawValue: "HEAD") }
    /// RFC 9110 §9.3.3: process the content.
    public static var post: HTTPMethod { HTTPMethod(rawValue: "POST") }
    /// RFC 9110 §9.3.4: replace the representation.
    public static var put: HTTPMethod { HTTPMethod(rawValue: "PUT") }
    /// RFC 9110 §9.3.5: remove the resource.
    public static var delete: HTTPMethod { HTTPMethod(rawValue: "DELETE") }
    /// RFC 9110 §9.3.7: describe how to communicate.
    public static var options: HTTPMethod { HTTPMethod(rawValue: "OPTIONS") }
    /// RFC 5789: change the resource.
    public static var patch: HTTPMethod { HTTPMethod(rawValue: "PATCH") }
    /// RFC 9110 §9.3.6: open a tunnel.
    public static var connect: HTTPMethod { HTTPMethod(rawValue: "CONNECT") }
    /// RFC 9110 §9.3.8: loop the message back.
    public static var trace: HTTPMethod { HTTPMethod(rawValue: "TRACE") }

    /// The method as written in the request line.
    public var description: String { rawValue }

    /// Whether the method is a token, as a request line requires.
    package var isToken: Bool {
        let utf8 = rawValue.utf8
        return utf8.span.isToken(0..<utf8.count)
    }
}
