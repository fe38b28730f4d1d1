import Apus
import ApusPlatform

extension Configuration {
    /// The files of TLS, and the policy for client certificates.
    struct TLS: Equatable {
        enum ClientCertificate: String, CaseIterable { case off, optional, required }

        /// The keys of a configuration file.
        static let knownKeys = ["allow-plain", "ca", "certificate", "check-interval", "client-certificate", "key", "ocsp", "passphrase"]

        /// The files of the certificate chains, and of the key for each.
        var certificates: [String] = []
        var keys: [String] = []
        /// The file with the passphrase of the keys.
        var passphrase: String?
        /// The file of the OCSP response to staple for the first certificate.
        var ocsp: String?
        var allowsPlain = false
        /// How often the files are checked for changes; nil: never.
        var checkInterval: Duration? = .seconds(10)
        /// The file of the certificate authorities for client certificates.
        var authorities: String?
        var clientCertificate = ClientCertificate.off

        /// The setting whose file an error message contains, and the file's index in it.
        func item(of reason: String) -> (key: String, index: Int)? {
            let settings = [
                ("key", keys), ("certificate", certificates), ("ocsp", ocsp.map { [$0] } ?? []), ("ca", authorities.map { [$0] } ?? []),
            ]
            for (key, files) in settings {
                if let index = files.firstIndex(where: { reason.contains("\"\($0)\"") }) { return ("tls.\(key)", index) }
            }
            return nil
        }

        /// The options for the library. Each call reads the passphrase again.
        func options(_ locations: SettingLocations) throws(SettingError) -> ServerTLS {
            let passphrase = try readPassphrase(locations)
            var options = ServerTLS(
                zip(certificates, keys).map { chain, key in
                    guard let passphrase else { return TLSIdentity(certificateChain: chain, privateKey: key) }
                    return TLSIdentity(certificateChain: chain, privateKey: .encryptedFile(key, passphrase: { passphrase }))
                })
            options.identities[0].ocspResponse = ocsp
            options.allowsPlainHTTP = allowsPlain
            switch clientCertificate {
            case .off: break
            case .optional: options.clientCertificates = .optional(authorities: authorities ?? "")
            case .required: options.clientCertificates = .required(authorities: authorities ?? "")
            }
            return options
        }

        /// In bytes; OpenSSL accepts passphrases of up to 1024.
        private static let maxPassphraseFileBytes = 64 * 1024

        /// The first line of the passphrase file.
        private func readPassphrase(_ locations: SettingLocations) throws(SettingError) -> String? {
            guard let passphrase else { return nil }
            let reason: String
            do throws(SystemError) {
                if let bytes = try FileSystem.contents(of: passphrase, maxBytes: Self.maxPassphraseFileBytes),
                    let text = String(validating: bytes, as: UTF8.self)
                {
                    return String(text.prefix { !$0.isNewline })
                }
                reason = "expected a regular file of UTF-8"
            } catch {
                reason = error.reason
            }
            throw SettingError(
                location: locations["tls.passphrase"],
                reason: "tls.passphrase: cannot read \(Quotation.of(passphrase)): \(reason)")
        }

        /// The expected form of `check-interval`.
        static let checkIntervalForm = "off, or a time of at least 10 ms, with its unit: ms, s, min or h"

        /// Parses an interval.
        ///
        /// - Returns: The outer nil if the text is invalid, the inner nil for `off`.
        static func checkInterval(_ text: String) -> Duration?? {
            if text == "off" { return .some(nil) }
            guard let interval = Quantity.duration(text), interval >= .milliseconds(10) else { return nil }
            return interval
        }
    }
}
