import ApusCodec
import Logging

/// What is served where. Made once, before the fork, and never changed after.
struct Routes {
    typealias Handler = (HTTPExchange) throws -> Void

    /// Protocols by path, in the order they were added: the first serves clients that ask for none.
    private(set) var webSockets: [String: [WebSocketProtocol]] = [:]
    private var handlers: [String: [(method: HTTPMethod, number: Int, handler: Handler)]] = [:]
    /// `GET /items`, by number.
    private(set) var names: [String] = []
    /// Longest prefix first.
    private(set) var mounts: [FileMount] = []
    /// Methods that some path may take: those of RFC 9110 but CONNECT, PATCH, and those of handlers.
    private var methods: Set<HTTPMethod> = [.get, .head, .post, .put, .delete, .options, .trace, .patch]

    /// - Returns: Why the route cannot be served; then nothing is added.
    mutating func add(_ method: HTTPMethod, _ path: String, _ handler: @escaping Handler) -> String? {
        guard method.isToken else { return "expected a token (RFC 9110 §9.1), got the method \(method.rawValue.debugDescription)" }
        if method == .connect { return "expected a method that has a path, got CONNECT" }
        if let objection = Self.objection(to: path) { return objection }
        if handlers[path]?.contains(where: { $0.method == method }) == true { return "expected each route once, got it twice" }
        handlers[path, default: []].append((method, names.count, handler))
        names.append("\(method) \(path)")
        methods.insert(method)
        return nil
    }

    /// - Returns: Why the protocol cannot be offered; then nothing is added.
    mutating func add(_ offered: WebSocketProtocol) -> String? {
        guard HTTPMethod(rawValue: offered.name).isToken else { return "expected a token as the subprotocol's name (RFC 6455 §4.1)" }
        if let objection = Self.objection(to: offered.path) { return objection }
        if webSockets[offered.path]?.contains(where: { $0.name == offered.name }) == true {
            return "expected each subprotocol of a path once, got it twice"
        }
        webSockets[offered.path, default: []].append(offered)
        return nil
    }

    /// Why no request has this path, as far as can be seen; nil if one may.
    static func objection(to path: String) -> String? {
        guard path.utf8.first == UInt8(ascii: "/") else { return "expected a path that begins with \"/\"" }
        if path.utf8.contains(UInt8(ascii: "*")) {
            return "expected one exact path, got a pattern; files(at:in:) serves all that is below a path"
        }
        for byte in path.utf8 where [0, UInt8(ascii: "?"), UInt8(ascii: "#"), UInt8(ascii: "\\")].contains(byte) {
            return "expected a path, got \(String(UnicodeScalar(byte)).debugDescription) in it"
        }
        let segments = path.utf8.split(separator: UInt8(ascii: "/")).map { String(Substring($0)) }
        if segments.contains(".") || segments.contains("..") { return "expected a path without dot segments" }
        return nil
    }

    /// Whether the server knows the method at all; 501 answers others (RFC 9110 §9.1).
    func knows(_ method: HTTPMethod) -> Bool { methods.contains(method) }

    mutating func add(_ mount: FileMount) {
        let position = mounts.firstIndex { $0.prefix.utf8.count < mount.prefix.utf8.count } ?? mounts.endIndex
        mounts.insert(mount, at: position)
    }

    /// Answers a request, or hands it to who will.
    func serve(_ exchange: HTTPExchange) {
        let head = exchange.request.head
        guard knows(head.method) else { return exchange.respond(page: .notImplemented) }
        if head.target == "*" { return exchange.respond(.noContent, fields: Self.allow(["GET", "HEAD", "OPTIONS"])) }
        let path = head.path
        if let offered = handlers[path] {
            // A GET handler answers HEAD too: the body is left out below it.
            let method = head.method == .head ? .get : head.method
            if let match = offered.first(where: { $0.method == head.method || $0.method == method }) {
                exchange.context.serving(.request, route: UInt16(truncatingIfNeeded: match.number + 1))
                do { try match.handler(exchange) } catch { exchange.fail(error) }
                return
            }
            return exchange.respond(page: .methodNotAllowed, fields: Self.allow(offered.map(\.method.rawValue)))
        }
        for mount in mounts where mount.covers(path) {
            guard head.method == .get || head.method == .head else {
                return exchange.respond(page: .methodNotAllowed, fields: Self.allow(["GET", "HEAD"]))
            }
            if mount.serve(path, to: exchange) { return }
        }
        if webSockets[path] != nil {
            var fields = HTTPFields()
            fields.appendChecked("Upgrade", "websocket")
            return exchange.respond(page: .upgradeRequired, "this path speaks WebSocket", fields: fields)
        }
        exchange.respond(page: .notFound)
    }

    private static func allow(_ methods: [String]) -> HTTPFields {
        var fields = HTTPFields()
        fields.appendChecked("Allow", methods.joined(separator: ", "))
        return fields
    }
}
