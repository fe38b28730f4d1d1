import ApusPlatform

/// Reports to the service manager, by the protocol of sd_notify(3). Has no effect without
/// NOTIFY_SOCKET.
package final class SystemdNotify {
    private let socket: String?
    /// How often the service manager expects `watchdog`; nil: it has no watchdog.
    package let watchdogInterval: Duration?

    /// Reads the environment of this process.
    package convenience init() { self.init(environment: Process.environment) }

    /// - Parameter environment: Returns the value of a variable.
    package init(environment: (String) -> String?) {
        socket = environment("NOTIFY_SOCKET").flatMap {
            $0.hasPrefix("/") || $0.hasPrefix("@") ? $0 : nil
        }
        let isForUs = environment("WATCHDOG_PID").map { Int32($0) == Process.id } ?? true
        guard isForUs, socket != nil, let value = environment("WATCHDOG_USEC").flatMap(Int64.init), value > 0
        else {
            watchdogInterval = nil
            return
        }
        watchdogInterval = .microseconds(value)
    }

    /// All workers accept, or a reload is over.
    ///
    /// - Parameter mainProcess: This process, if it has replaced another one as the service.
    func ready(status: String, mainProcess: Int32?) {
        send((mainProcess.map { ["MAINPID=\($0)"] } ?? []) + ["READY=1", "STATUS=\(status)"])
    }

    /// A reload begins; `ready` ends it.
    func reloading() {
        let now = MonotonicTime.now().milliseconds * 1000
        send(["RELOADING=1", "MONOTONIC_USEC=\(now)", "STATUS=reloading"])
    }

    func stopping(_ status: String) { send(["STOPPING=1", "STATUS=\(status)"]) }

    /// Another process is the service now.
    func handOver(to pid: Int32) { send(["MAINPID=\(pid)"]) }

    func status(_ text: String) { send(["STATUS=\(text)"]) }

    func watchdog() { send(["WATCHDOG=1"]) }

    private func send(_ lines: [String]) {
        guard let socket else { return }
        // A service manager that does not receive is not a reason to stop serving.
        try? Socket.notify(socket, lines.joined(separator: "\n"))
    }
}
