/// Lookups for the hot path, without allocations.
extension HTTPFields {
    /// The index of the first field `name`, without regard to case; nil without one.
    package func firstIndex(of name: String) -> Int? { index(of: name, from: 0) }

    /// The index of the next field `name` after `index`; nil without one.
    package func nextIndex(of name: String, after index: Int) -> Int? { self.index(of: name, from: index + 1) }

    private func index(of name: String, from start: Int) -> Int? {
        let utf8 = name.utf8
        let wanted = utf8.span
        let bytes = storage.span
        for index in start..<entries.count {
            let entry = entries[index]
            if Int(entry.nameCount) == wanted.count, bytes.matches(entry.name, wanted, 0..<wanted.count) { return index }
        }
        return nil
    }

    /// The number of fields `name`.
    package func count(of name: String) -> Int {
        var count = 0
        var index = firstIndex(of: name)
        while let found = index {
            count += 1
            index = nextIndex(of: name, after: found)
        }
        return count
    }

    /// The name at an index below `count`, as written.
    package func name(at index: Int) -> String { String(decoding: storage[entries[index].name], as: UTF8.self) }

    /// The value at an index below `count`.
    package func value(at index: Int) -> String { String(decoding: storage[entries[index].value], as: UTF8.self) }

    /// The bytes of the name at an index below `count`.
    @_lifetime(borrow self)
    package func nameBytes(at index: Int) -> Span<UInt8> { storage.span.extracting(entries[index].name) }

    /// The bytes of the value at an index below `count`, without white space at its ends.
    @_lifetime(borrow self)
    package func valueBytes(at index: Int) -> Span<UInt8> { storage.span.extracting(entries[index].value) }

    /// Whether the value at an index equals `text`, given in lower case, without regard to case.
    package func value(at index: Int, equalsLowercase text: String) -> Bool {
        storage.span.matches(entries[index].value, lowercase: text)
    }
}
