import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("The client")
    struct Client {
        /// A program that prints its port in a line of its own.
        final class Peer {
            let process: ChildProcess
            let port: UInt16

            init(_ arguments: [String], within duration: Duration = .seconds(20)) throws {
                let process = try ChildProcess(arguments)
                _ = Deadline(after: duration).wait { process.standardOutput.contains("\n") || process.hasEnded != nil }
                guard let port = UInt16(process.standardOutput.prefix { $0 != "\n" }) else {
                    throw TestFailure("\(arguments): \(process.standardOutput)\(process.standardError)")
                }
                self.process = process
                self.port = port
            }

            static func websockets(_ arguments: String...) throws -> Peer {
                try Peer([Places.python, Places.peer("websockets_server.py")] + arguments)
            }
        }

        struct Result {
            let status: Int32
            let output: String
            let error: String
        }

        /// Runs `apus connect` with lines as its input.
        static func connect(_ arguments: [String], input: String = "", environment: [String: String] = [:]) throws -> Result {
            let command = ["sh", "-c", "printf '%b' \"$1\" | (shift; exec \"$@\")", "sh", input, Places.command, "connect"] + arguments
            let process = try ChildProcess(command, environment: environment)
            let end = try process.wait(within: .seconds(30))
            guard case .exited(let status) = end else { throw TestFailure("\(arguments): \(end)\n\(process.standardError)") }
            return Result(status: status, output: process.standardOutput, error: process.standardError)
        }

        @Test("python's websockets echoes lines, over plain and over TLS that is verified", arguments: [false, true])
        func websockets(secure: Bool) throws {
            let peer = try secure ? .websockets(Certificates.path("localhost.pem"), Certificates.path("localhost.key")) : Peer.websockets()
            let url = "\(secure ? "wss" : "ws")://localhost:\(peer.port)/"
            let trust = secure ? ["--ca", try Certificates.path("authority.pem")] : []
            let lines = "one\\nGrüße 🐦\\n\\nlast without a line end"
            let result = try Self.connect([url, "--count", "4", "--subprotocol", "first", "--deflate"] + trust, input: lines)
            #expect(result.status == 0 && result.output == "one\nGrüße 🐦\n\nlast without a line end\n", "\(result)")
            let binary = try Self.connect([url, "--binary", "--wait", "0.5"] + trust, input: "a\\0b\\n")
            #expect(binary.status == 0 && binary.output == "a\0b\n", "\(binary)")
        }

        @Test(
            "the exit status says how it ended",
            arguments: [
                (["close 1000"], "/", 0), (["close 1001"], "/", 0), (["close 1011"], "/", 111), (["close 1012"], "/", 112),
                (["close 3000"], "/", 120),
                (["close 4999"], "/", 121), ([], "/deny", 76), ([], "/slow", 75),
            ] as [([String], String, Int32)])
        func exitStatus(lines: [String], path: String, status: Int32) throws {
            let peer = try Peer.websockets()
            let result = try Self.connect(
                ["ws://127.0.0.1:\(peer.port)\(path)", "--wait", "20", "--connect-timeout", "3"], input: lines.map { $0 + "\\n" }.joined())
            #expect(result.status == status, "\(result)")
            // One line that says why, and nothing else.
            if status != 0 { #expect(result.error.hasPrefix("apus: ") && result.error.split(separator: "\n").count == 1, "\(result)") }
        }

        @Test(
            "what was never open",
            arguments: [
                (["ws://does-not-exist.invalid/", "--connect-timeout", "3"], 68, "does-not-exist.invalid"),
                (["ws://127.0.0.1:1/"], 69, "refused"),
                (["nonsense"], 64, "ws://"), (["http://127.0.0.1/"], 64, "wss"), (["ws://[::1/"], 64, "bracket"),
                (["ws://h/", "-H", "x"], 64, "-H"), (["ws://h/", "-H", "Host: x", "-H", "host: y"], 64, "expected one Host"),
                (["ws://h/", "-H", "sec-websocket-protocol: x"], 64, "--subprotocol"), (["ws://h/", "--proxy", ""], 64, "[http://][USER"),
                (["ws://grüße.test/"], 64, "punycode"), (["ws://h/grüße"], 64, "percent-encode"),
                (["ws://h/", "--proxy", "127.0.0.1:1"], 69, "127.0.0.1:1: Connection refused (it is the proxy's address)"),
                (["ws://h/", "--proxy", "does-not-exist.invalid"], 68, "the proxy's name"),
                (["ws://h/", "--count", "0"], 64, "--count"), (["ws://h/", "--proxy", "ftp://p"], 64, "--proxy"),
                (["ws://h/", "--ping", "0"], 64, "--ping"),
                (["wss://h/", "--certificate", "x"], 64, "--key"), (["ws://h/", "--proxy", "127.0.0.1:1"], 69, "127.0.0.1:1"),
            ] as [([String], Int32, String)])
        func mistakes(arguments: [String], status: Int32, words: String) throws {
            let result = try Self.connect(arguments)
            #expect(result.status == status && result.error.contains(words) && result.output.isEmpty, "\(result)")
            #expect(result.error.split(separator: "\n").count == 1, "\(result)")
        }

        @Test(
            "certificates that are not good end it with 77",
            arguments: [
                ("expired", [], "expired"), ("elsewhere", [], "hostname mismatch"), ("untrusted", [], "local issuer"),
                ("selfsigned", [], "self-signed"),
                ("selfsigned", ["--allow-self-signed"], nil), ("elsewhere", ["--server-name", "elsewhere.test"], nil),
                ("expired", ["--insecure"], nil),
                ("untrusted", ["--allow-self-signed"], "local issuer"),
            ] as [(String, [String], String?)])
        func certificates(name: String, options: [String], words: String?) throws {
            let server = try ApusServer(options: try Certificates.options(name))
            let result = try Self.connect(
                ["wss://localhost:\(server.port)/", "--count", "1", "--ca", try Certificates.path("authority.pem")] + options,
                input: "hi\\n")
            if let words {
                #expect(result.status == 77 && result.error.contains(words), "\(result)")
            } else {
                #expect(result.status == 0 && result.output == "hi\n", "\(result)")
            }
        }

        @Test("a client certificate is shown where one is wanted", arguments: [true, false])
        func clientCertificate(shown: Bool) throws {
            let server = try ApusServer(
                options: try Certificates.options("localhost") + [
                    "--tls-ca", Certificates.path("authority.pem"), "--tls-client-certificate", "required",
                ])
            let identity =
                shown ? ["--certificate", try Certificates.path("client.pem"), "--key", try Certificates.path("client.key")] : []
            let result = try Self.connect(
                ["wss://localhost:\(server.port)/", "--count", "1", "--ca", try Certificates.path("authority.pem")] + identity,
                input: "hi\\n")
            #expect(result.status == (shown ? 0 : 77), "\(result)")
            if !shown { #expect(result.error.contains("alert certificate required"), "\(result)") }
        }

        @Test("who connects again resumes the TLS session")
        func resumption() throws {
            let peer = try Peer([
                Places.python, Places.peer("tls_closer.py"), Certificates.path("localhost.pem"), Certificates.path("localhost.key"),
            ])
            let client = try ChildProcess([
                Places.command, "connect", "wss://localhost:\(peer.port)/", "--reconnect", "--ca", Certificates.path("authority.pem"),
            ])
            let hasResumed = Deadline(after: .seconds(20)).wait { peer.process.standardOutput.contains("resumed") }
            #expect(hasResumed, "\(peer.process.standardOutput)\(client.standardError)")
            #expect(peer.process.standardOutput.split(separator: "\n").dropFirst().first == "new")
        }

        @Test("TLS that is garbage, or stalls", arguments: ["garbage", "silence"])
        func brokenTLS(kind: String) throws {
            let listener = try RawListener()
            let url = "wss://127.0.0.1:\(listener.port)/"
            let process = try ChildProcess([Places.command, "connect", url, "--connect-timeout", "2"])
            let peer = try listener.accept(within: .seconds(10))
            if kind == "garbage" { try peer.send(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)) }
            let end = try process.wait(within: .seconds(10))
            #expect(end == .exited(kind == "garbage" ? 77 : 75), "\(process.standardError)")
            #expect(process.standardError.contains("TLS"), "\(process.standardError)")
        }

        @Test("a server of TLS 1.1 is refused with 77")
        func oldTLS() throws {
            let place = try TemporaryDirectory()
            let port = try RawListener.freePort()
            // It ends with its input.
            let server = try ChildProcess(
                [
                    "sh", "-c", "mkfifo in; exec \"$@\" <>in", "sh", "openssl", "s_server", "-tls1_1", "-cipher", "ALL@SECLEVEL=0",
                    "-accept",
                    "127.0.0.1:\(port)", "-cert", Certificates.path("localhost.pem"), "-key", Certificates.path("localhost.key"),
                ], in: place.path)
            #expect(Deadline(after: .seconds(10)).wait { server.standardOutput.contains("ACCEPT") }, "\(server.standardError)")
            let result = try Self.connect(["wss://localhost:\(port)/", "--ca", try Certificates.path("authority.pem")])
            #expect(result.status == 77 && result.error.contains("protocol version"), "\(result)")
        }

        @Test("Debian's libwebsockets-test-server counts for it, over plain and over TLS", arguments: [false, true])
        func libwebsockets(secure: Bool) throws {
            let port = try RawListener.freePort()
            let tls = try ["--ssl", "-C", Certificates.path("localhost.pem"), "-K", Certificates.path("localhost.key")]
            let server = try ChildProcess(["libwebsockets-test-server", "--port=\(port)", "-d", "7"] + (secure ? tls : []))
            let target = [
                "\(secure ? "wss" : "ws")://localhost:\(port)/", "--ca", try Certificates.path("authority.pem"), "--subprotocol",
            ]
            let isUp = Deadline(after: .seconds(10)).wait { (try? RawClient(port: port)) != nil || server.hasEnded != nil }
            try #require(isUp && server.hasEnded == nil, "\(server.standardError)")
            let result = try Self.connect(target + ["dumb-increment-protocol", "--count", "5"])
            let numbers = result.output.split(separator: "\n").compactMap { Int($0) }
            #expect(result.status == 0 && numbers == Array((numbers.first ?? 0)..<(numbers.first ?? 0) + 5), "\(result)")
            let echo = try Self.connect(target + ["lws-mirror-protocol", "--count", "1"], input: "c #000 1 2 3;\\n")
            #expect(echo.output == "c #000 1 2 3;\n", "\(echo)")
        }

        // MARK: Proxies

        /// A tinyproxy on a port of its own.
        private static func tinyproxy(_ credentials: Bool) throws -> (process: ChildProcess, port: UInt16, directory: TemporaryDirectory) {
            let directory = try TemporaryDirectory()
            let port = try RawListener.freePort()
            let lines = "Port \(port)\nListen 127.0.0.1\nTimeout 20\nAllow 127.0.0.1\n" + (credentials ? "BasicAuth me pw\n" : "")
            try Files.write(lines.utf8, to: directory.path + "/conf")
            let process = try ChildProcess(["tinyproxy", "-d", "-c", directory.path + "/conf"])
            let isUp = Deadline(after: .seconds(10)).wait { (try? RawClient(port: port)) != nil || process.hasEnded != nil }
            guard isUp, process.hasEnded == nil else { throw TestFailure("tinyproxy: \(process.standardOutput)\(process.standardError)") }
            return (process, port, directory)
        }

        @Test("through tinyproxy, with and without credentials, plain and TLS", arguments: [false, true], [false, true])
        func httpProxy(credentials: Bool, secure: Bool) throws {
            let server = try ApusServer(options: secure ? try Certificates.options("localhost") : [])
            let proxy = try Self.tinyproxy(credentials)
            let trust = secure ? ["--ca", try Certificates.path("authority.pem")] : []
            let url = "\(secure ? "wss" : "ws")://localhost:\(server.port)/"
            let user = credentials ? "me:pw@" : ""
            let arguments = [url, "--count", "1"] + trust
            let result = try Self.connect(arguments + ["--proxy", "\(user)127.0.0.1:\(proxy.port)"], input: "hi\\n")
            #expect(result.status == 0 && result.output == "hi\n", "\(result)")
            guard credentials else { return }
            for wrong in ["", "me:wrong@"] {
                let refused = try Self.connect(arguments + ["--proxy", "\(wrong)127.0.0.1:\(proxy.port)"], input: "hi\\n")
                #expect(refused.status == 76 && refused.error.contains("40"), "\(refused)")
                if refused.error.contains("407") {
                    #expect(refused.error.contains(wrong.isEmpty ? "are required" : "were refused"), "\(refused)")
                }
            }
        }

        @Test("through pproxy's SOCKS 5, with and without credentials, plain and TLS", arguments: [false, true], [false, true])
        func socksProxy(credentials: Bool, secure: Bool) throws {
            let server = try ApusServer(options: secure ? try Certificates.options("localhost") : [])
            let port = try RawListener.freePort()
            let process = try ChildProcess([
                Places.python, "-m", "pproxy", "-l", "socks5://127.0.0.1:\(port)\(credentials ? "#me:pw" : "")",
            ])
            let isUp = Deadline(after: .seconds(20)).wait { (try? RawClient(port: port)) != nil || process.hasEnded != nil }
            try #require(isUp && process.hasEnded == nil, "\(process.standardError)")
            let trust = secure ? ["--ca", try Certificates.path("authority.pem")] : []
            let url = "\(secure ? "wss" : "ws")://localhost:\(server.port)/"
            let user = credentials ? "me:pw@" : ""
            let arguments = [url, "--count", "1"] + trust
            // pproxy lets everybody in who comes from an address that has shown credentials once.
            for wrong in credentials ? ["", "me:wrong@"] : [] {
                let refused = try Self.connect(arguments + ["--proxy", "socks5://\(wrong)127.0.0.1:\(port)"], input: "hi\\n")
                #expect(refused.status == 76 || refused.status == 69, "\(refused)")
                #expect(refused.error.contains("proxy"), "\(refused)")
            }
            let result = try Self.connect(arguments + ["--proxy", "socks5://\(user)127.0.0.1:\(port)"], input: "hi\\n")
            #expect(result.status == 0 && result.output == "hi\n", "\(result)")
        }

        // MARK: The command

        @Test("a file as input, a count, and a reader that goes away")
        func input() throws {
            let server = try ApusServer()
            let directory = try TemporaryDirectory()
            let lines = (0..<20_000).map { "line \($0)\n" }.joined()
            try Files.write(lines.utf8, to: directory.path + "/in")
            let url = "ws://127.0.0.1:\(server.port)/"
            let whole = try ChildProcess([
                "sh", "-c", "exec \"$0\" connect \"$1\" --count 20000 <\"$2\"", Places.command, url, directory.path + "/in",
            ])
            #expect(try whole.wait(within: .seconds(30)) == .exited(0), "\(whole.standardError)")
            #expect(whole.standardOutput == lines)
            let cut = try ChildProcess([
                "sh", "-c", "\"$0\" connect \"$1\" --wait 20 <\"$2\" | head -3", Places.command, url, directory.path + "/in",
            ])
            #expect(try cut.wait(within: .seconds(30)) == .exited(0))
            #expect(cut.standardOutput == "line 0\nline 1\nline 2\n")
        }

        @Test("SIGINT closes with 1000, and SIGTERM")
        func interrupted() throws {
            let server = try ApusServer()
            for signal in [SIGINT, SIGTERM] {
                let client = try ChildProcess([
                    "sh", "-c", "exec \"$0\" connect \"$1\" --wait 60 </dev/null", Places.command, "ws://127.0.0.1:\(server.port)/",
                ])
                let isOpen = Deadline(after: .seconds(10)).wait { Self.connections(of: server) > 0 }
                #expect(isOpen)
                client.signal(signal)
                #expect(try client.wait(within: .seconds(10)) == .exited(0))
            }
        }

        /// Sockets of the server's worker, listeners excepted.
        private static func connections(of server: ApusServer) -> Int {
            let text = Files.text("/proc/net/tcp") ?? ""
            let port = String(server.port, radix: 16, uppercase: true)
            let wanted = String(repeating: "0", count: 4 - port.count) + port
            return text.split(separator: "\n").count { line in
                let words = line.split(separator: " ")
                return words.count > 3 && words[1].hasSuffix(":" + wanted) && words[3] == "01"
            }
        }

        @Test("reconnecting: a server that was away is found when it comes")
        func reconnects() throws {
            let port = try RawListener.freePort()
            let client = try ChildProcess([
                "sh", "-c", "printf 'hi\\n' | \"$0\" connect \"$1\" --reconnect --count 1", Places.command, "ws://127.0.0.1:\(port)/",
            ])
            let hasTried = Deadline(after: .seconds(10)).wait { client.standardError.contains("retrying in") }
            try #require(hasTried)
            let server = try ApusServer(workers: 1, "--listen", "127.0.0.1:\(port)")
            #expect(try client.wait(within: .seconds(60)) == .exited(0), "\(client.standardError)")
            #expect(client.standardOutput == "hi\n")
            _ = server
        }

        @Test("reconnecting: how it ended is said, and the end of the input ends it while there is no connection")
        func endsDisconnected() throws {
            let peer = try Peer.websockets()
            let directory = try TemporaryDirectory()
            let command =
                "mkfifo in go; exec 3<>in; \"$0\" connect \"$1\" --reconnect <in 3>&- & exec 4>in; "
                + "echo 'close 1001' >&4; exec 3>&-; read line <go; exec 4>&-; wait $!"
            let client = try ChildProcess(["sh", "-c", command, Places.command, "ws://127.0.0.1:\(peer.port)/"], in: directory.path)
            let hasTold = Deadline(after: .seconds(10)).wait {
                client.standardError.contains("apus: closed with 1001 as told; retrying in")
            }
            #expect(hasTold, "\(client.standardError)")
            peer.process.kill()
            try #require(
                Deadline(after: .seconds(30)).wait { client.standardError.contains("refused; retrying in") }, "\(client.standardError)")
            try Files.write("go\n".utf8, to: directory.path + "/go")
            #expect(try client.wait(within: .seconds(10)) == .exited(69), "\(client.standardError)")
        }

        @Test("a peer that answers no ping is given up, and why is said")
        func givenUp() throws {
            let server = try ApusServer(workers: 1)
            let client = try ChildProcess([
                "sh", "-c", "echo hi | (exec \"$0\" connect \"$1\" --ping 0.2 --wait 60)", Places.command, "ws://127.0.0.1:\(server.port)/",
            ])
            try #require(Deadline(after: .seconds(10)).wait { client.standardOutput == "hi\n" }, "\(client.standardError)")
            for worker in server.workers { kill(worker, SIGSTOP) }
            #expect(try client.wait(within: .seconds(10)) == .exited(106))
            #expect(client.standardError == "apus: closed with 1006 no byte came for 0.4 seconds\n")
        }

        @Test("a server that loses parameters of permessage-deflate, as Tornado does, is understood")
        func deflateWithoutParameters() throws {
            let peer = try Peer.websockets("tornado")
            let line = String(repeating: "again ", count: 100)
            let result = try Self.connect(
                ["ws://127.0.0.1:\(peer.port)/", "--count", "2", "--deflate"], input: "\(line)\\n\(line)\\n")
            #expect(result.status == 0 && result.output == "\(line)\n\(line)\n", "\(result)")
        }

        @Test("a peer's control characters do not reach a terminal; colours do, unless NO_COLOR is set", arguments: ["", "1"])
        func terminal(noColour: String) throws {
            let peer = try Peer.websockets()
            let command = "printf 'a\\033[31mb\\n' | \(Places.command) connect ws://127.0.0.1:\(peer.port)/ --count 1"
            let process = try ChildProcess(["script", "-qec", command, "/dev/null"], environment: ["NO_COLOR": noColour])
            #expect(try process.wait(within: .seconds(20)) == .exited(0))
            #expect(process.standardOutput.contains("a\\u{1B}[31mb"), "\(process.standardOutput)")
            #expect(process.standardOutput.contains("\u{1B}[34m") == noColour.isEmpty, "\(process.standardOutput)")
        }

        @Test("apus ping sums up, on its own and on SIGINT; silence is loss")
        func ping() throws {
            let server = try ApusServer()
            let url = "ws://127.0.0.1:\(server.port)/"
            let five = try run([Places.command, "ping", "ws://me:secret@127.0.0.1:\(server.port)/", "-c", "5", "-i", "0.01"])
            #expect(five.contains("PING \(url): ") && !five.contains("secret"))
            #expect(five.split(separator: "\n").count { $0.hasPrefix("pong: seq=") } == 5)
            #expect(five.contains("5 pings sent, 5 pongs received, 0% loss") && five.contains("rtt min/avg/max/mdev = "))
            let endless = try ChildProcess([Places.command, "ping", url, "-i", "0.01"])
            let hasBegun = Deadline(after: .seconds(10)).wait { endless.standardOutput.contains("seq=3") }
            #expect(hasBegun)
            endless.signal(SIGINT)
            #expect(try endless.wait(within: .seconds(10)) == .exited(0))
            #expect(endless.standardOutput.contains("rtt min/avg/max/mdev"))
            let none = try ChildProcess([Places.command, "ping", "ws://127.0.0.1:1/", "-c", "1"])
            #expect(try none.wait(within: .seconds(10)) == .exited(69))
        }

        // MARK: Autobahn

        /// The parts of the suite: what the driver is told, what is chosen, how many cases that is, and how many of them only report. The compressing
        /// cases take kosoku a quarter of an hour: APUS_WHOLE_AUTOBAHN=1 has all of them, otherwise one group of each section will do.
        private static let autobahn: [(options: String, patterns: [String], count: Int, informational: Int)] = {
            let compressing: [(String, [String], Int, Int)] =
                getenv("APUS_WHOLE_AUTOBAHN") == nil
                ? [("", ["12.1.*"], 18, 0), (" no-takeover", ["13.1.*"], 18, 0)]
                : [("", ["12.*"], 90, 0), (" no-takeover", ["13.*"], 126, 0)]
            return [("", ["-9.*", "-12.*", "-13.*"], 247, 3), ("", ["9.*"], 54, 0)] + compressing
        }()

        @Test("the cases of Autobahn's fuzzing server are passed")
        func autobahn() throws {
            for (options, patterns, count, informational) in Self.autobahn {
                let arguments = [Places.besideTests("EchoFixture") + " autobahn" + options, "900", "\(count)"] + patterns
                let output = try run([Places.python, Places.peer("kosoku_server.py")] + arguments, within: .seconds(960))
                #expect(output == "\(count) cases, \(informational) informational, 0 not as they must be\n")
            }
        }

        @Test("Autobahn's verdict can be no: a client that never connects fails")
        func autobahnCanFail() throws {
            let error = #expect(throws: TestFailure.self) { try python("kosoku_server.py", "/bin/true", "60", "1", "1.1.1") }
            #expect(error?.description.contains("TimeoutExpired") == true)
        }
    }
}

/// A listener of the tests' own that speaks no protocol.
final class RawListener {
    private let descriptor: Int32
    let port: UInt16

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 8) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard isBound else { throw TestFailure.call("listen") }
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }

    /// A port that nobody listens on now.
    static func freePort() throws -> UInt16 { try RawListener().port }

    func accept(within duration: Duration) throws -> RawPeer {
        var wanted = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&wanted, 1, Deadline(after: duration).pollMilliseconds) == 1 else { throw TestFailure("nobody connected") }
        return RawPeer(Glibc.accept(descriptor, nil, nil))
    }
}

final class RawPeer {
    private let descriptor: Int32
    init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }

    func send(_ bytes: [UInt8]) throws {
        guard Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { throw TestFailure.call("send") }
    }
}
