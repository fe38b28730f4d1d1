import TestSupport
import Testing

/// The rules of the design that a compiler does not check. A place that breaks one and is known stands in `debts`, with what is owed; one
/// that has been put right must leave the list.
@Suite("The house rules")
struct Tidy {
    struct Line {
        let file: String
        let number: Int
        let text: Substring
        var place: String { "\(file):\(number)" }
    }

    /// Known breaches: file and rule.
    static let debts: Set<String> = [
        // Only for the names of errno's values, which belong into SystemError.
        "Sources/Apus/Files/FileMount.swift imports Glibc",
        "Sources/ApusTransport/Listener.swift imports Glibc",
        "Sources/ApusTransport/Transport.swift imports Glibc",
        "Sources/ApusTransport/WriteQueue.swift imports Glibc",
        // Socket wants sends and receives of a span.
        "Sources/ApusSupervisor/ControlChannel.swift is unsafe",
    ]

    /// What each target may import, besides the standard library.
    static let arrows: [String: Set<String>] = [
        "ApusCodec": ["CZlib"],
        "ApusPlatform": ["CLinux", "Glibc", "Synchronization"],
        "ApusTransport": ["ApusPlatform", "CCares", "COpenSSL", "DequeModule", "HeapModule", "Synchronization"],
        "ApusBus": ["ApusPlatform", "Synchronization"],
        "ApusSupervisor": ["ApusPlatform", "ApusBus", "CSeccomp", "Logging"],
        "Apus": ["ApusCodec", "ApusTransport", "ApusBus", "ApusPlatform", "ApusSupervisor", "Logging", "CoreMetrics", "Synchronization"],
        "ApusFoundation": ["Apus", "Foundation", "FoundationEssentials"],
        "Examples": ["Apus", "ApusFoundation", "Glibc"],
        "ApusCommand": ["Apus", "ApusPlatform", "ArgumentParser", "CYAML", "Glibc", "Histogram", "Logging"],
    ]

    /// Where `unsafe` may stand.
    static let unsafePlaces = [
        "Sources/ApusPlatform/", "Sources/ApusTransport/", "Sources/ApusBus/", "Sources/ApusCodec/Primitives/",
        "Sources/ApusSupervisor/Sandbox/SystemCallFilter.swift", "Sources/ApusSupervisor/Sandbox/SandboxAttempt.swift",
        "Sources/ApusCommand/Configuration/YAMLReader.swift",
    ]

    static let topLevel: Set<String> = [
        "Package.swift", "Sources", "Tests", "deploy", "README.md", ".ci", ".gitignore", ".swift-format", "LICENSE",
    ]

    /// Files below a folder of the package, as paths from its root.
    static func files(in folder: String, _ suffixes: String...) -> [String] {
        Files.below(Places.package + "/" + folder).filter { path in suffixes.contains { path.hasSuffix($0) } }
            .map { String($0.dropFirst(Places.package.count + 1)) }
    }

    static func text(of file: String) -> String { Files.text(Places.package + "/" + file) ?? "" }

    static func lines(of file: String) -> [Line] {
        text(of: file).split(separator: "\n", omittingEmptySubsequences: false).enumerated()
            .map { Line(file: file, number: $0.offset + 1, text: $0.element) }
    }

    /// Breaches less debts, and debts of this kind that are paid.
    static func unsettled(_ breaches: Set<String>, kind: String) -> Set<String> {
        breaches.symmetricDifference(debts.filter { $0.contains(kind) })
    }

    @Test("imports follow the arrows")
    func imports() throws {
        let pattern = try Regex(
            #"^\s*(?:@\w+\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+(?:(?:struct|class|enum|protocol|func|var|typealias)\s+)?(\w+)"#
        )
        var breaches: Set<String> = []
        for (target, allowed) in Self.arrows {
            let files = Self.files(in: "Sources/\(target)", ".swift")
            #expect(!files.isEmpty, "no files in \(target)")
            for line in files.flatMap(Self.lines) {
                guard let match = try pattern.firstMatch(in: line.text), let name = match.output[1].substring else { continue }
                if !allowed.contains(String(name)) { breaches.insert("\(line.file) imports \(name)") }
            }
        }
        #expect(Self.unsettled(breaches, kind: " imports ") == [])
    }

    @Test("the engine does not know that there are several processes")
    func engine() {
        for folder in ["Stream", "HTTP", "Files", "WebSocket", "Client", "Broker"] {
            let files = Self.files(in: "Sources/Apus/\(folder)", ".swift")
            #expect(!files.isEmpty, "no files in \(folder)")
            for line in files.flatMap(Self.lines) where line.text.contains("import ApusSupervisor") {
                Issue.record("\(line.place) imports the supervisor")
            }
        }
    }

    @Test("only one file names epoll")
    func poller() throws {
        let call = try Regex(#"\b(?:epoll_|EPOLL)"#)
        for file in Self.files(in: "Sources", ".swift") where !file.hasSuffix("/EpollPoller.swift") {
            // The sandbox's table of system calls.
            if file.hasSuffix("/SystemCalls.swift") { continue }
            for line in Self.lines(of: file) where line.text.contains(call) && !line.isComment {
                Issue.record("\(line.place): \(line.text)")
            }
        }
    }

    @Test("every target of Sources has its arrows here")
    func targets() {
        let shims = Set(Files.names(in: Places.package + "/Sources")).subtracting(Self.arrows.keys)
        #expect(shims.allSatisfy { $0.hasPrefix("C") }, "\(shims)")
    }

    @Test("unsafe stands only where the kernel, a C library or a byte primitive is met")
    func unsafe() throws {
        let word = try Regex(#"\bunsafe\b"#)
        var breaches: Set<String> = []
        for file in Self.files(in: "Sources", ".swift") where !Self.unsafePlaces.contains(where: { file.hasPrefix($0) }) {
            for line in Self.lines(of: file) where line.text.contains(word) && !line.isComment {
                breaches.insert("\(file) is unsafe")
            }
        }
        #expect(Self.unsettled(breaches, kind: " is unsafe") == [])
    }

    @Test("no file is longer than 600 lines")
    func lengths() {
        for file in Self.files(in: "Sources", ".swift", ".c", ".h") + Self.files(in: "Tests", ".swift", ".py") {
            #expect(Self.lines(of: file).count <= 600, "\(file)")
        }
    }

    @Test("nothing is left to be done in a comment")
    func postponed() throws {
        // Written so that it does not find itself.
        let word = try Regex(#"\b(?:TO[D]O|FIX[M]E|X[X]X)\b"#)
        for file in Self.files(in: "Sources", "") + Self.files(in: "Tests", "") + Self.files(in: "deploy", "") {
            for line in Self.lines(of: file) where line.text.contains(word) { Issue.record("\(line.place): \(line.text)") }
        }
    }

    @Test("tests wait for what happens, not for time to pass")
    func pauses() throws {
        let call = try Regex(#"\b(?:u|nano)?sl[e]ep\s*\(|^\s*sl[e]ep\b"#)
        // The ordinary code of a stranger, which is what is tested there, does both.
        let strangers = "OrdinaryFixture"
        let scripts = Self.files(in: "Tests/Tools", "") + Self.files(in: "deploy", "")
        for file in Self.files(in: "Tests", ".swift", ".py", ".sh") + scripts where !file.contains(strangers) {
            for line in Self.lines(of: file) where line.text.contains(call) { Issue.record("\(line.place): \(line.text)") }
        }
    }

    @Test("the top level holds what it should and nothing else")
    func top() {
        let names = Files.names(in: Places.package).filter { $0 != ".git" && !$0.hasPrefix(".build") && $0 != "Package.resolved" }
        #expect(Set(names) == Self.topLevel)
        #expect(Files.names(in: Places.package + "/.ci") == ["run"])
    }

    @Test("the README's example is the one that is compiled and run")
    func example() throws {
        let readme = try #require(Files.text(Places.package + "/README.md"))
        let program = try #require(Files.text(Places.package + "/Tests/Support/ReadmeExample/main.swift"))
        let lines = program.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.first == "// swift-format-ignore-file")
        #expect(readme.contains("```swift\n" + lines.dropFirst().joined(separator: "\n") + "```"))
    }

    @Test("the README's limits, and those of a configuration file, are the code's")
    func limits() throws {
        let readme = try #require(Files.text(Places.package + "/README.md"))
        let settings = try #require(Files.text(Places.package + "/Sources/ApusCommand/Configuration/LimitSettings.swift"))
        let property = try Regex(#"public var (\w+)"#)
        var count = 0
        for line in Self.lines(of: "Sources/Apus/Master/Limits.swift") {
            guard let name = try property.firstMatch(in: line.text)?.output[1].substring else { continue }
            count += 1
            #expect(readme.contains("| `\(name)` |"), "the README's table has no \(name)")
            #expect(settings.contains("(\"\(name)\", "), "a configuration file cannot set \(name)")
        }
        #expect(count > 20, "the limits are found")
    }
}

extension Tidy.Line {
    var isComment: Bool { text.drop { $0 == " " }.hasPrefix("//") }
}
