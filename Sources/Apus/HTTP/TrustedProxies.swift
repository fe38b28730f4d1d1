import ApusCodec
import ApusPlatform

/// The proxies in front of a server, whose fields tell who the client is: see
/// `HTTPRequest.client`. Fields that come from elsewhere are ignored, since any client can send
/// them.
public struct TrustedProxies: Sendable, Hashable {
    /// Which fields the proxies set. Only these are read.
    public enum Fields: Sendable, Hashable {
        /// `Forwarded` (RFC 7239).
        case forwarded
        /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`. The outermost proxy must
        /// set or remove the last two.
        case xForwarded
    }

    /// Addresses and networks: `127.0.0.1`, `10.0.0.0/8`, `2001:db8::/32`; `unix:` for all
    /// peers on Unix sockets.
    public var networks: [String]
    public var fields: Fields

    public init(_ networks: [String], fields: Fields = .xForwarded) {
        self.networks = networks
        self.fields = fields
    }

    typealias Checked = (networks: PeerNetworks, source: ForwardedFields.Source)

    /// The networks, parsed.
    var checked: Checked {
        get throws(ConfigurationError) {
            do throws(NetworkFault) {
                return (try PeerNetworks(networks), fields == .forwarded ? .forwarded : .xForwarded)
            } catch {
                throw .routes("trustedProxies: \(error)")
            }
        }
    }
}

/// Networks as they are compared with the addresses of sockets.
struct PeerNetworks {
    private let networks: NetworkList
    private let includesUnix: Bool
    /// With the address that stands for a Unix socket, which no client can have, if these are in
    /// it.
    private let trusted: NetworkList

    /// None.
    init() { (networks, includesUnix, trusted) = (NetworkList([]), false, NetworkList([])) }

    /// - Throws: `NetworkFault`.
    init(_ texts: [String]) throws(NetworkFault) {
        includesUnix = texts.contains("unix:")
        networks = try NetworkList(parsing: texts.filter { $0 != "unix:" })
        trusted = includesUnix ? NetworkList(networks.networks + [Network(SocketAddress.unix(path: "").ip)]) : networks
    }

    func contains(_ address: SocketAddress) -> Bool {
        if case .unix = address { includesUnix } else { networks.contains(address.ip) }
    }

    /// The client of a request that came from a proxy in these networks.
    func client(_ fields: HTTPFields, from source: ForwardedFields.Source, peer: SocketAddress) -> ForwardedFields {
        ForwardedFields(fields, from: source, peer: peer.ip, port: peer.port, trusted: trusted)
    }
}

extension SocketAddress {
    /// The address without port and scope; `::` for a Unix socket.
    var ip: IPAddress { IPAddress(high: hostWords.0, low: hostWords.1) }
}
