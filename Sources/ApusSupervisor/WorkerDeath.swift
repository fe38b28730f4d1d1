import ApusPlatform

/// Why a worker's process ended, as the log of the master names it.
enum WorkerDeath: Equatable, Sendable {
    /// It exited, perhaps with a report of the reason.
    case exited(Int32, reason: String?)
    /// It made a system call that the sandbox forbids. Nil: the call is unknown, because it was
    /// made through the entry of another architecture or could not be noted.
    case violated(call: Int32?)
    /// The Swift runtime or the C library ended it: an index out of bounds, an overflow,
    /// `fatalError`, memory freed twice.
    case trapped(signal: Int32, crashMessage: String?)
    /// It accessed memory that is not mapped.
    case faulted(signal: Int32)
    /// It hung, and the master ended it by SIGABRT.
    case aborted
    /// SIGKILL: by the master at a deadline, by the kernel when memory is short, or by an operator.
    case killed
    /// Another signal.
    case signaled(Int32)

    /// - Parameters:
    ///   - violation: The forbidden call that the process noted in its row.
    ///   - wasAborted: Whether the master has sent SIGABRT.
    ///   - reason: What the worker reported of its own failure.
    ///   - crashMessage: What it wrote to standard error last.
    init(
        _ end: ProcessEnd, violation: Int32?, wasAborted: Bool, reason: String?, crashMessage: String?
    ) {
        switch end {
        case .exited(let status):
            self = .exited(status, reason: reason)
        case .signaled(Signal.badCall):
            self = .violated(call: violation)
        case .signaled(Signal.abort) where wasAborted:
            self = .aborted
        case .signaled(let signal) where Signal.traps.contains(signal):
            self = .trapped(signal: signal, crashMessage: crashMessage)
        case .signaled(let signal) where Signal.memoryFaults.contains(signal):
            self = .faulted(signal: signal)
        case .signaled(Signal.kill):
            self = .killed
        case .signaled(let signal):
            self = .signaled(signal)
        }
    }

    enum Kind: String, CaseIterable, Sendable {
        case exit
        case violation = "sandbox-violation"
        case trap, segfault, aborted, killed, signal
    }

    var kind: Kind {
        switch self {
        case .exited: .exit
        case .violated: .violation
        case .trapped: .trap
        case .faulted: .segfault
        case .aborted: .aborted
        case .killed: .killed
        case .signaled: .signal
        }
    }
}

extension WorkerDeath: CustomStringConvertible {
    /// `sandbox-violation: execve`, `trap: Fatal error: Index out of range (killed by SIGILL)`,
    /// `exit 1 (no memory)`.
    var description: String {
        let name = kind.rawValue
        switch self {
        case .exited(let status, let reason):
            return "exit \(status)" + (reason.map { " (\($0))" } ?? "")
        case .violated(let call):
            return "\(name): \(call.map(SystemCallFilter.name(ofCall:)) ?? "unknown system call")"
        case .trapped(let signal, let crashMessage):
            return name + (crashMessage.map { ": \($0)" } ?? "") + " (\(ProcessEnd.signaled(signal)))"
        case .faulted(let signal):
            return "\(name) (\(ProcessEnd.signaled(signal)))"
        case .aborted:
            return "\(name) (\(ProcessEnd.signaled(Signal.abort)))"
        case .killed:
            return "\(ProcessEnd.signaled(Signal.kill))"
        case .signaled(let signal):
            return "\(ProcessEnd.signaled(signal))"
        }
    }
}

/// The line that a process wrote to standard error before it died.
struct CrashMessage {
    private var line: (text: String, time: MonotonicTime, isFatalError: Bool)?

    /// A trap follows its message at once. An older line is one of the application's, and does not
    /// explain the death.
    static let maxAge = Duration.seconds(1)
    /// The same for a fatal error of the Swift runtime, which is recognised by its text: the
    /// process may dump core before it ends.
    static let maxFatalErrorAge = Duration.seconds(30)

    /// The process wrote `text`. The last line counts, unless a fatal error was before it: a stack
    /// trace may follow that.
    mutating func wrote(_ text: String, at now: MonotonicTime) {
        let isFatalError = text.contains("Fatal error: ")
        if let line, line.isFatalError, !isFatalError, self.text(at: now) != nil { return }
        line = (text, now, isFatalError)
    }

    /// - Parameter now: When the process died.
    /// - Returns: The line that explains the death; nil if the process wrote none shortly before.
    func text(at now: MonotonicTime) -> String? {
        guard let line else { return nil }
        return now <= line.time + (line.isFatalError ? Self.maxFatalErrorAge : Self.maxAge) ? line.text : nil
    }
}
