package import ApusPlatform

/// Makes the attempts of an attacker who controls a worker: with the whole sandbox, and with each
/// of its layers switched off, which shows the layers that stop an attempt. Each attempt is made by
/// a child process of its own.
package struct SandboxSelfTest {
    /// The result of an attempt.
    package enum Outcome: Equatable, Sendable, CustomStringConvertible {
        case allowed
        case refused(errno: Int32)
        case killed
        /// The sandbox could not be entered, or the child ended in another way.
        case broken(String)

        package var description: String {
            switch self {
            case .allowed: "allowed"
            case .refused(let code): "refused: \(SystemError(code: code, call: "").reason)"
            case .killed: "killed"
            case .broken(let what): "broken: \(what)"
            }
        }
    }

    /// One line of the report.
    package struct Line: Sendable {
        package let attempt: String
        /// The layer that is switched off; nil: none.
        package let without: String?
        package let isWanted: Bool
        package let got: Outcome
        package let asWanted: Bool
    }

    private let sandbox: Sandbox

    /// - Parameter identity: The user and group of workers.
    package init(identity: Sandbox.Identity?) {
        sandbox = Sandbox(mode: .enforced, identity: identity, root: nil, features: [.files, .tls])
    }

    /// Makes all attempts, and reports each with the expected result.
    package func run(_ report: (Line) -> Void) throws(SystemError) {
        let targets = try SandboxTargets()
        for attempt in SandboxAttempt.all {
            // An attempt that fails without a sandbox proves nothing.
            let baseline = outcome(of: attempt, on: targets, layers: [])
            for layer in [nil] + Sandbox.Layer.allCases.map({ $0 }) {
                let layers = Set(Sandbox.Layer.allCases).subtracting(layer.map { [$0] } ?? [])
                let got = outcome(of: attempt, on: targets, layers: layers)
                let isWanted = baseline == .allowed && attempt.stoppedBy.isDisjoint(with: effective(layers))
                let asWanted =
                    switch got {
                    case .allowed: isWanted
                    case .refused, .killed: !isWanted
                    case .broken: false
                    }
                report(Line(attempt: attempt.name, without: layer?.rawValue, isWanted: isWanted, got: got, asWanted: asWanted))
            }
        }
    }

    /// The layers that have an effect: a process that does not change its user has no user to
    /// leave.
    private func effective(_ layers: Set<Sandbox.Layer>) -> Set<Sandbox.Layer> {
        sandbox.identity == nil && layers.contains(.user) ? layers.subtracting([.user]) : layers
    }

    private func outcome(of attempt: SandboxAttempt, on targets: SandboxTargets, layers: Set<Sandbox.Layer>) -> Outcome {
        var sandbox = sandbox
        sandbox.layers = layers
        sandbox.readable = [targets.directory.rawValue]
        sandbox.features.formUnion(attempt.permissions)
        if attempt.permissions.contains(.reading) { sandbox.readablePaths = [targets.given] }
        if attempt.permissions.contains(.writing) { sandbox.writablePaths = [targets.given] }
        do {
            try targets.restore()
            let child = try Process.fork {
                for signal in Signal.faults { Signal.restoreDefault(signal) }
                do throws(SandboxError) {
                    try sandbox.enter(controlChannel: targets.channelEnd.rawValue, noting: nil)
                } catch {
                    try? FileSystem.writeAll(2, "sandbox: \(error)\n")
                    return Self.cannotEnter
                }
                return attempt.body(targets)
            }
            switch Process.waitForEnd(of: child.pid) {
            case .exited(0): return .allowed
            case .exited(Self.cannotEnter): return .broken("the sandbox cannot be entered")
            case .exited(let code): return .refused(errno: code)
            case .signaled(Signal.badCall): return .killed
            case let end: return .broken(end.map { "\($0)" } ?? "its status is unknown")
            }
        } catch {
            return .broken("\(error)")
        }
    }

    /// Larger than any errno.
    private static let cannotEnter: Int32 = 250
}
