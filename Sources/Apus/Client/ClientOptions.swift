import ApusCodec
import ApusPlatform
import ApusTransport

/// How a client connects.
public struct ClientOptions {
    /// WebSocket extensions to offer, in order of preference.
    public var extensions: [any WebSocketExtension] = []
    /// Nil: what `Context.proxy` says.
    public var proxy: ProxyChoice?
    /// How `wss` and `https` are secured: by default the server's certificate must lead to a root of the system's and hold for the
    /// address's host.
    public var tls = ClientTLS()
    /// The value of the request's Host, `host[:port]`; nil: that of the address. An answer that leads to another origin is followed with that
    /// origin's own. What TLS asks for and verifies is another matter: `ClientTLS.serverName`.
    public var host: String?
    /// How long each stage may take.
    public var timeouts = Timeouts()
    /// A numeric address of this host to connect from; only servers of its family can be reached.
    public var bindAddress: String?
    /// The network interface to connect by, such as `eth0`.
    public var interface: String?
    /// Probes of a silent peer by the kernel; nil: none. A WebSocket has its own pings: see `Limits.pingInterval`.
    public var keepAlive: KeepAlive?
    /// Answers that lead elsewhere (301, 302, 303, 307, 308) are followed so many times, but never from TLS to plain. What was given as
    /// `Authorization`, `Proxy-Authorization`, `Cookie` or origin is told only to the origin it was given for. 0: none is followed.
    public var maxRedirects = 0
    /// Connect again when an attempt has failed or the server has gone; nil: never.
    public var reconnect: ReconnectPolicy?
    /// Further fields of the request, asked for with each attempt and each redirection (libwebsockets'
    /// `LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER`). What it throws ends the attempt with `ConnectError.request`.
    public var additionalFields: ((ClientAddress) throws -> HTTPFields)?
    /// Told before each pause of `reconnect`: what failed (nil: an open connection has ended) and how long it will be.
    public var whenRetrying: ((ConnectError?, Duration) -> Void)?
    /// Bytes of the body of an HTTP answer; more fails with `ConnectError.body`.
    public var maxResponseBodyBytes = 1 << 20

    public init() {}

    /// How long each stage of opening may take. None is prolonged by bytes that trickle, except the body's.
    public struct Timeouts: Sendable, Hashable {
        /// Until the host's name is resolved.
        public var name = Duration.seconds(5)
        /// Until one of its addresses is connected.
        public var connect = Duration.seconds(10)
        /// Until the proxy has opened the tunnel.
        public var proxy = Duration.seconds(10)
        /// Until TLS has shaken hands.
        public var tls = Duration.seconds(10)
        /// From the request to the end of the answer's head.
        public var answer = Duration.seconds(10)
        /// Between two arrivals of an answer's body, or two departures of a request's.
        public var body = Duration.seconds(10)

        public init() {}
    }

    /// The kernel's probes of a silent peer (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
    public struct KeepAlive: Sendable, Hashable {
        /// Silence before the first probe; whole seconds.
        public var idle: Duration
        /// Between probes; whole seconds.
        public var interval: Duration
        /// How many may go unanswered.
        public var probes: Int

        public init(idle: Duration = .seconds(60), interval: Duration = .seconds(15), probes: Int = 4) {
            self.idle = idle
            self.interval = interval
            self.probes = probes
        }
    }

    /// The value of Host for a request to `address`.
    func host(for address: ClientAddress, isElsewhere: Bool) -> String { isElsewhere ? address.authority : host ?? address.authority }

    /// What sockets are made with.
    func connectorSettings() throws(ConnectError) -> ConnectorSettings {
        var settings = ConnectorSettings()
        if let bindAddress {
            guard let address = SocketAddress(numericHost: bindAddress, port: 0) else {
                throw .request("bindAddress \(bindAddress.debugDescription) is not a numeric IPv4 or IPv6 address")
            }
            settings.bindAddress = address
        }
        if let interface {
            guard (1...15).contains(interface.utf8.count) else {
                throw .request("interface \(interface.debugDescription): a network interface's name has 1 to 15 bytes")
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
