/// A range of addresses with a common prefix: `10.0.0.0/8`, `2001:db8::/32` (RFC 4632 §3.1, RFC
/// 4291 §2.3).
package struct Network: Hashable, Sendable, CustomStringConvertible {
    /// The first address.
    package let address: IPAddress
    /// Bits of the prefix, counted in the 16 bytes of an IPv6 address: 96 to 128 for IPv4.
    let prefixBits: Int

    /// The network of one address.
    package init(_ address: IPAddress) {
        self.address = address
        prefixBits = 128
    }

    /// Parses an address, which is a network of one, or an address, a slash and the number of bits
    /// that its addresses have in common. The bits after these must be zero.
    ///
    /// The mapped form of an IPv4 network, such as `::ffff:10.0.0.0/104`, is the same as
    /// `10.0.0.0/8`.
    ///
    /// - Throws: `NetworkFault`.
    package init(parsing text: String) throws(NetworkFault) {
        let parts = text.utf8.split(separator: UInt8(ascii: "/"), maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let address = IPAddress(parsing: Substring(first)) else { throw .addressMalformed(text) }
        self.address = address
        guard parts.count == 2 else {
            prefixBits = 128
            return
        }
        let isShort = address.isIPv4 && !first.contains(UInt8(ascii: ":"))
        let most = isShort ? 32 : 128
        guard let bits = Self.number(parts[1]), bits <= most else { throw .prefixMalformed(text, most: most) }
        prefixBits = isShort ? bits + 96 : bits
        guard address.number & ~Self.mask(prefixBits) == 0 else {
            let first = IPAddress(number: address.number & Self.mask(prefixBits))
            throw .hostBitsSet(text, network: Self.text(first, prefixBits))
        }
    }

    private static func number(_ digits: Substring.UTF8View) -> Int? {
        guard (1...3).contains(digits.count), digits.count == 1 || digits.first != UInt8(ascii: "0") else { return nil }
        var number = 0
        for digit in digits {
            guard ByteClass.isDigit(digit) else { return nil }
            number = number * 10 + Int(digit - 0x30)
        }
        return number
    }

    private static func mask(_ bits: Int) -> UInt128 { bits == 0 ? 0 : UInt128.max << UInt128(128 - bits) }

    /// Whether the network contains an address. IPv4 addresses are not in an IPv6 network such as
    /// `::/0`, although they have a mapped form.
    package func contains(_ address: IPAddress) -> Bool {
        if address.isIPv4, prefixBits < 96 { return false }
        return address.number & Self.mask(prefixBits) == self.address.number
    }

    /// The first and the last address as numbers.
    var bounds: ClosedRange<UInt128> { address.number...address.number | ~Self.mask(prefixBits) }

    /// As it is parsed, in its shortest form: `10.0.0.0/8`, and `::1` for one address.
    package var description: String { prefixBits == 128 ? address.description : Self.text(address, prefixBits) }

    private static func text(_ address: IPAddress, _ bits: Int) -> String {
        "\(address)/\(address.isIPv4 && bits >= 96 ? bits - 96 : bits)"
    }
}

/// Several networks, for lists of those that are trusted, allowed or denied.
package struct NetworkList: Sendable {
    /// As they were given.
    package let networks: [Network]
    /// The addresses of all, in ranges that neither overlap nor touch, in ascending order.
    private let ranges: [ClosedRange<UInt128>]

    package init(_ networks: [Network]) {
        self.networks = networks
        let sorted = networks.flatMap(Self.ranges).sorted { $0.lowerBound < $1.lowerBound }
        var merged: [ClosedRange<UInt128>] = []
        for range in sorted {
            guard let last = merged.last, last.upperBound == .max || range.lowerBound <= last.upperBound + 1 else {
                merged.append(range)
                continue
            }
            merged[merged.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
        }
        ranges = merged
    }

    /// - Throws: `NetworkFault` for the first text that is not a network.
    package init(parsing texts: [String]) throws(NetworkFault) {
        var networks: [Network] = []
        for text in texts { networks.append(try Network(parsing: text)) }
        self.init(networks)
    }

    /// The range of a network, without the mapped IPv4 addresses in an IPv6 network.
    private static func ranges(_ network: Network) -> [ClosedRange<UInt128>] {
        let mapped = UInt128(0xFFFF_0000_0000)...UInt128(0xFFFF_FFFF_FFFF)
        let bounds = network.bounds
        guard network.prefixBits < 96, bounds.contains(mapped.lowerBound) else { return [bounds] }
        return [bounds.lowerBound...mapped.lowerBound - 1, mapped.upperBound + 1...bounds.upperBound]
    }

    /// Whether there are no networks.
    package var isEmpty: Bool { networks.isEmpty }

    /// Whether one of the networks contains the address. The cost is logarithmic in their number.
    package func contains(_ address: IPAddress) -> Bool {
        let number = address.number
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < number { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].contains(number)
    }
}

/// Why a text is not a network.
package enum NetworkFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// The text does not begin with an address.
    case addressMalformed(String)
    /// What follows the slash is not a number of 0 to `most`, without leading zeros.
    case prefixMalformed(String, most: Int)
    /// Bits after the prefix are set; the network with this prefix is another one.
    case hostBitsSet(String, network: String)

    /// What is expected and what was given.
    package var description: String {
        switch self {
        case .addressMalformed(let text):
            "expected an address or a network such as 10.0.0.0/8 or 2001:db8::/32, got \(text.debugDescription)"
        case .prefixMalformed(let text, let most): "expected a prefix of 0 to \(most) bits after \"/\", got \(text.debugDescription)"
        case .hostBitsSet(let text, let network): "expected a network, such as \(network), got the address \(text) in it"
        }
    }
}
