import ApusCodec

/// Answers requests to a path, and below it, with 403 by the networks of their clients; behind
/// proxies set `Server.trustedProxies`.
///
/// Networks are such as `10.0.0.0/8`, `2001:db8::/32`, `127.0.0.1`, and `unix:` for peers on Unix
/// sockets.
public struct ClientNetworks: Middleware {
    private let place: PathPrefix
    private let allowed: PeerNetworks?
    private let denied: PeerNetworks
    public let fault: String?

    /// Allows clients in certain networks only.
    ///
    /// - Parameter denied: networks in them that are refused.
    public init(at path: String = "/", allow networks: [String], except denied: [String] = []) {
        self.init(path, allowed: networks, denied: denied)
    }

    /// Denies clients in certain networks.
    public init(at path: String = "/", deny networks: [String]) { self.init(path, allowed: nil, denied: networks) }

    private init(_ path: String, allowed: [String]?, denied: [String]) {
        place = PathPrefix(path)
        var networks: (allowed: PeerNetworks?, denied: PeerNetworks) = (nil, PeerNetworks())
        var fault = place.fault
        do throws(NetworkFault) {
            if let allowed { networks.allowed = try PeerNetworks(allowed) }
            networks.denied = try PeerNetworks(denied)
        } catch {
            fault = error.description
        }
        (self.allowed, self.denied, self.fault) = (networks.allowed, networks.denied, fault)
    }

    public func filter(_ request: HTTPRequest) -> Response? {
        guard place.covers(request.path) else { return nil }
        let address = request.client.address
        if !denied.contains(address), allowed?.contains(address) != false { return nil }
        return .page(.forbidden)
    }
}
