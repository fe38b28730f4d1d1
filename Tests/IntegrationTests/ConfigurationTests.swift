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
            Mistake(text: "workers: 1\nworkers: 2", line: 1, words: ["twice", "workers"]),
            Mistake(text: "listen:\n  - 127.0.0.1:0\n  - 127.0.0.1:65536", line: 3, words: ["65536"]),
            Mistake(text: "listen: [::1:80]", line: 1, words: ["no YAML"]),
            Mistake(text: "listen: \"::1:80\"", line: 1, words: ["[::1]:80"]),
            Mistake(text: "root: /nowhere", line: 1, words: ["/nowhere", "No such file"]),
            Mistake(text: "\nroot: {a: b}", line: 2, words: ["root", "a directory"]),
            Mistake(text: "limits:\n  maxMessageBytes: 1 MB", line: 2, words: ["limits.maxMessageBytes", "\"1 MB\"", "KiB"]),
            Mistake(text: "limits:\n  drainWindow: 5", line: 2, words: ["limits.drainWindow", "\"5\"", "10 s"]),
            Mistake(text: "limits:\n  maxMessages: 5", line: 2, words: ["limits.maxMessages", "maxMessageBytes"]),
            Mistake(text: "limits:\n  slowSubscribers: drop", line: 2, words: ["close or skip"]),
            Mistake(text: "log-level: loud", line: 1, words: ["loud", "trace, debug"]),
            Mistake(text: "tls:\n  key: a.pem", line: 2, words: ["tls", "certificate"]),
            Mistake(text: "tls:\n  certficate: a.pem", line: 2, words: ["tls.certficate", "did you mean \"tls.certificate\"?"]),
            Mistake(text: "workers: [", line: 2, words: ["no YAML"]),
            Mistake(text: "- workers", line: 1, words: ["KEY: VALUE"]),
            Mistake(text: "workers: 1\n\troot: /", line: 2, words: ["no YAML", "a tab; expected spaces"]),
            Mistake(text: "limits:\n\tdrainRate: 1", line: 2, words: ["no YAML", "a tab; expected spaces"]),
            Mistake(text: "pid-file: \"\"", line: 1, words: ["pid-file", "a file"]),
            Mistake(text: "workers: 1\nlisten:", line: 2, words: ["listen: it wants an address"]),
            Mistake(text: "\nuser: nosuchuser", line: 2, words: ["there is no user \"nosuchuser\"\n"]),
            Mistake(text: "user: nobody\ngroup: nosuchgroup", line: 2, words: ["there is no group \"nosuchgroup\"\n"]),
            Mistake(text: "\ngroup: nogroup", line: 2, words: ["a group wants a user"]),
            Mistake(text: "\nchroot: /nowhere", line: 2, words: ["/nowhere", "No such file"]),
            Mistake(text: "\nlog: /nowhere/log", line: 2, words: ["/nowhere/log", "No such file"]),
            Mistake(text: "\nlog: /etc", line: 2, words: ["/etc", "Is a directory"]),
            Mistake(text: "\npid-file: /nowhere/pid", line: 2, words: ["/nowhere/pid", "No such file"]),
            Mistake(text: "\nport-file: /nowhere/port", line: 2, words: ["/nowhere/port", "No such file"]),
            Mistake(text: "\nlisten: [127.0.0.1:7, 127.0.0.1:7]", line: 2, words: ["127.0.0.1:7", "twice"]),
            Mistake(text: "listen: unix:rel", line: 1, words: ["unix:rel", "unix:/PATH"]),
            Mistake(text: "allow-origin: https://a.test/", line: 1, words: ["no path", "HOST[:PORT]"]),
            Mistake(text: "allow-origin: *all", line: 1, words: ["alias", "quotes"]),
            Mistake(text: "limits:\n  heartbeatTimeout: 99 ms", line: 2, words: ["limits.heartbeatTimeout", "at least 0.1 seconds"]),
            Mistake(
                text: "limits:\n  maxMessageBytes: 2 MiB\n  maxWorkerBufferBytes: 1 MiB", line: 3,
                words: ["limits.maxWorkerBufferBytes", "at least maxMessageBytes, 2097152"]),
            Mistake(text: "limits:\n  silenceTimeout: 30 s", line: 2, words: ["limits.silenceTimeout", "pingInterval, 30.0 seconds"]),
            Mistake(text: "tls:\n  key: /nowhere.key\n  certificate: /nowhere.pem", line: 3, words: ["TLS on 127.0.0.1:", "/nowhere.pem"]),
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
