import Testing

@testable import ApusCommand

@Suite("YAML, as far as a configuration file needs it")
struct YAMLReaderTests {
    /// A tree in one line: texts in quotes, plain ones without, each with its line and column if `marks`.
    private static func shown(_ node: YAMLNode, marks: Bool = false) -> String {
        let mark = marks ? "@\(node.mark.line):\(node.mark.column)" : ""
        switch node.value {
        case .scalar(let text, let isPlain): return (isPlain ? text : "\"\(text)\"") + mark
        case .sequence(let nodes): return "[" + nodes.map { shown($0, marks: marks) }.joined(separator: ",") + "]" + mark
        case .mapping(let entries):
            let pairs = entries.map { entry in
                entry.key + (marks ? "@\(entry.mark.line):\(entry.mark.column)" : "") + "=" + shown(entry.value, marks: marks)
            }
            return "{" + pairs.joined(separator: ",") + "}" + mark
        }
    }

    @Test(
        "texts, lists and keys",
        arguments: [
            ("", ""), ("# nothing", ""), ("---\n...\n", ""), ("a", "a"), ("'a'", "\"a\""), ("\"a\\tb\"", "\"a\tb\""),
            ("\u{FEFF}a: b", "{a=b}"),
            ("a: b", "{a=b}"), ("a:\n  - b\n  - 'c'", "{a=[b,\"c\"]}"), ("a: [b, {c: d}]", "{a=[b,{c=d}]}"),
            ("a: |\n  b\n  c", "{a=\"b\nc\"}"),
            ("a: !!str 5", "{a=\"5\"}"), ("a: ! 5", "{a=\"5\"}"), ("a: !!int 5", "{a=5}"), ("a: !!seq [b]", "{a=[b]}"),
            ("!!map {a: b}", "{a=b}"),
            ("a: b\r\nc: d\r\n", "{a=b,c=d}"), ("%YAML 1.1\n---\na: b", "{a=b}"), ("a: \"& *\"", "{a=\"& *\"}"),
            ("a: b & c *d", "{a=b & c *d}"),
        ])
    func tree(text: String, expected: String) throws {
        let document = YAMLReader.read(Array(text.utf8))
        #expect(document.faults == [])
        #expect(Self.shown(try #require(document.root)) == expected)
    }

    @Test("every node has its line and column")
    func marks() throws {
        let document = YAMLReader.read(Array("a: b\nlimits:\n  c: ä\n  d: [e,\n    f]\n".utf8))
        #expect(
            Self.shown(try #require(document.root), marks: true)
                == "{a@1:1=b@1:4,limits@2:1={c@3:3=ä@3:6,d@4:3=[e@4:7,f@5:5]@4:6}@3:3}@1:1")
    }

    @Test("null is plain", arguments: [("~", true), ("null", true), ("", true), ("'~'", false), ("!!str null", false), ("none", false)])
    func null(text: String, isNull: Bool) throws {
        #expect(try #require(YAMLReader.read(Array(text.utf8)).root).isNull == isNull)
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let text: String
        /// `LINE:COLUMN reason`, the begin of each.
        let faults: [String]
        /// Whether the rest of the file is there none the less.
        var isRead = true
        var testDescription: String { text }
    }

    static let refusals = [
        Refusal(text: "a: 1\nb: 2\na: 3\na: 4", faults: ["3:1 the key \"a\" is given twice: first on line 1", "4:1 the key \"a\""]),
        Refusal(text: "a: {b: 1, c: 2, b: 3}", faults: ["1:17 the key \"b\" is given twice: first on line 1"]),
        Refusal(text: "a: {b: 1, b: 3}\na: {}", faults: ["1:11 the key \"b\"", "2:1 the key \"a\""]),
        Refusal(text: "a: 1\n\"a\": 1", faults: ["2:1 the key \"a\""]),
        Refusal(text: "? [a]\n: b\nc: d", faults: ["1:3 expected a key that is a text, got a list"]),
        Refusal(text: "a: !b c\nd: !!set {e}", faults: ["1:4 expected a value without a tag, got \"!b\"", "2:4 expected"]),
        Refusal(text: "a: !!seq b", faults: ["1:4 expected a value without a tag, got \"tag:yaml.org,2002:seq\""]),
        Refusal(text: "a: \"b\\0c\"", faults: ["1:4 expected a text without the character NUL"]),
        Refusal(text: "a: &b c", faults: ["1:4 an anchor (&)"], isRead: false),
        Refusal(text: "a: &b [c]", faults: ["1:4 an anchor (&)"], isRead: false),
        Refusal(text: "&b a: c", faults: ["1:1 an anchor (&)"], isRead: false),
        Refusal(text: "a: *b", faults: ["1:4 an alias (*)"], isRead: false),
        Refusal(text: "a: 1\na: 2\nb: *c", faults: ["2:1 the key", "3:4 an alias (*)"], isRead: false),
        Refusal(text: "a: 1\n---\nb: 2", faults: ["2:1 expected one document, got a second one (---)"], isRead: false),
        Refusal(text: "a: 1\n\tb: 2", faults: ["2:1 no YAML: the line begins with a tab; expected spaces"], isRead: false),
        Refusal(text: "a:\n  \tb: 2", faults: ["2:3 no YAML: the line begins with a tab; expected spaces"], isRead: false),
        Refusal(text: "a:\n\tb: 2", faults: ["2:1 no YAML: the line begins with a tab; expected spaces"], isRead: false),
        Refusal(
            text: "a: [b", faults: ["2:1 no YAML: did not find expected ',' or ']' (while parsing a flow sequence from line 1)"],
            isRead: false),
        Refusal(text: "a: [b\nc: d", faults: ["2:2 no YAML: "], isRead: false),
        Refusal(text: "a: 'b", faults: ["1:6 no YAML: found unexpected end of stream (while scanning a quoted scalar)"], isRead: false),
        Refusal(
            text: String(repeating: "[", count: 33) + String(repeating: "]", count: 33),
            faults: ["1:33 expected at most 32 lists and mappings within each other, got more"], isRead: false),
    ]

    @Test("what a configuration file may not hold is refused, with its place", arguments: refusals)
    func refusal(_ refusal: Refusal) {
        let document = YAMLReader.read(Array(refusal.text.utf8))
        let faults = document.faults.map { "\($0.mark.line):\($0.mark.column) \($0)" }
        #expect(faults.count == refusal.faults.count, "\(faults)")
        for (fault, expected) in zip(faults, refusal.faults) { #expect(fault.hasPrefix(expected), "\(faults)") }
        #expect((document.root != nil) == refusal.isRead)
    }

    @Test(
        "bytes that are no UTF-8, and control characters, have their line",
        arguments: [[0xFF], [0xC0, 0x80], [0x00], [0x1B], [0xED, 0xA0, 0x80]])
    func bytes(bytes: [UInt8]) {
        let document = YAMLReader.read(Array("a: b\nc: ".utf8) + bytes + Array("d\n".utf8))
        #expect(document.root == nil)
        #expect(document.faults.map(\.mark) == [YAMLNode.Mark(line: 2, column: 4)])
        #expect(document.faults.allSatisfy { $0.description.hasPrefix("expected UTF-8 without control characters, got ") })
    }

    @Test("32 levels are read, a mebibyte, and no more")
    func bounds() throws {
        let deep = String(repeating: "[", count: 32) + String(repeating: "]", count: 32)
        #expect(YAMLReader.read(Array(deep.utf8)).root != nil)
        let large = Array(repeating: UInt8(ascii: "#"), count: YAMLReader.maxBytes)
        #expect(YAMLReader.read(large).root != nil)
        #expect(
            YAMLReader.read(large + [UInt8(ascii: "#")]).faults.map(\.description) == [
                "expected a file of at most 1048576 bytes, got a larger one"
            ])
    }

    @Test("any beginning of a file is read or refused")
    func prefixes() {
        let text = Array(
            "%YAML 1.1\n--- # a\nlisten: [127.0.0.1:1, \"[::1]:2\"]\ntls: {key: 'x''y'}\nlog: |\n  a\n  b\n? &x y\n: !!str *x\n".utf8)
        for count in 0...text.count {
            let document = YAMLReader.read(Array(text[..<count]))
            #expect(document.root != nil || !document.faults.isEmpty)
        }
    }
}
