import Glibc
import TestSupport
import Testing

/// Certificates, good and bad, made once by openssl.
enum Certificates {
    private static let directory: Result<TemporaryDirectory, any Error> = Result {
        let directory = try TemporaryDirectory()
        let maker = try ChildProcess([Places.peer("certificates.sh"), directory.path])
        guard try maker.wait(within: .seconds(30)) == .exited(0) else { throw TestFailure("certificates.sh: \(maker.standardError)") }
        return directory
    }

    static func path(_ name: String) throws -> String { try directory.get().path + "/" + name }

    /// The options of `apus serve` for a certificate and its key.
    static func options(_ names: String...) throws -> [String] {
        try names.flatMap { try ["--tls-certificate", path($0 + ".pem"), "--tls-key", path($0 + ".key")] }
    }
}

extension Integration {
    @Suite("TLS")
    struct TLS {
        /// What `openssl s_client` prints when its input ends at once.
        static func openssl(_ server: ApusServer, _ arguments: String..., input: String = "") throws -> String {
            try openssl(server, arguments: arguments, input: input)
        }

        static func openssl(_ server: ApusServer, arguments: [String], input: String = "") throws -> String {
            let command = ["openssl", "s_client", "-connect", "127.0.0.1:\(server.port)"] + arguments
            let shell = try ChildProcess(["sh", "-c", "printf '%b' \"$1\" | (shift; exec \"$@\")", "sh", input] + command)
            _ = try shell.wait(within: .seconds(20))
            return shell.standardOutput + shell.standardError
        }

        static func curl(_ server: ApusServer, _ arguments: String...) throws -> ChildProcess {
            let process = try ChildProcess(
                ["curl", "-sS", "--max-time", "10", "--cacert", try Certificates.path("authority.pem")] + arguments
                    + ["https://localhost:\(server.port)/worker"])
            _ = try process.wait(within: .seconds(20))
            return process
        }

        @Test("curl trusts it, by TLS 1.2 and 1.3; older versions and plain HTTP are refused")
        func versions() throws {
            let server = try ApusServer(workers: 2, options: try Certificates.options("localhost"))
            for version in ["1.2", "1.3"] {
                let answer = try Self.curl(server, "--tlsv\(version)", "--tls-max", version)
                #expect(answer.standardOutput.contains("\"workers\":2"), "\(version): \(answer.standardError)")
            }
            let old = try Self.openssl(server, "-tls1_1", "-cipher", "ALL@SECLEVEL=0")
            #expect(old.contains("alert protocol version"), "\(old)")
            let plain = try server.connect().request("GET /worker")
            #expect(plain.status == 400 && plain.text.contains("https"))
        }

        @Test(
            "openssl's client with each suite of TLS 1.3, its records padded",
            arguments: ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"], ["0", "1000", "16384"])
        func suites(suite: String, padding: String) throws {
            let server = try ApusServer(workers: 2, options: try Certificates.options("localhost"))
            let request = "GET /worker HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
            let output = try Self.openssl(
                server, "-ciphersuites", suite, "-record_padding", padding, "-ign_eof", "-quiet", input: request)
            #expect(output.contains("HTTP/1.1 200 OK") && output.contains("\"workers\":2"), "\(output)")
        }

        @Test("who wants small records is sent no larger ones", arguments: ["512", "4096"])
        func smallRecords(size: String) throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            let request = "GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
            let output = try Self.openssl(server, "-tls1_3", "-maxfraglen", size, "-ign_eof", "-quiet", input: request)
            #expect(output.contains("HTTP/1.1 200 OK") && output.contains("</html>"), "\(output)")
        }

        @Test("plain HTTP is served beside TLS where it is allowed")
        func plain() throws {
            let server = try ApusServer(options: try Certificates.options("localhost") + ["--tls-allow-plain"])
            #expect(try server.connect().request("GET /worker").status == 200)
            #expect(try Self.curl(server).standardOutput.contains("workers"))
        }

        @Test("a session is resumed by any worker, its successors, after a reload and by a new program", arguments: ["-tls1_2", "-tls1_3"])
        func resumption(version: String) throws {
            let server = try ApusServer(workers: 3, options: try Certificates.options("localhost"))
            let place = try TemporaryDirectory()
            let session = place.path + "/session"
            let request = "GET /worker HTTP/1.1\\r\\nHost: h\\r\\nConnection: close\\r\\n\\r\\n"
            let first = try Self.openssl(server, version, "-sess_out", session, "-ign_eof", input: request)
            #expect(first.contains("New, TLSv1"), "\(first)")
            func resume() throws -> (isResumed: Bool, slot: Substring?) {
                let output = try Self.openssl(server, version, "-sess_in", session, "-ign_eof", input: request)
                return (output.contains("Reused, TLSv1"), output.firstMatch(of: /"slot":(\d+)/)?.1)
            }
            var slots: Set<Substring> = []
            for _ in 0..<12 {
                let (isResumed, slot) = try resume()
                #expect(isResumed)
                if let slot { slots.insert(slot) }
            }
            #expect(slots.count > 1, "all connections came to one worker")
            let old = server.workers
            for worker in old { kill(worker, SIGKILL) }
            #expect(Deadline(after: .seconds(10)).wait { Set(server.workers).isDisjoint(with: old) && server.workers.count == 3 })
            #expect(try resume().isResumed)
            server.process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(10)).wait { server.process.standardError.contains("generation 1 serves") })
            #expect(try resume().isResumed)
            // The new program ends with the group of the old one.
            server.process.signal(SIGUSR2)
            #expect(try server.process.wait(within: .seconds(20)) == .exited(0))
            #expect(try resume().isResumed)
        }

        @Test(
            "who resumes a session is not kept waiting by Nagle's algorithm, and is given a ticket for the next time by TLS 1.3",
            arguments: [("TLSv1_2", 1), ("TLSv1_3", 20)])
        func resumptionWithoutDelay(version: String, sessions: Int) throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            let words = try python("tls_resume.py", "\(server.port)", version, "20").split(whereSeparator: \.isWhitespace)
            #expect(words.count == 3 && words[0] == "20" && words[1] == "\(sessions)", "\(words)")
            // Whoever waits for a delayed acknowledgement takes some 20 times as long.
            #expect(Double(words[2]) ?? .infinity < 5, "\(words)")
        }

        @Test("a session without a client certificate is not resumed where one is required", arguments: ["-tls1_2", "-tls1_3"])
        func resumptionWithoutCertificate(version: String) throws {
            let place = try TemporaryDirectory()
            let (file, session) = (place.path + "/apus.yaml", place.path + "/session")
            let lines = try [
                "tls:", "  certificate: \(Certificates.path("localhost.pem"))", "  key: \(Certificates.path("localhost.key"))",
                "  ca: \(Certificates.path("authority.pem"))",
            ].joined(separator: "\n")
            try Files.write(lines.utf8, to: file)
            let server = try ApusServer(options: ["-c", file])
            func ask(_ option: String) throws -> String {
                try Self.openssl(server, version, option, session, "-ign_eof", input: "GET /worker HTTP/1.0\\r\\nHost: h\\r\\n\\r\\n")
            }
            #expect(try ask("-sess_out").contains("\"workers\""))
            #expect(try ask("-sess_in").contains("Reused, TLSv1"))
            try Files.write((lines + "\n  client-certificate: required\n").utf8, to: file)
            server.process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(10)).wait { server.process.standardError.contains("generation 1 serves") })
            let answer = try ask("-sess_in")
            #expect(!answer.contains("\"workers\"") && !answer.contains("Reused, TLSv1"), "\(answer)")
        }

        @Test("the certificate is chosen by the name that the client asks for")
        func names() throws {
            let server = try ApusServer(options: try Certificates.options("localhost", "other"))
            for (asked, shown) in [
                ("localhost", "localhost"), ("other.test", "other"), ("other.test.", "other"), ("a.wild.test", "other"),
                ("a.wild.test.", "other"), ("a.b.wild.test", "localhost"),
                ("unknown.test", "localhost"),
            ] {
                let output = try Self.openssl(server, "-servername", asked)
                #expect(output.contains("subject=CN = \(shown),"), "\(asked): \(output)")
            }
        }

        /// An RSA certificate for a name that an ECDSA one is for, too.
        private static func rsaOptions(in place: TemporaryDirectory) throws -> [String] {
            let (certificate, key) = (place.path + "/rsa.pem", place.path + "/rsa.key")
            try run([
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=rsa", "-addext",
                "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate,
            ])
            return ["--tls-certificate", certificate, "--tls-key", key]
        }

        @Test(
            "of an ECDSA and an RSA certificate for one name the client's algorithms choose, whichever comes first",
            arguments: ["-tls1_2", "-tls1_3"], [true, false])
        func algorithms(version: String, isRSAFirst: Bool) throws {
            let place = try TemporaryDirectory()
            let (rsa, ecdsa) = (try Self.rsaOptions(in: place), try Certificates.options("localhost"))
            let server = try ApusServer(options: isRSAFirst ? rsa + ecdsa : ecdsa + rsa)
            for name in [["-servername", "localhost"], ["-noservername"]] {
                for (algorithms, shown) in [("ECDSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256:RSA+SHA256", "RSA-PSS")] {
                    let output = try Self.openssl(server, arguments: [version, "-sigalgs", algorithms] + name)
                    #expect(output.contains("Peer signature type: \(shown)"), "\(name) \(algorithms): \(output)")
                }
            }
        }

        @Test(
            "beside an RSA certificate, an OCSP response goes with its own only; either session is resumed",
            arguments: ["-tls1_2", "-tls1_3"])
        func stapledToItsOwn(version: String) throws {
            let place = try TemporaryDirectory()
            let server = try ApusServer(
                options: Certificates.options("localhost") + ["--tls-ocsp", Certificates.path("localhost.ocsp")]
                    + Self.rsaOptions(in: place))
            for (algorithms, isStapled) in [("ECDSA+SHA256", true), ("RSA-PSS+SHA256:RSA+SHA256", false)] {
                let session = place.path + "/session-\(isStapled)"
                let asked = [version, "-sigalgs", algorithms, "-servername", "localhost", "-ign_eof"]
                let request = "GET /worker HTTP/1.0\\r\\nHost: h\\r\\n\\r\\n"
                let output = try Self.openssl(server, arguments: asked + ["-status", "-sess_out", session], input: request)
                #expect(output.contains("Cert Status: good") == isStapled, "\(algorithms): \(output)")
                #expect(try Self.openssl(server, arguments: asked + ["-sess_in", session], input: request).contains("Reused, TLSv1"))
            }
        }

        @Test("ALPN: http/1.1, or no connection")
        func alpn() throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            #expect(try Self.openssl(server, "-alpn", "h2,http/1.1").contains("ALPN protocol: http/1.1"))
            #expect(try Self.openssl(server, "-alpn", "h2").contains("no application protocol"))
        }

        @Test("a client's renegotiation is refused")
        func renegotiation() throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            let output = try Self.openssl(server, "-tls1_2", input: "R\\n")
            #expect(output.contains("no renegotiation"), "\(output)")
        }

        @Test("a key with a passphrase")
        func passphrase() throws {
            let options = try [
                "--tls-certificate", Certificates.path("localhost.pem"), "--tls-key", Certificates.path("encrypted.key"),
                "--tls-key-passphrase", Certificates.path("passphrase"),
            ]
            #expect(try Self.curl(ApusServer(options: options)).standardOutput.contains("workers"))
        }

        @Test("an OCSP response is stapled to the certificate")
        func stapling() throws {
            let options = try Certificates.options("localhost") + ["--tls-ocsp", Certificates.path("localhost.ocsp")]
            let output = try Self.openssl(ApusServer(options: options), "-status")
            #expect(output.contains("OCSP Response Status: successful") && output.contains("Cert Status: good"), "\(output)")
        }

        @Test("sslyze finds what Mozilla's intermediate configuration wants")
        func compliance() throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            let sslyze = Places.python.replacing("/python", with: "/sslyze")
            let output = try run([
                sslyze, "--mozilla_config=intermediate", "--certinfo_ca_file", Certificates.path("authority.pem"),
                "localhost:\(server.port)",
            ])
            #expect(output.contains("OK - Compliant"), "\(output)")
        }

        @Test("whole and large files over TLS, python's websockets and Chromium over wss")
        func peers() throws {
            let place = try TemporaryDirectory()
            let content = (0..<10_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            try Files.write(content, to: place.path + "/large")
            let server = try ApusServer(workers: 2, options: try Certificates.options("localhost"))
            let authority = try Certificates.path("authority.pem")
            let spki = try #require(Files.text(Certificates.path("localhost.spki"))).filter { !$0.isNewline }
            let output = try run([
                "env", "SSL_CERT_FILE=\(authority)", Places.python, Places.peer("websockets_client.py"), "wss://localhost:\(server.port)",
            ])
            #expect(output.split(separator: "\n").count == 11)
            #expect(try python("chromium_page.py", "https://localhost:\(server.port)/", spki) == "ok\n")

            let files = try ApusServer(options: try Certificates.options("localhost") + ["--root", place.path])
            try run([
                "curl", "-sSf", "--cacert", authority, "-o", place.path + "/copy", "https://localhost:\(files.port)/large",
            ])
            #expect(Files.bytes(place.path + "/copy") == content)
        }

        @Test("an idle WebSocket over TLS costs its worker at most 6 KiB of private memory")
        func memory() throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            let worker = server.workers[0]
            // The worker's own buffers are made for the first connection.
            _ = try Self.curl(server)
            let before = try ProcessTable.privateBytes(worker)
            let count = 2000
            let clients = try ChildProcess([Places.python, Places.peer("tls_idle.py"), "\(server.port)", "\(count)"])
            let isOpen = Deadline(after: .seconds(60)).wait { clients.standardOutput == "open\n" || clients.hasEnded != nil }
            guard isOpen, clients.hasEnded == nil else { throw TestFailure("not all open: \(clients.standardError)") }
            let each = (try ProcessTable.privateBytes(worker) - before) / count
            print("idle: \(count) WebSockets over TLS take \(each) bytes each")
            #expect(each <= 6 * 1024)
        }

        @Test("client certificates: required, optional, from the right authority")
        func clientCertificates() throws {
            func answer(_ mode: String, _ client: String?) throws -> String {
                let options = try ["--tls-client-certificate", mode, "--tls-ca", Certificates.path("authority.pem")]
                let server = try ApusServer(options: try Certificates.options("localhost") + options)
                let own = try client.map { try ["--cert", Certificates.path($0 + ".pem"), "--key", Certificates.path($0 + ".key")] } ?? []
                let process = try ChildProcess(
                    ["curl", "-sS", "--max-time", "10", "--cacert", try Certificates.path("authority.pem")] + own
                        + ["https://localhost:\(server.port)/worker"])
                _ = try process.wait(within: .seconds(20))
                return process.standardOutput + process.standardError
            }
            #expect(try answer("required", "client").contains("\"workers\""))
            #expect(try answer("required", nil).contains("certificate required"))
            #expect(try answer("required", "foreign").contains("unknown ca"))
            #expect(try answer("optional", nil).contains("\"workers\""))
            #expect(try answer("optional", "client").contains("\"workers\""))
            #expect(try answer("optional", "foreign").contains("unknown ca"))
        }

        @Test("what cannot be used is refused at the start, by the file's name")
        func mistakes() throws {
            func path(_ name: String) throws -> String { try Certificates.path(name) }
            for (options, words) in try [
                (["--tls-certificate", path("localhost.pem"), "--tls-key", path("other.key")], ["other.key", "localhost.pem", "belong"]),
                (["--tls-certificate", "/nowhere.pem", "--tls-key", path("other.key")], ["/nowhere.pem", "No such file"]),
                (["--tls-certificate", path("nonsense.pem"), "--tls-key", path("other.key")], ["nonsense.pem", "PEM"]),
                (["--tls-certificate", path("half.pem"), "--tls-key", path("localhost.key")], ["half.pem", "PEM"]),
                (["--tls-certificate", path("localhost.pem"), "--tls-key", path("nonsense.pem")], ["nonsense.pem", "key"]),
                (["--tls-certificate", path("localhost.pem"), "--tls-key", path("encrypted.key")], ["encrypted.key"]),
                (
                    Certificates.options("localhost") + ["--tls-client-certificate", "required", "--tls-ca", path("nonsense.pem")],
                    ["nonsense.pem"]
                ),
                (["--tls-certificate", path("pipe.pem"), "--tls-key", path("localhost.key")], ["pipe.pem", "not a regular file"]),
                (["--tls-certificate", path("weak.pem"), "--tls-key", path("weak.key")], ["weak.pem", "too small"]),
                (
                    Certificates.options("localhost") + ["--tls-ocsp", path("localhost.pem")],
                    ["localhost.pem", "no successful OCSP response"]
                ),
                (Certificates.options("localhost") + ["--tls-ocsp", path("empty")], ["empty", "no successful OCSP response"]),
                (
                    Certificates.options("other") + ["--tls-ocsp", path("localhost.ocsp")],
                    ["localhost.ocsp", "other certificates", "other.pem"]
                ),
            ] {
                let process = try ChildProcess([Places.command, "serve", "--listen", "127.0.0.1:0"] + options)
                #expect(try process.wait(within: .seconds(5)) == .exited(78))
                let error = process.standardError
                #expect(error.split(separator: "\n").count == 1, "\(error)")
                for word in words { #expect(error.contains(word), "\(error)") }
            }
            for options in try [
                ["--tls-certificate", path("localhost.pem")], ["--tls-key", path("localhost.key")],
                ["--tls-client-certificate", "required"],
                Certificates.options("localhost") + ["--tls-client-certificate", "required"],
                Certificates.options("localhost") + ["--tls-ca", path("authority.pem")],
            ] {
                let process = try ChildProcess([Places.command, "serve", "--listen", "127.0.0.1:0"] + options)
                #expect(try process.wait(within: .seconds(5)) == .exited(64))
                #expect(process.standardError.contains("--tls-"))
            }
        }

        @Test("new certificates are shown without a restart, connections stay; those that cannot be used change nothing")
        func replacement() throws {
            let place = try TemporaryDirectory()
            let (chain, key) = (place.path + "/chain.pem", place.path + "/key.pem")
            func put(_ name: String, _ file: String) throws {
                try Files.write(try #require(Files.bytes(Certificates.path(name))), to: file)
            }
            try put("localhost.pem", chain)
            try put("localhost.key", key)
            let server = try ApusServer(
                workers: 2,
                options: [
                    "--tls-certificate", chain, "--tls-key", key, "--tls-check-interval", "50ms", "--tls-ca",
                    Certificates.path("authority.pem"), "--tls-client-certificate", "optional",
                ])
            func shown() throws -> Substring? {
                try Self.openssl(server, "-servername", "any").firstMatch(of: /subject=CN = ([^,]+)/)?.1
            }
            let client = try ChildProcess(
                [
                    "sh", "-c", "mkfifo in; { echo one; cat in; } | \"$@\"", "sh", Places.command, "connect", "--ca",
                    Certificates.path("authority.pem"), "wss://localhost:\(server.port)/",
                ], in: place.path)
            #expect(Deadline(after: .seconds(10)).wait { client.standardOutput == "one\n" })
            let workers = server.workers

            // One file after the other, as people do: between them, the two do not belong together.
            try put("other.pem", chain)
            #expect(Deadline(after: .seconds(10)).wait { server.process.standardError.contains("does not belong to the certificate") })
            #expect(try shown() == "localhost")
            try put("other.key", key)
            #expect(Deadline(after: .seconds(10)).wait { server.process.standardError.contains("certificates replaced") })
            #expect(Deadline(after: .seconds(10)).wait { (0..<8).allSatisfy { _ in (try? shown()) == "other" } })
            #expect(server.process.standardError.split(separator: "\n").count { $0.contains("does not belong") } == 1, "said once")

            #expect(server.workers == workers)
            try Files.write(Array("two\n".utf8), to: place.path + "/in")
            #expect(try client.wait(within: .seconds(10)) == .exited(0))
            #expect(client.standardOutput == "one\ntwo\n")

            // A pipe that nobody writes to must not hold the master.
            try #require(unlink(chain) == 0 && mkfifo(chain, 0o600) == 0)
            #expect(Deadline(after: .seconds(10)).wait { server.process.standardError.contains("chain.pem\": not a regular file") })
            for worker in workers { kill(worker, SIGKILL) }
            #expect(Deadline(after: .seconds(10)).wait { Set(server.workers).isDisjoint(with: workers) && server.workers.count == 2 })
            #expect(try shown() == "other", "a successor shows the new one")
        }

        @Test("garbage ends at once, a handshake that stalls after 10 s; others are served meanwhile")
        func stalled() throws {
            let server = try ApusServer(options: try Certificates.options("localhost") + ["--log-level", "debug"])
            let garbage = try server.connect()
            try garbage.send([22, 3, 1, 0, 5, 9, 9, 9, 9, 9])
            let started = ContinuousClock.now
            _ = try garbage.receiveToEnd()
            #expect(.now - started < .seconds(1))

            let stalled = try server.connect(timeout: .seconds(20))
            try stalled.send([22, 3, 1])
            #expect(try Self.curl(server).standardOutput.contains("workers"))
            _ = try stalled.receiveToEnd()
            let time = ContinuousClock.now - started
            #expect(time > .milliseconds(9_500) && time < .milliseconds(11_500), "\(time)")
            let isSaid = server.process.standardError.contains(/a TLS handshake with 127\.0\.0\.1:\d+ took longer than 10/)
            #expect(isSaid, "\(server.process.standardError)")
        }

        @Test("Autobahn's cases 1 to 10 pass over TLS")
        func autobahn() throws {
            let server = try ApusServer(options: try Certificates.options("localhost"))
            // kosoku speaks no TLS: socat does, with a connection of its own for each of kosoku's.
            let authority = try Certificates.path("authority.pem")
            let tunnel = try ChildProcess([
                "socat", "-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1,fork", "OPENSSL:localhost:\(server.port),cafile=\(authority)",
            ])
            let isUp = Deadline(after: .seconds(5)).wait { tunnel.standardError.contains("listening on") }
            let address = try #require(isUp ? tunnel.standardError.firstMatch(of: /127\.0\.0\.1:\d+/)?.output : nil)
            let output = try python("kosoku_report.py", String(address), "4", "200", "301", "-12.*", "-13.*", within: .seconds(250))
            #expect(output.contains("301 cases, 3 informational, 0 not as they must be"))
        }
    }
}
