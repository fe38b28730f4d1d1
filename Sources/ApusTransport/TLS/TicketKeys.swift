import ApusPlatform
import COpenSSL

/// The keys that encrypt session tickets (RFC 5077 §4, RFC 8446 §4.6.1), rotated every hour. All
/// processes derive them from one secret, so that every worker, its replacements and those of an
/// upgraded program resume each other's sessions.
///
/// Each period's secret is derived from the previous one, which is then erased: an attacker who
/// reads a worker's memory cannot decrypt tickets of past periods, nor recorded connections with
/// them.
package final class TicketKeys {
    struct Keys: Equatable {
        var name: [UInt8]
        var cipher: [UInt8]
        var mac: [UInt8]

        init(of secret: [UInt8]) {
            name = Array(TicketKeys.derive(secret, "name").prefix(TicketKeys.nameBytes))
            cipher = TicketKeys.derive(secret, "cipher")
            mac = TicketKeys.derive(secret, "mac")
        }

        init(_ bytes: ArraySlice<UInt8>) {
            name = Array(bytes.prefix(TicketKeys.nameBytes))
            cipher = Array(bytes.dropFirst(TicketKeys.nameBytes).prefix(TicketKeys.secretBytes))
            mac = Array(bytes.suffix(TicketKeys.secretBytes))
        }
    }

    static let nameBytes = 16
    /// Size of the secret and of each derived key, in bytes.
    private static let secretBytes = 32
    private static let numberBytes = 8
    /// How long a key encrypts tickets, in seconds. Tickets of the previous period are accepted and
    /// renewed.
    private static let period = 3600

    private var secret: [UInt8]
    private var number: Int
    private(set) var current: Keys
    private(set) var previous: Keys?
    private let clock: () -> Int

    /// - Parameters:
    ///   - secret: 32 unpredictable bytes.
    ///   - clock: returns seconds since 1970.
    package init(secret: [UInt8] = SystemRandom.bytes(secretBytes), clock: @escaping () -> Int = WallClock.seconds) {
        self.secret = secret
        self.clock = clock
        number = clock() / Self.period
        current = Keys(of: secret)
    }

    /// Restores the `handedDown` state of another process; nil if the bytes have another form.
    package convenience init?(handedDown bytes: [UInt8], clock: @escaping () -> Int = WallClock.seconds) {
        let keysBytes = Self.nameBytes + 2 * Self.secretBytes
        guard [0, keysBytes].contains(bytes.count - Self.numberBytes - Self.secretBytes) else { return nil }
        let rest = bytes.dropFirst(Self.numberBytes)
        self.init(secret: Array(rest.prefix(Self.secretBytes)), clock: clock)
        number = bytes.prefix(Self.numberBytes).reversed().reduce(0) { $0 << 8 | Int($1) }
        let old = rest.dropFirst(Self.secretBytes)
        if !old.isEmpty { previous = Keys(old) }
    }

    /// The secret state that a successor of this program needs to accept its tickets.
    package var handedDown: [UInt8] {
        advance()
        let number = (0..<Self.numberBytes).map { UInt8(truncatingIfNeeded: self.number >> (8 * $0)) }
        return number + secret + (previous.map { $0.name + $0.cipher + $0.mac } ?? [])
    }

    /// Advances to the current period. If the clock was set back, the keys stay.
    package func advance() {
        let now = clock() / Self.period
        while number < now {
            let next = Self.derive(secret, "next")
            // Freed memory could be read long after: erase it.
            unsafe secret.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
            secret = next
            previous = current
            current = Keys(of: secret)
            number += 1
        }
    }

    private static func derive(_ secret: [UInt8], _ label: StaticString) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: secretBytes) { buffer, used in
            // SAFETY: SHA-256 writes 32 octets; the key and the label outlive the call.
            unsafe secret.withUnsafeBytes { key in
                _ = unsafe HMAC(
                    EVP_sha256(), key.baseAddress, Int32(key.count), label.utf8Start, label.utf8CodeUnitCount, buffer.baseAddress, nil)
            }
            used = secretBytes
        }
    }

    /// OpenSSL's ticket callback: initialises cipher and MAC to encrypt a ticket, or to decrypt the
    /// one with key `name`.
    ///
    /// - Parameter isForOnce: whether clients use a ticket only once, so that a new one is issued
    ///   (RFC 8446 §C.4).
    /// - Returns: 1 to continue; 2 to continue and issue a new ticket; 0 if the key is unknown, for
    ///   a full handshake; -1 on failure.
    func prepare(
        name: UnsafeMutablePointer<UInt8>, vector: UnsafeMutablePointer<UInt8>, cipher: OpaquePointer?, mac: OpaquePointer?,
        isSealing: Bool,
        isForOnce: Bool
    ) -> Int32 {
        advance()
        if isSealing {
            _ = unsafe UnsafeMutableBufferPointer(start: name, count: Self.nameBytes).update(fromContentsOf: current.name)
            let random = SystemRandom.bytes(Int(EVP_MAX_IV_LENGTH))
            _ = unsafe UnsafeMutableBufferPointer(start: vector, count: random.count).update(fromContentsOf: random)
            return unsafe Self.start(current, vector, cipher, mac, EVP_EncryptInit_ex) ? 1 : -1
        }
        let asked = unsafe Array(UnsafeBufferPointer(start: name, count: Self.nameBytes))
        if asked == current.name { return unsafe Self.start(current, vector, cipher, mac, EVP_DecryptInit_ex) ? (isForOnce ? 2 : 1) : -1 }
        guard let previous, asked == previous.name else { return 0 }
        return unsafe Self.start(previous, vector, cipher, mac, EVP_DecryptInit_ex) ? 2 : -1
    }

    private static func start(
        _ keys: Keys, _ vector: UnsafeMutablePointer<UInt8>, _ cipher: OpaquePointer?, _ mac: OpaquePointer?,
        _ initialise: (OpaquePointer?, OpaquePointer?, OpaquePointer?, UnsafePointer<UInt8>?, UnsafePointer<UInt8>?) -> Int32
    ) -> Bool {
        var macKey = keys.mac
        return unsafe initialise(cipher, EVP_aes_256_cbc(), nil, keys.cipher, vector) == 1
            && apus_mac_set_hmac_sha256_key(mac, &macKey, macKey.count) == 1
    }
}
