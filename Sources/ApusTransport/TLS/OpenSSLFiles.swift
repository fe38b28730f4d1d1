import ApusPlatform
import COpenSSL

/// Files that OpenSSL opens by itself.
package enum OpenSSLFiles {
    /// Where the certificates of the authorities are that the system trusts: OpenSSL's places, or those that the environment names, and what
    /// links in them lead to.
    package static var authorities: [String] {
        let own: [(variable: String, place: String)] = unsafe [
            (variable: String(cString: X509_get_default_cert_file_env()), place: String(cString: X509_get_default_cert_file())),
            (String(cString: X509_get_default_cert_dir_env()), String(cString: X509_get_default_cert_dir())),
        ]
        let named = own.flatMap { (Process.environment($0.variable) ?? $0.place).split(separator: ":").map(String.init) }
        return named + ["/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pki/ca-trust/extracted"]
    }
}
