/// The client's side of SOCKS version 5 (RFC 1928), without authentication or with user and
/// password (RFC 1929).
///
/// Host names are sent to the proxy, which resolves them.
package struct SOCKSHandshake: Sendable {
    /// The endpoint of the tunnel.
    package enum Destination: Hashable, Sendable {
        /// A host name.
        case name(String)
        /// 4 bytes of an IPv4 address or 16 of an IPv6 address, in network order.
        case address([UInt8])
    }

    /// What to do next.
    package enum Step: Hashable, Sendable {
        /// Send these bytes and wait for the reply.
        case send([UInt8])
        /// The reply is not complete.
        case wait
        /// The tunnel is open; the bytes that follow come from the destination.
        case open
    }

    private enum State {
        case choosingMethod
        case authenticating
        case requesting
        case open
    }

    private let destination: Destination
    private let port: UInt16
    private let credentials: BasicCredentials?
    private var state = State.choosingMethod
    /// The part of the reply that has arrived: at most 262 bytes.
    private var pending: [UInt8] = []

    /// - Throws: `SOCKSViolation.hostTooLong`, `.credentialsTooLong`.
    package init(to destination: Destination, port: UInt16, credentials: BasicCredentials?) throws(SOCKSViolation) {
        if case .name(let name) = destination, !(1...255).contains(name.utf8.count) { throw .hostTooLong(name.utf8.count) }
        if let credentials {
            guard (1...255).contains(credentials.user.utf8.count), (1...255).contains(credentials.password.utf8.count) else {
                throw .credentialsTooLong
            }
        }
        self.destination = destination
        self.port = port
        self.credentials = credentials
    }

    /// The first bytes to send: the authentication methods offered (RFC 1928 §3).
    package var greeting: [UInt8] { credentials == nil ? [5, 1, 0] : [5, 2, 0, 2] }

    /// Takes bytes of the proxy's current reply, and no bytes behind it.
    ///
    /// - Parameter consumed: Set to the number of bytes taken.
    package mutating func receive(_ bytes: Span<UInt8>, consumed: inout Int) throws(SOCKSViolation) -> Step {
        consumed = 0
        while true {
            let needed = try neededBytes()
            while pending.count < needed, consumed < bytes.count {
                pending.append(bytes[consumed])
                consumed += 1
            }
            guard pending.count == needed else { return .wait }
            // The length of the last reply depends on its fifth byte.
            if try neededBytes() == needed { break }
        }
        let reply = pending
        pending = []
        return try advance(reply)
    }

    /// The length of the current reply, as far as it is known.
    private func neededBytes() throws(SOCKSViolation) -> Int {
        switch state {
        case .choosingMethod, .authenticating: return 2
        case .open: return 0
        case .requesting:
            guard pending.count >= 5 else { return 5 }
            // VER REP RSV ATYP BND.ADDR BND.PORT (RFC 1928 §6).
            switch pending[3] {
            case 1: return 10
            case 3: return 7 + Int(pending[4])
            case 4: return 22
            case let type: throw .malformed("address type \(type)")
            }
        }
    }

    private mutating func advance(_ reply: [UInt8]) throws(SOCKSViolation) -> Step {
        switch state {
        case .choosingMethod:
            guard reply[0] == 5 else { throw .malformed("version \(reply[0])") }
            switch reply[1] {
            case 0:
                state = .requesting
                return .send(request)
            case 2:
                guard let credentials else { throw .malformed("a method that was not offered") }
                state = .authenticating
                let (user, password) = (Array(credentials.user.utf8), Array(credentials.password.utf8))
                return .send([1, UInt8(user.count)] + user + [UInt8(password.count)] + password)
            case 0xFF: throw credentials == nil ? .credentialsRequired : .noAcceptableMethod
            default: throw .malformed("a method that was not offered")
            }
        case .authenticating:
            guard reply[0] == 1 else { throw .malformed("authentication version \(reply[0])") }
            guard reply[1] == 0 else { throw .credentialsRefused }
            state = .requesting
            return .send(request)
        case .requesting:
            guard reply[0] == 5 else { throw .malformed("version \(reply[0])") }
            guard reply[1] == 0 else { throw .refused(reply[1]) }
            state = .open
            return .open
        case .open: return .open
        }
    }

    /// VER CMD RSV ATYP DST.ADDR DST.PORT (RFC 1928 §4), for CONNECT.
    private var request: [UInt8] {
        var bytes: [UInt8] = [5, 1, 0]
        switch destination {
        case .name(let name): bytes += [3, UInt8(name.utf8.count)] + name.utf8
        case .address(let address): bytes += [address.count == 4 ? 1 : 4] + address
        }
        return bytes + [UInt8(port >> 8), UInt8(port & 0xFF)]
    }
}

/// Why a SOCKS proxy does not open a tunnel.
package enum SOCKSViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// The host has this many bytes; SOCKS allows 1 to 255.
    case hostTooLong(Int)
    /// The user or the password does not have 1 to 255 bytes.
    case credentialsTooLong
    /// The reply does not follow RFC 1928.
    case malformed(String)
    /// The proxy requires a user and a password, and none were given.
    case credentialsRequired
    /// The proxy supports neither "no authentication" nor user and password.
    case noAcceptableMethod
    /// The proxy rejected the user or the password.
    case credentialsRefused
    /// The proxy refused the request, with this reply code (RFC 1928 §6).
    case refused(UInt8)

    /// What is wrong; contains none of the peer's text.
    package var description: String {
        switch self {
        case .hostTooLong(let count): "host: SOCKS expected 1 to 255 bytes, got \(count)"
        case .credentialsTooLong: "user, password: SOCKS expected 1 to 255 bytes each"
        case .malformed(let what): "reply: expected SOCKS 5, got \(what)"
        case .credentialsRequired: "a user and a password are required"
        case .noAcceptableMethod: "no acceptable authentication method"
        case .credentialsRefused: "user or password rejected"
        case .refused(let code): "request refused: \(Self.words(code))"
        }
    }

    private static func words(_ code: UInt8) -> String {
        switch code {
        case 1: "general failure"
        case 2: "not allowed by the proxy's rules"
        case 3: "network unreachable"
        case 4: "host unreachable"
        case 5: "connection refused"
        case 6: "time to live expired"
        case 7: "command not supported"
        case 8: "address type not supported"
        default: "code \(code)"
        }
    }
}
