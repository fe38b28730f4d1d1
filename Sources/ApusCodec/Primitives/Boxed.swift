/// A value on the heap: an array of one, so that the state that holds it stays small.
package struct Boxed<Value: Equatable & Sendable>: Equatable, Sendable {
    private var storage: [Value]

    init(_ value: Value) { storage = [value] }

    /// Changed in place while nothing else holds the box.
    var value: Value {
        get { storage[0] }
        _modify { yield &storage[0] }
    }
}
