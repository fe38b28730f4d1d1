import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("Clients that others wrote")
    struct Peers {
        /// The whole suite, in parts to see what each takes. Sections 12 and 13 compress 216,000 messages of up to 128 KiB in both processes,
        /// which keeps two CPUs busy for minutes: once is enough of them.
        private static let autobahn = [
            (parallelism: "1", patterns: ["-12.*", "-13.*"], count: 301, informational: 3),
            ("4", ["-9.*", "-12.*", "-13.*"], 247, 3), ("4", ["9.*"], 54, 0), ("4", ["12.*", "13.*"], 216, 0),
        ]

        @Test("Autobahn's 517 cases pass, four at a time; those that do not compress also one after the other")
        func autobahn() throws {
            let server = try ApusServer(workers: 2)
            for (parallelism, patterns, count, informational) in Self.autobahn {
                let arguments = ["127.0.0.1:\(server.port)", parallelism, "900", "\(count)"] + patterns
                let output = try run([Places.python, Places.peer("kosoku_report.py")] + arguments, within: .seconds(950))
                let lines = output.split(separator: "\n")
                print("kosoku -p \(parallelism) \(patterns.joined(separator: " ")): \(lines.joined(separator: "; "))")
                #expect(lines.first == "\(count) cases, \(informational) informational, 0 not as they must be")
            }
            let spent = try server.workers.map(ProcessTable.processorTime).reduce(.zero, +)
            print("kosoku: the workers computed for \(spent)")
        }

        @Test("Autobahn's verdict can be no: a server that does not echo fails")
        func autobahnCanFail() throws {
            let server = try ApusServer()
            let output = #expect(throws: TestFailure.self) {
                try python("kosoku_report.py", "ws://127.0.0.1:\(server.port)/worker", "1", "60", "2", "1.1.2", "2.2")
            }
            #expect(output?.description.contains("2 cases, 0 informational, 2 not as they must be") == true)
        }

        @Test("python's websockets")
        func websockets() throws {
            let server = try ApusServer(workers: 2)
            let output = try python("websockets_client.py", "\(server.port)")
            #expect(output.split(separator: "\n").count == 11)
        }

        @Test("python's websockets compress with every combination of parameters, against servers of every kind")
        func deflateClient() throws {
            let fixtures = try [
                [], ["server-takeover=1"], ["client-takeover=1"], ["server-takeover=1", "client-takeover=1"],
                ["server-takeover=1", "client-takeover=1", "server-bits=9", "client-bits=9", "memory-level=1"],
            ].map { try DeflateServer($0) }
            let output = try run(
                [Places.python, Places.peer("deflate_client.py")] + fixtures.map { "\($0.port)" }, within: .seconds(300))
            #expect(output == "\(fixtures.count * 64) connections went well\n")
        }

        @Test("our client compresses with every combination of parameters, against python's websockets of every kind")
        func deflateServer() throws {
            let peer = try ChildProcess([Places.python, Places.peer("deflate_server.py")])
            #expect(Deadline(after: .seconds(20)).wait { peer.standardOutput.hasSuffix("\n") })
            let ports = peer.standardOutput.split(whereSeparator: \.isWhitespace).map(String.init)
            #expect(ports.count == 16)
            let output = try run([Places.besideTests("EchoFixture"), "ask"] + ports, within: .seconds(300))
            #expect(output == "\(ports.count * 16) connections went well\n")
        }

        @Test("Chromium loads the page, and the page's own checks say ok")
        func chromium() throws {
            let server = try ApusServer(workers: 2)
            #expect(try python("chromium_page.py", "http://127.0.0.1:\(server.port)/") == "ok\n")
        }

        @Test("two tabs of Chromium on different workers see each other's lines on the drawing board")
        func board() throws {
            let server = try ApusServer(workers: 3)
            #expect(try python("chromium_board.py", "http://127.0.0.1:\(server.port)/") == "ok\n")
        }

        @Test("a page of another origin gets no WebSocket, unless it is allowed", arguments: [false, true])
        func origins(allowed: Bool) throws {
            let origin = "http://example.test"
            let server = try allowed ? ApusServer(workers: 1, "--allow-origin", origin) : ApusServer()
            let client = try server.connect()
            try client.send(RawClient.handshake(["Origin: \(origin)"]))
            #expect(try client.response(hasBody: false).status == (allowed ? 101 : 403))
        }

        @Test("Debian's libwebsockets-test-client counts, over plain and over TLS", arguments: [false, true], [false, true])
        func libwebsocketsCounts(echoesList: Bool, secure: Bool) throws {
            let server = try ApusServer(
                options: (echoesList ? ["--echo-subprotocol-list"] : []) + (secure ? Certificates.options("localhost") : []))
            // It runs until SIGINT. Level 15 logs each number it receives.
            let client = try ChildProcess(
                ["libwebsockets-test-client", "localhost", "--port=\(server.port)", "--nomirror", "-d", "15"] + (secure ? ["--ssl"] : []),
                environment: ["SSL_CERT_FILE": Certificates.path("authority.pem")])
            _ = Deadline(after: .seconds(15)).wait { client.standardError.contains("rx 2 '25'") }
            client.signal(SIGINT)
            _ = try client.wait(within: .seconds(5))
            let log = client.standardError
            let missing = (0...25).filter { !log.contains(" '\($0)'") }
            #expect(missing == [])
            let hasFailed = log.contains("CONNECTION_ERROR")
            #expect(!hasFailed)
        }

        @Test("Debian's libwebsockets-test-client mirrors for a session's length and opens the next")
        func libwebsocketsMirrors() throws {
            let server = try ApusServer(workers: 2)
            let client = try ChildProcess(["libwebsockets-test-client", "127.0.0.1", "--port=\(server.port)", "-d", "7"])
            // A session is a random number of messages, up to some 100,000.
            let hasTwo = Deadline(after: .seconds(60)).wait {
                client.standardError.split(separator: "\n").count { $0.hasSuffix("mirror: LWS_CALLBACK_CLIENT_ESTABLISHED") } > 1
            }
            client.signal(SIGINT)
            _ = try client.wait(within: .seconds(5))
            #expect(hasTwo, "\(client.standardError)")
        }
    }
}
