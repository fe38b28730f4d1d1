/// The endpoints of a connection to a proxy, which the proxy sends before the first byte (haproxy's
/// proxy-protocol.txt, versions 1 and 2).
package enum ProxyHeader: Hashable, Sendable {
    /// An address and a port of the connection to the proxy.
    package struct Endpoint: Hashable, Sendable {
        package let address: IPAddress
        package let port: UInt16

        package init(_ address: IPAddress, port: UInt16) {
            self.address = address
            self.port = port
        }
    }

    /// The client, and the address to which it connected.
    case addresses(source: Endpoint, destination: Endpoint)
    /// The proxy connected for itself, for example to check the server's health. The connection's
    /// own addresses are valid.
    case local
    /// The proxy does not know the client's address, or it is none of the Internet Protocol. The
    /// connection's own addresses are the best that is known.
    case unknown
}

/// Decodes the header of the PROXY protocol at the beginning of a connection.
///
/// A listener must expect the header either on all connections or on none, and from trusted proxies
/// only: any other client could send one (§2). The decoder must not be used after an error or a
/// header.
package struct ProxyHeaderDecoder: Sendable {
    /// Bytes of a header of version 1, with its CRLF (§2.1).
    package static let maxBytesOfVersion1 = 107
    /// Bytes of a header of version 2: 16, and addresses with additional values.
    package static let maxBytesOfVersion2 = 16 + 4096

    private static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
    private static let prefix = Array("PROXY ".utf8)

    /// The part of the header that has arrived.
    private var pending: [UInt8] = []

    package init() {}

    /// Whether no byte has been taken yet.
    package var isIdle: Bool { pending.isEmpty }

    /// Takes the next bytes of the connection, and none behind the header.
    ///
    /// - Parameter consumed: Set to the number of bytes taken.
    /// - Returns: The header; nil if more bytes are needed.
    /// - Throws: `ProxyHeaderViolation`, as soon as the bytes cannot become a header.
    package mutating func decode(_ bytes: Span<UInt8>, consumed: inout Int) throws(ProxyHeaderViolation) -> ProxyHeader? {
        consumed = 0
        while consumed < bytes.count {
            pending.append(bytes[consumed])
            consumed += 1
            if pending[0] == Self.prefix[0] {
                if try isCompleteVersion1() { return try Version1Line(pending.dropLast(2)).header() }
            } else if try isCompleteVersion2() {
                return try Version2Block(pending).header()
            }
        }
        return nil
    }

    /// Checks the byte that came last.
    private func isCompleteVersion1() throws(ProxyHeaderViolation) -> Bool {
        let last = pending.count - 1
        if last < Self.prefix.count {
            guard pending[last] == Self.prefix[last] else { throw .notProxyHeader }
            return false
        }
        if pending[last - 1] == ByteClass.carriageReturn {
            guard pending[last] == ByteClass.lineFeed else { throw .lineMalformed }
            return true
        }
        guard pending[last] != ByteClass.lineFeed else { throw .lineMalformed }
        guard pending.count < Self.maxBytesOfVersion1 else { throw .tooLong(limit: Self.maxBytesOfVersion1) }
        return false
    }

    /// Checks the byte that came last.
    private func isCompleteVersion2() throws(ProxyHeaderViolation) -> Bool {
        let last = pending.count - 1
        if last < Self.signature.count {
            guard pending[last] == Self.signature[last] else { throw .notProxyHeader }
            return false
        }
        guard last != 12 || pending[12] >> 4 == 2 else { throw .versionNotSupported(pending[12] >> 4) }
        guard pending.count >= 16 else { return false }
        let count = 16 + (Int(pending[14]) << 8 | Int(pending[15]))
        guard count <= Self.maxBytesOfVersion2 else { throw .tooLong(limit: Self.maxBytesOfVersion2) }
        return pending.count == count
    }
}

/// The line of version 1 without its CRLF: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443` (§2.1).
private struct Version1Line {
    let words: [ArraySlice<UInt8>]

    init(_ line: ArraySlice<UInt8>) { words = line.split(separator: ByteClass.space, omittingEmptySubsequences: false) }

    func header() throws(ProxyHeaderViolation) -> ProxyHeader {
        let isIPv4: Bool
        switch String(decoding: words[1], as: UTF8.self) {
        // What follows must be ignored.
        case "UNKNOWN": return .unknown
        case "TCP4": isIPv4 = true
        case "TCP6": isIPv4 = false
        default: throw .lineMalformed
        }
        guard words.count == 6, let source = Self.address(words[2], isIPv4), let destination = Self.address(words[3], isIPv4),
            let sourcePort = Self.port(words[4]), let destinationPort = Self.port(words[5])
        else { throw .lineMalformed }
        return .addresses(
            source: .init(source, port: sourcePort), destination: .init(destination, port: destinationPort))
    }

    private static func address(_ text: ArraySlice<UInt8>, _ isIPv4: Bool) -> IPAddress? {
        guard text.contains(UInt8(ascii: ":")) != isIPv4 else { return nil }
        return IPAddress(parsing: Array(text).span)
    }

    private static func port(_ digits: ArraySlice<UInt8>) -> UInt16? {
        guard (1...5).contains(digits.count), digits.count == 1 || digits.first != UInt8(ascii: "0"),
            digits.allSatisfy(ByteClass.isDigit)
        else { return nil }
        return UInt16(exactly: digits.reduce(0) { $0 * 10 + Int($1 - 0x30) })
    }
}

/// The whole header of version 2 (§2.2).
private struct Version2Block {
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func header() throws(ProxyHeaderViolation) -> ProxyHeader {
        switch bytes[12] & 0xF {
        // "the receiver must accept this connection as valid and must use the real connection
        // endpoints and discard the protocol block".
        case 0: return .local
        case 1: break
        case let command: throw .commandNotSupported(command)
        }
        let addressBytes: Int
        // The address family and the transport protocol.
        switch (bytes[13] >> 4, bytes[13] & 0xF) {
        case (0, 0...2), (1...3, 0): addressBytes = 0
        case (1, 1...2): addressBytes = 12
        case (2, 1...2): addressBytes = 36
        case (3, 1...2): addressBytes = 216
        case (_, _): throw .familyNotSupported(bytes[13])
        }
        guard bytes.count - 16 >= addressBytes else { throw .addressesCutShort }
        // Without a family, the length of the addresses is not known, nor where values begin.
        if addressBytes > 0 { try checkValues(from: 16 + addressBytes) }
        switch addressBytes {
        case 12:
            return header(
                IPAddress(ipv4: UInt32(truncatingIfNeeded: number(at: 16, count: 4))),
                IPAddress(ipv4: UInt32(truncatingIfNeeded: number(at: 20, count: 4))), ports: 24)
        case 36:
            return header(
                IPAddress(high: number(at: 16, count: 8), low: number(at: 24, count: 8)),
                IPAddress(high: number(at: 32, count: 8), low: number(at: 40, count: 8)), ports: 48)
        default: return .unknown
        }
    }

    private func header(_ source: IPAddress, _ destination: IPAddress, ports: Int) -> ProxyHeader {
        .addresses(
            source: .init(source, port: UInt16(truncatingIfNeeded: number(at: ports, count: 2))),
            destination: .init(destination, port: UInt16(truncatingIfNeeded: number(at: ports + 2, count: 2))))
    }

    /// A big-endian number of at most eight bytes.
    private func number(at index: Int, count: Int) -> UInt64 { bytes[index..<index + count].reduce(0) { $0 << 8 | UInt64($1) } }

    /// Skips the additional values, each a type, a length of two bytes and its bytes (§2.2.7), and
    /// verifies a checksum.
    private func checkValues(from start: Int) throws(ProxyHeaderViolation) {
        var index = start
        while index < bytes.count {
            guard bytes.count - index >= 3 else { throw .valuesMalformed }
            let value = index + 3..<index + 3 + Int(number(at: index + 1, count: 2))
            guard value.upperBound <= bytes.count else { throw .valuesMalformed }
            if bytes[index] == 0x03 { try checkSum(value) }
            index = value.upperBound
        }
    }

    /// The CRC-32C of the header, computed with zeros in place of the checksum (§2.2.3).
    private func checkSum(_ value: Range<Int>) throws(ProxyHeaderViolation) {
        guard value.count == 4 else { throw .valuesMalformed }
        // The polynomial of RFC 3720 §12.1, reflected. Headers are short: no table is needed.
        var remainder: UInt32 = .max
        for index in bytes.indices {
            remainder ^= value.contains(index) ? 0 : UInt32(bytes[index])
            for _ in 0..<8 { remainder = remainder & 1 == 1 ? remainder >> 1 ^ 0x82F6_3B78 : remainder >> 1 }
        }
        guard ~remainder == UInt32(truncatingIfNeeded: number(at: value.lowerBound, count: 4)) else { throw .checksumMismatch }
    }
}

/// Why the first bytes of a connection are not a header of the PROXY protocol.
package enum ProxyHeaderViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// The connection begins with other bytes.
    case notProxyHeader
    /// A line of version 1 that does not follow §2.1.
    case lineMalformed
    case tooLong(limit: Int)
    /// A binary header of a version other than 2.
    case versionNotSupported(UInt8)
    /// Neither LOCAL nor PROXY.
    case commandNotSupported(UInt8)
    /// An address family or a transport protocol that is not assigned: the byte with both.
    case familyNotSupported(UInt8)
    /// The header is shorter than its addresses.
    case addressesCutShort
    /// An additional value exceeds the header, or a checksum does not have four bytes.
    case valuesMalformed
    case checksumMismatch

    /// What is expected; contains none of the peer's text.
    package var description: String {
        switch self {
        case .notProxyHeader: "expected a PROXY protocol header, got other bytes"
        case .lineMalformed: "expected PROXY, a protocol, two addresses and two ports in a line, got another line"
        case .tooLong(let limit): "expected a PROXY protocol header of at most \(limit) bytes, got a longer one"
        case .versionNotSupported(let version): "expected version 2 of the PROXY protocol, got \(version)"
        case .commandNotSupported(let command): "expected the PROXY protocol's command 0 or 1, got \(command)"
        case .familyNotSupported(let byte): "expected a family and a protocol of the PROXY protocol, got 0x\(hexadecimal(byte))"
        case .addressesCutShort: "expected the addresses in a PROXY protocol header, got a shorter one"
        case .valuesMalformed: "expected whole values in a PROXY protocol header, got one that is cut short"
        case .checksumMismatch: "expected the checksum of the PROXY protocol header, got another one"
        }
    }
}
