import COpenSSL

/// A cipher suite of TLS 1.3 (RFC 8446 §B.4).
@safe struct CipherSuite {
    /// Its name in the registry, which is OpenSSL's, too.
    let name: String
    let cipher: OpaquePointer
    let digest: StaticString
    let keyBytes: Int
    /// Of a traffic secret: what the digest gives.
    let secretBytes: Int
    /// The cipher takes a record's vector as a parameter. To initialise it for each record costs OpenSSL some 700 instructions more, most of
    /// which look for the vector's length by name.
    let takesVectorAlone: Bool

    /// OpenSSL's name, the cipher's, the digest's.
    private init?(_ name: String, _ cipher: String, keyBytes: Int, _ digest: StaticString, secretBytes: Int) {
        guard let fetched = unsafe EVP_CIPHER_fetch(nil, cipher, nil) else { return nil }
        self.name = name
        unsafe self.cipher = fetched
        self.digest = digest
        self.keyBytes = keyBytes
        self.secretBytes = secretBytes
        takesVectorAlone = unsafe Self.takesVectorAlone(fetched, keyBytes: keyBytes)
    }

    /// Tries it: OpenSSL's own providers have it for AES-GCM only, and do not document it. Others are not asked, as it could be their end.
    private static func takesVectorAlone(_ cipher: OpaquePointer, keyBytes: Int) -> Bool {
        guard let provider = unsafe EVP_CIPHER_get0_provider(cipher), let name = unsafe OSSL_PROVIDER_get0_name(provider),
            unsafe ["default", "fips"].contains(String(cString: name))
        else { return false }
        let context = unsafe EVP_CIPHER_CTX_new()
        defer {
            unsafe EVP_CIPHER_CTX_free(context)
            ERR_clear_error()
        }
        let key = [UInt8](repeating: 1, count: keyBytes)
        var vector = [UInt8](repeating: 2, count: 12)
        let other = [UInt8](repeating: 3, count: 12)
        let plain = [UInt8](repeating: 0, count: 16)
        var (expected, sealed) = (plain, plain)
        var length: Int32 = 0
        guard unsafe EVP_EncryptInit_ex2(context, cipher, key, vector, nil) == 1,
            unsafe EVP_EncryptUpdate(context, &expected, &length, plain, 16) == 1,
            unsafe EVP_EncryptInit_ex2(context, nil, nil, other, nil) == 1,
            unsafe EVP_EncryptUpdate(context, &sealed, &length, plain, 16) == 1, sealed != expected,
            unsafe EVP_EncryptFinal_ex(context, &sealed, &length) == 1
        else { return false }
        let isTaken = unsafe vector.withUnsafeMutableBytes {
            var parameters = unsafe (apus_vector_parameter($0.baseAddress), OSSL_PARAM_construct_end())
            return unsafe withUnsafeMutableBytes(of: &parameters) {
                unsafe EVP_CIPHER_CTX_set_params(context, $0.assumingMemoryBound(to: OSSL_PARAM.self).baseAddress) == 1
            }
        }
        return unsafe isTaken && EVP_EncryptUpdate(context, &sealed, &length, plain, 16) == 1 && sealed == expected
    }

    // Kept for the life of the process.
    private nonisolated(unsafe) static let aes128 = CipherSuite(
        "TLS_AES_128_GCM_SHA256", "AES-128-GCM", keyBytes: 16, "SHA256", secretBytes: 32)
    private nonisolated(unsafe) static let aes256 = CipherSuite(
        "TLS_AES_256_GCM_SHA384", "AES-256-GCM", keyBytes: 32, "SHA384", secretBytes: 48)
    private nonisolated(unsafe) static let chacha20 = CipherSuite(
        "TLS_CHACHA20_POLY1305_SHA256", "ChaCha20-Poly1305", keyBytes: 32, "SHA256", secretBytes: 32)

    /// The one with this number in the registry, if it is among those that Apus offers.
    static func numbered(_ number: UInt16) -> CipherSuite? {
        switch number {
        case 0x1301: unsafe aes128
        case 0x1302: unsafe aes256
        case 0x1303: unsafe chacha20
        default: nil
        }
    }
}

/// The keys of one direction of a TLS 1.3 connection: seals its records or opens them, one after the other (RFC 8446 §5.2, §5.3, §7.2, §7.3).
@safe final class TrafficKey {
    enum Direction { case sealing, opening }

    private let suite: CipherSuite
    private let direction: Direction
    private let cipher: OpaquePointer
    /// The vector that belongs to the key, the nonce of the record in hand, and the secret that the next key is derived from.
    private let memory: UnsafeMutableRawPointer
    /// The number of the next record under this key.
    private(set) var sequence: UInt64

    static let headerBytes = 5
    static let tagBytes = 16

    private static let vectorBytes = 12
    private static let nonceStart = 16
    private static let secretStart = 32
    private static let maxSecretBytes = 48

    /// - Parameter sequence: how many records have gone under the secret's key already.
    init(_ direction: Direction, _ suite: CipherSuite, secret: [UInt8], sequence: UInt64) {
        precondition(secret.count == suite.secretBytes, "the secret is none of \(suite.name)")
        self.suite = suite
        self.direction = direction
        self.sequence = sequence
        unsafe cipher = EVP_CIPHER_CTX_new()
        unsafe memory = .allocate(byteCount: Self.secretStart + Self.maxSecretBytes, alignment: 16)
        unsafe UnsafeMutableRawBufferPointer(start: memory + Self.secretStart, count: secret.count).copyBytes(from: secret)
        install()
    }

    deinit {
        unsafe EVP_CIPHER_CTX_free(cipher)
        // What is freed could be found in memory long after.
        unsafe OPENSSL_cleanse(memory, Self.secretStart + Self.maxSecretBytes)
        unsafe memory.deallocate()
    }

    // MARK: Keys

    private nonisolated(unsafe) static let derivation: OpaquePointer = unsafe EVP_KDF_fetch(nil, "TLS13-KDF", nil)

    /// Goes on to the next key (RFC 8446 §7.2).
    func update() {
        unsafe expand("traffic upd", into: unsafe UnsafeMutableRawBufferPointer(start: memory + Self.secretStart, count: suite.secretBytes))
        sequence = 0
        install()
    }

    private func install() {
        var key = [UInt8](repeating: 0, count: suite.keyBytes)
        unsafe key.withUnsafeMutableBytes { key in
            unsafe expand("key", into: unsafe key)
            unsafe expand("iv", into: unsafe UnsafeMutableRawBufferPointer(start: memory, count: Self.vectorBytes))
            let key = unsafe key.assumingMemoryBound(to: UInt8.self).baseAddress
            let result =
                switch direction {
                case .sealing: unsafe EVP_EncryptInit_ex2(cipher, suite.cipher, key, nil, nil)
                case .opening: unsafe EVP_DecryptInit_ex2(cipher, suite.cipher, key, nil, nil)
                }
            precondition(result == 1, "OpenSSL takes no key for \(suite.name)")
            unsafe OPENSSL_cleanse(UnsafeMutableRawPointer(key), suite.keyBytes)
        }
    }

    private func expand(_ label: StaticString, into output: UnsafeMutableRawBufferPointer) {
        var derived = [UInt8](repeating: 0, count: output.count)
        let result = unsafe apus_expand_label(
            Self.derivation, UnsafeRawPointer(suite.digest.utf8Start).assumingMemoryBound(to: CChar.self),
            UnsafeRawPointer(label.utf8Start).assumingMemoryBound(to: CChar.self),
            (memory + Self.secretStart).assumingMemoryBound(to: UInt8.self), suite.secretBytes, &derived, derived.count)
        precondition(result == 1, "OpenSSL derives no \(label)")
        unsafe output.copyBytes(from: derived)
        unsafe derived.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
    }

    /// The vector with the record's number mixed in (RFC 8446 §5.3); counts the record.
    private func nextNonce() -> UnsafeMutablePointer<UInt8> {
        let nonce = unsafe memory + Self.nonceStart
        let low = unsafe memory.loadUnaligned(fromByteOffset: 4, as: UInt64.self)
        unsafe nonce.storeBytes(of: memory.load(as: UInt32.self), as: UInt32.self)
        unsafe nonce.storeBytes(of: low ^ sequence.bigEndian, toByteOffset: 4, as: UInt64.self)
        sequence += 1
        return unsafe nonce.assumingMemoryBound(to: UInt8.self)
    }

    // MARK: Records

    /// What sealing adds to a record's content: header, type and tag.
    static let overheadBytes = headerBytes + 1 + tagBytes

    /// Content up to here, in bytes, is copied in front of its type and sealed together with it: a call costs more than the copy.
    private static let maxCopiedBytes = 1024

    /// Gives the cipher the next record's nonce, and the tag that is to be found.
    private func beginRecord(tag: UnsafeMutablePointer<UInt8>?) -> Bool {
        let nonce = unsafe nextNonce()
        let end = unsafe OSSL_PARAM_construct_end()
        let vector = unsafe suite.takesVectorAlone ? apus_vector_parameter(nonce) : end
        var parameters = unsafe (vector, end, end)
        if let tag = unsafe tag { unsafe parameters = (apus_tag_parameter(tag, Self.tagBytes), vector, end) }
        return unsafe withUnsafeMutableBytes(of: &parameters) {
            let parameters = unsafe $0.assumingMemoryBound(to: OSSL_PARAM.self).baseAddress
            if suite.takesVectorAlone { return unsafe EVP_CIPHER_CTX_set_params(cipher, parameters) == 1 }
            return switch direction {
            case .sealing: unsafe EVP_EncryptInit_ex2(cipher, nil, nil, nonce, parameters) == 1
            case .opening: unsafe EVP_DecryptInit_ex2(cipher, nil, nil, nonce, parameters) == 1
            }
        }
    }

    /// Seals one record of at most 2^14 octets into `output`, which has room for `overheadBytes` more than they and nothing else.
    func seal(_ content: UnsafeRawBufferPointer, as kind: TLSRecords.ContentType, into output: UnsafeMutableRawBufferPointer) {
        unsafe seal(content, typeOctet: kind.rawValue, into: output)
    }

    /// The same for an octet that may be no type.
    func seal(_ content: UnsafeRawBufferPointer, typeOctet: UInt8, into output: UnsafeMutableRawBufferPointer) {
        guard let start = output.baseAddress, output.count == content.count + Self.overheadBytes else {
            preconditionFailure("what is sealed is longer by \(Self.overheadBytes) octets")
        }
        let header = unsafe start.assumingMemoryBound(to: UInt8.self)
        let count = content.count + 1 + Self.tagBytes
        unsafe header[0] = TLSRecords.ContentType.applicationData.rawValue
        unsafe (header[1], header[2]) = (3, 3)
        unsafe (header[3], header[4]) = (UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count))
        let sealed = unsafe header + Self.headerBytes
        // SAFETY: the cipher is of the streaming kind: each call writes as many octets as it is given.
        let type = unsafe sealed + content.count
        unsafe type.pointee = typeOctet
        let tag = unsafe type + 1
        var length: Int32 = 0
        var isSealed = unsafe beginRecord(tag: nil) && EVP_EncryptUpdate(cipher, nil, &length, header, Int32(Self.headerBytes)) == 1
        if content.count <= Self.maxCopiedBytes {
            unsafe UnsafeMutableRawBufferPointer(start: sealed, count: content.count).copyMemory(from: content)
            isSealed = unsafe isSealed && EVP_EncryptUpdate(cipher, sealed, &length, sealed, Int32(content.count + 1)) == 1
        } else if let bytes = content.baseAddress {
            isSealed =
                unsafe isSealed
                && EVP_EncryptUpdate(cipher, sealed, &length, bytes.assumingMemoryBound(to: UInt8.self), Int32(content.count)) == 1
                && EVP_EncryptUpdate(cipher, type, &length, type, 1) == 1
        }
        isSealed = unsafe isSealed && EVP_EncryptFinal_ex(cipher, tag, &length) == 1
        var parameters = unsafe (apus_tag_parameter(tag, Self.tagBytes), OSSL_PARAM_construct_end())
        isSealed = unsafe withUnsafeMutableBytes(of: &parameters) {
            unsafe isSealed && EVP_CIPHER_CTX_get_params(cipher, $0.assumingMemoryBound(to: OSSL_PARAM.self).baseAddress) == 1
        }
        precondition(isSealed, "OpenSSL does not seal")
    }

    /// Opens one record, whose header `record` begins with, into `output`, which has room for what is sealed in it.
    ///
    /// - Returns: whether it is genuine: what OpenSSL says of the tag.
    func open(_ record: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool {
        let count = record.count - Self.headerBytes - Self.tagBytes
        guard count > 0, let header = unsafe record.assumingMemoryBound(to: UInt8.self).baseAddress,
            let opened = unsafe output.assumingMemoryBound(to: UInt8.self).baseAddress
        else { return false }
        precondition(output.count >= count, "there is no room for what is opened")
        let tag = unsafe UnsafeMutablePointer(mutating: header + Self.headerBytes + count)
        var length: Int32 = 0
        return unsafe beginRecord(tag: tag) && EVP_DecryptUpdate(cipher, nil, &length, header, Int32(Self.headerBytes)) == 1
            && EVP_DecryptUpdate(cipher, opened, &length, header + Self.headerBytes, Int32(count)) == 1
            && EVP_DecryptFinal_ex(cipher, opened + count, &length) == 1
    }
}
