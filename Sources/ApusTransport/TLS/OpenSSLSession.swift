import COpenSSL

/// OpenSSL's part of a TLS connection: the handshake, and the record layer of TLS 1.2, of clients
/// and of contexts configured by the application. The only owner of the `SSL` object.
///
/// It reads from and writes to its worker's buffers, which belong to one connection per event.
@safe final class OpenSSLSession {
    /// The result of a handshake step.
    enum Step {
        case done
        /// More of the peer's bytes are needed.
        case waiting
        /// - Parameter objection: why the peer's certificate was rejected, if it was.
        case failed(reason: String, objection: String?)
    }

    private let ssl: OpaquePointer
    private let buffers: TLSBuffers

    /// - Parameter buffers: what it reads from and writes to.
    init(_ context: TLSContext, _ buffers: TLSBuffers) {
        guard let ssl = unsafe SSL_new(context.pointer) else { preconditionFailure("OpenSSL has no memory for a session") }
        unsafe self.ssl = ssl
        self.buffers = buffers
        unsafe buffers.attach(to: ssl)
        switch context.role {
        case .server:
            unsafe SSL_set_accept_state(ssl)
            // Bytes behind the handshake stay in the buffers, as OpenSSL may not be used for them.
            unsafe SSL_set_read_ahead(ssl, 0)
        case .client: unsafe SSL_set_connect_state(ssl)
        }
    }

    deinit { unsafe SSL_free(ssl) }

    // MARK: Callbacks

    /// Sets the session that callbacks of the context get by `owner(of:)`.
    func setOwner(_ session: TLSSession) { unsafe apus_ssl_set_app_data(ssl, Unmanaged.passUnretained(session).toOpaque()) }

    /// SAFETY: each session registers itself; OpenSSL calls back only during its calls.
    static func owner(of ssl: OpaquePointer?) -> TLSSession? {
        unsafe apus_ssl_app_data(ssl).map { unsafe Unmanaged<TLSSession>.fromOpaque($0).takeUnretainedValue() }
    }

    // MARK: Handshake

    /// Sets the name that the server's certificate must cover. OpenSSL would accept any certificate
    /// for an empty one.
    ///
    /// - Returns: false if the name is invalid.
    func expect(_ name: String) -> Bool {
        guard !name.isEmpty, !name.utf8.contains(0) else { return false }
        defer { ERR_clear_error() }
        let parameters = unsafe SSL_get0_param(ssl)
        unsafe X509_VERIFY_PARAM_set_hostflags(
            parameters, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
        // A numeric address is verified as an address and not sent as SNI (RFC 6066 §3).
        if unsafe X509_VERIFY_PARAM_set1_ip_asc(parameters, name) == 1 { return true }
        return unsafe X509_VERIFY_PARAM_set1_host(parameters, name, name.utf8.count) == 1 && apus_ssl_set_server_name(ssl, name) == 1
    }

    /// Offers a stored session to the server.
    ///
    /// - Parameter key: the key that it was stored under.
    func resume(_ key: String, of context: TLSContext) { unsafe context.resume(ssl, key) }

    /// Continues the handshake with the received bytes.
    func handshake() -> Step {
        ERR_clear_error()
        let result = unsafe SSL_do_handshake(ssl)
        if result == 1 { return .done }
        if unsafe SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ { return .waiting }
        let objection = unsafe OpenSSL.objection(SSL_get_verify_result(ssl))
        return .failed(reason: OpenSSL.takeError(), objection: objection)
    }

    /// The cipher suite for `TLSRecords`, if that can replace OpenSSL's record layer after this
    /// handshake.
    var suiteForRecords: CipherSuite? {
        let number = unsafe UInt16(truncatingIfNeeded: SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(ssl)))
        // max_fragment_length (RFC 6066 §4) is 1 to 4; OpenSSL handles these rare clients.
        let wantsSmallRecords = unsafe (1...4).contains(SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl)))
        guard !wantsSmallRecords, unsafe SSL_has_pending(ssl) == 0 else { return nil }
        return CipherSuite.numbered(number)
    }

    /// Keeps OpenSSL's record layer after the handshake: reads many records per BIO read.
    func readAhead() { unsafe SSL_set_read_ahead(ssl, 1) }

    /// The result of the handshake.
    var information: TLSInformation {
        defer { ERR_clear_error() }
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &name, &length)
        // SAFETY: OpenSSL's strings live as long as the session and are copied.
        let agreed = unsafe length > 0 ? String(decoding: UnsafeBufferPointer(start: name, count: Int(length)), as: UTF8.self) : nil
        let certificate = unsafe SSL_get0_peer_certificate(ssl)
        let isTrusted = unsafe SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE
        let objection = unsafe isTrusted ? OpenSSL.objection(SSL_get_verify_result(ssl)) : "it was not verified"
        return unsafe TLSInformation(
            version: String(cString: SSL_get_version(ssl)), cipher: String(cString: apus_ssl_cipher(ssl)), applicationProtocol: agreed,
            serverName: SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name).map { unsafe String(cString: $0) },
            isResumed: SSL_session_reused(ssl) == 1,
            peerCertificate: certificate.map { unsafe OpenSSL.description(of: $0, objection: objection) })
    }

    // MARK: Records

    /// Decrypts all received bytes.
    ///
    /// - Returns: the number of bytes written to `buffer`, and how the peer's records ended; nil if
    ///   they did not.
    func open(into buffer: UnsafeMutableRawBufferPointer) -> (count: Int, end: TLSRecords.End?) {
        var count = 0
        while true {
            let result = unsafe SSL_read(ssl, buffer.baseAddress.map { unsafe $0 + count }, Int32(buffer.count - count))
            if result > 0 {
                count += Int(result)
                // A needless SSL_read costs a tenth of a small message.
                if unsafe !buffers.hasInput && SSL_has_pending(ssl) == 0 { return (count, nil) }
                continue
            }
            switch unsafe SSL_get_error(ssl, result) {
            case SSL_ERROR_WANT_READ: return (count, nil)
            case SSL_ERROR_ZERO_RETURN: return (count, .closed)
            default:
                let words = OpenSSL.takeError()
                return (count, words.contains("alert") ? .refused(words) : .broken)
            }
        }
    }

    /// Encrypts bytes.
    ///
    /// - Returns: false if OpenSSL failed; the session must not be used again.
    func seal(_ bytes: UnsafeRawBufferPointer) -> Bool {
        if unsafe SSL_write(ssl, bytes.baseAddress, Int32(bytes.count)) == bytes.count { return true }
        ERR_clear_error()
        return false
    }

    /// Encrypts close_notify.
    func sealCloseNotify() { if unsafe SSL_shutdown(ssl) < 0 { ERR_clear_error() } }
}
