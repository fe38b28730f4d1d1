import TestSupport
import Testing

/// Drives an engine and writes what happens into the trace.
struct GoldenScript: Sendable {
    let name: String
    let run: @Sendable (Trace) throws -> Void

    init(_ name: String, _ run: @escaping @Sendable (Trace) throws -> Void) {
        self.name = name
        self.run = run
    }
}

/// Scripts whose traces are in one file, `Tests/ApusTests/Golden/NAME.txt`.
struct GoldenGroup: Sendable, CustomTestStringConvertible {
    let name: String
    let scripts: [GoldenScript]

    var testDescription: String { name }
    var path: String { "\(Self.directory)/\(name).txt" }

    /// Beside the directory of this file.
    private static let directory = "\(#filePath)".split(separator: "/").dropLast(2).reduce("") { "\($0)/\($1)" } + "/Golden"

    /// Runs all scripts. One that throws records an issue, and its trace ends with the error.
    func record() -> GoldenFile {
        var file = GoldenFile()
        for script in scripts {
            let trace = Trace()
            do {
                try script.run(trace)
            } catch {
                Issue.record("\(name), == \(script.name): \(error)")
                trace.add(.call, "", "failed: \(error)")
            }
            file.sections.append((script.name, trace.lines))
        }
        return file
    }
}

/// Sections of lines, each below its line `== NAME`. No line of a trace is empty: empty lines stand
/// between sections.
struct GoldenFile {
    var sections: [(name: String, lines: [String])] = []

    /// Lines shown on each side of the first difference.
    private static let contextLines = 6

    init() {}

    /// - Parameter text: as `text` gives it.
    init(parsing text: String) {
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("== ") {
                sections.append((String(line.dropFirst(3)), []))
            } else if !line.isEmpty, !sections.isEmpty {
                sections[sections.count - 1].lines.append(String(line))
            }
        }
    }

    /// What the file holds.
    var text: String { sections.map { "== \($0.name)\n" + $0.lines.map { "\($0)\n" }.joined() }.joined(separator: "\n") }

    /// What differs from the file that is expected, a text for each section; empty if nothing does.
    func differences(from expected: GoldenFile) -> [String] {
        var differences: [String] = []
        let wanted = Dictionary(expected.sections.map { ($0.name, $0.lines) }) { first, _ in first }
        let known = Set(sections.map(\.name))
        if known.count != sections.count { differences.append("two scripts have one name") }
        for (name, lines) in sections {
            guard let old = wanted[name] else {
                differences.append("== \(name)\n   the file has no such section")
                continue
            }
            if old != lines { differences.append("== \(name)\n" + Self.difference(lines, from: old)) }
        }
        for (name, _) in expected.sections where !known.contains(name) { differences.append("== \(name)\n   there is no such script") }
        if differences.isEmpty, expected.sections.map(\.name) != sections.map(\.name) {
            differences.append("the sections stand in another order, or twice")
        }
        return differences
    }

    /// The first differing lines, with those before them and behind them.
    private static func difference(_ lines: [String], from old: [String]) -> String {
        let same = zip(old, lines).prefix { $0.0 == $0.1 }.count
        // Lines that are equal at the end.
        let tail = min(min(old.count, lines.count) - same, zip(old.reversed(), lines.reversed()).prefix { $0.0 == $0.1 }.count)
        let (removed, added) = (old[same..<old.count - tail], lines[same..<lines.count - tail])
        var shown = old[..<same].suffix(contextLines).map { "   \($0)" }
        shown += removed.prefix(2 * contextLines).map { "-- \($0)" } + added.prefix(2 * contextLines).map { "++ \($0)" }
        shown += old[(old.count - tail)...].prefix(contextLines).map { "   \($0)" }
        return "   line \(same + 1), -- expected, ++ got:\n" + shown.joined(separator: "\n")
    }
}
