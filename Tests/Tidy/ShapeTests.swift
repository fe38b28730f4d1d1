import TestSupport
import Testing

extension Tidy {
    @Suite("The shape of the sources")
    struct Shape {
        private static let maxTypeLines = 400
        private static let maxCommentColumns = 100

        // MARK: Size

        /// The lines of each type of a module: of its declaration and of its extensions, nested types included.
        static func typeLines(_ sources: [SwiftSource]) -> [String: Int] {
            var lines: [String: Int] = [:]
            for source in sources {
                for type in source.types {
                    // An extension of `Outer.Inner` is a part of `Outer`, too, unless it stands inside it.
                    let names = type.kind == .extension ? prefixes(of: type.name) : [type.name]
                    for name in names { lines[name, default: 0] += type.lines.count }
                }
            }
            return lines
        }

        /// `A.B.C`, `A.B` and `A`.
        private static func prefixes(of name: String) -> [String] {
            let parts = name.split(separator: ".")
            return parts.indices.map { parts[...$0].joined(separator: ".") }
        }

        /// What differs from the list.
        static func complaints(_ lines: [String: Int], known: [String: Int]) -> [String] {
            let tooLong = lines.compactMap { name, count -> String? in
                let most = known[name] ?? maxTypeLines
                return count > most ? "\(name) has \(count) lines, expected at most \(most)" : nil
            }
            let settled = known.compactMap { name, most -> String? in
                let count = lines[name] ?? 0
                if count <= maxTypeLines { return "\(name) has \(count) lines: remove it from the list" }
                return count < most - 20 ? "\(name) has \(count) lines: lower its \(most) in the list" : nil
            }
            return (tooLong + settled).sorted()
        }

        @Test("a type has at most 400 lines over all its files")
        func sizes() {
            var lines: [String: Int] = [:]
            for module in Tidy.arrows.keys {
                let sources = Tidy.files(in: "Sources/\(module)", ".swift").map { SwiftSource(Tidy.text(of: $0)) }
                for (name, count) in Self.typeLines(sources) { lines["\(module).\(name)"] = count }
            }
            #expect(lines["ApusPlatform.EventLoop", default: 0] > 50, "types are found")
            #expect(Self.complaints(lines, known: Debts.longTypes) == [])
        }

        @Test("the size of a type counts its extensions and nested types, not what a string or a comment looks like")
        func sizesAreCounted() {
            let files = [
                "struct A {\n  let text = \"}\\(f(\"{\"))\" // }\n  struct B {\n  }\n}\n\nextension A {\n}\n",
                "/* struct A {\n */ extension A.B {\n  func f() {\n  }\n}\nprivate final class C { let a = #\"\"}\"#\n}\n",
            ]
            let lines = Self.typeLines(files.map { SwiftSource($0) })
            #expect(lines == ["A": 11, "A.B": 6, "C": 2])
            #expect(Self.complaints(["A": 401, "B": 450, "C": 400], known: ["B": 449, "C": 500, "D": 500]).count == 4)
            #expect(Self.complaints(["A": 400, "B": 450], known: ["B": 460]) == [])
            #expect(Self.complaints(["B": 450], known: ["B": 471]) == ["B has 450 lines: lower its 471 in the list"])
        }

        // MARK: Comments

        @Test("a comment line has at most 100 columns")
        func commentWidth() {
            var wide: Set<String> = []
            for file in Tidy.files(in: "Sources", ".swift", ".c", ".h") {
                for line in Tidy.lines(of: file) where line.isComment && line.text.count > Self.maxCommentColumns {
                    wide.insert(file)
                    if !Debts.wideComments.contains(file) { Issue.record("\(line.place) has \(line.text.count) columns") }
                }
            }
            #expect(Debts.wideComments.subtracting(wide) == [], "remove these from the list")
        }

        // MARK: Access

        /// Stored properties of the first file's classes and structs that others could not miss.
        static func needlesslyOpen(_ source: SwiftSource, others: [SwiftSource]) throws -> [String] {
            let closed: Set = ["private", "fileprivate", "private(set)", "fileprivate(set)", "public", "package", "override"]
            return try source.storedProperties().filter { property in
                property.modifiers.isDisjoint(with: closed) && !others.contains { $0.words.contains(property.name) }
            }.map { "\($0.type).\($0.name)" }
        }

        @Test("a stored property of the engine is private unless another file names it")
        func access() throws {
            let engine = Tidy.files(in: "Sources/Apus", ".swift").map { SwiftSource(Tidy.text(of: $0)) }
            let tests = Tidy.files(in: "Tests", ".swift").map(Tidy.text).filter { $0.contains("@testable import Apus\n") }
            let readers = tests.map { SwiftSource($0) }
            var open: Set<String> = []
            for (index, source) in engine.enumerated() {
                open.formUnion(try Self.needlesslyOpen(source, others: engine[..<index] + engine[(index + 1)...] + readers))
            }
            #expect(open.subtracting(Debts.openProperties) == [], "expected private or private(set)")
            #expect(Debts.openProperties.subtracting(open) == [], "remove these from the list")
        }

        @Test("stored properties are told from computed ones, and by whom they are named")
        func accessIsFound() throws {
            let source = SwiftSource(
                """
                final class A {
                    let named: Int, missed = 1
                    var observed = 0 {
                        didSet { let local = 1 }
                    }
                    var text: String {
                        didSet {}
                    }
                    static let shared = [1, 2].map { $0 }
                    var computed: Int { 1 }
                    private(set) var read = 0
                    private let hidden = 0
                    public var known = 0
                    struct B { var inner = 1; weak var second: A? }
                    private struct C { var inside = 1 }
                    func f() { var local = 1 }
                }
                enum E { static let constant = 1 }
                """)
            let other = SwiftSource("// observed second\nlet x = \"\\(a.named)\"")
            let found = try Shape.needlesslyOpen(source, others: [other])
            #expect(found.sorted() == ["A.B.inner", "A.B.second", "A.observed", "A.shared", "A.text"])
        }
    }
}
