import COpenSSL
import Testing

/// A client side of TLS, by OpenSSL, that is fed received bytes and gives the bytes to send.
final class TLSLayer {
    private let context: OpaquePointer
    private let ssl: OpaquePointer
    private let input: OpaquePointer
    private let output: OpaquePointer

    /// - Parameter version: the only version that is offered, `TLS1_2_VERSION` or `TLS1_3_VERSION`;
    ///   nil offers both.
    init(version: Int32? = nil) throws {
        context = try #require(SSL_CTX_new(TLS_client_method()))
        if let version {
            // SSL_CTX_set_min_proto_version and SSL_CTX_set_max_proto_version are macros.
            try #require(SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(version), nil) == 1)
            try #require(SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(version), nil) == 1)
        }
        ssl = try #require(SSL_new(context))
        input = try #require(BIO_new(BIO_s_mem()))
        output = try #require(BIO_new(BIO_s_mem()))
        SSL_set_bio(ssl, input, output)
        SSL_set_connect_state(ssl)
    }

    deinit {
        SSL_free(ssl)
        SSL_CTX_free(context)
    }

    var version: String { String(cString: SSL_get_version(ssl)) }

    /// How the other side ended TLS; nil if it has not.
    var ending: String? { SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN != 0 ? "close_notify" : nil }

    /// Continues the handshake with received bytes.
    ///
    /// - Returns: Whether it is done.
    func handshake(receiving bytes: [UInt8] = []) -> Bool {
        receive(bytes)
        return SSL_do_handshake(ssl) == 1
    }

    func seal(_ bytes: [UInt8]) throws { try #require(SSL_write(ssl, bytes, Int32(bytes.count)) == bytes.count) }

    /// Updates the own key and requests an update of the peer's.
    func sealKeyUpdate() throws {
        try #require(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1)
    }

    func sealEnd() { SSL_shutdown(ssl) }

    /// What is to be sent.
    func takeOutput() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: apus_bio_pending(output))
        let count = BIO_read(output, &bytes, Int32(bytes.count))
        return Array(bytes.prefix(Int(max(0, count))))
    }

    /// The plain bytes of received ones.
    func open(_ bytes: [UInt8]) -> [UInt8] {
        receive(bytes)
        var plain: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = SSL_read(ssl, &buffer, Int32(buffer.count))
            guard count > 0 else { return plain }
            plain += buffer[..<Int(count)]
        }
    }

    private func receive(_ bytes: [UInt8]) {
        if !bytes.isEmpty { BIO_write(input, bytes, Int32(bytes.count)) }
    }
}
