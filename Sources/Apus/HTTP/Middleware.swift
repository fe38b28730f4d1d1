/// What surrounds handlers: it decides about requests before their bodies are read, and changes
/// responses. `Server.use` adds it. Its functions are called on workers' threads.
public protocol Middleware {
    /// What is wrong with its configuration, which becomes a `ConfigurationError`; nil if nothing
    /// is.
    var fault: String? { get }
    /// Called for each request and each opening handshake; see `Server.filter`.
    ///
    /// - Returns: nil to go on, or the response.
    func filter(_ request: HTTPRequest) throws -> Response?
    /// Called for each response before its head is sent; see `Server.amend`.
    func amend(_ request: HTTPRequest, _ response: inout Response)
}

extension Middleware {
    public var fault: String? { nil }
    public func filter(_ request: HTTPRequest) throws -> Response? { nil }
    public func amend(_ request: HTTPRequest, _ response: inout Response) {}
}
