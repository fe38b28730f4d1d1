import CYAML

/// Reads one YAML document with libyaml.
///
/// Refused are anchors and aliases (a kilobyte of them can expand to more than fits into memory),
/// tags outside of the core schema, several documents, keys that are not texts or occur twice, and
/// deep nesting.
@safe struct YAMLReader: ~Copyable {
    /// The result of reading a file.
    struct Document {
        /// Nil if the file is not YAML or an error prevents further reading. An empty file is a
        /// null.
        var root: YAMLNode?
        /// In the order of the file.
        var errors: [YAMLError]
    }

    /// The limit of a file, in bytes.
    static let maxBytes = 1 << 20
    /// The limit of nesting; a configuration file has three levels.
    static let maxDepth = 32

    /// The tags that do not change a value's meaning (YAML 1.2.2 §10.3).
    private static let textTags = ["!", "tag:yaml.org,2002:str"]
    private static let scalarTags = textTags + ["null", "bool", "int", "float"].map { "tag:yaml.org,2002:\($0)" }
    private static let sequenceTags = ["!", "tag:yaml.org,2002:seq"]
    private static let mappingTags = ["!", "tag:yaml.org,2002:map"]

    private let parser: UnsafeMutablePointer<yaml_parser_t>
    private let bytes: [UInt8]
    private var errors: [YAMLError] = []

    /// Reads a file's bytes, which must be UTF-8.
    static func read(_ bytes: [UInt8]) -> Document {
        guard bytes.count <= maxBytes else {
            let reason = "expected a file of at most \(maxBytes) bytes, got a larger one"
            return Document(root: nil, errors: [YAMLError(mark: .init(line: 1, column: 1), description: reason)])
        }
        var reader = YAMLReader(bytes)
        // SAFETY: libyaml uses the pointer only while it parses, which is within this closure.
        return unsafe bytes.withUnsafeBufferPointer { buffer in
            unsafe yaml_parser_set_input_string(reader.parser, buffer.baseAddress, buffer.count)
            return reader.document()
        }
    }

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes
        // On the heap, because libyaml stores a pointer to the parser in the parser.
        unsafe parser = .allocate(capacity: 1)
        guard unsafe yaml_parser_initialize(parser) == 1 else { fatalError("out of memory") }
        unsafe yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
    }

    deinit {
        unsafe yaml_parser_delete(parser)
        unsafe parser.deallocate()
    }

    // MARK: Tree

    private mutating func document() -> Document {
        var root: YAMLNode?
        do throws(YAMLError) {
            root = try self.root()
        } catch {
            errors.append(error)
        }
        // A key is compared with the earlier ones after its value has been read, so errors need
        // sorting.
        return Document(root: root, errors: errors.sorted { ($0.mark.line, $0.mark.column) < ($1.mark.line, $1.mark.column) })
    }

    private mutating func root() throws(YAMLError) -> YAMLNode {
        let stream = try next()
        guard try next().kind == .documentStart else { return YAMLNode(value: .scalar("", isPlain: true), mark: stream.mark) }
        let root = try node(from: try next(), depth: 0)
        _ = try next()
        let end = try next()
        guard end.kind == .streamEnd else { throw YAMLError(mark: end.mark, description: "expected one document, got a second one (---)") }
        return root
    }

    /// The node that begins with `event`.
    private mutating func node(from event: Event, depth: Int) throws(YAMLError) -> YAMLNode {
        if event.hasAnchor {
            throw YAMLError(
                mark: event.mark, description: "expected no anchors or aliases, got an anchor (&): write the value out")
        }
        switch event.kind {
        case .scalar(let text, let isPlain):
            check(event, Self.scalarTags)
            if text.unicodeScalars.contains("\0") { note(event.mark, "expected a text without NUL, got one") }
            let isUntagged = event.tag.map { !Self.textTags.contains($0) } ?? true
            return YAMLNode(value: .scalar(text, isPlain: isPlain && isUntagged), mark: event.mark)
        case .sequenceStart:
            check(event, Self.sequenceTags)
            return YAMLNode(value: .sequence(try elements(event, depth: depth)), mark: event.mark)
        case .mappingStart:
            check(event, Self.mappingTags)
            return YAMLNode(value: .mapping(try entries(event, depth: depth)), mark: event.mark)
        case .alias:
            throw YAMLError(
                mark: event.mark,
                description: "expected no anchors or aliases, got an alias (*): quote a text that begins with *")
        case .streamStart, .streamEnd, .documentStart, .documentEnd, .sequenceEnd, .mappingEnd:
            throw YAMLError(mark: event.mark, description: "invalid YAML: expected a value")
        }
    }

    private mutating func elements(_ start: Event, depth: Int) throws(YAMLError) -> [YAMLNode] {
        try checkDepth(start, depth)
        var elements: [YAMLNode] = []
        while true {
            let event = try next()
            if event.kind == .sequenceEnd { return elements }
            elements.append(try node(from: event, depth: depth + 1))
        }
    }

    private mutating func entries(_ start: Event, depth: Int) throws(YAMLError) -> [YAMLNode.Entry] {
        try checkDepth(start, depth)
        var entries: [YAMLNode.Entry] = []
        var lines: [String: Int] = [:]
        while true {
            let event = try next()
            if event.kind == .mappingEnd { return entries }
            let key = try node(from: event, depth: depth + 1)
            let value = try node(from: try next(), depth: depth + 1)
            guard let name = key.text else {
                note(key.mark, "expected a text as a key, got \(key.shown)")
                continue
            }
            if let line = lines[name] {
                note(key.mark, "duplicate key \(Quotation.of(name)): first on line \(line)")
                continue
            }
            lines[name] = key.mark.line
            entries.append(YAMLNode.Entry(key: name, mark: key.mark, value: value))
        }
    }

    private func checkDepth(_ event: Event, _ depth: Int) throws(YAMLError) {
        if depth >= Self.maxDepth {
            throw YAMLError(
                mark: event.mark, description: "expected at most \(Self.maxDepth) nested lists and mappings, got more")
        }
    }

    private mutating func check(_ event: Event, _ tags: [String]) {
        guard let tag = event.tag, !tags.contains(tag) else { return }
        note(event.mark, "tag: expected none or a matching one of YAML's core schema, got \(Quotation.of(tag))")
    }

    private mutating func note(_ mark: YAMLNode.Mark, _ reason: String) {
        errors.append(YAMLError(mark: mark, description: reason))
    }

    // MARK: libyaml

    private struct Event {
        enum Kind: Equatable {
            case streamStart, streamEnd, documentStart, documentEnd
            case alias
            case scalar(String, isPlain: Bool)
            case sequenceStart, sequenceEnd, mappingStart, mappingEnd
        }
        let kind: Kind
        let mark: YAMLNode.Mark
        var hasAnchor = false
        var tag: String?
    }

    /// The next event; throws libyaml's error.
    private func next() throws(YAMLError) -> Event {
        // SAFETY: The event belongs to this call from `yaml_parser_parse` to `yaml_event_delete`.
        // Only the union's member for the event's type is read, and no pointer to it is kept.
        var event = unsafe yaml_event_t()
        guard unsafe yaml_parser_parse(parser, &event) == 1 else { throw parserError }
        defer { unsafe yaml_event_delete(&event) }
        let mark = unsafe Self.mark(event.start_mark)
        switch unsafe event.type {
        case YAML_STREAM_START_EVENT: return Event(kind: .streamStart, mark: mark)
        case YAML_DOCUMENT_START_EVENT: return Event(kind: .documentStart, mark: mark)
        case YAML_DOCUMENT_END_EVENT: return Event(kind: .documentEnd, mark: mark)
        case YAML_ALIAS_EVENT: return Event(kind: .alias, mark: mark)
        case YAML_SCALAR_EVENT:
            let scalar = unsafe event.data.scalar
            let text = unsafe String(decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            return unsafe Event(
                kind: .scalar(text, isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE), mark: mark, hasAnchor: scalar.anchor != nil,
                tag: Self.text(scalar.tag))
        case YAML_SEQUENCE_START_EVENT:
            let sequence = unsafe event.data.sequence_start
            return unsafe Event(kind: .sequenceStart, mark: mark, hasAnchor: sequence.anchor != nil, tag: Self.text(sequence.tag))
        case YAML_MAPPING_START_EVENT:
            let mapping = unsafe event.data.mapping_start
            return unsafe Event(kind: .mappingStart, mark: mark, hasAnchor: mapping.anchor != nil, tag: Self.text(mapping.tag))
        case YAML_SEQUENCE_END_EVENT: return Event(kind: .sequenceEnd, mark: mark)
        case YAML_MAPPING_END_EVENT: return Event(kind: .mappingEnd, mark: mark)
        // After the end of the stream libyaml returns no more events.
        default: return Event(kind: .streamEnd, mark: mark)
        }
    }

    /// The error that libyaml reports.
    private var parserError: YAMLError {
        // SAFETY: The texts are string literals in libyaml.
        let problem = unsafe parser.pointee.problem.map { unsafe String(cString: $0) } ?? "not enough memory"
        var mark = unsafe Self.mark(parser.pointee.problem_mark)
        switch unsafe parser.pointee.error {
        case YAML_READER_ERROR:
            // This error has no mark, only the offset of the byte.
            let before = unsafe bytes.prefix(parser.pointee.problem_offset)
            let line = before.count { $0 == UInt8(ascii: "\n") } + 1
            mark = YAMLNode.Mark(line: line, column: before.count - (before.lastIndex(of: UInt8(ascii: "\n")) ?? -1))
            let byte =
                unsafe bytes.dropFirst(parser.pointee.problem_offset).first.map { "the byte 0x\(String($0, radix: 16))" } ?? "the end"
            return YAMLError(mark: mark, description: "expected UTF-8 without control characters, got \(byte): \(problem)")
        case YAML_MEMORY_ERROR: mark = .init(line: 1, column: 1)
        default: break
        }
        if isIndentedByTab(mark.line) {
            return YAMLError(mark: mark, description: "invalid YAML: expected spaces at the start of the line, got a tab")
        }
        let context = unsafe parser.pointee.context.map { unsafe String(cString: $0) }
        let contextLine = unsafe Self.mark(parser.pointee.context_mark).line
        let location = context.map { " (\($0)\(contextLine == mark.line ? "" : " from line \(contextLine)"))" } ?? ""
        return YAMLError(mark: mark, description: "invalid YAML: \(problem)\(location)")
    }

    /// Whether the indentation of a line contains a tab.
    private func isIndentedByTab(_ line: Int) -> Bool {
        let lines = bytes.split(separator: UInt8(ascii: "\n"), maxSplits: line, omittingEmptySubsequences: false)
        guard line <= lines.count else { return false }
        return lines[line - 1].prefix { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }.contains(UInt8(ascii: "\t"))
    }

    private static func mark(_ mark: yaml_mark_t) -> YAMLNode.Mark { YAMLNode.Mark(line: mark.line + 1, column: mark.column + 1) }

    private static func text(_ characters: UnsafeMutablePointer<yaml_char_t>?) -> String? {
        // SAFETY: libyaml's texts end with NUL and are UTF-8.
        unsafe characters.map { unsafe String(cString: $0) }
    }
}
