import Apus
import Foundation

extension Configuration {
    /// The files that TLS is made from, and who must show a certificate.
    struct TLS: Equatable {
        enum ClientCertificate: String, CaseIterable { case off, optional, required }

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

        /// The key whose file an error names.
        func key(of reason: String) -> String? {
            let files = [
                ("key", keys), ("certificate", certificates), ("ocsp", ocsp.map { [$0] } ?? []), ("ca", authorities.map { [$0] } ?? []),
            ]
            return files.first { $0.1.contains { reason.contains("\"\($0)\"") } }.map { "tls.\($0.0)" }
        }

        /// What the library is told. The passphrase is read anew by each call.
        func options(_ places: [String: Place]) throws -> ServerTLS {
            let passphrase = try passphrase.map { file in
                guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
                    throw SettingError(place: places["tls.passphrase"], reason: "tls: the keys' passphrase cannot be read from \"\(file)\"")
                }
                return String(text.prefix { !$0.isNewline })
            }
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
