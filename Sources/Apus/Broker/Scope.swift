/// The connections that a publication, a signal or a request is for.
public enum Scope: Sendable, Hashable {
    /// The connections of this worker.
    case worker
    /// The connections of all workers.
    case allWorkers
}
