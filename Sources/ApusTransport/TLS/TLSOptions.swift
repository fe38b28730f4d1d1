package import ApusPlatform

/// A certificate with its chain and its private key: what one side shows the other to prove who it is.
public struct TLSIdentity: Sendable {
    /// A PEM file: the certificate first, then those that lead to a root.
    public var certificateChain: String
    public var privateKey: PrivateKey
    /// A file with a DER-encoded OCSP response to staple (RFC 6066 §8).
    public var ocspResponse: String?

    /// How what is said of an encrypted key in a plain `file` ends.
    package static let missingPassphrase = "is encrypted, and no passphrase was given"

    /// Where a private key comes from.
    public enum PrivateKey: Sendable {
        /// A PEM file.
        case file(String)
        /// An encrypted PEM file.
        case encryptedFile(String, passphrase: @Sendable () -> String)
        /// PEM text from elsewhere, such as a secret store (libwebsockets' `OPENSSL_CONTEXT_REQUIRES_PRIVATE_KEY`).
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

/// The oldest version of TLS that is spoken; newer ones always are.
public enum TLSVersion: Sendable, Hashable {
    case tls12
    case tls13
}

/// What the other side's certificate says, and what OpenSSL thinks of it.
public struct PeerCertificate: Sendable, Hashable {
    /// As RFC 2253 writes it, such as `CN=client,O=Example`.
    public let subject: String
    public let issuer: String
    /// The certificate, DER-encoded.
    public let der: [UInt8]
    /// Why it is not trusted; nil if it is.
    public let objection: String?
    public var isTrusted: Bool { objection == nil }
}

/// How a listener speaks TLS: 1.2 and 1.3, ciphers with forward secrecy only, no renegotiation, no compression, session tickets that every
/// worker of the server accepts.
@safe public struct ServerTLS: Sendable {
    /// What clients get to see. The first is the default; another is shown to clients that ask for a name it holds for (SNI).
    public var identities: [TLSIdentity]
    public var clientCertificates = ClientCertificates.off
    /// The application's verdict on a client's certificate, which sees OpenSSL's (`OPENSSL_PERFORM_CLIENT_CERT_VERIFICATION`). Nil: OpenSSL's.
    public var acceptsClient: (@Sendable (PeerCertificate) -> Bool)?
    public var minVersion = TLSVersion.tls12
    /// Serve plain HTTP to clients that speak it here (`LWS_SERVER_OPTION_ALLOW_NON_SSL_ON_SSL_PORT`); otherwise they are answered 400.
    public var allowsPlainHTTP = false
    /// Called with each `SSL_CTX *` when all else is set (`OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS`). With it, new certificates want a reload:
    /// workers, who make the new context when certificates are replaced in place, may open no file.
    public var configure: (@Sendable (OpaquePointer) -> Void)?
    package var isConfigured: Bool { unsafe configure != nil }

    /// Whether clients are asked for a certificate, and the PEM file of the authorities that it must come from.
    public enum ClientCertificates: Sendable, Hashable {
        case off
        case optional(authorities: String)
        case required(authorities: String)
    }

    /// - Parameter identities: at least one.
    public init(_ identities: TLSIdentity...) { self.identities = identities }
    public init(_ identities: [TLSIdentity]) { self.identities = identities }
}

/// How a client speaks TLS: the server's chain and name are verified.
@safe public struct ClientTLS: Sendable {
    public var roots = Roots.system
    /// What the server gets to see if it asks.
    public var identity: TLSIdentity?
    public var verification = Verification.full
    /// The name to ask for and to verify, if it is not the address's.
    public var serverName: String?
    public var minVersion = TLSVersion.tls12
    /// Called with the `SSL_CTX *` when all else is set (`OPENSSL_LOAD_EXTRA_CLIENT_VERIFY_CERTS`).
    public var configure: (@Sendable (OpaquePointer) -> Void)?
    /// An `SSL_CTX *` of your own to be used instead of one made from the above (`provided_client_ssl_ctx`). It must live as long as this.
    public nonisolated(unsafe) var context: OpaquePointer?

    /// Whom a server's chain must lead to.
    public enum Roots: Sendable, Hashable {
        /// Those that the system trusts.
        case system
        /// Those in a PEM file.
        case file(String)
    }

    public enum Verification: Sendable, Hashable {
        /// Chain and name.
        case full
        /// As full, but a certificate that signed itself will do.
        case allowingSelfSigned
        /// Neither is looked at. Anybody in between can read and change everything.
        case none
    }

    public init() {}
}

extension ClientTLS {
    /// What is compared to tell whether two connections may share a context, and so resume each other's sessions.
    package struct SharingKey: Equatable {
        let roots: Roots
        let verification: Verification
        let minVersion: TLSVersion
        let certificate: String?
        let privateKey: String?
    }

    /// Nil if that cannot be told: closures are not compared, and a context of the application's own is wrapped anew.
    package var sharingKey: SharingKey? {
        guard unsafe configure == nil, unsafe context == nil else { return nil }
        var files: (certificate: String?, privateKey: String?)
        if let identity {
            switch identity.privateKey {
            // What the passphrase is makes no difference: a key has one.
            case .file(let privateKey), .encryptedFile(let privateKey, _): files = (identity.certificateChain, privateKey)
            case .provided: return nil
            }
        }
        return SharingKey(
            roots: roots, verification: verification, minVersion: minVersion, certificate: files.certificate, privateKey: files.privateKey)
    }
}

/// What protects a connection.
public enum Security: Sendable {
    case plain
    case tls(TLSInformation)
}

/// What a TLS handshake agreed on.
public final class TLSInformation: Sendable {
    /// `TLSv1.2` or `TLSv1.3`.
    public let version: String
    /// OpenSSL's name of the cipher suite.
    public let cipher: String
    /// The protocol agreed on by ALPN.
    public let applicationProtocol: String?
    /// The name the client asked for (SNI).
    public let serverName: String?
    /// A handshake before this one was resumed.
    public let isResumed: Bool
    /// Nil if the other side has shown none.
    public let peerCertificate: PeerCertificate?
    /// The other side has proved who it is.
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

/// Why TLS cannot be set up as described: the file, and what is wrong with it.
package struct TLSSetupError: Error, Equatable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

/// Why a TLS handshake failed, or why a connection is not secure any more.
package enum TLSError: Error, Equatable, CustomStringConvertible {
    /// The other side's certificate is not acceptable, and why.
    case untrusted(String)
    /// The two sides found no way to speak, or one broke the rules; OpenSSL's words.
    case protocolError(String)
    /// The other side ended the connection.
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
