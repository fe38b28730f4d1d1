import ApusPlatform

/// What the service manager is told, in the protocol of sd_notify(3), spoken directly. Does nothing when there is no NOTIFY_SOCKET.
package final class SystemdNotify {
    private let socket: String?
    /// How often it wants to hear that all is well; nil: it does not.
    package let watchdogInterval: Duration?

    /// From the environment.
    package convenience init() { self.init(environment: Process.environment) }

    /// - Parameter environment: looks variables up.
    package init(environment: (String) -> String?) {
        socket = environment("NOTIFY_SOCKET").flatMap { $0.hasPrefix("/") || $0.hasPrefix("@") ? $0 : nil }
        let isForUs = environment("WATCHDOG_PID").map { Int32($0) == Process.id } ?? true
        watchdogInterval =
            isForUs && socket != nil ? environment("WATCHDOG_USEC").flatMap(Int64.init).flatMap { $0 > 0 ? .microseconds($0) : nil } : nil
    }

    /// All workers accept, or a reload is over. `mainProcess` is told when this process has taken over from another.
    func ready(status: String, mainProcess: Int32?) {
        send((mainProcess.map { ["MAINPID=\($0)"] } ?? []) + ["READY=1", "STATUS=\(status)"])
    }

    /// A reload begins; `ready` ends it.
    func reloading() { send(["RELOADING=1", "MONOTONIC_USEC=\(MonotonicTime.now().milliseconds * 1000)", "STATUS=reloading"]) }

    func stopping(_ status: String) { send(["STOPPING=1", "STATUS=\(status)"]) }

    /// Another process is the service now.
    func handOver(to pid: Int32) { send(["MAINPID=\(pid)"]) }

    func status(_ text: String) { send(["STATUS=\(text)"]) }

    func watchdog() { send(["WATCHDOG=1"]) }

    private func send(_ lines: [String]) {
        guard let socket else { return }
        // A manager that does not listen is no reason to stop serving.
        try? Socket.notify(socket, lines.joined(separator: "\n"))
    }
}
