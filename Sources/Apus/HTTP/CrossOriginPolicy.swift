import ApusCodec

/// Lets pages of other origins read responses (CORS, the Fetch standard): answers their preflight
/// requests, and adds fields to all responses. For WebSockets see `Server.origins`.
///
/// Use it before middleware that asks for credentials, which preflight requests do not have.
public struct CrossOriginPolicy: Middleware, Sendable, Hashable {
    /// Whose pages may read responses.
    public var origins: OriginPolicy
    /// Methods that these pages may use.
    public var methods: [HTTPMethod] = [.get, .head, .post, .put, .patch, .delete]
    /// Request fields that these pages may set, besides those that are always allowed.
    public var requestFields = ["Authorization", "Content-Type"]
    /// Response fields that these pages may read, besides those that are always allowed.
    public var exposedFields: [String] = []
    /// Whether browsers send cookies and credentials with the requests.
    public var allowsCredentials = false
    /// How long browsers keep the answer to a preflight request.
    public var maxAge = Duration.seconds(600)

    public init(origins: OriginPolicy) { self.origins = origins }

    public var fault: String? {
        if origins == .any, allowsCredentials { return "expected a list of origins with allowsCredentials, got any origin" }
        if case .list(let entries) = origins {
            for entry in entries {
                if let problem = OriginPolicy.problem(with: entry) { return "origin \(entry.debugDescription): \(problem)" }
            }
        }
        for name in methods.map(\.rawValue) + requestFields + exposedFields where !HTTPMethod(rawValue: name).isToken {
            return "expected a token (RFC 9110 §5.6.2), got \(name.debugDescription)"
        }
        if maxAge < .zero { return "expected a maxAge from 0 s, got \(maxAge)" }
        return nil
    }

    private func allows(_ request: HTTPRequest) -> Bool {
        guard let origin = request.fields["origin"] else { return false }
        return Handshake.originIsAllowed(origin: origin, host: request.fields["host"] ?? "", allowed: origins)
    }

    /// Answers preflight requests of allowed origins.
    public func filter(_ request: HTTPRequest) -> Response? {
        guard request.method == .options, request.fields.contains("access-control-request-method"), allows(request) else { return nil }
        var fields: HTTPFields = [
            "Access-Control-Allow-Methods": methods.map(\.rawValue).joined(separator: ", "),
            "Access-Control-Max-Age": "\(maxAge.components.seconds)",
        ]
        if !requestFields.isEmpty { fields.append(contentsOf: ["Access-Control-Allow-Headers": requestFields.joined(separator: ", ")]) }
        return .empty(fields: fields)
    }

    /// Allows the page of an allowed origin to read the response.
    public func amend(_ request: HTTPRequest, _ response: inout Response) {
        // A cache must not give one origin's response to another.
        if origins != .any { response.fields.append(contentsOf: ["Vary": "Origin"]) }
        guard let origin = request.fields["origin"], allows(request) else { return }
        response.fields.append(contentsOf: ["Access-Control-Allow-Origin": origins == .any ? "*" : origin])
        if allowsCredentials { response.fields.append(contentsOf: ["Access-Control-Allow-Credentials": "true"]) }
        if !exposedFields.isEmpty {
            response.fields.append(contentsOf: ["Access-Control-Expose-Headers": exposedFields.joined(separator: ", ")])
        }
    }
}
