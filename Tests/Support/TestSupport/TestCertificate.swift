/// A certificate that signed itself, for `localhost`, made by openssl.
public final class TestCertificate: Sendable {
    private let directory: TemporaryDirectory
    public var chain: String { directory.path + "/chain.pem" }
    public var key: String { directory.path + "/key.pem" }

    public init() throws {
        directory = try TemporaryDirectory()
        let maker = try ChildProcess([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain,
        ])
        guard try maker.wait(within: .seconds(30)) == .exited(0) else { throw TestFailure("openssl: \(maker.standardError)") }
    }

    /// Puts another one's files in place of these.
    public func become(_ other: TestCertificate) throws {
        try Files.write(Files.bytes(other.chain) ?? [], to: chain)
        try Files.write(Files.bytes(other.key) ?? [], to: key)
    }
}
