/// The key of a value that exists once per worker: returned by `Server.workerState`, used as
/// `worker[state]`.
public struct WorkerState<Value>: Sendable {
    fileprivate let index: Int
}

/// Creates and ends a worker's value.
struct WorkerStateRecipe {
    fileprivate let make: (Worker) throws -> AnyObject
    fileprivate let end: (AnyObject, Worker) -> Void
}

/// Type-erases the value; only `WorkerState` knows its type.
private final class WorkerStateBox<Value> {
    var value: Value
    init(_ value: Value) { self.value = value }
}

extension Server {
    /// Declares a value that each worker has one of, such as chat rooms or a connection pool. No
    /// lock is needed: all handlers of a worker run on its thread (libwebsockets' per-vhost
    /// protocol data). It also works with a `Worker` of your own.
    ///
    /// - Parameter make: called in each worker before it accepts connections
    ///   (`LWS_CALLBACK_PROTOCOL_INIT`), in declaration order. An error ends the worker, and with
    ///   it the server's start.
    /// - Parameter end: called when the worker's connections have ended, unless it was killed
    ///   (`LWS_CALLBACK_PROTOCOL_DESTROY`), in reverse order.
    public mutating func workerState<Value>(
        _ make: @escaping (Worker) throws -> Value, end: @escaping (Value, Worker) -> Void = { _, _ in }
    ) -> WorkerState<Value> {
        workerStates.append(
            WorkerStateRecipe(
                make: { worker in WorkerStateBox(try make(worker)) },
                end: { box, worker in if let box = box as? WorkerStateBox<Value> { end(box.value, worker) } }))
        return WorkerState(index: workerStates.count - 1)
    }
}

/// A worker's values, one for each state that the server declares.
final class WorkerStates {
    private let recipes: [WorkerStateRecipe]
    /// In declaration order; fewer until all are made.
    private var values: [AnyObject] = []

    init(_ recipes: [WorkerStateRecipe]) { self.recipes = recipes }

    /// Makes the values.
    ///
    /// - Throws: `ConfigurationError` that contains the error of the application's function.
    func make(for worker: Worker) throws(ConfigurationError) {
        for recipe in recipes {
            do { values.append(try recipe.make(worker)) } catch { throw .system("cannot make a worker's state: \(error)") }
        }
    }

    /// Ends the values in reverse order.
    func end(for worker: Worker) {
        while let value = values.last {
            recipes[values.count - 1].end(value, worker)
            values.removeLast()
        }
    }

    subscript<Value>(state: WorkerState<Value>) -> Value {
        get { box(state).value }
        set { box(state).value = newValue }
    }

    private func box<Value>(_ state: WorkerState<Value>) -> WorkerStateBox<Value> {
        guard state.index < values.count, let box = values[state.index] as? WorkerStateBox<Value> else {
            fatalError("expected a state of this server after it was made, got one of another server, or one that is not made yet")
        }
        return box
    }
}
