import Apus
import COpenSSL
import TestSupport
import Testing

@Suite("Clients over TLS, in a worker that serves it")
struct ClientTLSTests {
    let certificate: TestCertificate
    let stage: TestServer

    init() throws {
        let certificate = try TestCertificate()
        self.certificate = certificate
        stage = try TestServer(listen: false) {
            $0.listen(
                on: .tcp("127.0.0.1", port: 0),
                tls: ServerTLS(TLSIdentity(certificateChain: certificate.chain, privateKey: certificate.key)))
            $0.webSocket("chat", at: "/chat") { _ in RecordingHandler.echo() }
        }
    }

    /// - Parameter trusted: whose certificate is the root; nil: the system's.
    func attempt(trusting trusted: TestCertificate?, _ configure: (inout ClientTLS) -> Void = { _ in }) throws -> Attempt {
        let port = try #require(stage.worker.addresses[0].port)
        return Attempt(stage, "wss://localhost:\(port)/chat") {
            if let trusted { $0.tls.roots = .file(trusted.chain) }
            configure(&$0.tls)
        }
    }

    /// Whether the attempt ends because of the certificate.
    func isRefused(_ attempt: Attempt) throws -> Bool {
        try stage.until("the end") { !attempt.errors.isEmpty || attempt.script.count("opened") > 0 }
        if case .certificate? = attempt.errors.first { return true }
        return false
    }

    @Test("the server's certificate must lead to a root, whatever was trusted in a connection before")
    func roots() throws {
        #expect(try attempt(trusting: certificate).opened().isOpen)
        #expect(try isRefused(attempt(trusting: nil)))
        let stranger = try TestCertificate()
        #expect(try isRefused(attempt(trusting: stranger)))
        #expect(try attempt(trusting: nil) { $0.verification = .none }.opened().isOpen)
        #expect(try isRefused(attempt(trusting: nil)), "a session of nobody verified is not resumed")
    }

    @Test("a context of one's own is used as it is: what it trusts counts")
    func supplied() throws {
        let context = try #require(SSL_CTX_new(TLS_client_method()))
        defer { SSL_CTX_free(context) }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        #expect(try isRefused(attempt(trusting: certificate) { unsafe $0.context = context }))
        try #require(SSL_CTX_load_verify_locations(context, certificate.chain, nil) == 1)
        let attempt = try attempt(trusting: nil) { unsafe $0.context = context }
        let socket = try attempt.opened()
        socket.send(text: "through it")
        try stage.until("the echo") { attempt.script.middle == ["text through it"] }
        guard case .tls(let information) = socket.security else { return #expect(Bool(false), "it is plain") }
        #expect(information.isVerified && information.version == "TLSv1.3")
    }

    @Test("a function of one's own adds a root to the client's worker")
    func configured() throws {
        let chain = certificate.chain
        let attempt = try attempt(trusting: nil) { $0.configure = { _ = SSL_CTX_load_verify_locations($0, chain, nil) } }
        #expect(try attempt.opened().isOpen)
    }

    @Test("certificates are reloaded: new handshakes show the new one, connections stay, a mistake changes nothing")
    func reload() throws {
        let old = try TestCertificate()
        try old.become(certificate)
        let before = try attempt(trusting: old)
        let socket = try before.opened()

        let new = try TestCertificate()
        try Files.write(Files.bytes(new.key) ?? [], to: certificate.key)
        #expect(throws: ConfigurationError.self) { try stage.worker.reloadCertificates() }
        #expect(try attempt(trusting: old).opened().isOpen)

        try certificate.become(new)
        try stage.worker.reloadCertificates()
        #expect(try attempt(trusting: new).opened().isOpen)
        #expect(try isRefused(attempt(trusting: old)))
        socket.send(text: "still there")
        try stage.until("the echo") { before.script.middle == ["text still there"] }
    }

    @Test("the application's verdict on clients is asked for with each connection, resumed or not")
    func verdicts() throws {
        nonisolated(unsafe) var asked = 0
        let certificate = certificate
        var tls = ServerTLS(TLSIdentity(certificateChain: certificate.chain, privateKey: certificate.key))
        tls.clientCertificates = .optional(authorities: certificate.chain)
        tls.acceptsClient = { _ in
            asked += 1
            return true
        }
        let stage = try TestServer(listen: false) {
            $0.listen(on: .tcp("127.0.0.1", port: 0), tls: tls)
            $0.webSocket("chat", at: "/chat") { _ in RecordingHandler.echo() }
        }
        let port = try #require(stage.worker.addresses[0].port)
        for round in 1...3 {
            // The dot of the root is no part of the name.
            let attempt = Attempt(stage, "wss://localhost:\(port)/chat") {
                $0.tls.roots = .file(certificate.chain)
                $0.tls.serverName = "localhost."
                $0.tls.identity = TLSIdentity(certificateChain: certificate.chain, privateKey: certificate.key)
            }
            let socket = try attempt.opened()
            #expect(asked == round)
            socket.close()
            try stage.until("the end") { attempt.script.endings.count == 1 }
        }
    }
}
