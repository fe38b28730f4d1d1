package import ApusPlatform

/// A certificate chain and its private key, which authenticate one side.
public struct TLSIdentity: Sendable {
    /// A PEM file: the certificate first, then the intermediate certificates.
    public var certificateChain: String
    public var privateKey: PrivateKey
    /// A file with a DER-encoded OCSP response to staple (RFC 6066 §8).
    public var ocspResponse: String?

    /// The end of the error for an encrypted key without a passphrase.
    package static let missingPassphrase = "is encrypted, and no passphrase was given"

    /// The source of a private key.
    public enum PrivateKey: Sendable {
        /// A PEM file.
        case file(String)
        /// An encrypted PEM file.
        case encryptedFile(String, passphrase: @Sendable () -> String)
        /// PEM text from another source, such as a secret store (libwebsockets'
        /// `OPENSSL_CONTEXT_REQUIRES_PRIVATE_KEY`).
        case provided(@Sendable () throws -> [UInt8])
    }

    public init(certificateChain: String, privateKey: PrivateKey, ocspResponse: String? = nil) {
        self.certificateChain = certificateChain
        self.privateKey = privateKey
        self.ocspResponse = ocspResponse
    }

    public init(certificateChain: String, privateKey file: String) {
        self.init(certificateChain: certificateChain, privateKey: .file(file))
    }
}

/// The minimum TLS version; newer ones are always enabled.
public enum TLSVersion: Sendable, Hashable {
    case tls12
    case tls13
}

/// The peer's certificate and OpenSSL's verification result.
public struct PeerCertificate: Sendable, Hashable {
    /// In RFC 2253 form, such as `CN=client,O=Example`.
    public let subject: String
    public let issuer: String
    /// The certificate, DER-encoded.
    public let der: [UInt8]
    /// Why it is not trusted; nil if it is.
    public let objection: String?
    public var isTrusted: Bool { objection == nil }
}

/// A listener's TLS settings: TLS 1.2 and 1.3, forward secrecy only, no renegotiation, no
/// compression, session tickets that every worker of the server accepts.
@safe public struct ServerTLS: Sendable {
    /// The server's certificates. The first is the default; another is used for clients whose
    /// server name (SNI) it covers.
    public var identities: [TLSIdentity]
    public var clientCertificates = ClientCertificates.off
    /// Decides on a client's certificate, given OpenSSL's result
    /// (`OPENSSL_PERFORM_CLIENT_CERT_VERIFICATION`). Nil: OpenSSL's result applies.
    public var acceptsClient: (@Sendable (PeerCertificate) -> Bool)?
    public var minVersion = TLSVersion.tls12
    /// Whether to serve plain HTTP on this port (`LWS_SERVER_OPTION_ALLOW_NON_SSL_ON_SSL_PORT`);
    /// otherwise such requests get status 400.
    public var allowsPlainHTTP = false
    /// Called with each `SSL_CTX *` after all other settings
    /// (`OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS`). With it, new certificates require a reload:
    /// workers, which create the context when certificates are replaced in place, may be unable to
    /// open files.
    public var configure: (@Sendable (OpaquePointer) -> Void)?
    package var isConfigured: Bool { unsafe configure != nil }

    /// Whether clients are asked for a certificate, and a PEM file of the accepted authorities.
    public enum ClientCertificates: Sendable, Hashable {
        case off
        case optional(authorities: String)
        case required(authorities: String)
    }

    /// - Parameter identities: at least one.
    public init(_ identities: TLSIdentity...) { self.identities = identities }
    public init(_ identities: [TLSIdentity]) { self.identities = identities }
}

/// A client's TLS settings. By default the server's chain and name are verified.
@safe public struct ClientTLS: Sendable {
    public var roots = Roots.system
    /// The client's certificate, sent if the server requests one.
    public var identity: TLSIdentity?
    public var verification = Verification.full
    /// The name for SNI and verification, if it differs from the URL's host.
    public var serverName: String?
    public var minVersion = TLSVersion.tls12
    /// Called with the `SSL_CTX *` after all other settings
    /// (`OPENSSL_LOAD_EXTRA_CLIENT_VERIFY_CERTS`).
    public var configure: (@Sendable (OpaquePointer) -> Void)?
    /// An `SSL_CTX *` to use instead of one made from these settings (`provided_client_ssl_ctx`).
    /// It must outlive this value.
    public nonisolated(unsafe) var context: OpaquePointer?

    /// The trusted root certificates.
    public enum Roots: Sendable, Hashable {
        /// The system's.
        case system
        /// Those in a PEM file.
        case file(String)
    }

    public enum Verification: Sendable, Hashable {
        /// Verify the chain and the name.
        case full
        /// As `full`, but accept self-signed certificates.
        case allowingSelfSigned
        /// Verify nothing: an attacker on the path can read and change all data.
        case none
    }

    public init() {}
}

extension ClientTLS {
    /// The settings that must be equal for two connections to share a context, and so resume each
    /// other's sessions.
    package struct SharingKey: Equatable {
        let roots: Roots
        let verification: Verification
        let minVersion: TLSVersion
        let certificate: String?
        let privateKey: String?
    }

    /// Nil if sharing cannot be determined: closures cannot be compared, and an application's own
    /// context is wrapped anew.
    package var sharingKey: SharingKey? {
        guard unsafe configure == nil, unsafe context == nil else { return nil }
        var files: (certificate: String?, privateKey: String?)
        if let identity {
            switch identity.privateKey {
            // The passphrase is not compared: a key has one.
            case .file(let privateKey), .encryptedFile(let privateKey, _): files = (identity.certificateChain, privateKey)
            case .provided: return nil
            }
        }
        return SharingKey(
            roots: roots, verification: verification, minVersion: minVersion, certificate: files.certificate, privateKey: files.privateKey)
    }
}

/// The security of a connection.
public enum Security: Sendable {
    case plain
    case tls(TLSInformation)

    package var isTLS: Bool { if case .tls = self { true } else { false } }
}

/// The result of a TLS handshake.
public final class TLSInformation: Sendable {
    /// `TLSv1.2` or `TLSv1.3`.
    public let version: String
    /// The cipher suite, by OpenSSL's name.
    public let cipher: String
    /// The protocol negotiated by ALPN (RFC 7301).
    public let applicationProtocol: String?
    /// The client's server name indication (RFC 6066 §3).
    public let serverName: String?
    /// Whether the session was resumed.
    public let isResumed: Bool
    /// Nil if the peer sent none.
    public let peerCertificate: PeerCertificate?
    /// Whether the peer sent a certificate that is trusted.
    public var isVerified: Bool { peerCertificate?.isTrusted ?? false }

    init(
        version: String, cipher: String, applicationProtocol: String?, serverName: String?, isResumed: Bool,
        peerCertificate: PeerCertificate?
    ) {
        self.version = version
        self.cipher = cipher
        self.applicationProtocol = applicationProtocol
        self.serverName = serverName
        self.isResumed = isResumed
        self.peerCertificate = peerCertificate
    }
}

/// Why TLS cannot be configured: the file and the fault.
package struct TLSSetupError: Error, Equatable, CustomStringConvertible {
    package let description: String
    /// The system refused to open or read a file.
    package let isUnreadable: Bool

    init(_ description: String, isUnreadable: Bool = false) {
        self.description = description
        self.isUnreadable = isUnreadable
    }
}

/// Why a TLS handshake failed, or a secured connection ended.
package enum TLSError: Error, Equatable, CustomStringConvertible {
    /// The peer's certificate was rejected, with the reason.
    case untrusted(String)
    /// No common parameters, or a protocol violation; OpenSSL's description.
    case protocolError(String)
    /// The peer closed the connection.
    case closed
    case system(SystemError)

    package var description: String {
        switch self {
        case .untrusted(let reason): "the peer's certificate is not acceptable: \(reason)"
        case .protocolError(let reason): reason
        case .closed: "the peer closed the connection during the TLS handshake"
        case .system(let error): error.description
        }
    }
}
