import Apus
import ArgumentParser

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
    var tlsClientCertificate = Configuration.TLS.ClientCertificate.off

    @Flag(name: .long, help: "Serve plain HTTP to clients that speak it where TLS is spoken, instead of answering 400.")
    var tlsAllowPlain = false

    @Option(
        name: .long,
        help: ArgumentHelp(
            "How often to look for new certificates and keys in the files: new ones are shown from then on, and connections stay (default: 10 s).",
            valueName: "time|off"))
    var tlsCheckInterval: String?

    /// Nil without any of them.
    var settings: Configuration.TLS? {
        get throws {
            guard tlsCertificate.count == tlsKey.count else {
                throw ValidationError(
                    "expected a --tls-key for each --tls-certificate, got \(tlsCertificate.count) certificates and \(tlsKey.count) keys")
            }
            guard !tlsCertificate.isEmpty else {
                guard tlsCa == nil, tlsClientCertificate == .off, tlsOcsp == nil, tlsKeyPassphrase == nil, !tlsAllowPlain,
                    tlsCheckInterval == nil
                else {
                    throw ValidationError("expected --tls-certificate and --tls-key with the other --tls options, got none")
                }
                return nil
            }
            var settings = Configuration.TLS(
                certificates: tlsCertificate, keys: tlsKey, passphrase: tlsKeyPassphrase, ocsp: tlsOcsp, allowsPlain: tlsAllowPlain)
            switch (tlsClientCertificate, tlsCa) {
            case (.off, _?): throw ValidationError("--tls-ca: expected --tls-client-certificate optional or required with it, got none")
            case (.optional, nil), (.required, nil):
                throw ValidationError("--tls-client-certificate \(tlsClientCertificate.rawValue): expected --tls-ca FILE with it, got none")
            case (.off, nil), (.optional, _?), (.required, _?): break
            }
            if let tlsCheckInterval {
                guard let interval = Configuration.TLS.checkInterval(tlsCheckInterval) else {
                    throw ValidationError(
                        "--tls-check-interval: expected \(Configuration.TLS.checkIntervalForm), got \(Quotation.of(tlsCheckInterval))")
                }
                settings.checkInterval = interval
            }
            settings.authorities = tlsCa
            settings.clientCertificate = tlsClientCertificate
            return settings
        }
    }
}

extension Configuration.TLS.ClientCertificate: ExpressibleByArgument {}
