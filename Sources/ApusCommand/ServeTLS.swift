import Apus
import ArgumentParser
import Foundation

/// The options of `apus serve` that make it speak TLS.
struct ServeTLS: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "Speak TLS, and show the certificate chain in this PEM file; repeatable, each with its --tls-key: clients choose by name.",
            valueName: "file"))
    var tlsCertificate: [String] = []

    @Option(name: .long, help: ArgumentHelp("The certificate's private key, a PEM file.", valueName: "file"))
    var tlsKey: [String] = []

    @Option(name: .long, help: ArgumentHelp("A file with the passphrase of the keys.", valueName: "file"))
    var tlsKeyPassphrase: String?

    @Option(
        name: .long, help: ArgumentHelp("A file with the DER-encoded OCSP response to staple for the first certificate.", valueName: "file")
    )
    var tlsOcsp: String?

    @Option(name: .long, help: ArgumentHelp("The authorities that clients' certificates must come from, a PEM file.", valueName: "file"))
    var tlsCa: String?

    @Option(name: .long, help: ArgumentHelp("Whether clients are asked for a certificate: off, optional or required.", valueName: "mode"))
    var tlsClientCertificate = ClientCertificate.off

    @Flag(name: .long, help: "Serve plain HTTP to clients that speak it where TLS is spoken, instead of answering 400.")
    var tlsAllowPlain = false

    enum ClientCertificate: String, ExpressibleByArgument, CaseIterable { case off, optional, required }

    /// Nil without a certificate.
    var options: ServerTLS? {
        get throws {
            guard tlsCertificate.count == tlsKey.count else {
                throw ValidationError(
                    "--tls-certificate is given \(tlsCertificate.count) times and --tls-key \(tlsKey.count) times: each wants the other")
            }
            guard !tlsCertificate.isEmpty else {
                guard tlsCa == nil, tlsClientCertificate == .off, tlsOcsp == nil, tlsKeyPassphrase == nil, !tlsAllowPlain else {
                    throw ValidationError("the other --tls options want --tls-certificate and --tls-key")
                }
                return nil
            }
            let passphrase = try tlsKeyPassphrase.map(Self.firstLine)
            var options = ServerTLS(
                zip(tlsCertificate, tlsKey).map { chain, key in
                    guard let passphrase else { return TLSIdentity(certificateChain: chain, privateKey: key) }
                    return TLSIdentity(certificateChain: chain, privateKey: .encryptedFile(key, passphrase: { passphrase }))
                })
            options.identities[0].ocspResponse = tlsOcsp
            options.allowsPlainHTTP = tlsAllowPlain
            switch (tlsClientCertificate, tlsCa) {
            case (.off, nil): break
            case (.off, _?): throw ValidationError("--tls-ca wants --tls-client-certificate optional or required")
            case (.optional, let authorities?): options.clientCertificates = .optional(authorities: authorities)
            case (.required, let authorities?): options.clientCertificates = .required(authorities: authorities)
            case (.optional, nil), (.required, nil):
                throw ValidationError("--tls-client-certificate \(tlsClientCertificate.rawValue) wants --tls-ca FILE")
            }
            return options
        }
    }

    private static func firstLine(of file: String) throws -> String {
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
            throw ValidationError("--tls-key-passphrase: cannot read \"\(file)\"")
        }
        return String(text.prefix { !$0.isNewline })
    }
}
