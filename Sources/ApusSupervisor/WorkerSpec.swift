package import ApusBus
package import ApusPlatform

/// How to make the workers of one generation.
package struct WorkerSpec {
    package var configuration: SupervisorConfiguration
    /// Addresses to listen on.
    package var addresses: [SocketAddress]
    /// Runs in each child. Returns the exit status of the process.
    package var run: (WorkerControl) -> Int32
    /// Runs in the master after a worker process was reaped and before its successor is forked.
    /// Arguments: the mailbox of the process, and its incarnation.
    package var onWorkerEnd: (_ mailbox: Int, _ incarnation: Int) -> Void = { _, _ in }
    /// What the worker with this row of the scoreboard is serving; nil: nothing.
    package var serving: (Scoreboard.Row) -> Serving? = { _ in nil }
    /// Adds to an error where the configuration names the address.
    package var locate: (ListenError) -> any Error = { $0 }

    package init(
        configuration: SupervisorConfiguration, addresses: [SocketAddress],
        run: @escaping (WorkerControl) -> Int32
    ) {
        self.configuration = configuration
        self.addresses = addresses
        self.run = run
    }
}

/// The workers that one start or reload makes: their specification, and the sockets they accept
/// from.
final class Generation {
    /// 0 at the start, one more with each reload.
    let number: Int
    let spec: WorkerSpec
    let listeners: [ListenerGroup]

    init(number: Int, spec: WorkerSpec, listeners: [ListenerGroup]) {
        self.number = number
        self.spec = spec
        self.listeners = listeners
    }
}
