import ApusPlatform
import COpenSSL

/// Files that OpenSSL opens itself.
package enum OpenSSLFiles {
    /// The system's trusted certificates: OpenSSL's default paths or those in the environment, and
    /// the directories that symbolic links there point to.
    package static var authorities: [String] {
        let own: [(variable: String, place: String)] = unsafe [
            (variable: String(cString: X509_get_default_cert_file_env()), place: String(cString: X509_get_default_cert_file())),
            (String(cString: X509_get_default_cert_dir_env()), String(cString: X509_get_default_cert_dir())),
        ]
        let named = own.flatMap { (Process.environment($0.variable) ?? $0.place).split(separator: ":").map(String.init) }
        return named + ["/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pki/ca-trust/extracted"]
    }
}
