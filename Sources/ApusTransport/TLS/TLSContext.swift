import COpenSSL

/// The shared state of one listener's sessions, or of one kind of client connection: owns an
/// `SSL_CTX *`.
@safe package final class TLSContext {
    package enum Role { case server, client }

    let role: Role
    private let first: Owned
    /// Contexts of the identities after the first, selected by SNI.
    private var others: [Owned] = []
    private var identities: [LoadedIdentity] = []
    private let ticketKeys: TicketKeys?
    private let acceptsClient: (@Sendable (PeerCertificate) -> Bool)?
    private let allowsSelfSigned: Bool
    /// A client's sessions for resumption, by server.
    private var sessions: [String: Owned] = [:]
    /// Whether clients without TLS are served.
    package let allowsPlainHTTP: Bool

    var pointer: OpaquePointer { unsafe first.pointer }

    /// Most servers whose sessions a client keeps.
    private static let maxSessions = 256

    /// Loads certificates and keys that `files` does not hold yet; call it in the master, before
    /// privileges are dropped.
    ///
    /// - Throws: `TLSSetupError` that names the file.
    package init(_ server: ServerTLS, ticketKeys: TicketKeys, files: TLSFiles = TLSFiles()) throws(TLSSetupError) {
        role = .server
        self.ticketKeys = ticketKeys
        acceptsClient = server.acceptsClient
        allowsPlainHTTP = server.allowsPlainHTTP
        allowsSelfSigned = false
        first = unsafe Owned(SSL_CTX_new(TLS_server_method()), free: SSL_CTX_free)
        guard !server.identities.isEmpty else { throw TLSSetupError("expected a certificate for a TLS listener, got none") }
        for identity in server.identities { identities.append(try LoadedIdentity(identity, from: files)) }
        for (index, identity) in identities.enumerated() {
            if index > 0 { others.append(unsafe Owned(SSL_CTX_new(TLS_server_method()), free: SSL_CTX_free)) }
            // Add certificates for the same names with other key algorithms: each client gets one
            // that it can verify.
            var shown = [identity]
            for other in identities where other.accompanies(identity) && !shown.contains(where: { $0.keyKind == other.keyKind }) {
                shown.append(other)
            }
            try unsafe prepare(index == 0 ? pointer : others[index - 1].pointer, server, shown, files)
        }
        guard identities.count > 1 else { return }
        unsafe apus_ssl_ctx_set_servername_callback(
            pointer,
            { ssl, _, _ in
                guard let name = unsafe SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) else { return SSL_TLSEXT_ERR_NOACK }
                if let other = unsafe TLSContext.of(ssl)?.other(for: String(cString: name)) { unsafe SSL_set_SSL_CTX(ssl, other.pointer) }
                return SSL_TLSEXT_ERR_OK
            }, nil)
    }

    /// - Throws: `TLSSetupError` that names the file.
    package init(_ client: ClientTLS) throws(TLSSetupError) {
        role = .client
        ticketKeys = nil
        acceptsClient = nil
        allowsPlainHTTP = false
        allowsSelfSigned = client.verification == .allowingSelfSigned
        if let given = unsafe client.context {
            unsafe SSL_CTX_up_ref(given)
            first = unsafe Owned(given, free: SSL_CTX_free)
            return
        }
        first = unsafe Owned(SSL_CTX_new(TLS_client_method()), free: SSL_CTX_free)
        unsafe setDefaults(pointer, minVersion: client.minVersion)
        if let identity = client.identity {
            identities.append(try LoadedIdentity(identity, from: TLSFiles()))
            try unsafe identities[0].install(in: pointer)
        }
        switch client.verification {
        case .none: unsafe SSL_CTX_set_verify(pointer, SSL_VERIFY_NONE, nil)
        case .full, .allowingSelfSigned:
            unsafe SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, nil)
            switch client.roots {
            case .system: unsafe SSL_CTX_set_default_verify_paths(pointer)
            case .file(let path): try unsafe trust(LoadedIdentity.certificates(in: path, from: TLSFiles()), pointer)
            }
        }
        if allowsSelfSigned { unsafe setVerification(pointer) }
        // Sessions are stored here by server: OpenSSL's internal cache cannot look up a client's.
        unsafe apus_ssl_ctx_set_session_cache_mode(pointer, Int(SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL))
        unsafe SSL_CTX_sess_set_new_cb(pointer) { ssl, session in
            guard let tls = unsafe OpenSSLSession.owner(of: ssl), let session = unsafe session else { return 0 }
            unsafe TLSContext.of(ssl)?.keep(session, tls.resumptionKey)
            return 1
        }
        let offered: [UInt8] = [8] + Array("http/1.1".utf8)
        unsafe SSL_CTX_set_alpn_protos(pointer, offered, UInt32(offered.count))
        unsafe client.configure?(pointer)
    }

    /// The context of an `SSL *`, for callbacks.
    private static func of(_ ssl: OpaquePointer?) -> TLSContext? { unsafe object(apus_ssl_ctx_app_data(SSL_get_SSL_CTX(ssl))) }

    /// SAFETY: only for the pointer that was registered for the callback; every session keeps its
    /// context alive, which keeps its identities alive.
    private static func object<Object: AnyObject>(_ pointer: UnsafeMutableRawPointer?) -> Object? {
        unsafe pointer.map { unsafe Unmanaged<Object>.fromOpaque($0).takeUnretainedValue() }
    }

    // MARK: Setting up

    private func setDefaults(_ context: OpaquePointer, minVersion: TLSVersion) {
        unsafe apus_ssl_ctx_set_app_data(context, Unmanaged.passUnretained(self).toOpaque())
        unsafe apus_ssl_ctx_set_min_version(context, minVersion == .tls12 ? TLS1_2_VERSION : TLS1_3_VERSION)
        unsafe SSL_CTX_set_options(
            context,
            apus_ssl_op_no_renegotiation | apus_ssl_op_no_compression | apus_ssl_op_cipher_server_preference
                | apus_ssl_op_prioritize_chacha)
        // An idle session holds no record buffers, and active ones reuse a few that are still in
        // the cache: buffers per session save 10 % of the instructions but take more time. A
        // repeated write may use another buffer address.
        unsafe apus_ssl_ctx_set_mode(context, Int(SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER))
        // Read many records per BIO read.
        unsafe apus_ssl_ctx_set_read_ahead(context, 1)
        unsafe SSL_CTX_set_cipher_list(context, Self.ciphers)
        unsafe SSL_CTX_set_ciphersuites(context, Self.suites)
        unsafe apus_ssl_ctx_set_groups(context, Self.groups)
    }

    /// TLS 1.3: AES-128 first, the cheapest with AES instructions; clients without these get
    /// ChaCha20.
    private static let suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

    /// TLS 1.2: only forward secrecy and AEAD.
    private static let ciphers = """
        ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
        ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305
        """
    private static let groups = "X25519:P-256:P-384"

    private func prepare(
        _ context: OpaquePointer, _ server: ServerTLS, _ shown: [LoadedIdentity], _ files: TLSFiles
    ) throws(TLSSetupError) {
        unsafe setDefaults(context, minVersion: server.minVersion)
        // OpenSSL's default certificate is the last one installed, so install the first identity
        // last.
        for identity in shown.reversed() { try unsafe identity.install(in: context) }
        unsafe apus_ssl_ctx_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
        try unsafe limitResumption(context, server, files)
        unsafe apus_ssl_ctx_set_ticket_callback(context) { ssl, name, vector, cipher, mac, isSealing in
            guard let keys = unsafe TLSContext.of(ssl)?.ticketKeys, let name = unsafe name, let vector = unsafe vector else { return -1 }
            return unsafe keys.prepare(
                name: name, vector: vector, cipher: cipher, mac: mac, isSealing: isSealing != 0,
                isForOnce: SSL_version(ssl) == TLS1_3_VERSION)
        }
        unsafe SSL_CTX_set_alpn_select_cb(
            context,
            { _, chosen, chosenLength, offered, offeredLength, _ in
                let spoken: StaticString = "\u{8}http/1.1"
                var match: UnsafeMutablePointer<UInt8>?
                let result = unsafe SSL_select_next_proto(
                    &match, chosenLength, spoken.utf8Start, UInt32(spoken.utf8CodeUnitCount), offered, offeredLength)
                unsafe chosen?.pointee = UnsafePointer(match)
                return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL
            }, nil)
        if shown.contains(where: { !$0.ocspResponse.isEmpty }) { unsafe staple(context) }
        switch server.clientCertificates {
        case .off: break
        case .optional(let file):
            try unsafe askForCertificate(context, LoadedIdentity.certificates(in: file, from: files), SSL_VERIFY_PEER)
        case .required(let file):
            try unsafe askForCertificate(
                context, LoadedIdentity.certificates(in: file, from: files), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT)
        }
        guard let configure = unsafe server.configure else {
            return unsafe SSL_CTX_set_keylog_callback(context) { ssl, line in
                guard let line = unsafe line else { return }
                // SAFETY: a C string, valid during the call.
                unsafe OpenSSLSession.owner(of: ssl)?.note(UnsafeRawBufferPointer(start: line, count: strlen(line)))
            }
        }
        unsafe configure(context)
    }

    /// A resumed session carries no certificate and is not verified again. Tickets are therefore
    /// bound to the verification settings, the same on every listener and in every generation; with
    /// an application's own verification there is no resumption.
    private func limitResumption(_ context: OpaquePointer, _ server: ServerTLS, _ files: TLSFiles) throws(TLSSetupError) {
        guard server.acceptsClient == nil, unsafe server.configure == nil else {
            unsafe SSL_CTX_set_options(context, apus_ssl_op_no_ticket)
            unsafe SSL_CTX_set_num_tickets(context, 0)
            return
        }
        // One ticket suffices to reconnect; each one slows the full handshake.
        unsafe SSL_CTX_set_num_tickets(context, 1)
        var conditions: [UInt8] = []
        switch server.clientCertificates {
        case .off: break
        case .optional(let file): conditions = try [1] + files.contents(of: file)
        case .required(let file): conditions = try [2] + files.contents(of: file)
        }
        for identity in server.identities { conditions += try [0] + files.contents(of: identity.certificateChain) }
        var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        unsafe SHA256(conditions, conditions.count, &digest)
        unsafe SSL_CTX_set_session_id_context(context, digest, UInt32(digest.count))
    }

    private func staple(_ context: OpaquePointer) {
        unsafe apus_ssl_ctx_set_status_callback(
            context,
            { ssl, _ in
                guard let ssl = unsafe ssl, let certificate = unsafe SSL_get_certificate(ssl), let context = unsafe TLSContext.of(ssl),
                    let response = context.identities.first(where: { unsafe $0.shows(certificate) })?.ocspResponse, !response.isEmpty
                else { return SSL_TLSEXT_ERR_NOACK }
                // OpenSSL frees its copy.
                guard let copy = unsafe CRYPTO_malloc(response.count, #file, #line) else { return SSL_TLSEXT_ERR_NOACK }
                unsafe copy.copyMemory(from: response, byteCount: response.count)
                unsafe apus_ssl_set_status_response(ssl, copy.assumingMemoryBound(to: UInt8.self), response.count)
                return SSL_TLSEXT_ERR_OK
            }, nil)
    }

    private func askForCertificate(_ context: OpaquePointer, _ authorities: [Owned], _ mode: Int32) {
        unsafe trust(authorities, context)
        for authority in authorities { unsafe SSL_CTX_add_client_CA(context, authority.pointer) }
        unsafe SSL_CTX_set_verify(context, mode, nil)
        if acceptsClient != nil { unsafe setVerification(context) }
    }

    private func trust(_ authorities: [Owned], _ context: OpaquePointer) {
        for authority in authorities { unsafe X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.pointer) }
    }

    // MARK: Verifying

    /// Installs this context's verification, which runs after OpenSSL's.
    private func setVerification(_ context: OpaquePointer) {
        unsafe SSL_CTX_set_cert_verify_callback(
            context,
            { store, argument in
                guard let context: TLSContext = unsafe TLSContext.object(argument), let store = unsafe store else { return 0 }
                return unsafe context.verify(store) ? 1 : 0
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    private func verify(_ store: OpaquePointer) -> Bool {
        let isTrusted = unsafe X509_verify_cert(store) == 1
        let verdict = unsafe X509_STORE_CTX_get_error(store)
        let isAccepted: Bool
        if let acceptsClient, let certificate = unsafe X509_STORE_CTX_get0_cert(store) {
            let objection = isTrusted ? nil : OpenSSL.objection(Int(verdict)) ?? "it cannot be verified"
            isAccepted = acceptsClient(unsafe OpenSSL.description(of: certificate, objection: objection))
            if isTrusted, !isAccepted { unsafe X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION) }
        } else {
            isAccepted = unsafe isTrusted || allowsSelfSigned && verdict == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT && verifyAlone(store)
        }
        return isAccepted
    }

    /// Verifies a self-signed certificate as its own root: name, validity and purpose are checked.
    private func verifyAlone(_ store: OpaquePointer) -> Bool {
        guard let certificate = unsafe X509_STORE_CTX_get0_cert(store) else { return false }
        let (roots, second) = unsafe (X509_STORE_new(), X509_STORE_CTX_new())
        defer {
            unsafe X509_STORE_CTX_free(second)
            unsafe X509_STORE_free(roots)
        }
        unsafe X509_STORE_add_cert(roots, certificate)
        guard unsafe X509_STORE_CTX_init(second, roots, certificate, nil) == 1,
            unsafe X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(second), X509_STORE_CTX_get0_param(store)) == 1
        else { return false }
        let isGood = unsafe X509_verify_cert(second) == 1
        if !isGood { unsafe X509_STORE_CTX_set_error(store, X509_STORE_CTX_get_error(second)) }
        return isGood
    }

    // MARK: Names

    /// The context of the identity that covers `name`; nil for the first identity. A trailing dot
    /// is not part of the name (RFC 6066 §3).
    private func other(for name: String) -> Owned? {
        let name = name.hasSuffix(".") ? String(name.dropLast()) : name
        guard let index = identities.firstIndex(where: { $0.holds(for: name) }), index > 0 else { return nil }
        return others[index - 1]
    }

    // MARK: Resumption

    private func keep(_ session: OpaquePointer, _ key: String) {
        sessions[key] = unsafe Owned(session, free: SSL_SESSION_free)
        if sessions.count > Self.maxSessions, let any = sessions.keys.first(where: { $0 != key }) { sessions[any] = nil }
    }

    /// Offers the last stored session. Each is used once (RFC 8446 §C.4).
    func resume(_ ssl: OpaquePointer, _ key: String) {
        guard let session = sessions.removeValue(forKey: key) else { return }
        unsafe SSL_set_session(ssl, session.pointer)
    }
}
