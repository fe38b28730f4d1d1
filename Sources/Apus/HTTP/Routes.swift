import ApusCodec
import Logging

/// The routes of a server. Immutable after the fork.
struct Routes {
    /// What is served at one pattern.
    private struct Endpoint {
        var routes: [Route] = []
        /// The first serves clients without a subprotocol.
        var webSockets: [WebSocketProtocol] = []

        /// The methods that the endpoint answers, for `Allow`.
        var allowed: [String] {
            let methods = routes.map(\.method.rawValue)
            let head = methods.contains("GET") && !methods.contains("HEAD") ? ["HEAD"] : []
            return methods + head + (methods.contains("OPTIONS") ? [] : ["OPTIONS"])
        }

        /// A GET route also serves HEAD; the session leaves out the content.
        func route(_ method: HTTPMethod) -> Route? {
            for route in routes where route.method == method { return route }
            return method == .head ? routes.first { $0.method == .get } : nil
        }
    }

    /// What happens to a request.
    enum Resolution {
        case route(Route)
        case webSocket([WebSocketProtocol])
        case response(Response)
    }

    typealias Filter = (HTTPRequest) throws -> Response?
    typealias Amendment = (HTTPRequest, inout Response) -> Void

    private var table = RouteTable<Endpoint>()
    /// The names of routes, such as `GET /items`, by number.
    private(set) var names: [String] = []
    /// Longest prefix first.
    private(set) var mounts: [FileMount] = []
    /// The directory of `Response.file`.
    var fileDirectory: FileMount?
    private(set) var fallback: Route?
    /// `Server.trustedProxies`.
    var proxies: TrustedProxies.Checked?
    var filters: [Filter] = []
    var amendments: [Amendment] = []
    /// Methods that the server implements: those of RFC 9110 without CONNECT, PATCH (RFC 5789), and
    /// those of handlers.
    private var methods: Set<HTTPMethod> = [.get, .head, .post, .put, .delete, .options, .trace, .patch]

    // MARK: Adding

    /// - Returns: why the route is invalid, in which case it is not added; else nil.
    mutating func add(_ method: HTTPMethod, _ path: String, maxBodyBytes: Int? = nil, _ action: Route.Action) -> String? {
        guard method.isToken else { return "expected a token (RFC 9110 §9.1), got the method \(method.rawValue.debugDescription)" }
        if method == .connect { return "expected a method that has a path, got CONNECT" }
        let known = HTTPMethod(rawValue: method.rawValue.uppercased())
        if !methods.contains(method), methods.contains(known) {
            return "expected \(known), got \(method): methods are case-sensitive"
        }
        if let maxBodyBytes, maxBodyBytes < 0 { return "expected a limit from 0 bytes for the body, got \(maxBodyBytes)" }
        do throws(RouteFault) {
            let index = try table.index(adding: path, Endpoint())
            if table[index].routes.contains(where: { $0.method == method }) { return "expected each route once, got it twice" }
            table[index].routes.append(Route(method, path, number: names.count, maxBodyBytes: maxBodyBytes, action))
        } catch {
            return error.description
        }
        names.append("\(method) \(path)")
        methods.insert(method)
        return nil
    }

    /// - Returns: why the protocol is invalid, in which case it is not added; else nil.
    mutating func add(_ offered: WebSocketProtocol) -> String? {
        guard HTTPMethod(rawValue: offered.name).isToken else { return "expected a token as the subprotocol's name (RFC 6455 §4.1)" }
        do throws(RouteFault) {
            let index = try table.index(adding: offered.path, Endpoint())
            if table[index].webSockets.contains(where: { $0.name == offered.name }) {
                return "expected each subprotocol of a path once, got it twice"
            }
            table[index].webSockets.append(offered)
        } catch {
            return error.description
        }
        return nil
    }

    mutating func add(_ mount: FileMount) {
        let position = mounts.firstIndex { $0.prefix.utf8.count < mount.prefix.utf8.count } ?? mounts.endIndex
        mounts.insert(mount, at: position)
    }

    /// Sets the handler of requests that nothing else matches.
    ///
    /// - Returns: why it is invalid; else nil.
    mutating func setFallback(_ respond: @escaping (HTTPRequest) throws -> Response) -> String? {
        if fallback != nil { return "expected one fallback, got two" }
        fallback = Route(.get, "fallback", number: names.count, maxBodyBytes: nil, .response(respond))
        names.append("fallback")
        return nil
    }

    /// Why a mount's prefix would never match; nil if none is found.
    static func objection(to prefix: String) -> String? {
        do throws(RouteFault) {
            var table = RouteTable<Void>()
            try table.add(prefix, ())
            if prefix.utf8.contains(UInt8(ascii: "*")) || prefix.utf8.contains(UInt8(ascii: ":")) {
                return "expected a path, got a pattern; files(at:in:) serves all that is below a path"
            }
            return nil
        } catch {
            return error.description
        }
    }

    // MARK: Requests

    /// What happens to a request, whose head is complete. The parameters of its route are set.
    ///
    /// - Throws: what a filter throws.
    func resolve(_ request: HTTPRequest) throws -> Resolution {
        let head = request.head
        // RFC 9110 §9.1: 501 for a method that is not implemented at all.
        guard methods.contains(head.method) else { return .response(.page(.notImplemented)) }
        for filter in filters { if let response = try filter(request) { return .response(response) } }
        if head.target == "*" { return Self.otherMethod(.options, allowed: ["GET", "HEAD", "OPTIONS"]) }
        let path = head.path
        guard let match = table.match(path) else { return file(path, request) ?? unmatched }
        let endpoint = match.value
        if !match.parameters.isEmpty { request.parameters = match.parameters }
        if head.wantsUpgradeToWebSocket, !endpoint.webSockets.isEmpty { return .webSocket(endpoint.webSockets) }
        if let route = endpoint.route(head.method) { return .route(route) }
        guard endpoint.routes.isEmpty else { return Self.otherMethod(head.method, allowed: endpoint.allowed) }
        if let file = file(path, request) { return file }
        return .response(.page(.upgradeRequired, "this path speaks WebSocket", fields: Self.field("Upgrade", "websocket")))
    }

    private var unmatched: Resolution { fallback.map { .route($0) } ?? .response(.page(.notFound)) }

    private func file(_ path: String, _ request: HTTPRequest) -> Resolution? {
        for mount in mounts where mount.covers(path) {
            guard request.method == .get || request.method == .head else {
                return Self.otherMethod(request.method, allowed: ["GET", "HEAD", "OPTIONS"])
            }
            if let response = mount.response(to: request, at: path) { return .response(response) }
        }
        return nil
    }

    /// OPTIONS, or a method that is not allowed at a path.
    private static func otherMethod(_ method: HTTPMethod, allowed: [String]) -> Resolution {
        let allow = field("Allow", allowed.joined(separator: ", "))
        return .response(method == .options ? .empty(fields: allow) : .page(.methodNotAllowed, fields: allow))
    }

    /// The response with a file of `fileDirectory`.
    func file(_ name: String, for response: Response, to request: HTTPRequest) -> Response {
        guard let fileDirectory else {
            request.worker.logger.error("\(request.logName): expected Server.fileDirectory to be set for the file \(name.debugDescription)")
            return .page(.internalServerError)
        }
        return fileDirectory.response(to: request, named: name, for: response) ?? .page(.notFound)
    }

    /// Every directory that requests may read.
    var directories: [FileMount] { mounts + (fileDirectory.map { [$0] } ?? []) }

    /// Applies the server's amendments to a response.
    func amend(_ response: inout Response, _ request: HTTPRequest) {
        for amend in amendments { amend(request, &response) }
    }

    private static func field(_ name: String, _ value: String) -> HTTPFields {
        var fields = HTTPFields()
        fields.appendChecked(name, value)
        return fields
    }
}
