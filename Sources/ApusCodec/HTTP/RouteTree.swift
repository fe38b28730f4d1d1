/// The patterns of a `RouteTable` and the search in them: a tree of segments, whose nodes are in
/// one array and whose edges are in one dictionary.
@usableFromInline
struct RouteTree: Sendable {
    /// A pattern that matches, and its parameters.
    @usableFromInline
    struct Match {
        @usableFromInline let index: Int
        @usableFromInline let parameters: RouteParameters
    }

    /// The place after some segments.
    private struct Node {
        /// Whether literal segments lead on.
        var hasLiterals = false
        /// The node after a parameter.
        var parameter: Int?
        /// The pattern that ends here.
        var end: Int?
        /// The pattern that continues with `*`.
        var rest: Int?
    }

    /// Stands for a node where `edges` has whole paths: those of patterns without parameters, which
    /// are not in the tree.
    private static var whole: Int { -1 }

    /// In the order in which they were added.
    private(set) var patterns: [RoutePattern] = []
    /// The indices of `patterns` by their text.
    private var indices = PathDictionary()
    /// The root is the first node.
    private var nodes = [Node()]
    /// The nodes after literal segments, and the indices of patterns without parameters.
    private var edges = PathDictionary()

    /// The index of exactly this pattern; nil if it was not added.
    func index(of pattern: String) -> Int? {
        let utf8 = pattern.utf8
        return indices.value(at: Self.whole, utf8.span, 0..<utf8.count)
    }

    /// Adds a pattern that was not added before.
    ///
    /// - Returns: Its index in `patterns`.
    /// - Throws: `RouteFault`; nothing is added.
    mutating func add(_ text: String) throws(RouteFault) -> Int {
        let pattern = try RoutePattern(parsing: text)
        let index = patterns.count
        let utf8 = text.utf8
        if pattern.isLiteral {
            edges.add(index, at: Self.whole, utf8.span, 0..<utf8.count)
        } else {
            try insert(pattern, index)
        }
        patterns.append(pattern)
        indices.add(index, at: Self.whole, utf8.span, 0..<utf8.count)
        return index
    }

    private mutating func insert(_ pattern: RoutePattern, _ index: Int) throws(RouteFault) {
        let utf8 = pattern.text.utf8
        var node = 0
        for segment in pattern.segments {
            switch segment {
            case .literal(let range): node = child(of: node, utf8.span, range)
            case .parameter: node = childForParameter(of: node)
            case .rest:
                if let other = nodes[node].rest { throw .conflict(pattern.text, with: patterns[other].text) }
                nodes[node].rest = index
                return
            }
        }
        // The nodes of a pattern in conflict existed before, so nothing was added.
        if let other = nodes[node].end { throw .conflict(pattern.text, with: patterns[other].text) }
        nodes[node].end = index
    }

    private mutating func child(of node: Int, _ bytes: Span<UInt8>, _ segment: Range<Int>) -> Int {
        if let next = edges.value(at: node, bytes, segment) { return next }
        nodes[node].hasLiterals = true
        edges.add(nodes.count, at: node, bytes, segment)
        nodes.append(Node())
        return nodes.count - 1
    }

    private mutating func childForParameter(of node: Int) -> Int {
        if let next = nodes[node].parameter { return next }
        nodes[node].parameter = nodes.count
        nodes.append(Node())
        return nodes.count - 1
    }

    /// The best pattern for a decoded path; nil if none matches.
    @usableFromInline
    func match(_ path: String) -> Match? {
        let utf8 = path.utf8
        let bytes = utf8.span
        // A literal comes before a parameter in each segment, hence also in the whole path.
        if let index = edges.value(at: Self.whole, bytes, 0..<bytes.count) {
            return Match(index: index, parameters: RouteParameters())
        }
        guard bytes.count > 0, bytes[0] == UInt8(ascii: "/"), let index = find(from: 0, bytes, start: 1) else { return nil }
        return Match(index: index, parameters: RouteParameters(patterns[index].values(in: path)))
    }

    /// The pattern that matches `path` from `start`, behind a slash, after `node`. Each node is
    /// visited at most once.
    private func find(from node: Int, _ path: Span<UInt8>, start: Int) -> Int? {
        let end = path.firstIndex(of: UInt8(ascii: "/"), in: start..<path.count) ?? path.count
        if nodes[node].hasLiterals, let next = edges.value(at: node, path, start..<end),
            let found = findAfterSegment(next, path, end)
        {
            return found
        }
        if end > start, let next = nodes[node].parameter, let found = findAfterSegment(next, path, end) { return found }
        return nodes[node].rest
    }

    private func findAfterSegment(_ node: Int, _ path: Span<UInt8>, _ end: Int) -> Int? {
        end == path.count ? nodes[node].end : find(from: node, path, start: end + 1)
    }
}
