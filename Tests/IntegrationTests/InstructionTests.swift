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
        private static func instructions(rounds: Int, depth: Int, tls: Bool) throws -> Int {
            // The one that was built with the command: for tests more is left visible, and less optimised. Debian 12's valgrind gives up on
            // Swift's debugging information.
            let folder = Places.command.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            let place = try TemporaryDirectory()
            let program = place.path + "/EchoFixture"
            try Integration.run(["strip", "--strip-debug", "-o", program, folder + "/EchoFixture"])
            let files = tls ? try [Certificates.path("localhost.pem"), Certificates.path("localhost.key")] : []
            let process = try ChildProcess(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program] + files)
            guard Deadline(after: .seconds(60)).wait(until: { process.standardOutput.hasSuffix("\n") || process.hasEnded != nil }),
                let port = UInt16(process.standardOutput.dropLast())
            else { throw TestFailure("EchoFixture did not come up: \(process.standardError)") }
            let command = [Places.python, Places.peer("echo_rounds.py"), "\(port)", "\(rounds)", "\(depth)", "\(messageBytes)"]
            #expect(try Integration.run(command + (tls ? ["tls"] : [])) == "echoed\n")
            process.signal(SIGTERM)
            _ = try process.wait(within: .seconds(60))
            withExtendedLifetime(place) {}
            // `==123== Collected : 456`
            guard let line = process.standardError.split(separator: "\n").last(where: { $0.contains(" Collected : ") }),
                let count = line.split(separator: " ").last.flatMap({ Int($0) })
            else { throw TestFailure("callgrind counted nothing: \(process.standardError)") }
            return count
        }

        @Test(
            "an echo costs no more than its budget, alone and with others in one arrival, plain and over TLS", arguments: [1, 16],
            [false, true])
        func echo(depth: Int, tls: Bool) async throws {
            let budget = try Self.budget("echo\(tls ? "-tls" : "")-depth-\(depth)")
            let (few, many) = (100, 2100)
            let counts = try await Threads.run(2) { try Self.instructions(rounds: [few, many][$0], depth: depth, tls: tls) }
            let each = Double(counts[1] - counts[0]) / Double((many - few) * depth)
            print("instructions: \(each) per echo of depth \(depth)\(tls ? " over TLS" : ""), budget \(budget)")
            #expect(each <= budget * Self.headroom)
            #expect(each > 1, "what is measured is an echo")
        }
    }
}
