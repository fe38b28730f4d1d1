/// The name of a value that each worker has one of: `Server.workerState` gives it, `context[state]` looks it up.
public struct WorkerState<Value>: Sendable {
    fileprivate let index: Int
}

/// How a worker's value begins and ends.
struct WorkerStateRecipe {
    fileprivate let make: (Context) throws -> AnyObject
    fileprivate let end: (AnyObject, Context) -> Void
}

/// A value of a type that only `WorkerState` knows.
private final class WorkerStateBox<Value> {
    var value: Value
    init(_ value: Value) { self.value = value }
}

extension Server {
    /// Gives each worker a value of its own, such as the rooms of a chat or a connection pool: no lock is needed, because all handlers of a worker
    /// run on its thread (libwebsockets' per-vhost protocol data). A `Context` of your own has one as well.
    ///
    /// - Parameter make: called once in each worker before it accepts (`LWS_CALLBACK_PROTOCOL_INIT`), for one value after the other as they were
    ///   declared. What it throws ends the worker, and with it the server's start.
    /// - Parameter end: called when the worker's connections have ended, unless it was killed (`LWS_CALLBACK_PROTOCOL_DESTROY`), the last
    ///   declared first.
    public mutating func workerState<Value>(
        _ make: @escaping (Context) throws -> Value, end: @escaping (Value, Context) -> Void = { _, _ in }
    ) -> WorkerState<Value> {
        workerStates.append(
            WorkerStateRecipe(
                make: { context in WorkerStateBox(try make(context)) },
                end: { box, context in if let box = box as? WorkerStateBox<Value> { end(box.value, context) } }))
        return WorkerState(index: workerStates.count - 1)
    }
}

extension Context {
    /// This worker's value.
    ///
    /// It must be of the server that this context was made of, and declared before one whose making looks it up.
    public subscript<Value>(state: WorkerState<Value>) -> Value {
        get { box(state).value }
        set { box(state).value = newValue }
    }

    private func box<Value>(_ state: WorkerState<Value>) -> WorkerStateBox<Value> {
        guard state.index < workerStates.count, let box = workerStates[state.index] as? WorkerStateBox<Value> else {
            preconditionFailure("the worker's state was looked up before it was made, or belongs to another server")
        }
        return box
    }

    /// Makes the worker's values and calls `Server.whenWorkerStarts`.
    ///
    /// - Throws: `ConfigurationError` with what an application's function threw.
    func begin() throws(ConfigurationError) {
        for recipe in workerStateRecipes {
            do { workerStates.append(try recipe.make(self)) } catch { throw .system("a worker's state cannot be made: \(error)") }
        }
        whenWorkerStarts?(self)
    }

    /// Calls `Server.whenWorkerStops`, which may look values up, then ends these.
    func end() {
        whenWorkerStops?(self)
        while let state = workerStates.last {
            workerStateRecipes[workerStates.count - 1].end(state, self)
            workerStates.removeLast()
        }
    }
}
