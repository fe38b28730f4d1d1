import COpenSSL

/// A cipher suite of TLS 1.3 (RFC 8446 §B.4).
@safe struct CipherSuite {
    /// The name in IANA's registry, which OpenSSL uses too.
    let name: String
    let cipher: OpaquePointer
    let digest: StaticString
    let keyBytes: Int
    /// Size of a traffic secret: the digest's output, in bytes.
    let secretBytes: Int
    /// Whether the cipher accepts a record's nonce as a parameter. Reinitialising the cipher per
    /// record costs some 700 instructions more, mostly to look up the nonce's length by name.
    let takesVectorAlone: Bool

    /// The names of the suite, the cipher and the digest.
    private init?(_ name: String, _ cipher: String, keyBytes: Int, _ digest: StaticString, secretBytes: Int) {
        guard let fetched = unsafe EVP_CIPHER_fetch(nil, cipher, nil) else { return nil }
        self.name = name
        unsafe self.cipher = fetched
        self.digest = digest
        self.keyBytes = keyBytes
        self.secretBytes = secretBytes
        takesVectorAlone = unsafe Self.takesVectorAlone(fetched, keyBytes: keyBytes)
    }

    /// Tests the cipher: OpenSSL's own providers support this for AES-GCM only, undocumented. Other
    /// providers are not tested, as the call could crash them.
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

    // Never freed.
    private nonisolated(unsafe) static let aes128 = CipherSuite(
        "TLS_AES_128_GCM_SHA256", "AES-128-GCM", keyBytes: 16, "SHA256", secretBytes: 32)
    private nonisolated(unsafe) static let aes256 = CipherSuite(
        "TLS_AES_256_GCM_SHA384", "AES-256-GCM", keyBytes: 32, "SHA384", secretBytes: 48)
    private nonisolated(unsafe) static let chacha20 = CipherSuite(
        "TLS_CHACHA20_POLY1305_SHA256", "ChaCha20-Poly1305", keyBytes: 32, "SHA256", secretBytes: 32)

    /// The suite with this number in IANA's registry; nil if Apus does not offer it.
    static func numbered(_ number: UInt16) -> CipherSuite? {
        switch number {
        case 0x1301: unsafe aes128
        case 0x1302: unsafe aes256
        case 0x1303: unsafe chacha20
        default: nil
        }
    }
}

/// The traffic keys of one direction of a TLS 1.3 connection: encrypts or decrypts its records in
/// order (RFC 8446 §5.2, §5.3, §7.2, §7.3).
@safe final class TrafficKey {
    enum Direction { case sealing, opening }

    private let suite: CipherSuite
    private let direction: Direction
    private let cipher: OpaquePointer
    /// The key's IV, the current record's nonce, and the secret from which the next key is derived.
    private let memory: UnsafeMutableRawPointer
    /// The sequence number of the next record under this key.
    private(set) var sequence: UInt64

    static let headerBytes = 5
    static let tagBytes = 16

    private static let vectorBytes = 12
    private static let nonceStart = 16
    private static let secretStart = 32
    private static let maxSecretBytes = 48

    /// - Parameter sequence: number of records already processed under the secret's key.
    init(_ direction: Direction, _ suite: CipherSuite, secret: [UInt8], sequence: UInt64) {
        precondition(secret.count == suite.secretBytes, "expected a secret of \(suite.secretBytes) bytes, got \(secret.count)")
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
        // Freed memory could be read long after: erase it.
        unsafe OPENSSL_cleanse(memory, Self.secretStart + Self.maxSecretBytes)
        unsafe memory.deallocate()
    }

    // MARK: Keys

    private nonisolated(unsafe) static let derivation: OpaquePointer = unsafe EVP_KDF_fetch(nil, "TLS13-KDF", nil)

    /// Switches to the next key (RFC 8446 §7.2).
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
            precondition(result == 1, "OpenSSL rejected a key for \(suite.name)")
            unsafe OPENSSL_cleanse(UnsafeMutableRawPointer(key), suite.keyBytes)
        }
    }

    private func expand(_ label: StaticString, into output: UnsafeMutableRawBufferPointer) {
        var derived = [UInt8](repeating: 0, count: output.count)
        let result = unsafe apus_expand_label(
            Self.derivation, UnsafeRawPointer(suite.digest.utf8Start).assumingMemoryBound(to: CChar.self),
            UnsafeRawPointer(label.utf8Start).assumingMemoryBound(to: CChar.self),
            (memory + Self.secretStart).assumingMemoryBound(to: UInt8.self), suite.secretBytes, &derived, derived.count)
        precondition(result == 1, "OpenSSL failed to derive \(label)")
        unsafe output.copyBytes(from: derived)
        unsafe derived.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
    }

    /// The IV XORed with the sequence number (RFC 8446 §5.3); increments the sequence number.
    private func nextNonce() -> UnsafeMutablePointer<UInt8> {
        let nonce = unsafe memory + Self.nonceStart
        let low = unsafe memory.loadUnaligned(fromByteOffset: 4, as: UInt64.self)
        unsafe nonce.storeBytes(of: memory.load(as: UInt32.self), as: UInt32.self)
        unsafe nonce.storeBytes(of: low ^ sequence.bigEndian, toByteOffset: 4, as: UInt64.self)
        sequence += 1
        return unsafe nonce.assumingMemoryBound(to: UInt8.self)
    }

    // MARK: Records

    /// Bytes that encryption adds to a record's content: header, type and tag.
    static let overheadBytes = headerBytes + 1 + tagBytes

    /// Most bytes of content that are copied before the type, to encrypt both in one call: a call
    /// costs more than the copy.
    private static let maxCopiedBytes = 1024

    /// Sets the cipher's nonce for the next record, and the expected tag.
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

    /// Encrypts one record of at most 2^14 octets into `output`, which has exactly `overheadBytes`
    /// more.
    func seal(_ content: UnsafeRawBufferPointer, as kind: TLSRecords.ContentType, into output: UnsafeMutableRawBufferPointer) {
        unsafe seal(content, typeOctet: kind.rawValue, into: output)
    }

    /// As above, for an octet that may not be a valid type.
    func seal(_ content: UnsafeRawBufferPointer, typeOctet: UInt8, into output: UnsafeMutableRawBufferPointer) {
        guard let start = output.baseAddress, output.count == content.count + Self.overheadBytes else {
            preconditionFailure("expected an output of \(content.count + Self.overheadBytes) bytes, got \(output.count)")
        }
        let header = unsafe start.assumingMemoryBound(to: UInt8.self)
        let count = content.count + 1 + Self.tagBytes
        unsafe header[0] = TLSRecords.ContentType.applicationData.rawValue
        unsafe (header[1], header[2]) = (3, 3)
        unsafe (header[3], header[4]) = (UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count))
        let sealed = unsafe header + Self.headerBytes
        // SAFETY: the cipher is a stream mode: each call writes as many octets as it reads.
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
        precondition(isSealed, "OpenSSL failed to encrypt a record")
    }

    /// Decrypts one record, including its header, into `output`, which has room for the
    /// ciphertext's length.
    ///
    /// - Returns: whether the record is authentic.
    func open(_ record: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool {
        let count = record.count - Self.headerBytes - Self.tagBytes
        guard count > 0, let header = unsafe record.assumingMemoryBound(to: UInt8.self).baseAddress,
            let opened = unsafe output.assumingMemoryBound(to: UInt8.self).baseAddress
        else { return false }
        precondition(output.count >= count, "expected room for \(count) bytes, got \(output.count)")
        let tag = unsafe UnsafeMutablePointer(mutating: header + Self.headerBytes + count)
        var length: Int32 = 0
        return unsafe beginRecord(tag: tag) && EVP_DecryptUpdate(cipher, nil, &length, header, Int32(Self.headerBytes)) == 1
            && EVP_DecryptUpdate(cipher, opened, &length, header + Self.headerBytes, Int32(count)) == 1
            && EVP_DecryptFinal_ex(cipher, opened + count, &length) == 1
    }
}
