import Glibc
import TestSupport
import Testing

extension Integration {
    /// What a machine's load and its processor do to times, they do not do to the number of instructions: that can be held to a few per cent.
    @Suite("Instructions per echo")
    struct Instructions {
        /// What a compiler's next version, or another C library, may add.
        private static let headroom = 1.05
        private static let messageBytes = 20
        /// glibc picks its string functions by the processor, which makes 3 % of an echo over TLS: here it always takes the oldest ones.
        private static let baseline =
            "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-AVX512VL,-BMI2,-ERMS,-FSRM,-SSSE3,-SSE4_2,-Fast_Unaligned_Copy"

        /// The file's lines are `NAME INSTRUCTIONS`; those with # are for people.
        private static func budget(_ name: String) throws -> Double {
            let path = Places.package + "/Tests/Budgets/instructions"
            for line in (Files.text(path) ?? "").split(separator: "\n") where !line.hasPrefix("#") {
                let words = line.split(separator: " ")
                if words.count == 2, words[0] == name, let budget = Double(words[1]) { return budget }
            }
            throw TestFailure("\(path) has no line for \(name)")
        }

        /// All that the program executes, outside the kernel, from its start to its end, while one client has it echo `rounds` times `depth`
        /// messages, which leave the client in one call.
        ///
        /// - Parameter mode: of `echo_rounds.py`.
        private static func instructions(rounds: Int, depth: Int, mode: String) throws -> Int {
            // The one that was built with the command: for tests more is left visible, and less optimised. Debian 12's valgrind gives up on
            // Swift's debugging information.
            let folder = Places.command.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            let place = try TemporaryDirectory()
            let program = place.path + "/EchoFixture"
            try Integration.run(["strip", "--strip-debug", "-o", program, folder + "/EchoFixture"])
            let certificate = try ["certificate=" + Certificates.path("localhost.pem"), "key=" + Certificates.path("localhost.key")]
            let command = [program, "serve"] + (mode == "tls" ? certificate : [])
            let process = try ChildProcess(["env", baseline, "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"] + command)
            guard Deadline(after: .seconds(60)).wait(until: { process.standardOutput.hasSuffix("\n") || process.hasEnded != nil }),
                let port = UInt16(process.standardOutput.dropLast())
            else { throw TestFailure("EchoFixture did not come up: \(process.standardError)") }
            let client = [Places.python, Places.peer("echo_rounds.py"), "\(port)", "\(rounds)", "\(depth)", "\(messageBytes)"]
            #expect(try Integration.run(client + (mode.isEmpty ? [] : [mode])) == "echoed\n")
            process.signal(SIGTERM)
            _ = try process.wait(within: .seconds(60))
            withExtendedLifetime(place) {}
            // `==123== Collected : 456`
            guard let line = process.standardError.split(separator: "\n").last(where: { $0.contains(" Collected : ") }),
                let count = line.split(separator: " ").last.flatMap({ Int($0) })
            else { throw TestFailure("callgrind counted nothing: \(process.standardError)") }
            return count
        }

        private static func check(_ name: String, depth: Int, mode: String, rounds: (few: Int, many: Int)) async throws {
            let budget = try Self.budget(name)
            let counts = try await Threads.run(2) {
                try Self.instructions(rounds: [rounds.few, rounds.many][$0], depth: depth, mode: mode)
            }
            let each = Double(counts[1] - counts[0]) / Double((rounds.many - rounds.few) * depth)
            print("instructions: \(name): \(each), budget \(budget)")
            #expect(each <= budget * Self.headroom)
            #expect(each > 1, "nothing was measured")
        }

        @Test(
            "an echo costs no more than its budget, alone and with others in one arrival, plain and over TLS", arguments: [1, 16],
            ["", "tls"])
        func echo(depth: Int, mode: String) async throws {
            try await Self.check("echo\(mode.isEmpty ? "" : "-\(mode)")-depth-\(depth)", depth: depth, mode: mode, rounds: (100, 2100))
        }

        @Test("connect, upgrade, one echo and the closing handshake cost no more than their budget")
        func churn() async throws { try await Self.check("churn", depth: 1, mode: "churn", rounds: (50, 550)) }

        @Test("a request of a short route costs no more than its budget, alone and pipelined", arguments: [1, 16])
        func route(depth: Int) async throws {
            try await Self.check("route-depth-\(depth)", depth: depth, mode: "route", rounds: (100, 2100))
        }
    }
}
