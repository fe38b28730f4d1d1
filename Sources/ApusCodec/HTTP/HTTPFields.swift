/// An ordered list of fields (RFC 9110 §5): names compare without regard to case, repeated names
/// stay separate, order is kept.
///
/// All bytes are in one array. The fields of a decoded head share the array in which the head was
/// collected, so decoding creates no strings; values become a `String` when they are read. Bytes
/// that are not UTF-8 appear in strings as U+FFFD.
public struct HTTPFields: Sendable {
    /// The ranges of one field's name and value in `storage`.
    struct Entry: Equatable, Sendable {
        var nameStart: UInt32
        var nameCount: UInt32
        var valueStart: UInt32
        var valueCount: UInt32

        init(name: Range<Int>, value: Range<Int>) {
            nameStart = UInt32(name.lowerBound)
            nameCount = UInt32(name.count)
            valueStart = UInt32(value.lowerBound)
            valueCount = UInt32(value.count)
        }

        var name: Range<Int> { Int(nameStart)..<Int(nameStart) + Int(nameCount) }
        var value: Range<Int> { Int(valueStart)..<Int(valueStart) + Int(valueCount) }
    }

    /// The bytes that the entries refer to. Those of a decoded head include its start line and
    /// separators.
    var storage: [UInt8]
    var entries: [Entry]

    /// No fields; owns no memory.
    public init() {
        storage = []
        entries = []
    }

    /// Creates a list of the given fields in their order.
    ///
    /// - Throws: `HTTPFieldError` for the first name or value that is not valid.
    public init(_ fields: KeyValuePairs<String, String>) throws(HTTPFieldError) {
        self.init()
        for (name, value) in fields { try append(name, value) }
    }

    /// Creates a list of validated fields and the bytes they refer to.
    init(storage: [UInt8], entries: [Entry]) {
        self.storage = storage
        self.entries = entries
    }

    /// The number of field lines; a repeated name counts each time.
    public var count: Int { entries.count }

    /// Whether there are no fields.
    public var isEmpty: Bool { entries.isEmpty }

    /// The value of `name`, several joined by ", " in their order (RFC 9110 §5.3); nil without the
    /// field.
    public subscript(name: String) -> String? {
        guard let first = firstIndex(of: name) else { return nil }
        guard var next = nextIndex(of: name, after: first) else { return value(at: first) }
        var joined = value(at: first)
        while true {
            joined += ", "
            joined += value(at: next)
            guard let following = nextIndex(of: name, after: next) else { return joined }
            next = following
        }
    }

    /// The values of all fields `name`, in order.
    public func values(of name: String) -> [String] {
        var values: [String] = []
        var index = firstIndex(of: name)
        while let found = index {
            values.append(value(at: found))
            index = nextIndex(of: name, after: found)
        }
        return values
    }

    /// Whether there is a field of this name.
    public func contains(_ name: String) -> Bool { firstIndex(of: name) != nil }

    /// Whether the comma-separated list of the fields `name` contains `token`, without regard to
    /// case (RFC 9110 §5.6.1).
    public func containsToken(_ token: String, in name: String) -> Bool {
        let lowercase = token.lowercased()
        var index = firstIndex(of: name)
        while let found = index {
            if storage.span.listContains(entries[found].value, lowercase: lowercase) { return true }
            index = nextIndex(of: name, after: found)
        }
        return false
    }

    /// Appends a field. SP and HTAB at the ends of the value are dropped.
    ///
    /// - Throws: `HTTPFieldError` if the name is not a token or the value contains a control
    ///   character other than HTAB; nothing is appended.
    public mutating func append(_ name: String, _ value: String) throws(HTTPFieldError) {
        try Self.check(name, value)
        appendChecked(name, value)
    }

    /// Replaces all fields `name` by one at the position of the first; appends it if there was
    /// none.
    ///
    /// - Throws: `HTTPFieldError` like `append`; nothing is changed.
    public mutating func set(_ name: String, _ value: String) throws(HTTPFieldError) {
        try Self.check(name, value)
        guard let position = firstIndex(of: name) else { return appendChecked(name, value) }
        remove(name)
        appendChecked(name, value)
        entries.insert(entries.removeLast(), at: position)
    }

    /// Removes all fields `name`.
    public mutating func remove(_ name: String) {
        guard contains(name) else { return }
        // Rebuilt, so that no unused bytes collect in the storage.
        var kept = HTTPFields()
        let utf8 = name.utf8
        for entry in entries where !storage.span.matches(entry.name, utf8.span, 0..<utf8.count) {
            kept.append(storage.span.extracting(entry.name), storage.span.extracting(entry.value))
        }
        self = kept
    }

    private static func check(_ name: String, _ value: String) throws(HTTPFieldError) {
        let utf8 = name.utf8
        guard utf8.span.isToken(0..<utf8.count) else { throw .invalidName(name) }
        let octets = value.utf8.span
        for index in 0..<octets.count where ByteClass.isControl(octets[index]) && octets[index] != ByteClass.tab {
            throw .invalidValue(name: name, byte: octets[index])
        }
    }

    /// Appends a field whose name and value are known to be valid, such as the library's own.
    package mutating func appendChecked(_ name: String, _ value: String) {
        let octets = value.utf8.span
        append(name.utf8.span, octets.extracting(octets.trimmed(0..<octets.count)))
    }

    /// Appends all fields of another list, as they are. An invalid field of a literal is reported
    /// like one in the literal of a response.
    public mutating func append(contentsOf other: HTTPFields) {
        let bytes = other.storage.span
        for entry in other.entries { append(bytes.extracting(entry.name), bytes.extracting(entry.value)) }
    }

    private mutating func append(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        let start = storage.count
        storage.append(name)
        let middle = storage.count
        storage.append(value)
        entries.append(Entry(name: start..<middle, value: middle..<storage.count))
    }
}

extension HTTPFields: ExpressibleByDictionaryLiteral {
    /// The fields of a literal, in its order.
    ///
    /// A name or value that is not valid is kept aside: a response with these fields is not sent,
    /// but answered with 500 and logged. So a value from a client cannot add fields or lines.
    public init(dictionaryLiteral fields: (String, String)...) {
        self.init()
        for (name, value) in fields {
            do throws(HTTPFieldError) {
                try append(name, value)
            } catch {
                // No valid field has an empty name.
                append(Span(), error.description.utf8.span)
            }
        }
    }

    /// Why a literal with these fields was not valid; nil if it was, or if there was none.
    package var literalFault: String? {
        for entry in entries where entry.nameCount == 0 { return String(decoding: storage[entry.value], as: UTF8.self) }
        return nil
    }
}

extension HTTPFields: Equatable {
    /// Whether both have the same fields in the same order; names compare without regard to case,
    /// values byte by byte.
    public static func == (left: HTTPFields, right: HTTPFields) -> Bool {
        guard left.count == right.count else { return false }
        for (mine, theirs) in zip(left.entries, right.entries) {
            guard left.storage.span.matches(mine.name, right.storage.span, theirs.name),
                left.storage[mine.value] == right.storage[theirs.value]
            else { return false }
        }
        return true
    }
}

extension HTTPFields: Sequence {
    /// Iterates over names and values, in order.
    public struct Iterator: IteratorProtocol {
        private let fields: HTTPFields
        private var index = 0

        init(_ fields: HTTPFields) { self.fields = fields }

        /// The next field; nil after the last.
        public mutating func next() -> (name: String, value: String)? {
            guard index < fields.count else { return nil }
            defer { index += 1 }
            return (fields.name(at: index), fields.value(at: index))
        }
    }

    /// An iterator at the first field.
    public func makeIterator() -> Iterator { Iterator(self) }

    /// The same as `count`.
    public var underestimatedCount: Int { count }
}
