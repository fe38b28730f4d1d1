import COpenSSL

/// A certificate chain and its private key, loaded and checked.
final class LoadedIdentity {
    private let chain: [Owned]
    private let key: Owned
    /// Empty if there is none.
    let ocspResponse: [UInt8]
    private let file: String
    /// The certificate's DNS names, in lower case.
    let names: [String]
    /// The key's algorithm, such as RSA or EC: a context holds one certificate per algorithm.
    let keyKind: Int32

    /// - Throws: `TLSSetupError` that names the file.
    init(_ identity: TLSIdentity, from files: TLSFiles) throws(TLSSetupError) {
        file = identity.certificateChain
        chain = try Self.certificates(in: file, from: files)
        names = unsafe Self.names(of: chain[0].pointer)
        let name: String
        let found: Owned?
        var isLocked = false
        switch identity.privateKey {
        case .file(let path):
            name = "\"\(path)\""
            let pem = try files.contents(of: path)
            found = Self.key(in: pem, passphrase: nil)
            // "BEGIN ENCRYPTED PRIVATE KEY" (RFC 7468 §11), or "Proc-Type: 4,ENCRYPTED" (RFC 1421).
            isLocked = found == nil && String(decoding: pem, as: UTF8.self).contains("ENCRYPTED")
        case .encryptedFile(let path, let passphrase):
            name = "\"\(path)\""
            found = Self.key(in: try files.contents(of: path), passphrase: passphrase())
        case .provided(let provider):
            name = "the private key provided for \"\(file)\""
            found = Self.key(in: try files.contents(named: name, from: provider), passphrase: nil)
        }
        if isLocked {
            _ = OpenSSL.takeError()
            throw TLSSetupError("\(name) \(TLSIdentity.missingPassphrase)")
        }
        guard let found else { throw TLSSetupError("\(name) holds no PEM private key that can be read: \(OpenSSL.takeError())") }
        key = found
        keyKind = unsafe EVP_PKEY_get_base_id(key.pointer)
        guard unsafe X509_check_private_key(chain[0].pointer, key.pointer) == 1 else {
            _ = OpenSSL.takeError()
            throw TLSSetupError("\(name) does not belong to the certificate \"\(file)\"")
        }
        guard let response = identity.ocspResponse else {
            ocspResponse = []
            return
        }
        ocspResponse = try files.contents(of: response)
        if let objection = unsafe Self.objection(to: ocspResponse, for: chain[0].pointer) {
            throw TLSSetupError("\"\(response)\" \(objection) \"\(file)\"")
        }
    }

    /// Why a client would reject this OCSP response for the certificate; nil if it might accept it.
    /// The signature and the times are not checked.
    private static func objection(to response: [UInt8], for certificate: OpaquePointer) -> String? {
        defer { ERR_clear_error() }
        let isNone = "holds no successful OCSP response, in DER, for the certificate"
        let parsed = unsafe response.withUnsafeBufferPointer { bytes in
            var position = bytes.baseAddress
            return unsafe d2i_OCSP_RESPONSE(nil, &position, bytes.count)
        }
        guard let parsed = unsafe parsed else { return isNone }
        defer { unsafe OCSP_RESPONSE_free(parsed) }
        guard unsafe i2d_OCSP_RESPONSE(parsed, nil) == response.count,
            unsafe OCSP_response_status(parsed) == OCSP_RESPONSE_STATUS_SUCCESSFUL, let basic = unsafe OCSP_response_get1_basic(parsed)
        else { return isNone }
        defer { unsafe OCSP_BASICRESP_free(basic) }
        for index in unsafe 0..<max(0, OCSP_resp_count(basic)) {
            var serial: UnsafeMutablePointer<ASN1_INTEGER>?
            let id = unsafe OCSP_SINGLERESP_get0_id(OCSP_resp_get0(basic, index))
            if unsafe OCSP_id_get0_info(nil, nil, nil, &serial, id) == 1,
                unsafe ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) == 0
            {
                return nil
            }
        }
        return "is an OCSP response for other certificates than"
    }

    /// Parses the certificates of a PEM file.
    ///
    /// - Throws: `TLSSetupError` if there is none or one is malformed.
    static func certificates(in file: String, from files: TLSFiles) throws(TLSSetupError) -> [Owned] {
        let bytes = try files.contents(of: file)
        ERR_clear_error()
        let found = unsafe OpenSSL.withReader(of: bytes) { reader in
            var found: [Owned] = []
            while let certificate = unsafe PEM_read_bio_X509(reader, nil, refusePassphrase, nil) {
                found.append(unsafe Owned(certificate, free: X509_free))
            }
            return found
        }
        // Reading ends with an error: there are no more PEM blocks, or one is malformed.
        let reason = apus_err_reason(ERR_peek_last_error())
        let words = OpenSSL.takeError()
        guard reason == PEM_R_NO_START_LINE, !found.isEmpty else {
            throw TLSSetupError("\"\(file)\" holds no complete PEM certificate chain: \(words)")
        }
        return found
    }

    private static func key(in pem: [UInt8], passphrase: String?) -> Owned? {
        let key = unsafe OpenSSL.withReader(of: pem) { reader in
            guard let passphrase else { return unsafe PEM_read_bio_PrivateKey(reader, nil, refusePassphrase, nil) }
            var text = Array(passphrase.utf8) + [0]
            // Without a callback, OpenSSL uses the argument as the passphrase, a C string.
            return unsafe text.withUnsafeMutableBytes { unsafe PEM_read_bio_PrivateKey(reader, nil, nil, $0.baseAddress) }
        }
        return unsafe key.map { unsafe Owned($0, free: EVP_PKEY_free) }
    }

    /// Without this callback, OpenSSL reads a passphrase from the terminal.
    private static let refusePassphrase: @convention(c) (UnsafeMutablePointer<CChar>?, Int32, Int32, UnsafeMutableRawPointer?) -> Int32 = {
        _, _, _, _ in -1
    }

    /// Installs the certificate chain and the key in a context.
    func install(in context: OpaquePointer) throws(TLSSetupError) {
        guard unsafe SSL_CTX_use_certificate(context, chain[0].pointer) == 1, unsafe SSL_CTX_use_PrivateKey(context, key.pointer) == 1
        else { throw TLSSetupError("the certificate \"\(file)\", or its key, cannot be used: \(OpenSSL.takeError())") }
        for link in chain.dropFirst() {
            guard unsafe apus_ssl_ctx_add1_chain_cert(context, link.pointer) == 1 else {
                throw TLSSetupError("the certificate chain \"\(file)\" cannot be used: \(OpenSSL.takeError())")
            }
        }
    }

    private static func names(of certificate: OpaquePointer) -> [String] {
        var names: [String] = []
        unsafe withUnsafeMutablePointer(to: &names) { names in
            unsafe apus_x509_each_name(
                certificate,
                { bytes, count, names in
                    guard let bytes = unsafe bytes, let names = unsafe names else { return }
                    let name = unsafe String(decoding: UnsafeBufferPointer(start: bytes, count: Int(count)), as: UTF8.self)
                    // SAFETY: the argument is the pointer passed below, valid during the call.
                    unsafe names.assumingMemoryBound(to: [String].self).pointee.append(name.lowercased())
                }, names)
        }
        return names
    }

    /// Whether the certificate can be offered beside `other`'s: it covers the same names with
    /// another key algorithm (RFC 8446 §4.4.2.2).
    func accompanies(_ other: LoadedIdentity) -> Bool {
        keyKind != other.keyKind && !other.names.isEmpty && other.names.allSatisfy { names.contains($0) || holds(for: $0) }
    }

    /// Whether `certificate` is this identity's.
    func shows(_ certificate: OpaquePointer) -> Bool { unsafe X509_cmp(chain[0].pointer, certificate) == 0 }

    /// Whether the certificate is valid for the host name.
    func holds(for name: String) -> Bool { unsafe X509_check_host(chain[0].pointer, name, name.utf8.count, 0, nil) == 1 }
}
