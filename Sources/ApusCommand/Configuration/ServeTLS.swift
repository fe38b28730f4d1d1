import Apus
import ArgumentParser

/// The TLS options of `apus serve`.
struct ServeTLS: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "Use TLS with the certificate chain in this PEM file; repeatable, each with its --tls-key: clients select by server name.",
            valueName: "file"))
    var tlsCertificate: [String] = []

    @Option(name: .long, help: ArgumentHelp("A PEM file with the certificate's private key.", valueName: "file"))
    var tlsKey: [String] = []

    @Option(name: .long, help: ArgumentHelp("A file with the passphrase of the keys.", valueName: "file"))
    var tlsKeyPassphrase: String?

    @Option(
        name: .long, help: ArgumentHelp("A file with the DER-encoded OCSP response to staple for the first certificate.", valueName: "file")
    )
    var tlsOcsp: String?

    @Option(name: .long, help: ArgumentHelp("A PEM file with the certificate authorities for clients' certificates.", valueName: "file"))
    var tlsCa: String?

    @Option(name: .long, help: ArgumentHelp("Whether client certificates are requested: off, optional or required.", valueName: "mode"))
    var tlsClientCertificate = Configuration.TLS.ClientCertificate.off

    @Flag(name: .long, help: "Serve plain HTTP on TLS listeners to clients without TLS, instead of answering 400.")
    var tlsAllowPlain = false

    @Option(
        name: .long,
        help: ArgumentHelp(
            "How often to check the files for new certificates and keys, used for new connections (default: 10 s).",
            valueName: "time|off"))
    var tlsCheckInterval: String?

    /// The settings of the options; nil without any.
    var settings: Configuration.TLS? {
        get throws {
            guard tlsCertificate.count == tlsKey.count else {
                throw ValidationError(
                    "--tls-key: expected one for each --tls-certificate, got \(tlsCertificate.count) certificates and \(tlsKey.count) keys")
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
