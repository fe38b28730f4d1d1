/// Finds what somebody who mistyped a word meant.
enum Likeness {
    /// The word that is fewest letters away from `word`; nil if none is near: a third of its letters may be wrong.
    static func nearest(to word: String, among known: [String]) -> String? {
        // The distance takes time of the product of both lengths, and is at least their difference.
        let known = known.filter { word.count <= 2 * $0.count + 1 }
        let near = known.map { (name: $0, distance: distance(word.lowercased(), $0.lowercased())) }
        return near.filter { $0.distance <= max(1, $0.name.count / 3) }.min { $0.distance < $1.distance }?.name
    }

    /// Letters to add, remove or exchange (Levenshtein's distance).
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
