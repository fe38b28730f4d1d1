import ApusPlatform
import Logging

/// Why a worker's process ended, as the master's log names it.
enum WorkerDeath: Equatable, Sendable {
    /// It ended itself, perhaps saying why.
    case exited(Int32, reason: String?)
    /// It called what the sandbox forbids. Nil: by the gate of another architecture, or the call could not be noted.
    case violated(call: Int32?)
    /// The Swift runtime or the C library found it broken: an index out of bounds, an overflow, `fatalError`, memory freed twice.
    case trapped(signal: Int32, lastWords: String?)
    /// It used memory that is not there.
    case faulted(signal: Int32)
    /// It hung, and the master ended it.
    case aborted
    /// SIGKILL: the master's last means, the kernel's when memory is short, or a person's.
    case killed
    /// Another signal.
    case signaled(Int32)

    /// - Parameters:
    ///   - violation: the forbidden call that the process noted in its row.
    ///   - wasAborted: the master has sent SIGABRT.
    ///   - reason: what the worker said of its own failure.
    ///   - lastWords: what it last wrote to standard error.
    init(_ end: ProcessEnd, violation: Int32?, wasAborted: Bool, reason: String?, lastWords: String?) {
        switch end {
        case .exited(let status): self = .exited(status, reason: reason)
        case .signaled(Signal.badCall): self = .violated(call: violation)
        case .signaled(Signal.abort) where wasAborted: self = .aborted
        case .signaled(let signal) where Signal.traps.contains(signal): self = .trapped(signal: signal, lastWords: lastWords)
        case .signaled(let signal) where Signal.memoryFaults.contains(signal): self = .faulted(signal: signal)
        case .signaled(Signal.kill): self = .killed
        case .signaled(let signal): self = .signaled(signal)
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
    /// `sandbox-violation: execve`, `trap: Fatal error: Index out of range (killed by SIGILL)`, `exit 1 (no memory)`.
    var description: String {
        switch self {
        case .exited(let status, let reason): "exit \(status)" + (reason.map { " (\($0))" } ?? "")
        case .violated(let call): "\(kind.rawValue): \(call.map(SystemCallFilter.name(ofCall:)) ?? "a call through another gate")"
        case .trapped(let signal, let lastWords): kind.rawValue + (lastWords.map { ": \($0)" } ?? "") + " (\(ProcessEnd.signaled(signal)))"
        case .faulted(let signal): "\(kind.rawValue) (\(ProcessEnd.signaled(signal)))"
        case .aborted: "\(kind.rawValue) (\(ProcessEnd.signaled(Signal.abort)))"
        case .killed: "\(ProcessEnd.signaled(Signal.kill))"
        case .signaled(let signal): "\(ProcessEnd.signaled(signal))"
        }
    }
}

/// What a process wrote to standard error before it died, as far as it may tell why.
struct LastWords: Equatable {
    private(set) var text: String?
    private var isVerdict = false

    /// The latest counts; but a stack trace may follow the runtime's verdict.
    mutating func heard(_ words: String) {
        let isVerdict = words.contains("Fatal error: ")
        if self.isVerdict, !isVerdict { return }
        self.isVerdict = isVerdict
        text = words
    }
}

/// How many workers have died how since the master started, those not counted that ended as they were asked to.
struct DeathCounts: Sendable {
    private var counts: [WorkerDeath.Kind: Int] = [:]

    subscript(kind: WorkerDeath.Kind) -> Int { counts[kind, default: 0] }

    /// Counts one more, and gives the count of its kind for the log.
    mutating func counting(_ death: WorkerDeath) -> Logger.Metadata {
        counts[death.kind, default: 0] += 1
        return [death.kind.rawValue: "\(self[death.kind])"]
    }
}

extension DeathCounts: CustomStringConvertible {
    /// `1 trap, 2 killed`; empty if none has died.
    var description: String {
        WorkerDeath.Kind.allCases.filter { self[$0] > 0 }.map { "\(self[$0]) \($0.rawValue)" }.joined(separator: ", ")
    }
}

extension WorkerSlot {
    /// Whether the master has sent SIGABRT to the slot's process.
    var isBeingAborted: Bool { if case .aborting = state { true } else { false } }
}
