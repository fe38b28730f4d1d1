import ApusPlatform

/// An address that a server listens on.
public enum ListenAddress: Hashable, Sendable, CustomStringConvertible {
    /// A numeric IPv4 or IPv6 address, without brackets, and a port; with port 0 the kernel chooses
    /// one.
    case tcp(String, port: UInt16)
    /// A Unix socket and the access to its file.
    case unix(path: String, access: SocketAccess = SocketAccess())

    /// Parses `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH[,mode=0660][,owner=USER][,group=GROUP]`.
    /// `localhost` is 127.0.0.1; other host names are not resolved.
    ///
    /// - Throws: `ConfigurationError.invalidAddress` with what was expected.
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
                throw .invalidAddress(text, "expected an absolute path: unix:/PATH")
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
                throw .invalidAddress(text, "expected brackets around the IPv6 address: [\(host)]:\(port)")
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

    /// The address as a socket address.
    ///
    /// - Throws: `ConfigurationError.invalidAddress`.
    package var socketAddress: SocketAddress {
        get throws(ConfigurationError) {
            switch self {
            case .tcp(let host, let port):
                guard let address = SocketAddress(numericHost: host, port: port) else {
                    throw .invalidAddress(description, "expected a numeric IPv4 or IPv6 address, got \"\(host)\"")
                }
                return address
            case .unix(let path, _):
                guard !path.isEmpty, path.utf8.count <= SocketAddress.maxUnixPathBytes else {
                    throw .invalidAddress(description, "expected a path of 1 to \(SocketAddress.maxUnixPathBytes) bytes")
                }
                return .unix(path: path)
            }
        }
    }
}

/// Why a server cannot be set up.
public enum ConfigurationError: Error, Equatable, CustomStringConvertible {
    /// An invalid address to listen on: its text and the reason.
    case invalidAddress(String, String)
    /// `listen(on:)` was not called, and no service manager has passed sockets.
    case nothingToListenOn
    /// A directory that cannot be served: its path and the system's reason.
    case directory(String, String)
    /// A listener whose TLS cannot be set up: its address and the reason, which names the file.
    case tls(String, String)
    /// An element of `Server.clientTLS` that cannot be set up: its index and the reason, which
    /// names the file.
    case clientTLS(Int, String)
    /// A sandbox that cannot be set up: the reason.
    case sandbox(String)
    /// Invalid routes: the reasons.
    case routes(String)
    /// An invalid limit: its name and the reason.
    case limit(String, String)
    /// An invalid `Server.certificateCheckInterval`: the reason.
    case certificateCheckInterval(String)
    /// An invalid origin: its text and what was expected.
    case origin(String, String)
    /// A listener that cannot be opened: the system's reason.
    case listen(String)
    /// A file that cannot be written: its path and the system's reason.
    case file(String, String)
    /// Extensions that cannot be offered together: the reason.
    case extensions(String)
    /// Another system error.
    case system(String)
    /// Workers that cannot be started: the reason.
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
        case .certificateCheckInterval(let reason): "certificateCheckInterval: \(reason)"
        case .origin(let text, let reason): "origin \"\(text)\": \(reason)"
        case .routes(let reason), .extensions(let reason), .listen(let reason), .system(let reason), .workers(let reason): reason
        }
    }
}
