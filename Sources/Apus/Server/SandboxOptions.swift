import ApusPlatform
import ApusSupervisor
import Logging

/// What the workers of a server give up before they serve, so that who takes one over can do almost nothing: they close the descriptors that
/// they were not meant to have, may have no child processes and write no files, become an unprivileged user without capabilities, see nothing
/// of the file system but the directories that are served (Landlock), and may make only the system calls that serving needs (seccomp).
///
/// It is entered when `Server.whenWorkerStarts` has returned: what needs more rights than a worker has is done there, or before the fork.
public struct SandboxOptions: Sendable {
    public var mode = Mode.enforced
    /// What workers become, a name or a number, when the server is started as root. Nil: `nobody`.
    public var user: String?
    /// The group, a name or a number. Nil: the user's own.
    public var group: String?
    /// A directory to become the root of the workers' file system.
    public var root: String?
    /// Whether handlers may connect to other servers. Then workers may also read what that takes: `/etc/hosts`, the resolver's
    /// configuration and the system's certificates of authorities, those that are there when a worker starts.
    public var allowsConnect = false
    /// Descriptors, opened before `run()`, that workers keep. All others are closed in them, and their numbers used again.
    public var keptDescriptors: [Int32] = []

    public enum Mode: Sendable, Hashable {
        /// A system that cannot give all of it is refused.
        case enforced
        /// What the system cannot give is left out, with a warning at each start.
        case bestEffort
        /// None of it, with a warning at each start.
        case off
    }

    public init() {}

    /// Checks it, in the master: names are looked up before anything is given up.
    func prepare(features: Set<SystemCalls.Feature>, logger: Logger) throws(ConfigurationError) -> Sandbox {
        if let wrong = keptDescriptors.first(where: { $0 < 0 }) { throw .sandbox("\(wrong) is no descriptor that workers could keep") }
        switch mode {
        case .off: logger.warning("the sandbox is off: who takes a worker over has all rights of this process")
        case .bestEffort where !Sandbox.shortcomings.isEmpty:
            logger.warning("the sandbox is incomplete: this kernel has no \(Sandbox.shortcomings.joined(separator: " and no "))")
        case .enforced where !Sandbox.shortcomings.isEmpty:
            throw .sandbox(
                "this kernel has no \(Sandbox.shortcomings.joined(separator: " and no ")): ask for a sandbox of best effort, or for none")
        case .enforced, .bestEffort: break
        }
        if let root, mode != .off {
            do { _ = try FileSystem.openDirectory(root) } catch { throw .sandbox("chroot to \"\(root)\": \(error.reason)") }
        }
        let mode: Sandbox.Mode =
            switch mode {
            case .enforced: .enforced
            case .bestEffort: .bestEffort
            case .off: .off
            }
        return Sandbox(mode: mode, identity: try identity(logger), root: root, features: features)
    }

    /// What workers become; nil: what they are.
    private func identity(_ logger: Logger) throws(ConfigurationError) -> Sandbox.Identity? {
        let isRoot = Confinement.identity.effectiveUser == 0
        guard let user else {
            guard group == nil else { throw .sandbox("a group wants a user to go with it") }
            guard isRoot, mode != .off else { return nil }
            logger.notice("started as root: the workers run as \(Self.defaultUser)")
            return try find(Self.defaultUser)
        }
        let identity = try find(user)
        guard isRoot || identity.user == Confinement.identity.user else {
            throw .sandbox("only root can make its workers user \"\(user)\"")
        }
        guard mode != .off else { throw .sandbox("workers change their user in the sandbox only, which is off") }
        if identity.user == 0 { logger.warning("the workers run as root, as asked for") }
        return isRoot ? identity : nil
    }

    private static let defaultUser = "nobody"

    /// What names are resolved with. c-ares draws the numbers of its queries from the device, and from a guessable sequence without it.
    static let clientFiles = [
        "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/svc.conf", "/dev/urandom",
    ]

    private func find(_ user: String) throws(ConfigurationError) -> Sandbox.Identity {
        do { return try Sandbox.Identity(user: user, group: group) } catch { throw .sandbox(error.description) }
    }
}

/// What `Server.testSandbox` reports of one attempt.
public struct SandboxFinding: Sendable {
    /// What was tried.
    public let attempt: String
    /// The layer that was switched off; nil: none.
    public let without: String?
    /// What was wanted: `allowed` or `refused`.
    public let wanted: String
    public let got: String
    public let isAsWanted: Bool
}

extension Server {
    /// Tries what an attacker would who has taken over a worker, each in a process of its own: with the whole sandbox, and with each layer
    /// switched off. Call it from a process that has one thread.
    ///
    /// - Throws: `ConfigurationError`.
    public func testSandbox(_ report: (SandboxFinding) -> Void) throws(ConfigurationError) {
        let sandbox = try sandbox.prepare(features: [], logger: logger)
        do {
            try SandboxSelfTest(identity: sandbox.identity).run { line in
                report(
                    SandboxFinding(
                        attempt: line.attempt, without: line.without, wanted: line.isWanted ? "allowed" : "refused", got: "\(line.got)",
                        isAsWanted: line.asWanted))
            }
        } catch {
            throw .system("\(error)")
        }
    }
}
