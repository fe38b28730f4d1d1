/// The client of a request that came through proxies, from the fields that these added.
///
/// Every proxy appends the address of its own peer, so everything to the left of an address that is
/// not a trusted proxy's may be forged. The search goes from right to left and ends at the first
/// address that is not trusted. It also ends at an element that is malformed or has no address:
/// then only the proxy to the right of it is known.
package struct ForwardedFields: Hashable, Sendable {
    /// Which fields the proxies set. Only these are read: a client could send the others.
    package enum Source: Hashable, Sendable {
        /// `Forwarded` (RFC 7239).
        case forwarded
        /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`. The outermost proxy must
        /// set or remove the last two, since they may be the client's.
        case xForwarded
    }

    /// The sender of the request to the outermost trusted proxy (RFC 7239 §6).
    package enum Client: Hashable, Sendable {
        /// An address, with the port if the proxy gave it.
        case address(IPAddress, port: UInt16?)
        /// An identifier chosen by the proxy, with its underscore: it is the same for one client,
        /// perhaps only for some time (§6.3).
        case obfuscated(String)
        /// The proxy does not know its peer, or does not name it (§6.2).
        case unknown
    }

    package private(set) var client: Client
    /// The address of the client or, if that is not known, of the trusted proxy next to it.
    package private(set) var nearestAddress: IPAddress
    /// The scheme of the client's request in lower case, such as `https`; nil if no trusted proxy
    /// gave it.
    package private(set) var scheme: String?
    /// The host, possibly with a port, of the client's request; nil if no trusted proxy gave it.
    package private(set) var host: String?

    /// Finds the client.
    ///
    /// - Parameters:
    ///   - fields: The fields of the request.
    ///   - peer: The address of the connection's other end. Unless it is trusted, it is the client,
    ///     and the fields are ignored.
    ///   - trusted: The networks of the proxies.
    package init(_ fields: HTTPFields, from source: Source, peer: IPAddress, port: UInt16? = nil, trusted: NetworkList) {
        client = .address(peer, port: port)
        nearestAddress = peer
        guard trusted.contains(peer) else { return }
        switch source {
        case .forwarded: readForwarded(Self.bytes(of: "forwarded", in: fields), trusted)
        case .xForwarded: readXForwarded(fields, trusted)
        }
    }

    /// The values of all fields `name`, with commas between them.
    private static func bytes(of name: String, in fields: HTTPFields) -> [UInt8] {
        var bytes: [UInt8] = []
        var index = fields.firstIndex(of: name)
        while let found = index {
            if !bytes.isEmpty { bytes.append(UInt8(ascii: ",")) }
            bytes += fields.storage[fields.entries[found].value]
            index = fields.nextIndex(of: name, after: found)
        }
        return bytes
    }

    /// - Returns: Whether the search goes on: the client so far is a trusted proxy.
    private mutating func advance(to next: Client, _ trusted: NetworkList) -> Bool {
        client = next
        guard case .address(let address, _) = next else { return false }
        nearestAddress = address
        return trusted.contains(address)
    }

    private mutating func readForwarded(_ bytes: [UInt8], _ trusted: NetworkList) {
        var rest: Range<Int>? = bytes.indices
        while let range = ListFromRight.next(bytes, &rest, hasQuotes: true) {
            if range.isEmpty { continue }
            guard let element = ForwardedElement(bytes[range]) else { return }
            (scheme, host) = (element.scheme, element.host)
            guard advance(to: element.client, trusted) else { return }
        }
    }

    private mutating func readXForwarded(_ fields: HTTPFields, _ trusted: NetworkList) {
        let addresses = Self.bytes(of: "x-forwarded-for", in: fields)
        var rest: Range<Int>? = addresses.indices
        // How many proxies lie between the client and the server.
        var depth = 0
        while let range = ListFromRight.next(addresses, &rest, hasQuotes: false) {
            if range.isEmpty { continue }
            guard let next = ForwardedElement.client(addresses[range], acceptsBareIPv6: true) else { break }
            depth += 1
            guard advance(to: next, trusted) else { break }
        }
        let count = Self.elements(addresses).count
        scheme = Self.element(Self.bytes(of: "x-forwarded-proto", in: fields), depth, of: count).flatMap { ForwardedElement.scheme($0) }
        host = Self.element(Self.bytes(of: "x-forwarded-host", in: fields), depth, of: count).flatMap { ForwardedElement.host($0) }
    }

    private static func elements(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var elements: [ArraySlice<UInt8>] = []
        var rest: Range<Int>? = bytes.indices
        while let range = ListFromRight.next(bytes, &rest, hasQuotes: false) {
            if !range.isEmpty { elements.append(bytes[range]) }
        }
        return elements
    }

    /// The element that belongs to the address `depth`, counted from the right, if the list is as
    /// long as that of the addresses; else the one of the last proxy.
    private static func element(_ bytes: [UInt8], _ depth: Int, of count: Int) -> ArraySlice<UInt8>? {
        let elements = elements(bytes)
        return depth > 0 && elements.count == count ? elements[depth - 1] : elements.first
    }
}

/// Reads a comma-separated list from its right end, so that what a client sent cannot change how
/// the elements of the proxies are read.
private enum ListFromRight {
    /// The last element of `rest`, trimmed and possibly empty, which moves before it; nil at the
    /// beginning.
    ///
    /// - Parameter hasQuotes: Whether commas in quoted strings do not separate. A quote without its
    ///   beginning makes all of the rest one element.
    static func next(_ bytes: [UInt8], _ rest: inout Range<Int>?, hasQuotes: Bool) -> Range<Int>? {
        guard let list = rest else { return nil }
        var index = list.upperBound
        while index > list.lowerBound {
            index -= 1
            if bytes[index] == UInt8(ascii: ",") {
                rest = list.lowerBound..<index
                return bytes.span.trimmed(index + 1..<list.upperBound)
            }
            if hasQuotes, bytes[index] == UInt8(ascii: "\"") { index = startOfQuotes(bytes, list.lowerBound, end: index) }
        }
        rest = nil
        return bytes.span.trimmed(list)
    }

    /// The index of the quote that begins a string: the first one to the left that is not escaped.
    private static func startOfQuotes(_ bytes: [UInt8], _ start: Int, end: Int) -> Int {
        var index = end
        while index > start {
            index -= 1
            guard bytes[index] == UInt8(ascii: "\"") else { continue }
            var backslashes = index
            while backslashes > start, bytes[backslashes - 1] == UInt8(ascii: "\\") { backslashes -= 1 }
            if (index - backslashes).isMultiple(of: 2) { return index }
            index = backslashes
        }
        return start
    }
}
