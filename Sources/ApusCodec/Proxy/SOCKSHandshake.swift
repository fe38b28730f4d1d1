/// A client's side of SOCKS version 5 (RFC 1928) with no authentication or user and password (RFC 1929): bytes in, bytes out.
///
/// Names go to the proxy as they are, so they are resolved where it stands.
package struct SOCKSHandshake: Sendable {
    /// Where the tunnel shall lead.
    package enum Destination: Hashable, Sendable {
        /// A host name.
        case name(String)
        /// 4 bytes of an IPv4 address or 16 of an IPv6 address, in network order.
        case address([UInt8])
    }

    /// What to do next.
    package enum Step: Hashable, Sendable {
        /// Send these and wait for the answer.
        case send([UInt8])
        /// The answer has not arrived completely.
        case wait
        /// The tunnel is open; what follows belongs to the destination.
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
    /// The part of an answer that has arrived: at most 262 bytes.
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

    /// What to send first: the methods on offer (RFC 1928 §3).
    package var greeting: [UInt8] { credentials == nil ? [5, 1, 0] : [5, 2, 0, 2] }

    /// Takes bytes of the proxy's, no more than belong to its current answer.
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
            // The length of the last answer becomes known while it is read.
            if try neededBytes() == needed { break }
        }
        let answer = pending
        pending = []
        return try advance(answer)
    }

    /// How long the current answer is, as far as can be told.
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

    private mutating func advance(_ answer: [UInt8]) throws(SOCKSViolation) -> Step {
        switch state {
        case .choosingMethod:
            guard answer[0] == 5 else { throw .malformed("version \(answer[0])") }
            switch answer[1] {
            case 0:
                state = .requesting
                return .send(request)
            case 2:
                guard let credentials else { throw .malformed("a method that was not offered") }
                state = .authenticating
                let (user, password) = (Array(credentials.user.utf8), Array(credentials.password.utf8))
                return .send([1, UInt8(user.count)] + user + [UInt8(password.count)] + password)
            case 0xFF: throw credentials == nil ? .credentialsWanted : .noMethod
            default: throw .malformed("a method that was not offered")
            }
        case .authenticating:
            guard answer[0] == 1 else { throw .malformed("version \(answer[0]) of the authentication") }
            guard answer[1] == 0 else { throw .credentialsRefused }
            state = .requesting
            return .send(request)
        case .requesting:
            guard answer[0] == 5 else { throw .malformed("version \(answer[0])") }
            guard answer[1] == 0 else { throw .refused(answer[1]) }
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

/// Why a SOCKS proxy gives no tunnel.
package enum SOCKSViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// The host has this many bytes: 1 to 255 can be asked for.
    case hostTooLong(Int)
    /// User and password have 1 to 255 bytes each.
    case credentialsTooLong
    /// The answer is not RFC 1928's.
    case malformed(String)
    /// The proxy wants a user and a password, and none was given.
    case credentialsWanted
    /// The proxy takes neither no authentication nor user and password.
    case noMethod
    /// User or password are wrong.
    case credentialsRefused
    /// The reply code of RFC 1928 §6.
    case refused(UInt8)

    /// What is wrong; it holds none of the peer's text.
    package var description: String {
        switch self {
        case .hostTooLong(let count): "a host of \(count) bytes: SOCKS takes 1 to 255"
        case .credentialsTooLong: "SOCKS takes a user and a password of 1 to 255 bytes"
        case .malformed(let what): "the answer is not SOCKS 5: \(what)"
        case .credentialsWanted: "it wants a user and a password"
        case .noMethod: "it takes neither no authentication nor user and password"
        case .credentialsRefused: "it refused the user or the password"
        case .refused(let code): "it answered: \(Self.words(code))"
        }
    }

    private static func words(_ code: UInt8) -> String {
        switch code {
        case 1: "general failure"
        case 2: "not allowed by its rules"
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
