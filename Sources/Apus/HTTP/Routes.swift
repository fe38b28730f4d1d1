import ApusCodec
import Logging

/// What is served where. Made once, before the fork, and never changed after.
struct Routes {
    typealias Handler = (HTTPExchange) -> Void

    /// Protocols by path, in the order they were added: the first serves clients that ask for none.
    var webSockets: [String: [WebSocketProtocol]] = [:]
    private var handlers: [String: [(method: HTTPMethod, handler: Handler)]] = [:]
    /// Longest prefix first.
    private(set) var mounts: [FileMount] = []

    mutating func add(_ method: HTTPMethod, _ path: String, _ handler: @escaping Handler) {
        handlers[path, default: []].append((method, handler))
    }

    mutating func add(_ mount: FileMount) {
        let position = mounts.firstIndex { $0.prefix.utf8.count < mount.prefix.utf8.count } ?? mounts.endIndex
        mounts.insert(mount, at: position)
    }

    /// Answers a request, or hands it to who will.
    func serve(_ exchange: HTTPExchange) {
        let head = exchange.request.head
        if head.target == "*" { return exchange.respond(.noContent, fields: Self.allow(["GET", "HEAD", "OPTIONS"])) }
        let path = head.path
        if let offered = handlers[path] {
            // A GET handler answers HEAD too: the body is left out below it.
            let method = head.method == .head ? .get : head.method
            if let match = offered.first(where: { $0.method == head.method || $0.method == method }) { return match.handler(exchange) }
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
