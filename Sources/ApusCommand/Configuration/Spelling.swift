/// Suggests the intended word for a misspelt one.
enum Spelling {
    /// The word with the smallest distance from `word`; nil if none is similar: a third of its
    /// letters may differ.
    static func suggestion(for word: String, among known: [String]) -> String? {
        // Computing the distance takes time in proportion to the product of both lengths; the
        // distance is at least their difference.
        let known = known.filter { word.count <= 2 * $0.count + 1 }
        let near = known.map { (name: $0, distance: distance(word.lowercased(), $0.lowercased())) }
        return near.filter { $0.distance <= max(1, $0.name.count / 3) }.min { $0.distance < $1.distance }?.name
    }

    /// The letters to add, remove or replace (Levenshtein distance).
    private static func distance(_ one: String, _ other: String) -> Int {
        let (one, other) = (Array(one), Array(other))
        var row = Array(0...other.count)
        for (index, letter) in one.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for (column, match) in other.enumerated() {
                let replaced = diagonal + (letter == match ? 0 : 1)
                diagonal = row[column + 1]
                row[column + 1] = min(replaced, row[column] + 1, diagonal + 1)
            }
        }
        return row[other.count]
    }
}
