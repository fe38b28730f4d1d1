import ApusPlatform
import COpenSSL

/// The keys that session tickets are sealed with (RFC 5077 §4, RFC 8446 §4.6.1): the same in all processes that began with one secret, so that
/// a session is resumed by any worker, its successors and those of the next program, and replaced every hour.
///
/// Each period's secret is derived from the one before, which is then forgotten: who gets hold of a worker's memory cannot open tickets, and
/// with them recorded connections, of periods that are over.
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
    /// Of the secret, and of each key derived from it.
    private static let secretBytes = 32
    private static let numberBytes = 8
    /// How long a key seals tickets, in seconds. Tickets of the period before are accepted, and sealed anew.
    private static let period = 3600

    private var secret: [UInt8]
    private var number: Int
    private(set) var current: Keys
    private(set) var previous: Keys?
    private let clock: () -> Int

    /// - Parameters:
    ///   - secret: 32 unpredictable bytes.
    ///   - clock: seconds since 1970.
    package init(secret: [UInt8] = SystemRandom.bytes(secretBytes), clock: @escaping () -> Int = WallClock.seconds) {
        self.secret = secret
        self.clock = clock
        number = clock() / Self.period
        current = Keys(of: secret)
    }

    /// For what `handedDown` gave in another process; nil for anything else.
    package convenience init?(handedDown bytes: [UInt8], clock: @escaping () -> Int = WallClock.seconds) {
        let keysBytes = Self.nameBytes + 2 * Self.secretBytes
        guard [0, keysBytes].contains(bytes.count - Self.numberBytes - Self.secretBytes) else { return nil }
        let rest = bytes.dropFirst(Self.numberBytes)
        self.init(secret: Array(rest.prefix(Self.secretBytes)), clock: clock)
        number = bytes.prefix(Self.numberBytes).reversed().reduce(0) { $0 << 8 | Int($1) }
        let old = rest.dropFirst(Self.secretBytes)
        if !old.isEmpty { previous = Keys(old) }
    }

    /// What a successor of this program needs to accept its tickets, and nobody else may see.
    package var handedDown: [UInt8] {
        advance()
        let number = (0..<Self.numberBytes).map { UInt8(truncatingIfNeeded: self.number >> (8 * $0)) }
        return number + secret + (previous.map { $0.name + $0.cipher + $0.mac } ?? [])
    }

    /// Goes on to the period that it is now. A clock that was set back keeps the keys it has.
    package func advance() {
        let now = clock() / Self.period
        while number < now {
            let next = Self.derive(secret, "next")
            // What is freed could be found in memory long after.
            unsafe secret.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
            secret = next
            previous = current
            current = Keys(of: secret)
            number += 1
        }
    }

    private static func derive(_ secret: [UInt8], _ label: StaticString) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: secretBytes) { buffer, used in
            // SAFETY: SHA-256 gives 32 octets; the key and the label outlive the call.
            unsafe secret.withUnsafeBytes { key in
                _ = unsafe HMAC(
                    EVP_sha256(), key.baseAddress, Int32(key.count), label.utf8Start, label.utf8CodeUnitCount, buffer.baseAddress, nil)
            }
            used = secretBytes
        }
    }

    /// OpenSSL's callback: prepares cipher and MAC to seal a ticket, or to open the one named `name`.
    ///
    /// - Parameter isForOnce: a client should not show the ticket again, and so wants another (RFC 8446 §C.4).
    /// - Returns: 1 go on; 2 go on and seal a new ticket; 0 the ticket is none of ours: a full handshake; -1 failure.
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
