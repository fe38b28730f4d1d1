import COpenSSL

/// Owns one reference to an OpenSSL object.
@safe final class Owned {
    let pointer: OpaquePointer
    @safe private let free: (OpaquePointer?) -> Void

    /// - Parameter free: releases the reference.
    init(_ pointer: OpaquePointer, free: @escaping (OpaquePointer?) -> Void) {
        unsafe self.pointer = pointer
        unsafe self.free = free
    }

    deinit { unsafe free(pointer) }
}

/// Shared OpenSSL helpers.
enum OpenSSL {
    /// Returns the first error of this thread's error queue, and clears the queue.
    static func takeError() -> String {
        defer { ERR_clear_error() }
        let code = ERR_peek_error()
        guard code != 0, let reason = unsafe ERR_reason_error_string(code) else { return "unknown OpenSSL error" }
        return unsafe String(cString: reason)
    }

    /// Calls `body` with a BIO that reads `bytes`.
    static func withReader<Result>(of bytes: [UInt8], _ body: (OpaquePointer?) -> Result) -> Result {
        unsafe bytes.withUnsafeBytes { buffer in
            // SAFETY: the BIO does not outlive the bytes.
            let bio = unsafe BIO_new_mem_buf(buffer.baseAddress, Int32(buffer.count))
            defer { unsafe BIO_free(bio) }
            return unsafe body(bio)
        }
    }

    static func text(of name: OpaquePointer?) -> String {
        let bio = unsafe BIO_new(BIO_s_mem())
        defer { unsafe BIO_free(bio) }
        guard let name = unsafe name, unsafe apus_print_name(bio, name) >= 0 else { return "" }
        var bytes = [UInt8](repeating: 0, count: unsafe apus_bio_pending(bio))
        let count = unsafe BIO_read(bio, &bytes, Int32(bytes.count))
        return String(decoding: bytes.prefix(Int(max(0, count))), as: UTF8.self)
    }

    static func der(of certificate: OpaquePointer) -> [UInt8] {
        let count = unsafe i2d_X509(certificate, nil)
        guard count > 0 else { return [] }
        return unsafe [UInt8](unsafeUninitializedCapacity: Int(count)) { buffer, used in
            // SAFETY: the call writes as many octets as it returned before.
            var at = buffer.baseAddress
            used = unsafe Int(i2d_X509(certificate, &at))
        }
    }

    static func description(of certificate: OpaquePointer, objection: String?) -> PeerCertificate {
        unsafe PeerCertificate(
            subject: text(of: X509_get_subject_name(certificate)), issuer: text(of: X509_get_issuer_name(certificate)),
            der: der(of: certificate), objection: objection)
    }

    /// OpenSSL's description of a verification result; nil for `X509_V_OK`.
    static func objection(_ verdict: Int) -> String? {
        verdict == Int(X509_V_OK) ? nil : unsafe String(cString: X509_verify_cert_error_string(verdict))
    }
}
