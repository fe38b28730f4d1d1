import ApusPlatform

/// The peer's address and the index of the accepting listener's, packed for the flight recorder.
struct PeerOrigin {
    /// The host's address, IPv4 mapped to IPv6 (RFC 4291 §2.5.5.2); zero for a Unix socket.
    let hostHigh: UInt64
    let hostLow: UInt64
    /// The port; in the highest 16 bits the index of the listener's address.
    let portAndPlace: UInt64
    private let scope: UInt32

    /// The origin of client connections.
    static let thisSide = PeerOrigin(.unix(path: ""), at: noPlace)
    static let noPlace = UInt16.max

    var isThisSide: Bool { portAndPlace >> 48 == UInt64(Self.noPlace) }

    init(_ peer: SocketAddress, at place: UInt16) {
        (hostHigh, hostLow) = peer.hostWords
        portAndPlace = UInt64(peer.port ?? 0) | UInt64(place) << 48
        if case .ipv6(_, _, _, let scope) = peer { self.scope = scope } else { scope = 0 }
    }

    /// The peer's address; nil for a client connection.
    var peer: SocketAddress? {
        if isThisSide { return nil }
        let port = UInt16(truncatingIfNeeded: portAndPlace)
        switch SocketAddress(hostWords: (hostHigh, hostLow), port: port) {
        case .ipv6(let high, let low, _, _): return .ipv6(high: high, low: low, port: port, scope: scope)
        case let address?: return address
        case nil: return .unix(path: "")
        }
    }

    func isOf(_ host: SocketAddress) -> Bool { host.hostWords == (hostHigh, hostLow) && !isThisSide }
}

extension SocketAddress {
    /// The address, IPv4 mapped to IPv6; zeros for a Unix socket.
    var hostWords: (UInt64, UInt64) {
        switch self {
        case .ipv4(let bytes, _): (0, 0xffff_0000_0000 | UInt64(bytes))
        case .ipv6(let high, let low, _, _): (high, low)
        case .unix: (0, 0)
        }
    }

    /// Nil if both words are zero.
    init?(hostWords words: (UInt64, UInt64), port: UInt16) {
        if words == (0, 0) { return nil }
        if words.0 == 0, words.1 >> 32 == 0xffff {
            self = .ipv4(UInt32(truncatingIfNeeded: words.1), port: port)
        } else {
            self = .ipv6(high: words.0, low: words.1, port: port, scope: 0)
        }
    }

    /// The address without port and scope; nil for a Unix socket.
    var hostAlone: SocketAddress? { SocketAddress(hostWords: hostWords, port: 0) }
}
