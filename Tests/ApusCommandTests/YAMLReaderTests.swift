import Testing

@testable import ApusCommand

@Suite("YAML of configuration files")
struct YAMLReaderTests {
    /// A tree in one line: quoted texts in quotes, plain ones without, each with its line and
    /// column if `marks`.
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
        #expect(document.errors == [])
        #expect(Self.shown(try #require(document.root)) == expected)
    }

    @Test("every node has its line and column")
    func marks() throws {
        let document = YAMLReader.read(Array("a: b\nlimits:\n  c: ä\n  d: [e,\n    f]\n".utf8))
        #expect(
            Self.shown(try #require(document.root), marks: true)
                == "{a@1:1=b@1:4,limits@2:1={c@3:3=ä@3:6,d@4:3=[e@4:7,f@5:5]@4:6}@3:3}@1:1")
    }

    @Test(
        "only a plain scalar is null",
        arguments: [("~", true), ("null", true), ("", true), ("'~'", false), ("!!str null", false), ("none", false)])
    func null(text: String, isNull: Bool) throws {
        #expect(try #require(YAMLReader.read(Array(text.utf8)).root).isNull == isNull)
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let text: String
        /// The beginning of each error, as `LINE:COLUMN reason`.
        let errors: [String]
        /// Whether the rest of the file is read nevertheless.
        var isRead = true
        var testDescription: String { text }
    }

    static let refusals = [
        Refusal(text: "a: 1\nb: 2\na: 3\na: 4", errors: ["3:1 duplicate key \"a\": first on line 1", "4:1 duplicate key \"a\""]),
        Refusal(text: "a: {b: 1, c: 2, b: 3}", errors: ["1:17 duplicate key \"b\": first on line 1"]),
        Refusal(text: "a: {b: 1, b: 3}\na: {}", errors: ["1:11 duplicate key \"b\"", "2:1 duplicate key \"a\""]),
        Refusal(text: "a: 1\n\"a\": 1", errors: ["2:1 duplicate key \"a\""]),
        Refusal(text: "? [a]\n: b\nc: d", errors: ["1:3 expected a text as a key, got a list"]),
        Refusal(
            text: "a: !b c\nd: !!set {e}",
            errors: ["1:4 tag: expected none or a matching one of YAML's core schema, got \"!b\"", "2:4 tag: expected"]),
        Refusal(
            text: "a: !!seq b",
            errors: ["1:4 tag: expected none or a matching one of YAML's core schema, got \"tag:yaml.org,2002:seq\""]),
        Refusal(text: "a: \"b\\0c\"", errors: ["1:4 expected a text without NUL, got one"]),
        Refusal(text: "a: &b c", errors: ["1:4 expected no anchors or aliases, got an anchor (&)"], isRead: false),
        Refusal(text: "a: &b [c]", errors: ["1:4 expected no anchors or aliases, got an anchor (&)"], isRead: false),
        Refusal(text: "&b a: c", errors: ["1:1 expected no anchors or aliases, got an anchor (&)"], isRead: false),
        Refusal(text: "a: *b", errors: ["1:4 expected no anchors or aliases, got an alias (*)"], isRead: false),
        Refusal(
            text: "a: 1\na: 2\nb: *c", errors: ["2:1 duplicate key", "3:4 expected no anchors or aliases, got an alias (*)"], isRead: false),
        Refusal(text: "a: 1\n---\nb: 2", errors: ["2:1 expected one document, got a second one (---)"], isRead: false),
        Refusal(text: "a: 1\n\tb: 2", errors: ["2:1 invalid YAML: expected spaces at the start of the line, got a tab"], isRead: false),
        Refusal(text: "a:\n  \tb: 2", errors: ["2:3 invalid YAML: expected spaces at the start of the line, got a tab"], isRead: false),
        Refusal(text: "a:\n\tb: 2", errors: ["2:1 invalid YAML: expected spaces at the start of the line, got a tab"], isRead: false),
        Refusal(
            text: "a: [b", errors: ["2:1 invalid YAML: did not find expected ',' or ']' (while parsing a flow sequence from line 1)"],
            isRead: false),
        Refusal(text: "a: [b\nc: d", errors: ["2:2 invalid YAML: "], isRead: false),
        Refusal(
            text: "a: 'b", errors: ["1:6 invalid YAML: found unexpected end of stream (while scanning a quoted scalar)"], isRead: false),
        Refusal(
            text: String(repeating: "[", count: 33) + String(repeating: "]", count: 33),
            errors: ["1:33 expected at most 32 nested lists and mappings, got more"], isRead: false),
    ]

    @Test("what a configuration file must not contain is refused, with its position", arguments: refusals)
    func refusal(_ refusal: Refusal) {
        let document = YAMLReader.read(Array(refusal.text.utf8))
        let errors = document.errors.map { "\($0.mark.line):\($0.mark.column) \($0)" }
        #expect(errors.count == refusal.errors.count, "\(errors)")
        for (error, expected) in zip(errors, refusal.errors) { #expect(error.hasPrefix(expected), "\(errors)") }
        #expect((document.root != nil) == refusal.isRead)
    }

    @Test(
        "bytes that are not UTF-8, and control characters, are reported with their line",
        arguments: [[0xFF], [0xC0, 0x80], [0x00], [0x1B], [0xED, 0xA0, 0x80]])
    func bytes(bytes: [UInt8]) {
        let document = YAMLReader.read(Array("a: b\nc: ".utf8) + bytes + Array("d\n".utf8))
        #expect(document.root == nil)
        #expect(document.errors.map(\.mark) == [YAMLNode.Mark(line: 2, column: 4)])
        #expect(document.errors.allSatisfy { $0.description.hasPrefix("expected UTF-8 without control characters, got ") })
    }

    @Test("32 levels and a mebibyte are read, more is refused")
    func bounds() throws {
        let deep = String(repeating: "[", count: 32) + String(repeating: "]", count: 32)
        #expect(YAMLReader.read(Array(deep.utf8)).root != nil)
        let large = Array(repeating: UInt8(ascii: "#"), count: YAMLReader.maxBytes)
        #expect(YAMLReader.read(large).root != nil)
        #expect(
            YAMLReader.read(large + [UInt8(ascii: "#")]).errors.map(\.description) == [
                "expected a file of at most 1048576 bytes, got a larger one"
            ])
    }

    @Test("a file cut anywhere is read or refused")
    func prefixes() {
        let text = Array(
            "%YAML 1.1\n--- # a\nlisten: [127.0.0.1:1, \"[::1]:2\"]\ntls: {key: 'x''y'}\nlog: |\n  a\n  b\n? &x y\n: !!str *x\n".utf8)
        for count in 0...text.count {
            let document = YAMLReader.read(Array(text[..<count]))
            #expect(document.root != nil || !document.errors.isEmpty)
        }
    }
}
