package import Glibc

/// The address of a socket.
public enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// Four bytes in network order, and a port.
    case ipv4(IPv4Bytes, port: UInt16)
    /// Sixteen bytes in network order as two big-endian words, a port and a scope ID (0 for none).
    case ipv6(high: UInt64, low: UInt64, port: UInt16, scope: UInt32)
    /// A file system path; empty for an unnamed socket.
    case unix(path: String)

    /// The bytes of an IPv4 address, most significant first.
    public typealias IPv4Bytes = UInt32

    /// Parses a numeric address: `127.0.0.1`, `::1` (without brackets). Names are not resolved.
    ///
    /// - Returns: nil for any other text.
    package init?(numericHost host: String, port: UInt16) {
        var v4 = in_addr()
        if unsafe inet_pton(AF_INET, host, &v4) == 1 {
            self = .ipv4(UInt32(bigEndian: v4.s_addr), port: port)
            return
        }
        var v6 = in6_addr()
        guard unsafe inet_pton(AF_INET6, host, &v6) == 1 else { return nil }
        self = .init(v6, port: port, scope: 0)
    }

    /// Parses the form of `description`, with a numeric host only.
    package init?(parsing text: some StringProtocol) {
        if text.hasPrefix("unix:") {
            self = .unix(path: String(text.dropFirst(5)))
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        self.init(numericHost: String(host), port: port)
    }

    private init(_ address: in6_addr, port: UInt16, scope: UInt32) {
        let words = unsafe unsafeBitCast(address, to: (UInt64, UInt64).self)
        self = .ipv6(high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1), port: port, scope: scope)
    }

    /// The address without the port: `127.0.0.1`, `::1`, or the path.
    public var host: String {
        switch self {
        case .ipv4(let bytes, _):
            return "\(bytes >> 24).\(bytes >> 16 & 255).\(bytes >> 8 & 255).\(bytes & 255)"
        case .ipv6(let high, let low, _, _):
            var address = unsafe unsafeBitCast((high.bigEndian, low.bigEndian), to: in6_addr.self)
            return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { text in
                guard unsafe inet_ntop(AF_INET6, &address, text.baseAddress, socklen_t(text.count)) != nil,
                    let start = text.baseAddress
                else { return "::" }
                return unsafe String(cString: start)
            }
        case .unix(let path):
            return path
        }
    }

    /// The port in host order; nil for a Unix socket.
    public var port: UInt16? {
        switch self {
        case .ipv4(_, let port), .ipv6(_, _, let port, _): port
        case .unix: nil
        }
    }

    /// `127.0.0.1:80`, `[::1]:80` or `unix:/path`.
    public var description: String {
        switch self {
        case .ipv4(_, let port): "\(host):\(port)"
        case .ipv6(_, _, let port, _): "[\(host)]:\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    /// The same address with another port; a Unix path is unchanged.
    package func withPort(_ port: UInt16) -> SocketAddress {
        switch self {
        case .ipv4(let bytes, _): .ipv4(bytes, port: port)
        case .ipv6(let high, let low, _, let scope): .ipv6(high: high, low: low, port: port, scope: scope)
        case .unix: self
        }
    }

    /// Most bytes of a Unix socket's path.
    package static let maxUnixPathBytes = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

    var family: Int32 {
        switch self {
        case .ipv4: AF_INET
        case .ipv6: AF_INET6
        case .unix: AF_UNIX
        }
    }

    /// Calls `body` with the address as a `sockaddr`.
    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        switch self {
        case .ipv4(let bytes, let port):
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = bytes.bigEndian
            return unsafe Self.call(body, with: &address)
        case .ipv6(let high, let low, let port, let scope):
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            address.sin6_scope_id = scope
            address.sin6_addr = unsafe unsafeBitCast((high.bigEndian, low.bigEndian), to: in6_addr.self)
            return unsafe Self.call(body, with: &address)
        case .unix(let path):
            precondition(path.utf8.count <= Self.maxUnixPathBytes, "checked when the listener is configured")
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
            return unsafe Self.call(body, with: &address)
        }
    }

    private static func call<Address, Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result, with address: inout Address
    ) -> Result {
        // SAFETY: every sockaddr_* starts like sockaddr, and the length states its size.
        unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<Address>.size))
            }
        }
    }

    /// Converts an IPv4 or IPv6 `sockaddr`, such as a resolver's; nil for other families.
    package init?(_ address: UnsafePointer<sockaddr>) {
        // SAFETY: a sockaddr has the size of its family; no more is read.
        switch Int32(unsafe address.pointee.sa_family) {
        case AF_INET:
            let ipv4 = unsafe UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in.self)
            self = .ipv4(UInt32(bigEndian: ipv4.sin_addr.s_addr), port: UInt16(bigEndian: ipv4.sin_port))
        case AF_INET6:
            let ipv6 = unsafe UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in6.self)
            self = .init(ipv6.sin6_addr, port: UInt16(bigEndian: ipv6.sin6_port), scope: ipv6.sin6_scope_id)
        default:
            return nil
        }
    }

    /// Converts the result of `accept4`, `getsockname` or `getpeername`.
    init?(_ storage: inout sockaddr_storage) {
        // SAFETY: sockaddr_storage is as large and aligned as any sockaddr_*; the family states
        // which one it holds.
        switch Int32(storage.ss_family) {
        case AF_INET:
            let address = unsafe withUnsafeBytes(of: &storage) { unsafe $0.load(as: sockaddr_in.self) }
            self = .ipv4(UInt32(bigEndian: address.sin_addr.s_addr), port: UInt16(bigEndian: address.sin_port))
        case AF_INET6:
            let address = unsafe withUnsafeBytes(of: &storage) { unsafe $0.load(as: sockaddr_in6.self) }
            self = .init(address.sin6_addr, port: UInt16(bigEndian: address.sin6_port), scope: address.sin6_scope_id)
        case AF_UNIX:
            let bytes = unsafe withUnsafeBytes(of: &storage) { unsafe Array($0.dropFirst(2).prefix { $0 != 0 }) }
            self = .unix(path: String(decoding: bytes, as: UTF8.self))
        default:
            return nil
        }
    }
}
