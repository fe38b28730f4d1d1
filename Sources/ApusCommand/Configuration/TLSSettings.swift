import Apus
import ApusPlatform

extension Configuration {
    /// The files that TLS is made from, and who must show a certificate.
    struct TLS: Equatable {
        enum ClientCertificate: String, CaseIterable { case off, optional, required }

        /// The keys of a configuration file.
        static let knownKeys = ["allow-plain", "ca", "certificate", "check-interval", "client-certificate", "key", "ocsp", "passphrase"]

        /// Files of certificate chains, and of the key for each.
        var certificates: [String] = []
        var keys: [String] = []
        /// The file with the keys' passphrase.
        var passphrase: String?
        /// The response to staple for the first certificate.
        var ocsp: String?
        var allowsPlain = false
        /// How often the files are looked at for new contents; nil: never.
        var checkInterval: Duration? = .seconds(10)
        /// Whose signature a client's certificate must have.
        var authorities: String?
        var clientCertificate = ClientCertificate.off

        /// The setting whose file an error names, and the file's index in it.
        func item(of reason: String) -> (key: String, index: Int)? {
            let settings = [
                ("key", keys), ("certificate", certificates), ("ocsp", ocsp.map { [$0] } ?? []), ("ca", authorities.map { [$0] } ?? []),
            ]
            for (key, files) in settings {
                if let index = files.firstIndex(where: { reason.contains("\"\($0)\"") }) { return ("tls.\(key)", index) }
            }
            return nil
        }

        /// The library's options. Each call reads the passphrase anew.
        func options(_ places: SettingPlaces) throws(SettingError) -> ServerTLS {
            let passphrase = try readPassphrase(places)
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

        /// Bytes; OpenSSL takes passphrases of at most 1024.
        private static let maxPassphraseFileBytes = 64 * 1024

        /// The first line of the passphrase's file.
        private func readPassphrase(_ places: SettingPlaces) throws(SettingError) -> String? {
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
                place: places["tls.passphrase"],
                reason: "tls: the keys' passphrase cannot be read from \(Quotation.of(passphrase)): \(reason)")
        }

        /// What `check-interval` may be.
        static let checkIntervalForm = "off, or a time of at least 10 ms, with its unit: ms, s, min or h"

        /// The outer nil: no such interval.
        static func checkInterval(_ text: String) -> Duration?? {
            if text == "off" { return .some(nil) }
            guard let interval = Quantity.duration(text), interval >= .milliseconds(10) else { return nil }
            return interval
        }
    }
}
