import ApusPlatform

/// Where a server listens.
public enum ListenAddress: Hashable, Sendable, CustomStringConvertible {
    /// A numeric IPv4 or IPv6 address, without brackets, and a port; 0 lets the system choose one.
    case tcp(String, port: UInt16)
    /// A socket in the file system, and who may connect to it.
    case unix(path: String, access: SocketAccess = SocketAccess())

    /// Parses `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`, the last with `,mode=0660`, `,owner=USER` and `,group=GROUP` behind it if wanted. Host
    /// names are not resolved.
    ///
    /// - Throws: `ConfigurationError` that says what is wrong and what would be right.
    public init(parsing text: String) throws(ConfigurationError) {
        if text.hasPrefix("unix:") {
            var parts = text.dropFirst(5).split(separator: ",", omittingEmptySubsequences: false)[...]
            var access = SocketAccess()
            while parts.count > 1, let setting = parts.last, setting.contains("=") {
                try access.set(setting, of: text)
                parts.removeLast()
            }
            let path = parts.joined(separator: ",")
            guard path.isEmpty || path.hasPrefix("/") else {
                throw .invalidAddress(text, "a socket's path begins with a slash: unix:/PATH")
            }
            self = .unix(path: path, access: access)
        } else {
            guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
                throw .invalidAddress(text, "expected HOST:PORT with a port of 0 to 65535, [IPV6]:PORT or unix:/PATH")
            }
            var host = text[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                throw .invalidAddress(text, "an IPv6 address stands in brackets: [\(host)]:\(port)")
            }
            self = .tcp(host == "localhost" ? "127.0.0.1" : String(host), port: port)
        }
        _ = try socketAddress
    }

    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path, let access): "unix:\(path)\(access)"
        }
    }

    /// The address in the form the kernel wants.
    package var socketAddress: SocketAddress {
        get throws(ConfigurationError) {
            switch self {
            case .tcp(let host, let port):
                guard let address = SocketAddress(numericHost: host, port: port) else {
                    throw .invalidAddress(description, "\"\(host)\" is not a numeric IPv4 or IPv6 address")
                }
                return address
            case .unix(let path, _):
                guard !path.isEmpty, path.utf8.count <= SocketAddress.maxUnixPathBytes else {
                    throw .invalidAddress(description, "the path wants 1 to \(SocketAddress.maxUnixPathBytes) bytes")
                }
                return .unix(path: path)
            }
        }
    }
}

/// Why a server cannot be set up as it was described.
public enum ConfigurationError: Error, Equatable, CustomStringConvertible {
    /// An address that cannot be listened on, and why.
    case invalidAddress(String, String)
    /// No address to listen on.
    case nothingToListenOn
    /// A directory that cannot be served, and the system's reason.
    case directory(String, String)
    /// The address of a listener whose TLS cannot be set up, and why: names the file.
    case tls(String, String)
    /// The place in `Server.clientTLS` of what cannot be set up, and why: names the file.
    case clientTLS(Int, String)
    /// A sandbox that cannot be had, and why.
    case sandbox(String)
    /// Routes that cannot be served, and why.
    case routes(String)
    /// A limit that cannot hold: its name, and why.
    case limit(String, String)
    /// An origin that no page has, and what would be right.
    case origin(String, String)
    /// A listener that cannot be had, and the system's reason.
    case listen(String)
    /// A file that cannot be written, and the system's reason.
    case file(String, String)
    /// Extensions that cannot be offered together, and why.
    case extensions(String)
    /// The system refused something else.
    case system(String)
    /// Workers could not be brought up, and why.
    case workers(String)

    public var description: String {
        switch self {
        case .invalidAddress(let text, let reason): "invalid address \"\(text)\": \(reason)"
        case .nothingToListenOn: "no address to listen on: call listen(on:) first"
        case .directory(let path, let reason): "cannot serve the directory \"\(path)\": \(reason)"
        case .tls(let address, let reason): "TLS on \(address): \(reason)"
        case .clientTLS(let place, let reason): "clientTLS[\(place)]: \(reason)"
        case .file(let path, let reason): "cannot write \"\(path)\": \(reason)"
        case .sandbox(let reason): "sandbox: \(reason)"
        case .limit(let name, let reason): "limits.\(name): \(reason)"
        case .origin(let text, let reason): "origin \"\(text)\": \(reason)"
        case .routes(let reason), .extensions(let reason), .listen(let reason), .system(let reason), .workers(let reason): reason
        }
    }
}
