/// A dictionary from segments of a path, each at a node of a tree, to indices. Look-ups take a span
/// and copy nothing.
///
/// Keys are equal if their bytes are (RFC 3986 §6.2.1). Strings as keys would be normalised for
/// each look-up, which takes time on long sequences of combining characters. The hash has no seed:
/// all keys come from the application, so that a client cannot make them collide.
struct PathDictionary: Sendable {
    private struct Entry {
        let node: Int
        let key: Range<Int>
        let hash: UInt64
        let value: Int
    }

    /// The bytes of all keys.
    private var storage: [UInt8] = []
    private var entries: [Entry] = []
    /// Indices of `entries` by hash, -1 for none. A power of two, at least twice the entries; a
    /// look-up goes on to the next slot until it finds the key or an empty slot.
    private var slots = [Int](repeating: -1, count: 16)

    /// The index of a key; nil without one.
    func value(at node: Int, _ bytes: Span<UInt8>, _ range: Range<Int>) -> Int? {
        let hash = Self.hash(node, bytes, range)
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] >= 0 {
            let index = slots[slot]
            if entries[index].hash == hash, entries[index].node == node, isEqual(entries[index].key, bytes, range) {
                return entries[index].value
            }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Adds a key that is not there.
    mutating func add(_ value: Int, at node: Int, _ bytes: Span<UInt8>, _ range: Range<Int>) {
        let start = storage.count
        for index in range { storage.append(bytes[index]) }
        entries.append(
            Entry(node: node, key: start..<storage.count, hash: Self.hash(node, bytes, range), value: value))
        if entries.count * 2 > slots.count {
            slots = [Int](repeating: -1, count: slots.count * 2)
            for index in entries.indices { link(index) }
        } else {
            link(entries.count - 1)
        }
    }

    private mutating func link(_ index: Int) {
        var slot = Int(truncatingIfNeeded: entries[index].hash) & (slots.count - 1)
        while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = index
    }

    private func isEqual(_ key: Range<Int>, _ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
        guard key.count == range.count else { return false }
        let mine = storage.span.extracting(key)
        let other = bytes.extracting(range)
        for index in 0..<mine.count where mine[index] != other[index] { return false }
        return true
    }

    /// Eight bytes at a time, each multiplied by an odd constant and folded.
    private static func hash(_ node: Int, _ bytes: Span<UInt8>, _ range: Range<Int>) -> UInt64 {
        let key = bytes.extracting(range)
        var hash = mix(UInt64(truncatingIfNeeded: node), UInt64(truncatingIfNeeded: key.count))
        var word: UInt64 = 0
        for index in 0..<key.count {
            word = word << 8 | UInt64(key[index])
            if index & 7 == 7 {
                hash = mix(hash, word)
                word = 0
            }
        }
        return mix(hash, word)
    }

    private static func mix(_ hash: UInt64, _ word: UInt64) -> UInt64 {
        let (high, low) = (hash ^ word ^ 0x9E37_79B9_7F4A_7C15).multipliedFullWidth(by: 0xBF58_476D_1CE4_E5B9)
        return high ^ low
    }
}
