import Apus
import Glibc
import TestSupport
import Testing

/// Pins what the engine does, as seen from outside: the safety net for changes inside it.
///
/// Each script drives an engine with raw peers and records a trace: all callbacks in their order,
/// and the bytes that each peer has received whenever the script lets the engine settle.
/// A line is the label of its connection (if there are several), one of these signs, and a text:
///
///     > bytes that a raw peer sends        * a callback
///     < bytes that a raw peer receives     - a call by the script, or by a handler on its behalf
///     = the lines of an opening handshake, if they are the usual ones
///
/// Frames are decoded (`client-frame` is masked, `server-frame` is not), HTTP heads are shown as
/// they are, and long payloads are shortened to their size and a checksum. Values that differ from
/// run to run are replaced: `Date`, `ETag`, keys and answers of handshakes other than those of
/// RFC 6455 §1.3, masking keys, ports of this host, and directories of tests.
///
/// The expected traces are in `Tests/ApusTests/Golden/*.txt`. After a change that is meant to be
/// visible, write them anew and read the difference before it is committed:
///
///     APUS_GOLDEN=record swift test -c release --scratch-path .build-tests/swift --filter Golden
@Suite("Golden traces")
struct GoldenTraceTests {
    static let groups = [
        GoldenGroup(name: "opening", scripts: GoldenScripts.opening), GoldenGroup(name: "messages", scripts: GoldenScripts.messages),
        GoldenGroup(name: "flow", scripts: GoldenScripts.flow), GoldenGroup(name: "closing", scripts: GoldenScripts.closing),
        GoldenGroup(name: "violations", scripts: GoldenScripts.violations), GoldenGroup(name: "topics", scripts: GoldenScripts.topics),
        GoldenGroup(name: "http", scripts: GoldenScripts.http), GoldenGroup(name: "http-refusals", scripts: GoldenScripts.httpRefusals),
        GoldenGroup(name: "worker", scripts: GoldenScripts.worker), GoldenGroup(name: "tls", scripts: GoldenScripts.tls),
        GoldenGroup(name: "client", scripts: GoldenScripts.client),
        GoldenGroup(name: "client-requests", scripts: GoldenScripts.clientRequests),
    ]

    private static let isRecording = getenv("APUS_GOLDEN").map { String(cString: $0) } == "record"

    @Test("the trace of each script is the recorded one", arguments: groups)
    func traces(group: GoldenGroup) throws {
        let recorded = group.record()
        if Self.isRecording {
            try Files.write(recorded.text.utf8, to: group.path)
            print("\(group.path): \(recorded.sections.count) traces were recorded")
            return
        }
        let text = try #require(Files.text(group.path), "\(group.path) cannot be read; APUS_GOLDEN=record makes it")
        let differences = recorded.differences(from: GoldenFile(parsing: text))
        guard differences.isEmpty else {
            Issue.record("\(group.path)\n\(differences.joined(separator: "\n"))")
            return
        }
        // Empty lines and what stands before the first section are not compared above.
        #expect(recorded.text == text, "\(group.path) was edited; APUS_GOLDEN=record writes it anew")
    }

    @Test("every file has its group")
    func files() {
        let names = Files.names(in: String(Self.groups[0].path.dropLast("/opening.txt".count)))
        #expect(Set(names) == Set(Self.groups.map { "\($0.name).txt" }))
    }

    // MARK: The comparison itself

    private static let example = "== a\n> x\n<\n< z\n\n== b\n* opened\n"

    @Test("a file's text is read as it was written")
    func format() {
        let file = GoldenFile(parsing: Self.example)
        #expect(file.sections.map(\.name) == ["a", "b"])
        #expect(file.sections.map(\.lines) == [["> x", "<", "< z"], ["* opened"]])
        #expect(file.text == Self.example)
    }

    @Test(
        "what differs is found",
        arguments: [
            ("== a\n> x\n<\n< Z\n\n== b\n* opened\n", "-- < z\n++ < Z"),
            ("== a\n> x\n<\n\n== b\n* opened\n", "-- < z"),
            ("== a\n> x\n<\n< z\n< w\n\n== b\n* opened\n", "++ < w"),
            ("== a\n> x\n<\n< z\n", "there is no such script"),
            (example + "\n== c\n", "the file has no such section"),
            ("== b\n* opened\n\n== a\n> x\n<\n< z\n", "another order"),
        ])
    func differences(text: String, expected: String) {
        let found = GoldenFile(parsing: text).differences(from: GoldenFile(parsing: Self.example))
        #expect(found.count == 1 && found.first?.contains(expected) == true, "\(found)")
        #expect(GoldenFile(parsing: text).differences(from: GoldenFile(parsing: text)).isEmpty)
    }
}

/// The scripts of all groups, in extensions.
enum GoldenScripts {}
