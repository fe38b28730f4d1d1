import TestSupport
import Testing

/// The real `apus`, from outside: over sockets, signals, and by clients that others wrote. One after the other: many measure.
@Suite("Integration", .serialized)
struct Integration {
    /// Runs a program to its end and gives what it printed; fails with its standard error if its status is not 0.
    @discardableResult
    static func run(_ arguments: [String], within duration: Duration = .seconds(120)) throws -> String {
        let process = try ChildProcess(arguments)
        let end = try process.wait(within: duration)
        guard end == .exited(0) else {
            throw TestFailure("\(arguments.joined(separator: " ")): \(end)\n\(process.standardOutput)\(process.standardError)")
        }
        return process.standardOutput
    }

    static func python(_ peer: String, _ arguments: String..., within duration: Duration = .seconds(120)) throws -> String {
        try run([Places.python, Places.peer(peer)] + arguments, within: duration)
    }
}
