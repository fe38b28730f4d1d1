import ApusCodec
import ApusPlatform
import ApusTransport

/// Who sent a request: the peer or, if that is one of `Server.trustedProxies`, the client that the
/// proxies name.
public struct RequestClient: Sendable, Hashable {
    /// The client's address. If the proxies do not tell it, that of the proxy next to the client.
    /// The port is 0 if no proxy tells it.
    public let address: SocketAddress
    /// The client's name if a proxy tells one instead of the address (RFC 7239 §6.3), such as
    /// `_hidden`.
    public let name: String?
    /// The scheme of the client's request: `http` or `https`, or what the proxies tell.
    public let scheme: String
    /// The host of the client's request, possibly with a port.
    public let host: String?

    init(_ request: HTTPRequest, behind proxies: TrustedProxies.Checked?) {
        let own = (scheme: request.security.isTLS ? "https" : "http", host: request.fields["host"])
        guard let proxies, proxies.networks.contains(request.peer) else {
            (address, name, scheme, host) = (request.peer, nil, own.scheme, own.host)
            return
        }
        let forwarded = proxies.networks.client(request.fields, from: proxies.source, peer: request.peer)
        var port: UInt16?
        var name: String?
        switch forwarded.client {
        case .address(_, let told): port = told
        case .obfuscated(let told): name = told
        case .unknown: break
        }
        self.name = name
        let nearest = forwarded.nearestAddress
        let isPeer = nearest == request.peer.ip
        address = isPeer ? request.peer : SocketAddress(hostWords: (nearest.high, nearest.low), port: port ?? 0) ?? request.peer
        scheme = forwarded.scheme ?? own.scheme
        host = forwarded.host ?? own.host
    }
}

extension HTTPRequest {
    /// Who sent the request, also behind `Server.trustedProxies`. Each access reads the fields.
    public var client: RequestClient { RequestClient(self, behind: worker.routes.proxies) }
}
