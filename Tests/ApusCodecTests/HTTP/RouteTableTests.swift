import ApusCodec
import TestSupport
import Testing

@Suite("Patterns of routes")
struct RouteTableTests {
    /// A table whose values are the patterns themselves.
    static func table(_ patterns: [String]) throws -> RouteTable<String> {
        var table = RouteTable<String>()
        for pattern in patterns { try table.add(pattern, pattern) }
        return table
    }

    /// The matching pattern and its parameters as text: `/items/:id id=7`.
    static func found(_ path: String, in table: RouteTable<String>) -> String? {
        guard let match = table.match(path) else { return nil }
        return match.parameters.reduce(match.value) { $0 + " \($1.name)=\($1.value)" }
    }

    static let patterns = [
        "/", "/items", "/items/", "/items/new", "/items/:id", "/items/:id/parts/:part", "/items/new/parts/first", "/files/*",
        "/files/readme", "/files/:name/raw", "/v1/items:batch", "//double", "/ünïcode/:s", "/tail/:id/",
    ]

    @Test(
        "paths and the patterns that match",
        arguments: [
            ("/", "/"), ("/items", "/items"), ("/items/", "/items/"), ("/items/new", "/items/new"), ("/items/7", "/items/:id id=7"),
            ("/items/news", "/items/:id id=news"), ("/items/new/", nil), ("/items/7/", nil), ("/items//parts/1", nil),
            ("/items/7/parts/8", "/items/:id/parts/:part id=7 part=8"), ("/items/7/parts/", nil),
            // Backtracking: `new` and `first` lead on, but not to a pattern.
            ("/items/new/parts/first", "/items/new/parts/first"),
            ("/items/new/parts/second", "/items/:id/parts/:part id=new part=second"),
            ("/files", nil), ("/files/", "/files/* *="), ("/files/a", "/files/* *=a"), ("/files/a/b/", "/files/* *=a/b/"),
            ("/files//a", "/files/* *=/a"), ("/files/readme", "/files/readme"), ("/files/readme/", "/files/* *=readme/"),
            ("/files/a/raw", "/files/:name/raw name=a"), ("/files/readme/raw", "/files/:name/raw name=readme"),
            ("/files//raw", "/files/* *=/raw"), ("/files/a/raw/b", "/files/* *=a/raw/b"),
            ("/v1/items:batch", "/v1/items:batch"), ("//double", "//double"), ("/double", nil), ("/tail/1/", "/tail/:id/ id=1"),
            ("/tail/1", nil), ("/ünïcode/größe 1", "/ünïcode/:s s=größe 1"),
            // Bytes are compared: the same letters decomposed are another path.
            ("/u\u{308}ni\u{308}code/1", nil),
            ("/ITEMS", nil), ("", nil), ("*", nil), ("items", nil), ("/other", nil), (":id", nil), ("/items/:id", "/items/:id id=:id"),
            ("/items/a\r\nb", "/items/:id id=a\r\nb"), ("/files/*", "/files/* *=*"),
        ] as [(String, String?)])
    func matches(path: String, expected: String?) throws {
        #expect(Self.found(path, in: try Self.table(Self.patterns)) == expected)
        #expect(Self.found(path, in: try Self.table(Self.patterns.reversed())) == expected, "the order of adding matters")
    }

    @Test("a last * at the root matches every path")
    func rest() throws {
        let table = try Self.table(["/*", "/:a/:b"])
        #expect(Self.found("/", in: table) == "/* *=")
        #expect(Self.found("/x", in: table) == "/* *=x")
        #expect(Self.found("/x/y", in: table) == "/:a/:b a=x b=y")
        #expect(Self.found("/x/y/z", in: table) == "/* *=x/y/z")
        #expect(Self.found("/x/", in: table) == "/* *=x/")
    }

    @Test("parameters of one place may have other names in patterns that continue differently")
    func names() throws {
        let table = try Self.table(["/a/:x/b", "/a/:y/c", "/a/:z"])
        #expect(Self.found("/a/1/b", in: table) == "/a/:x/b x=1")
        #expect(Self.found("/a/1/c", in: table) == "/a/:y/c y=1")
        #expect(Self.found("/a/1", in: table) == "/a/:z z=1")
        let parameters = try #require(table.match("/a/1/c")).parameters
        #expect(parameters["y"] == "1")
        #expect(parameters["x"] == nil)
        #expect(parameters.count == 1)
        #expect(try #require(Self.table(["/a"]).match("/a")).parameters.isEmpty)
    }

    @Test(
        "patterns that are refused",
        arguments: [
            ("", .noLeadingSlash("")), ("items", .noLeadingSlash("items")), ("*", .noLeadingSlash("*")), (":id", .noLeadingSlash(":id")),
            ("/:", .parameterWithoutName), ("/a/:/b", .parameterWithoutName), ("/:id.json", .parameterNameInvalid("id.json")),
            ("/:a:b", .parameterNameInvalid("a:b")), ("/:*", .parameterNameInvalid("*")), ("/:größe", .parameterNameInvalid("größe")),
            ("/:a/b/:a", .parameterRepeated("a")), ("/*/a", .misplacedRest("*")), ("/a*", .misplacedRest("a*")),
            ("/**", .misplacedRest("**")), ("/*/", .misplacedRest("*")), ("/a/./b", .dotSegment(".")), ("/..", .dotSegment("..")),
            ("/a?b", .byteNotAllowed(0x3F)), ("/a#b", .byteNotAllowed(0x23)), ("/a\\b", .byteNotAllowed(0x5C)),
            ("/a\0", .byteNotAllowed(0)), ("/a%20b", .percentEncoded("%20")), ("/%2F", .percentEncoded("%2F")),
        ] as [(String, RouteFault)])
    func refused(pattern: String, fault: RouteFault) throws {
        var table = try Self.table(["/kept/:id"])
        #expect(throws: fault) { try table.add(pattern, "") }
        #expect(throws: fault) { _ = try table.index(adding: pattern, "") }
        #expect(fault.description.hasPrefix("expected "))
        #expect(fault.description.contains("got "))
        #expect(table.patterns == ["/kept/:id"])
    }

    @Test(
        "patterns of the same shape conflict",
        arguments: [
            ("/a/:x", "/a/:y"), ("/:a/b/:c", "/:c/b/:a"), ("/a/:x/*", "/a/:y/*"), ("/:x/", "/:y/"),
        ])
    func conflict(first: String, second: String) throws {
        var table = try Self.table([first])
        #expect(throws: RouteFault.conflict(second, with: first)) { try table.add(second, "") }
        #expect(RouteFault.conflict(second, with: first).description.contains("\"\(first)\""))
        #expect(table.count == 1)
        #expect(table.value(of: second) == nil)
    }

    @Test("a percent sign without two digits, dots beside other characters and an inner colon are literal")
    func literals() throws {
        for pattern in ["/100%", "/%zz", "/...", "/.well-known/x", "/a:b", "/a..b"] {
            #expect(Self.found(pattern, in: try Self.table([pattern])) == pattern)
        }
    }

    @Test("patterns of equal letters and different bytes are different")
    func bytes() throws {
        let table = try Self.table(["/\u{FC}", "/u\u{308}"])
        #expect(table.count == 2)
        #expect(table.match("/\u{FC}")?.value.utf8.count == 3)
        #expect(table.match("/u\u{308}")?.value.utf8.count == 4)
    }

    @Test("a pattern is added once, and its value can be collected piece by piece")
    func values() throws {
        var table = RouteTable<[Int]>()
        try table.add("/a", [1])
        #expect(throws: RouteFault.repeated("/a")) { try table.add("/a", [2]) }
        let index = try table.index(adding: "/b/:c", [])
        table[index].append(3)
        let same = try table.index(adding: "/b/:c", [9])
        #expect(same == index)
        table[same].append(4)
        #expect(table.match("/b/x")?.value == [3, 4])
        #expect(table.value(of: "/b/:c") == [3, 4])
        #expect(table.value(of: "/b/:d") == nil)
        #expect(table.match("/a")?.value == [1])
        #expect(table.count == 2)
    }

    @Test("thousands of patterns, and long and deep paths")
    func many() throws {
        var patterns: [String] = []
        for number in 0..<2000 { patterns += ["/r\(number)", "/r\(number)/:id", "/r\(number)/:id/x/*"] }
        let table = try Self.table(patterns)
        #expect(Self.found("/r1234", in: table) == "/r1234")
        #expect(Self.found("/r1999/7", in: table) == "/r1999/:id id=7")
        #expect(Self.found("/r0/7/x/y/z", in: table) == "/r0/:id/x/* id=7 *=y/z")
        #expect(Self.found("/r2000", in: table) == nil)
        #expect(Self.found("/r1/" + String(repeating: "a", count: 100_000), in: table) != nil)
        #expect(Self.found(String(repeating: "/", count: 100_000), in: table) == nil)
        #expect(Self.found("/r1/x" + String(repeating: "\u{301}", count: 50_000), in: table) != nil)
    }

    /// The meaning of patterns, written down without a tree: the best of all patterns that match.
    static func reference(_ path: String, _ patterns: [String]) -> String? {
        let segments = path.split(separator: "/", omittingEmptySubsequences: false)
        let matching = patterns.compactMap { pattern -> (String, [Int])? in
            let wanted = pattern.split(separator: "/", omittingEmptySubsequences: false)
            var ranks: [Int] = []
            for (index, want) in wanted.enumerated() {
                guard index < segments.count else { return nil }
                if want == "*" { return (pattern, ranks + [2]) }
                if want.hasPrefix(":"), !segments[index].isEmpty {
                    ranks.append(1)
                } else if want == segments[index] {
                    ranks.append(0)
                } else {
                    return nil
                }
            }
            return wanted.count == segments.count ? (pattern, ranks) : nil
        }
        return matching.min { $0.1.lexicographicallyPrecedes($1.1) }?.0
    }

    @Test("random patterns and paths match as the definition says", arguments: 0..<20 as Range<UInt64>)
    func random(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let words = ["a", "b", ":p", "*", ""]
        var table = RouteTable<String>()
        for _ in 0..<40 {
            var pattern = ""
            for depth in 0..<Int.random(in: 1...4, using: &generator) {
                let word = words.randomElement(using: &generator) ?? ""
                pattern += "/" + (word == ":p" ? ":p\(depth)" : word)
                if word == "*" { break }
            }
            _ = try table.index(adding: pattern, pattern)
        }
        for _ in 0..<400 {
            var path = ""
            for _ in 0..<Int.random(in: 1...5, using: &generator) {
                path += "/" + (["a", "b", "c", ""].randomElement(using: &generator) ?? "")
            }
            #expect(table.match(path)?.value == Self.reference(path, table.patterns), "\(path) of seed \(seed)")
        }
    }
}
