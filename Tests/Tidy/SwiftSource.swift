/// A Swift file as a script sees it: its types, and what they store.
struct SwiftSource {
    struct TypeBody {
        enum Kind: String { case `class`, `struct`, `enum`, `actor`, `protocol`, `extension` }
        let kind: Kind
        /// With the names of the types around it, `Outer.Inner`.
        let name: String
        /// It or a type around it is private or fileprivate.
        let isPrivate: Bool
        /// The lines from its declaration to its closing brace, counted from 1.
        let lines: ClosedRange<Int>
        fileprivate let body: Range<Int>
    }

    struct StoredProperty {
        let type: String
        let name: String
        let modifiers: Set<String>
    }

    /// Each type that is declared or extended here, nested ones too.
    let types: [TypeBody]
    /// Every word outside comments.
    let words: Set<String>
    /// The text with spaces in place of comments and string literals.
    private let code: [UInt8]

    init(_ text: String) {
        var scanner = Scanner(Array(text.utf8))
        scanner.scan()
        code = scanner.code
        words = Set(Self.tokens(scanner.uncommented).map(\.text))
        types = Self.types(code)
    }

    // MARK: Types

    private static func types(_ code: [UInt8]) -> [TypeBody] {
        struct Open {
            let kind: TypeBody.Kind
            let name: String
            let isPrivate: Bool
            let line: Int
            var start = 0
        }
        var found: [TypeBody] = []
        // One for each open brace; nil is no type's.
        var stack: [Open?] = []
        var pending: Open?
        var statement: [String] = []
        var line = 1
        var position = 0
        while position < code.count {
            let byte = code[position]
            switch byte {
            case UInt8(ascii: "\n"):
                line += 1
                if pending == nil { statement = [] }
            case UInt8(ascii: "{"):
                pending?.start = position + 1
                stack.append(pending)
                pending = nil
                statement = []
            case UInt8(ascii: "}"):
                statement = []
                guard let last = stack.popLast(), let type = last else { break }
                found.append(
                    TypeBody(
                        kind: type.kind, name: type.name, isPrivate: type.isPrivate, lines: type.line...line,
                        body: type.start..<position))
            case let byte where Self.isWord(byte):
                var end = position
                while end < code.count, Self.isWord(code[end]) || code[end] == UInt8(ascii: ".") { end += 1 }
                let word = String(decoding: code[position..<end], as: UTF8.self)
                let outer = stack.compactMap(\.self).last
                if pending == nil, let kind = statement.last.flatMap(TypeBody.Kind.init), word.first?.isUppercase == true,
                    !statement.contains("import")
                {
                    let isPrivate = statement.contains { $0 == "private" || $0 == "fileprivate" } || outer?.isPrivate == true
                    let name = outer.map { "\($0.name).\(word)" } ?? word
                    pending = Open(kind: kind, name: name, isPrivate: isPrivate, line: line)
                }
                statement.append(word)
                position = end
                continue
            default: break
            }
            position += 1
        }
        return found
    }

    // MARK: Stored properties

    /// What the classes and structs of this file store, as far as a script can tell.
    func storedProperties() throws -> [StoredProperty] {
        let declaration = try Regex(#"^\s*(?:@\w+(?:\([^)]*\))?\s+)*((?:[a-z]+(?:\([a-z]+\))?\s+)*)(?:let|var)\s+`?(\w+)`?([^\n]*)"#)
        var found: [StoredProperty] = []
        for type in types where type.kind == .class || type.kind == .struct {
            for start in statements(of: type.body) {
                let rest = code[start..<type.body.upperBound]
                let line = String(decoding: rest.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
                guard let match = try declaration.firstMatch(in: line), let name = match.output[2].substring,
                    let behind = match.output[3].substring
                else { continue }
                if let brace = behind.firstIndex(of: "{"), !behind[..<brace].contains("=") {
                    // Computed, unless it only observes.
                    let offset = line.utf8.count - behind[brace...].utf8.count + 1
                    let inside = String(decoding: rest.dropFirst(offset), as: UTF8.self).drop(while: \.isWhitespace)
                    if !inside.hasPrefix("didSet"), !inside.hasPrefix("willSet") { continue }
                }
                let modifiers = (match.output[1].substring ?? "").split(separator: " ").map(String.init)
                let access = type.isPrivate ? ["private"] : []
                found.append(StoredProperty(type: type.name, name: String(name), modifiers: Set(modifiers + access)))
            }
        }
        return found
    }

    /// Where the statements of a body begin, without those of nested braces.
    private func statements(of body: Range<Int>) -> [Int] {
        var starts = [body.lowerBound]
        var depth = 0
        for position in body {
            switch code[position] {
            case UInt8(ascii: "{"), UInt8(ascii: "("), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: ")"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: "\n"), UInt8(ascii: ";"): if depth == 0 { starts.append(position + 1) }
            default: break
            }
        }
        return starts
    }

    // MARK: Words

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), 0x80...:
            true
        default: false
        }
    }

    private static func tokens(_ text: [UInt8]) -> [(text: String, start: Int)] {
        text.indices.filter { isWord(text[$0]) && ($0 == 0 || !isWord(text[$0 - 1])) }.map { start in
            (String(decoding: text[start...].prefix { isWord($0) }, as: UTF8.self), start)
        }
    }
}

/// Finds comments and string literals.
private struct Scanner {
    private let bytes: [UInt8]
    private var position = 0
    /// Without comments and string literals.
    private(set) var code: [UInt8]
    /// Without comments.
    private(set) var uncommented: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        code = bytes
        uncommented = bytes
    }

    private func has(_ text: StaticString, at offset: Int = 0) -> Bool {
        bytes[min(position + offset, bytes.count)...].starts(
            with: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private static func blank(_ range: Range<Int>, in bytes: inout [UInt8]) {
        for index in range where bytes[index] != UInt8(ascii: "\n") { bytes[index] = UInt8(ascii: " ") }
    }

    /// - Parameter isInterpolated: up to the parenthesis that ends an interpolation.
    mutating func scan(isInterpolated: Bool = false) {
        var depth = 0
        while position < bytes.count {
            if has("//") {
                comment { $0.position += $0.bytes[$0.position...].prefix { $0 != UInt8(ascii: "\n") }.count }
            } else if has("/*") {
                comment { $0.skipBlock() }
            } else if bytes[position] == UInt8(ascii: "\"") || (has("#") && string(after: 0) != nil) {
                let start = position
                skipString(hashes: string(after: 0) ?? 0)
                Self.blank(start..<position, in: &code)
            } else {
                if bytes[position] == UInt8(ascii: "(") { depth += 1 }
                if bytes[position] == UInt8(ascii: ")") {
                    if isInterpolated, depth == 0 { return }
                    depth -= 1
                }
                position += 1
            }
        }
    }

    /// The number of `#` before a quotation mark.
    private func string(after offset: Int) -> Int? {
        let hashes = bytes[(position + offset)...].prefix { $0 == UInt8(ascii: "#") }.count
        return has("\"", at: offset + hashes) ? hashes : nil
    }

    private mutating func comment(_ skip: (inout Self) -> Void) {
        let start = position
        skip(&self)
        Self.blank(start..<position, in: &code)
        Self.blank(start..<position, in: &uncommented)
    }

    private mutating func skipBlock() {
        var depth = 0
        while position < bytes.count {
            if has("/*") {
                depth += 1
            } else if has("*/") {
                depth -= 1
            } else {
                position += 1
                continue
            }
            position += 2
            if depth == 0 { return }
        }
    }

    private mutating func skipString(hashes: Int) {
        position += hashes
        let quotes = has("\"\"\"") ? 3 : 1
        position += quotes
        while position < bytes.count {
            let count = bytes[position...].prefix { $0 == UInt8(ascii: "\"") }.count
            let escape = bytes[position] == UInt8(ascii: "\\") ? bytes[(position + 1)...].prefix { $0 == UInt8(ascii: "#") }.count : -1
            if count >= quotes, bytes[(position + quotes)...].prefix(hashes).allSatisfy({ $0 == UInt8(ascii: "#") }) {
                position += quotes + hashes
                return
            }
            if escape == hashes, has("(", at: 1 + hashes) {
                position += 2 + hashes
                scan(isInterpolated: true)
                position += 1
            } else if escape == hashes {
                position += 2 + hashes
            } else {
                if quotes == 1, bytes[position] == UInt8(ascii: "\n") { return }
                position += 1
            }
        }
    }
}
