import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("The configuration file")
    struct ConfigurationFile {
        struct Mistake: Sendable, CustomTestStringConvertible {
            let text: String
            let line: Int
            /// What the one line must say, besides the file and the line.
            let words: [String]
            var testDescription: String { text }
        }

        static let mistakes = [
            Mistake(text: "lisen: 127.0.0.1:0", line: 1, words: ["\"lisen\"", "did you mean \"listen\"?", "workers"]),
            Mistake(text: "# a\nworkers: many", line: 2, words: ["workers", "\"many\"", "auto or a number from 1 to 1024"]),
            Mistake(text: "workers: 0", line: 1, words: ["workers", "\"0\""]),
            Mistake(text: "workers: 1\nworkers: 2", line: 2, words: ["duplicate key \"workers\": first on line 1"]),
            Mistake(text: "listen:\n  - 127.0.0.1:0\n  - 127.0.0.1:65536", line: 3, words: ["65536"]),
            Mistake(text: "listen: [::1:80]", line: 1, words: ["invalid YAML"]),
            Mistake(text: "listen: \"::1:80\"", line: 1, words: ["[::1]:80"]),
            Mistake(text: "workers: 1\ndemo: false", line: 2, words: ["demo", "expected a root"]),
            Mistake(text: "demo: perhaps", line: 1, words: ["demo", "true", "false"]),
            Mistake(text: "quarantine: perhaps", line: 1, words: ["quarantine", "on", "off"]),
            Mistake(text: "root: /nowhere", line: 1, words: ["/nowhere", "No such file"]),
            Mistake(text: "\nroot: {a: b}", line: 2, words: ["root", "a directory"]),
            Mistake(text: "limits:\n  maxMessageBytes: 1 MB", line: 2, words: ["limits.maxMessageBytes", "\"1 MB\"", "KiB"]),
            Mistake(text: "limits:\n  drainWindow: 5", line: 2, words: ["limits.drainWindow", "\"5\"", "10 s"]),
            Mistake(text: "limits:\n  maxMessages: 5", line: 2, words: ["limits.maxMessages", "maxMessageBytes"]),
            Mistake(text: "limits:\n  slowSubscribers: drop", line: 2, words: ["close or skip"]),
            Mistake(text: "log-level: loud", line: 1, words: ["loud", "trace, debug"]),
            Mistake(text: "tls:\n  key: a.pem", line: 2, words: ["tls", "certificate"]),
            Mistake(text: "tls:\n  certficate: a.pem", line: 2, words: ["tls.certficate", "did you mean \"tls.certificate\"?"]),
            Mistake(text: "workers: [", line: 2, words: ["invalid YAML"]),
            Mistake(text: "- workers", line: 1, words: ["KEY: VALUE"]),
            Mistake(
                text: "workers: 1\n\troot: /", line: 2, words: ["invalid YAML", "expected spaces at the start of the line, got a tab"]),
            Mistake(
                text: "limits:\n\tdrainRate: 1", line: 2, words: ["invalid YAML", "expected spaces at the start of the line, got a tab"]),
            Mistake(text: "pid-file: \"\"", line: 1, words: ["pid-file", "a file"]),
            Mistake(text: "workers: 1\nlisten:", line: 2, words: ["listen: expected an address", "got nothing"]),
            Mistake(text: "\nuser: nosuchuser", line: 2, words: ["there is no user \"nosuchuser\"\n"]),
            Mistake(text: "user: nobody\ngroup: nosuchgroup", line: 2, words: ["there is no group \"nosuchgroup\"\n"]),
            Mistake(text: "\ngroup: nogroup", line: 2, words: ["a group requires a user"]),
            Mistake(text: "\nchroot: /nowhere", line: 2, words: ["/nowhere", "No such file"]),
            Mistake(text: "\nlog: /nowhere/log", line: 2, words: ["/nowhere/log", "No such file"]),
            Mistake(text: "\nlog: /etc", line: 2, words: ["/etc", "Is a directory"]),
            Mistake(text: "\npid-file: /nowhere/pid", line: 2, words: ["/nowhere/pid", "No such file"]),
            Mistake(text: "\nport-file: /nowhere/port", line: 2, words: ["/nowhere/port", "No such file"]),
            Mistake(text: "\nlisten: [127.0.0.1:7, 127.0.0.1:7]", line: 2, words: ["127.0.0.1:7", "twice"]),
            Mistake(text: "listen: unix:rel", line: 1, words: ["unix:rel", "unix:/PATH"]),
            Mistake(text: "allow-origin: https://a.test/", line: 1, words: ["no path", "HOST[:PORT]"]),
            Mistake(text: "allow-origin: *all", line: 1, words: ["alias (*)", "quote"]),
            Mistake(
                text: "limits:\n  heartbeatTimeout: 99 ms", line: 2,
                words: ["limits.heartbeatTimeout: expected at least 100 ms, got 99 ms\n"]),
            Mistake(
                text: "limits:\n  maxMessageBytes: 2 MiB\n  maxWorkerBufferBytes: 1 MiB", line: 3,
                words: ["limits.maxWorkerBufferBytes: expected at least maxMessageBytes, 2 MiB, got 1 MiB (line 2 sets maxMessageBytes)\n"]),
            Mistake(
                text: "limits:\n  silenceTimeout: 30 s", line: 2,
                words: ["expected more than pingInterval, 30 s, got 30 s (pingInterval has its default)\n"]),
            Mistake(text: "tls:\n  key: /nowhere.key\n  certificate: /nowhere.pem", line: 3, words: ["TLS on 127.0.0.1:", "/nowhere.pem"]),
            Mistake(
                text: "limits:\n  pingInterval: 90 s", line: 2,
                words: ["silenceTimeout: expected more than pingInterval, 90 s, got 1 min (silenceTimeout has its default)\n"]),
            Mistake(
                text: "listen:\n  - 127.0.0.1:7\n  - 127.0.0.1:8\n  - localhost:7", line: 4,
                words: ["127.0.0.1:7 is given twice: first on line 2\n"]),
            Mistake(text: "allow-origin:\n  - a.test\n  - https://a.test/", line: 3, words: ["https://a.test/", "no path"]),
            Mistake(text: "sandbox:\n  allow:\n    - threads\n    - reading: /nowhere", line: 4, words: ["/nowhere", "No such file"]),
            Mistake(text: "sandbox:\n  allow: [swimming]", line: 2, words: ["expected threads, connecting", "got \"swimming\""]),
            Mistake(text: "tls:\n  certificate: [a]\n  key: [b, c]", line: 2, words: ["expected a key for each certificate, got 1"]),
            Mistake(text: "workers: 1\n---\nworkers: 2", line: 2, words: ["expected one document, got a second one (---)"]),
            Mistake(
                text: "workers: 1\nroot: !dir /tmp", line: 2,
                words: ["tag: expected none or a matching one of YAML's core schema, got \"!dir\""]),
            Mistake(text: "workers: 1\n? [root]\n: /tmp", line: 2, words: ["expected a text as a key, got a list"]),
            Mistake(text: "log: \"/tmp/a\\0b\"", line: 1, words: ["expected a text without NUL, got one"]),
            Mistake(text: "workers: \"\\e[31m\"", line: 1, words: ["got \"\\u{1B}[31m\"\n"]),
            Mistake(text: "workers: 1\nroot: \u{1}", line: 2, words: ["expected UTF-8 without control characters, got the byte 0x1: "]),
            Mistake(text: String(repeating: "[", count: 40), line: 1, words: ["expected at most 32 nested lists and mappings"]),
            Mistake(text: "listen: &here 127.0.0.1:0", line: 1, words: ["anchor (&)"]),
            Mistake(text: "listen:\n  - &a [x, x]\n  - *a", line: 2, words: ["anchor (&)"]),
            Mistake(text: laughs, line: 2, words: ["anchor (&)"]),
        ]

        /// Under a kilobyte that would stand for 9^12 texts, as a key, which is compared.
        private static let laughs =
            (1...11).reduce("listen:\n  - &a0 [x, x, x, x, x, x, x, x, x]\n") { text, level in
                text + "  - &a\(level) [\(Array(repeating: "*a\(level - 1)", count: 9).joined(separator: ", "))]\n"
            } + "? *a11\n: y"

        @Test("a mistake is one line that names the file, the line and what would be right", arguments: mistakes)
        func mistake(_ mistake: Mistake) throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            try Files.write(Array((mistake.text + "\n").utf8), to: file)
            for command in [["check", "-c", file], ["serve", "-c", file]] {
                let process = try ChildProcess([Places.command] + command)
                let end = try process.wait(within: .seconds(5))
                #expect(end == .exited(78))
                #expect(process.standardError.hasPrefix("apus: \(file):\(mistake.line): "), "\(process.standardError)")
                #expect(process.standardError.split(separator: "\n").count == 1)
                for word in mistake.words { #expect(process.standardError.contains(word), "\(process.standardError)") }
            }
        }

        @Test("all mistakes of a file are reported, each in a line of its own, in the file's order; a log has them in one line")
        func allMistakes() throws {
            let place = try TemporaryDirectory()
            let (file, ports) = (place.path + "/apus.yaml", place.path + "/ports")
            let text = """
                workers: many
                root: /nowhere
                limits:
                  drainRate: -1
                  pingInterval: 2
                  silenceTimeout: 1 s
                log: /etc
                workers: 3
                listen: [127.0.0.1:0, x]
                lisen: [127.0.0.1:0]
                chroot: /nowhere
                tls:
                  check-interval: 1
                """
            try Files.write("listen: 127.0.0.1:0\nworkers: 1\nport-file: \(ports)\n".utf8, to: file)
            let server = try ChildProcess([Places.command, "serve", "-c", file])
            defer { server.signal(SIGKILL) }
            try #require(Deadline(after: .seconds(20)).wait { Files.exists(ports) || server.hasEnded != nil })
            try Files.write(text.utf8, to: file)
            let expected = [
                (1, "workers: expected auto"), (2, "cannot serve the directory \"/nowhere\""),
                (4, "limits.drainRate: expected a number from 1"),
                (5, "limits.pingInterval: expected a time"), (7, "cannot write \"/etc\""), (8, "duplicate key \"workers\""),
                (9, "listen: invalid address \"x\": expected HOST:PORT"), (10, "unknown key \"lisen\": expected one of allow-connect, "),
                (11, "sandbox: chroot to \"/nowhere\""), (13, "tls.check-interval: expected off, or a time of at least 10 ms"),
                (13, "tls.certificate: expected a file, got none"),
            ]
            let process = try ChildProcess([Places.command, "check", "-c", file])
            #expect(try process.wait(within: .seconds(5)) == .exited(78))
            let lines = process.standardError.split(separator: "\n")
            #expect(lines.count == expected.count, "\(process.standardError)")
            for (line, (number, words)) in zip(lines, expected) { #expect(line.hasPrefix("apus: \(file):\(number): \(words)")) }
            server.signal(SIGHUP)
            let isSaid = Deadline(after: .seconds(5)).wait {
                server.standardError.split(separator: "\n").contains { line in
                    line.contains("the reload changes nothing: ") && expected.allSatisfy { line.contains("\(file):\($0.0): \($0.1)") }
                }
            }
            #expect(isSaid, "\(server.standardError)")
        }

        @Test("of many mistakes the first 50 are shown, and how many more there are")
        func manyMistakes() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            try Files.write((1...70).map { "k\($0): 1\n" }.joined().utf8, to: file)
            let process = try ChildProcess([Places.command, "check", "-c", file])
            #expect(try process.wait(within: .seconds(5)) == .exited(78))
            let lines = process.standardError.split(separator: "\n")
            #expect(lines.count == 51 && lines[49].hasPrefix("apus: \(file):50: ") && lines[50] == "apus: 20 more errors")
        }

        @Test("a file that cannot be read is an error of the option, with the reason", arguments: ["/nowhere", "/tmp"])
        func unreadable(file: String) throws {
            let process = try ChildProcess([Places.command, "check", "-c", file])
            #expect(try process.wait(within: .seconds(5)) == .exited(78))
            let reason = file == "/tmp" ? "expected a regular file" : "No such file or directory"
            #expect(process.standardError == "apus: cannot read the configuration file \"\(file)\": \(reason) (--config)\n")
        }

        @Test("check prints a file that says the same again, and options go before the file")
        func check() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            let text = "listen: 127.0.0.1:1\nworkers: 3\nlimits:\n  drainWindow: 500 ms\n  maxBufferedBytes: 96 KiB\n  drainRate: 7\n"
            try Files.write(Array(text.utf8), to: file)
            let first = try run([Places.command, "check", "-c", file, "--workers", "2"])
            for line in ["workers: 2", "  - \"127.0.0.1:1\"", "  drainWindow: 500 ms", "  maxBufferedBytes: 96 KiB", "  drainRate: 7"] {
                #expect(first.split(separator: "\n").contains(Substring(line)), "\(first)")
            }
            try Files.write(Array(first.utf8), to: file)
            #expect(try run([Places.command, "check", "-c", file]) == first)
        }

        @Test("null means none: no file is made, no user taken", arguments: ["~", "null", ""])
        func null(word: String) throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            let keys = ["root", "user", "group", "chroot", "log", "pid-file", "port-file"]
            try Files.write(Array(keys.map { "\($0): \(word)\n" }.joined().utf8), to: file)
            let said = try run([Places.command, "check", "-c", file])
            for key in keys { #expect(!said.split(separator: "\n").contains { $0.hasPrefix("\(key):") }, "\(said)") }
        }

        @Test("an ampersand and an asterisk are letters where they are no anchor and no alias")
        func noAnchors() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            try Files.write("# R&D, *all* of it\nlog: \"\(place.path)/a & b *c\"\nallow-origin: \"*\"\n".utf8, to: file)
            #expect(try run([Places.command, "check", "-c", file]).contains("a & b *c"))
        }

        @Test("a key file that is missing is blamed on its line")
        func keyLine() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            let text = "listen: [127.0.0.1:0]\ntls:\n  certificate: \(try Certificates.path("localhost.pem"))\n  key: /nowhere\n"
            try Files.write(text.utf8, to: file)
            let process = try ChildProcess([Places.command, "serve", "-c", file])
            #expect(try process.wait(within: .seconds(5)) == .exited(78))
            #expect(process.standardError == "apus: \(file):4: TLS on 127.0.0.1:0: cannot read \"/nowhere\": No such file or directory\n")
        }

        @Test("HUP: an address that cannot be had is blamed on its line")
        func reloadedAddress() throws {
            let place = try TemporaryDirectory()
            let (file, ports) = (place.path + "/apus.yaml", place.path + "/ports")
            try Files.write("listen: 127.0.0.1:0\nport-file: \(ports)\nworkers: 1\n".utf8, to: file)
            let process = try ChildProcess([Places.command, "serve", "-c", file])
            try #require(Deadline(after: .seconds(20)).wait { Files.exists(ports) || process.hasEnded != nil })
            for (text, words) in [("\nlisten: 203.0.113.1:80", "203.0.113.1:80"), ("\nuser: nosuchuser", "nosuchuser")] {
                try Files.write("\(text)\n".utf8, to: file)
                process.signal(SIGHUP)
                let isSaid = Deadline(after: .seconds(5)).wait {
                    process.standardError.split(separator: "\n").contains {
                        $0.contains("the reload changes nothing: \(file):2: ") && $0.contains(words)
                    }
                }
                #expect(isSaid, "\(process.standardError)")
            }
        }

        @Test("limits beyond any need hold: connections are as many as there are descriptors for, and draining does not overflow")
        func largest() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            try Files.write("limits:\n  maxConnections: \(Int.max)\n  drainRate: \(Int.max)\n".utf8, to: file)
            let server = try ApusServer(workers: 1, "-c", file)
            #expect(server.process.standardError.contains("maxConnections is \(Int.max), but the limit on descriptors leaves room for"))
            let client = try server.connect()
            try client.upgrade()
            server.process.signal(SIGQUIT)
            #expect(try client.frame().closeCode == 1012)
            try client.send(.close(1012))
            #expect(try server.process.wait(within: .seconds(10)) == .exited(0))
            #expect(!server.process.standardError.contains("trap"), "\(server.process.standardError)")
        }

        @Test("HUP: a broken or half-written file is one error and changes nothing; a good one is obeyed, by every worker")
        func reload() throws {
            let place = try TemporaryDirectory()
            let file = place.path + "/apus.yaml"
            let good = "listen: 127.0.0.1:0\nlimits:\n  maxRequestTargetBytes: 8 KiB\n"
            try Files.write(Array(good.utf8), to: file)
            let server = try ApusServer(workers: 2, "-c", file, "--listen", "127.0.0.1:0")
            let workers = server.workers
            let long = "GET /" + String(repeating: "a", count: 200)
            #expect(try server.connect().request(long).status == 404)
            for (number, broken) in [
                "workers: [", "nonsense: 1", "limits:\n  drainRate: -1", String(good.dropLast(6)) + "x", "root: /nowhere",
            ].enumerated() {
                try Files.write(Array(broken.utf8), to: file)
                server.process.signal(SIGHUP)
                let isSaid = Deadline(after: .seconds(5)).wait {
                    server.process.standardError.split(separator: "\n").count { $0.contains("the reload changes nothing: \(file):") }
                        == number + 1
                }
                #expect(isSaid, "\(server.process.standardError)")
            }
            #expect(server.workers == workers)
            try Files.write(Array("limits:\n  maxRequestTargetBytes: 100\n".utf8), to: file)
            server.process.signal(SIGHUP)
            #expect(Deadline(after: .seconds(5)).wait { server.process.standardError.contains("generation 1 serves with 2 workers") })
            for _ in 0..<20 { #expect(try server.connect().request(long).status == 414) }
            #expect(try server.end() == .exited(0))
        }
    }
}
