/// An ordered list of fields (RFC 9110 §5): names compare without regard to case, repeated names stay apart, order is kept.
///
/// All bytes live in one array. The fields of a decoded head share the array that the head was collected in, so decoding makes no
/// string; a `String` is made when a value is asked for. Bytes that are not UTF-8 appear in strings as U+FFFD.
public struct HTTPFields: Sendable {
    /// Where one field's name and value lie in `storage`.
    struct Entry: Sendable {
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

    /// The bytes that entries point into; a decoded head's start line and separators are among them.
    var storage: [UInt8]
    var entries: [Entry]

    /// No fields; owns no memory.
    public init() {
        storage = []
        entries = []
    }

    /// The given fields in their order.
    ///
    /// - Throws: `HTTPFieldError` for the first name or value that is not valid.
    public init(_ fields: KeyValuePairs<String, String>) throws(HTTPFieldError) {
        self.init()
        for (name, value) in fields { try append(name, value) }
    }

    /// Fields whose names and values were already checked, with the bytes they point into.
    init(storage: [UInt8], entries: [Entry]) {
        self.storage = storage
        self.entries = entries
    }

    /// The number of field lines; a repeated name counts each time.
    public var count: Int { entries.count }

    /// Whether there is no field.
    public var isEmpty: Bool { entries.isEmpty }

    /// The value of `name`, several joined by ", " in their order (RFC 9110 §5.3); nil if there is none.
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

    /// Each value of `name`, in order; empty if there is none.
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

    /// Whether the comma-separated lists of the fields `name` hold `token`, without regard to case (RFC 9110 §5.6.1).
    public func containsToken(_ token: String, in name: String) -> Bool {
        let lowercase = token.lowercased()
        var index = firstIndex(of: name)
        while let found = index {
            if storage.span.listContains(entries[found].value, lowercase: lowercase) { return true }
            index = nextIndex(of: name, after: found)
        }
        return false
    }

    /// Adds a field at the end. SP and HTAB around the value are dropped.
    ///
    /// - Throws: `HTTPFieldError` if the name is not a token or the value holds a control character other than HTAB; nothing is added.
    public mutating func append(_ name: String, _ value: String) throws(HTTPFieldError) {
        try Self.check(name, value)
        appendChecked(name, value)
    }

    /// Replaces every field `name` by one, which takes the place of the first; adds it at the end if there was none.
    ///
    /// - Throws: `HTTPFieldError` as `append`; nothing is changed.
    public mutating func set(_ name: String, _ value: String) throws(HTTPFieldError) {
        try Self.check(name, value)
        guard let position = firstIndex(of: name) else { return appendChecked(name, value) }
        remove(name)
        appendChecked(name, value)
        entries.insert(entries.removeLast(), at: position)
    }

    /// Removes every field `name`; does nothing if there is none.
    public mutating func remove(_ name: String) {
        guard contains(name) else { return }
        // Rebuilt rather than marked, so that no bytes without an owner collect in the storage.
        var kept = HTTPFields()
        let utf8 = name.utf8
        for entry in entries where !storage.span.matches(entry.name, utf8.span, 0..<utf8.count) {
            kept.append(storage[entry.name], storage[entry.value])
        }
        self = kept
    }

    private static func check(_ name: String, _ value: String) throws(HTTPFieldError) {
        let utf8 = name.utf8
        guard utf8.span.isToken(0..<utf8.count) else { throw .invalidName(name) }
        for byte in value.utf8 where ByteClass.isControl(byte) && byte != ByteClass.tab {
            throw .invalidValue(name: name, byte: byte)
        }
    }

    /// Adds a field whose name and value are known to be valid, such as the library's own.
    package mutating func appendChecked(_ name: String, _ value: String) {
        let utf8 = value.utf8
        let trimmed = utf8.span.trimmed(0..<utf8.count)
        append(name.utf8, utf8.dropFirst(trimmed.lowerBound).prefix(trimmed.count))
    }

    private mutating func append(_ name: some Collection<UInt8>, _ value: some Collection<UInt8>) {
        let start = storage.count
        storage.append(contentsOf: name)
        let middle = storage.count
        storage.append(contentsOf: value)
        entries.append(Entry(name: start..<middle, value: middle..<storage.count))
    }
}

extension HTTPFields: Equatable {
    /// The same fields in the same order; names without regard to case, values byte by byte.
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
    /// Gives each field as a name and a value, in order.
    public struct Iterator: IteratorProtocol {
        private let fields: HTTPFields
        private var index = 0

        init(_ fields: HTTPFields) { self.fields = fields }

        /// The next field, or nil behind the last.
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
