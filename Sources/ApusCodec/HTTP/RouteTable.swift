/// Values by the pattern of a path, such as the handlers of a server.
///
/// A pattern is matched with a decoded path (`HTTPRequestHead.path`), segment by segment and byte
/// by byte:
///
/// - `/items`: this path. A slash at the end is a part of the path.
/// - `/items/:id`: a parameter matches one segment that is not empty. Its name consists of ASCII
///   letters, digits, `_` and `-`.
/// - `/files/*`: the last segment `*` matches all that follows, also nothing and also several
///   segments. Its parameter is named `*`.
///
/// In each segment, a literal is tried before a parameter and a parameter before `*`, with
/// backtracking. The cost of a match does not depend on the number of patterns: a path without
/// parameters is found by one look-up in a dictionary; the others by one look-up per segment, times
/// at most two per segment where a literal and a parameter both lead on.
package struct RouteTable<Value> {
    /// The value of the pattern that matches a path.
    package struct Match {
        package let value: Value
        /// The parameters of the pattern, in its order.
        package let parameters: RouteParameters

        @inlinable
        init(value: Value, parameters: RouteParameters) {
            self.value = value
            self.parameters = parameters
        }
    }

    @usableFromInline var tree = RouteTree()
    @usableFromInline var values: [Value] = []

    @inlinable
    package init() {}

    /// The number of patterns.
    package var count: Int { values.count }

    /// The patterns in the order in which they were added.
    package var patterns: [String] { tree.patterns.map(\.text) }

    /// Adds a pattern with its value.
    ///
    /// - Throws: `RouteFault`; nothing is added. A pattern that was added before is a fault, too.
    package mutating func add(_ pattern: String, _ value: Value) throws(RouteFault) {
        guard tree.index(of: pattern) == nil else { throw .repeated(pattern) }
        _ = try tree.add(pattern)
        values.append(value)
    }

    /// The index of a pattern's value, for values that are collected piece by piece. The pattern is
    /// added with `initial` if it is new.
    ///
    /// - Throws: `RouteFault`; nothing is added.
    package mutating func index(adding pattern: String, _ initial: @autoclosure () -> Value) throws(RouteFault) -> Int {
        if let index = tree.index(of: pattern) { return index }
        let index = try tree.add(pattern)
        values.append(initial())
        return index
    }

    /// The value of the pattern with an index of `index(adding:_:)`.
    package subscript(index: Int) -> Value {
        get { values[index] }
        set { values[index] = newValue }
    }

    /// The value of exactly this pattern, by its text; nil if it was not added.
    package func value(of pattern: String) -> Value? { tree.index(of: pattern).map { values[$0] } }

    /// The best pattern for a decoded path; nil if none matches, as for `*` and for an empty path.
    /// Allocates only for the parameters.
    @inlinable @inline(__always)
    package func match(_ path: String) -> Match? {
        guard let found = tree.match(path) else { return nil }
        return Match(value: values[found.index], parameters: found.parameters)
    }
}

extension RouteTable: Sendable where Value: Sendable {}
extension RouteTable.Match: Sendable where Value: Sendable {}

/// The values of a route's parameters by name, in the order of the pattern.
public struct RouteParameters: Sendable {
    private let pairs: [(name: String, value: String)]

    package init(_ pairs: [(name: String, value: String)] = []) { self.pairs = pairs }

    /// The number of parameters.
    public var count: Int { pairs.count }

    /// Whether the route has no parameters.
    public var isEmpty: Bool { pairs.isEmpty }

    /// The decoded value of a parameter, without the colon of its name; `*` names the rest of the
    /// path. Nil if the route has no such parameter.
    ///
    /// The value of a named parameter is not empty and contains no slash. The rest may be empty and
    /// may begin with a slash. Neither has dot segments, a backslash or a NUL, but any other
    /// character is possible, including line ends.
    public subscript(name: String) -> String? { pairs.first { $0.name == name }?.value }
}

extension RouteParameters: Sequence {
    /// An iterator over names and values.
    public func makeIterator() -> IndexingIterator<[(name: String, value: String)]> { pairs.makeIterator() }

    /// The same as `count`.
    public var underestimatedCount: Int { pairs.count }
}
