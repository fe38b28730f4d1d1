import ApusCodec
import ApusPlatform
import ApusTransport

/// How a client connects, and within which limits.
public struct ClientOptions {
    /// WebSocket extensions to offer, in order of preference.
    public var extensions: [any WebSocketExtension] = []
    /// Nil: `Worker.proxy`.
    public var proxy: ProxyChoice?
    /// TLS for `wss` and `https`. By default the server's certificate must chain to a system root
    /// and be valid for the address's host.
    public var tls = ClientTLS()
    /// The value of `Host`, `HOST[:PORT]`; nil: the address's. Redirects to another origin use that
    /// origin's. The name that TLS sends and verifies is `ClientTLS.serverName`.
    public var host: String?
    /// Time limits, per stage.
    public var timeouts = Timeouts()
    /// A local numeric address to bind to; only servers of the same address family can be reached.
    public var bindAddress: String?
    /// The network interface to use, such as `eth0`; 1 to 15 bytes.
    public var interface: String?
    /// TCP keep-alive; nil: off. WebSockets also have pings: see `Limits.pingInterval`.
    public var keepAlive: KeepAlive?
    /// Most redirects (301, 302, 303, 307, 308) that are followed; 0: none. A redirect from TLS to
    /// plain text is never followed. `Authorization`, `Proxy-Authorization`, `Cookie` and `Origin`
    /// are sent to the first origin only.
    public var maxRedirects = 0
    /// When to reconnect after a failed attempt or a lost connection; nil: never.
    public var reconnect: ReconnectPolicy?
    /// Called for further fields of the request, before each attempt and each redirect
    /// (libwebsockets' `LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER`). An error that it throws ends
    /// the attempt with `ConnectError.request`.
    public var additionalFields: ((ClientAddress) throws -> HTTPFields)?
    /// Called before each pause of `reconnect`, with the error (nil: an open connection has ended)
    /// and the length of the pause.
    public var onRetry: ((ConnectError?, Duration) -> Void)?
    /// Bytes of an HTTP response's body; a larger one fails with `ConnectError.body`.
    public var maxResponseBodyBytes = 1 << 20

    public init() {}

    /// Time limits of each stage. Only progress of a body extends its limit.
    public struct Timeouts: Sendable, Hashable {
        /// To resolve the host's name.
        public var name = Duration.seconds(5)
        /// To connect to one of its addresses.
        public var connect = Duration.seconds(10)
        /// For the proxy to open the tunnel.
        public var proxy = Duration.seconds(10)
        /// For the TLS handshake.
        public var tls = Duration.seconds(10)
        /// From the request to the end of the response's head.
        public var answer = Duration.seconds(10)
        /// Between two reads of a response's body, or two writes of a request's.
        public var body = Duration.seconds(10)

        public init() {}
    }

    /// TCP keep-alive (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
    public struct KeepAlive: Sendable, Hashable {
        /// Idle time before the first probe; whole seconds, 1 to 32767.
        public var idle: Duration
        /// Between probes; whole seconds, 1 to 32767.
        public var interval: Duration
        /// Unanswered probes before the connection is dropped; 1 to 127.
        public var probes: Int

        public init(idle: Duration = .seconds(60), interval: Duration = .seconds(15), probes: Int = 4) {
            self.idle = idle
            self.interval = interval
            self.probes = probes
        }
    }

    /// The value of Host for a request to `address`.
    func host(for address: ClientAddress, isCrossOrigin: Bool) -> String { isCrossOrigin ? address.authority : host ?? address.authority }

    /// The options for sockets.
    ///
    /// - Throws: `ConnectError.request` for an invalid `bindAddress` or `interface`.
    func connectorSettings() throws(ConnectError) -> ConnectorSettings {
        var settings = ConnectorSettings()
        if let bindAddress {
            guard let address = SocketAddress(numericHost: bindAddress, port: 0) else {
                throw .request("bindAddress: expected a numeric IPv4 or IPv6 address, got \(bindAddress.debugDescription)")
            }
            settings.bindAddress = address
        }
        if let interface {
            guard (1...15).contains(interface.utf8.count) else {
                throw .request("interface: expected a name of 1 to 15 bytes, got \(interface.debugDescription)")
            }
            settings.interface = interface
        }
        if let keepAlive {
            func seconds(_ duration: Duration) -> Int32 { Int32(clamping: min(max(duration.components.seconds, 1), 32_767)) }
            settings.keepAlive = (seconds(keepAlive.idle), seconds(keepAlive.interval), Int32(clamping: min(max(keepAlive.probes, 1), 127)))
        }
        return settings
    }
}
