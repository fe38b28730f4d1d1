import ApusBus
import ApusPlatform

/// Runs the turns of a worker's loop: waits for events, serves them, then executes deferred work
/// and updates the scoreboard.
final class TurnDriver {
    private let loop: EventLoop
    private let table: ConnectionTable
    private let admission: Admission
    private let broker: Broker
    private let deferred: DeferredWork
    private let drainDriver: DrainDriver
    private let row: Scoreboard.Row?
    private var isServing = false
    /// Nil until requested, so that a turn takes no lock when no other thread is involved.
    private var remoteIfAsked: WorkerRemote?
    /// The counters as the scoreboard has them.
    private var reported = (accepted: 0, connections: 0, messages: 0)
    /// Whether `Worker.end` was called.
    private var hasEnded = false

    init(
        _ loop: EventLoop, _ table: ConnectionTable, _ admission: Admission, _ broker: Broker, _ deferred: DeferredWork,
        _ drainDriver: DrainDriver, row: Scoreboard.Row?
    ) {
        self.loop = loop
        self.table = table
        self.admission = admission
        self.broker = broker
        self.deferred = deferred
        self.drainDriver = drainDriver
        self.row = row
    }

    // The worker is a parameter, because it owns this object.

    /// Runs turns until the worker's drain is complete.
    func run(_ worker: Worker) throws(ConfigurationError) {
        if isServing { fatalError("expected run() to be called outside of handlers, got a call from one") }
        isServing = true
        defer { isServing = false }
        endTurn(worker)
        while !drainDriver.isFinished { try turn(worker, timeout: nil) }
    }

    /// Runs one turn.
    func service(_ worker: Worker, timeout: Duration?) throws(ConfigurationError) {
        if isServing { fatalError("expected service(timeout:) to be called outside of handlers, got a call from one") }
        isServing = true
        defer { isServing = false }
        // Serve requests made between two calls.
        endTurn(worker)
        try turn(worker, timeout: timeout)
    }

    private func turn(_ worker: Worker, timeout: Duration?) throws(ConfigurationError) {
        do {
            row?.enter(worker.isDraining ? .draining : .waiting)
            // Deferred work must not wait.
            try loop.turn(timeout: deferred.isPending || broker.hasWork ? .zero : timeout) { [row] in row?.enter(.handler) }
        } catch {
            throw .system("\(error)")
        }
        endTurn(worker)
    }

    private func endTurn(_ worker: Worker) {
        if let remoteIfAsked { remoteIfAsked.serve(worker) }
        if broker.hasRequests { broker.serveRequests() }
        if deferred.hasWritableRequests { deferred.serveWritable() }
        if broker.hasPublications { broker.endTurn() }
        if deferred.hasStreams { deferred.serveStreams() }
        broker.flush()
        if let row { report(to: row, messages: worker.messagesReceived) }
        if worker.isDraining { checkEnd(of: worker) }
    }

    private func checkEnd(of worker: Worker) {
        if table.isEmpty { drainDriver.connectionsEnded() }
        guard drainDriver.isFinished, !hasEnded else { return }
        hasEnded = true
        worker.end()
    }

    /// Updates the scoreboard.
    private func report(to row: Scoreboard.Row, messages: Int) {
        row.add(.accepted, admission.acceptedCount - reported.accepted)
        row.add(.connections, table.count - reported.connections)
        row.add(.messages, messages - reported.messages)
        reported = (admission.acceptedCount, table.count, messages)
    }

    /// See `Worker.remote`.
    var remote: WorkerRemote {
        if let remoteIfAsked { return remoteIfAsked }
        let remote = WorkerRemote(loop.waker)
        remoteIfAsked = remote
        return remote
    }
}
