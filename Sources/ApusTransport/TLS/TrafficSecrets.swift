import COpenSSL

/// The application traffic secrets of a TLS 1.3 connection (RFC 8446 §7.1). OpenSSL exposes them
/// only through its key log callback.
struct TrafficSecrets {
    private(set) var client: [UInt8] = []
    private(set) var server: [UInt8] = []

    private static let clientLabel: StaticString = "CLIENT_TRAFFIC_SECRET_0 "
    private static let serverLabel: StaticString = "SERVER_TRAFFIC_SECRET_0 "

    /// Parses a key log line: a label, the client random and a secret, both in hexadecimal.
    mutating func note(_ line: UnsafeRawBufferPointer) {
        if unsafe Self.begins(line, with: Self.clientLabel) { client = unsafe Self.secret(of: line) }
        if unsafe Self.begins(line, with: Self.serverLabel) { server = unsafe Self.secret(of: line) }
    }

    /// Erases the secrets: freed memory could be read long after.
    mutating func forget() {
        unsafe client.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
        unsafe server.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
        (client, server) = ([], [])
    }

    private static func begins(_ line: UnsafeRawBufferPointer, with label: StaticString) -> Bool {
        unsafe line.starts(with: UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount))
    }

    /// The line's last word, decoded; empty if it is not hexadecimal.
    private static func secret(of line: UnsafeRawBufferPointer) -> [UInt8] {
        let space = UInt8(ascii: " ")
        guard let start = unsafe line.lastIndex(of: space) else { return [] }
        let digits = unsafe line[(start + 1)...]
        var secret: [UInt8] = []
        unsafe secret.reserveCapacity(digits.count / 2)
        var high: UInt8?
        for index in unsafe digits.indices {
            guard let value = unsafe Character(UnicodeScalar(digits[index])).hexDigitValue.map({ UInt8($0) }) else { return [] }
            if let nibble = high { secret.append(nibble << 4 | value) }
            high = high == nil ? value : nil
        }
        return secret
    }
}
