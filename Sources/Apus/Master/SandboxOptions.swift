import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// Restrictions of the workers: they limit what a compromised worker can do. A worker closes
/// undeclared descriptors, cannot start processes or write files, runs as an unprivileged user
/// without capabilities, can open only the served directories (Landlock), and can make only the
/// system calls that serving needs (seccomp).
///
/// Logging, `print`, dates, time zones, formatters, `UUID()` and sleeping work; other files fail to
/// open. Add permissions in `allows` for more, or do it in `Server.onWorkerStart`, before the
/// sandbox is entered.
public struct SandboxOptions: Sendable {
    public var mode = Mode.enforced
    /// The workers' user, name or number, if the server starts as root. Nil: `nobody`.
    public var user: String?
    /// The workers' group, name or number. Nil: the user's.
    public var group: String?
    /// The directory that workers chroot to.
    public var root: String?
    /// Additional permissions of the workers.
    public var allows: Set<Permission> = []
    /// Descriptors opened before `run()` that workers keep. All others are closed, and their
    /// numbers are reused.
    public var keptDescriptors: [Int32] = []

    public enum Mode: Sendable, Hashable {
        /// The server does not start if the kernel lacks a part.
        case enforced
        /// Parts that the kernel lacks are left out, with a warning at each start.
        case bestEffort
        /// No sandbox, with a warning at each start.
        case off
    }

    /// An additional permission of the workers.
    public enum Permission: Sendable, Hashable {
        /// Start threads, directly or by Dispatch. Without it a thread started in a worker never
        /// runs, which is logged. A `Task` needs no thread: it runs on the worker's loop, with this
        /// permission, too. Files of `/proc` about the worker's own threads are readable.
        case threads
        /// Read the file or directory tree at this path. Names and attributes (`stat`, `readlink`)
        /// are then readable everywhere: Landlock cannot restrict them.
        case reading(String)
        /// Read and write the file or directory tree at this path, and create, rename and remove
        /// files and directories in it. The permissions of the workers' user apply, too.
        case writing(String)
        /// Connect to other servers, and read the files for it that exist when a worker starts:
        /// `/etc/hosts`, the resolver's configuration and the system's certificate authorities.
        case connecting
    }

    public init() {}

    /// The forms that `Permission(parsing:)` accepts.
    package static let permissionForms = "threads, connecting, reading:/PATH or writing:/PATH"

    /// The system call features of the permissions.
    var features: Set<SystemCalls.Feature> {
        Set(
            allows.flatMap { permission -> [SystemCalls.Feature] in
                switch permission {
                case .threads: [.threads]
                case .reading: [.reading]
                case .writing: [.reading, .writing]
                case .connecting: [.clients]
                }
            })
    }

    private var readablePaths: [String] {
        allows.compactMap { if case .reading(let path) = $0 { path } else { nil } }
            + (allows.contains(.connecting) ? Self.clientFiles + OpenSSLFiles.authorities : [])
    }

    private var writablePaths: [String] { allows.compactMap { if case .writing(let path) = $0 { path } else { nil } } }

    /// Checks the options in the master and looks up the user and the group.
    ///
    /// - Throws: `ConfigurationError.sandbox` for the first mistake.
    func prepare(features: Set<SystemCalls.Feature>, logger: Logger) throws(ConfigurationError) -> Sandbox {
        if let wrong = keptDescriptors.first(where: { $0 < 0 }) { throw .sandbox("keptDescriptors: expected at least 0, got \(wrong)") }
        if let wrong = keptDescriptors.first(where: { !Process.isOpen($0) }) {
            throw .sandbox("keptDescriptors: expected open descriptors, got \(wrong), which is not open")
        }
        switch mode {
        case .off: logger.warning("the sandbox is off: an attacker who takes over a worker has all rights of its user")
        case .bestEffort where !Sandbox.shortcomings.isEmpty:
            logger.warning("the sandbox is incomplete: this kernel has no \(Sandbox.shortcomings.joined(separator: " and no "))")
        case .enforced where !Sandbox.shortcomings.isEmpty:
            throw .sandbox(
                "this kernel has no \(Sandbox.shortcomings.joined(separator: " and no ")): choose a best-effort sandbox, or none")
        case .enforced, .bestEffort: break
        }
        if let root, mode != .off {
            do { _ = try FileSystem.openDirectory(root) } catch { throw .sandbox("chroot to \"\(root)\": \(error.reason)") }
            if (try? FileSystem.openName(root + Sandbox.randomDevice)) == nil {
                logger.warning("\"\(root)\" has no \(Sandbox.randomDevice): Foundation's UUID() is constant in the workers")
            }
        }
        if let root, mode != .off, allows.contains(.threads), (try? FileSystem.openName(root + Sandbox.ownThreads)) == nil {
            logger.warning("\"\(root)\" has no /proc: Dispatch's queues end the workers")
        }
        for permission in allows {
            guard case .reading(let path) = permission else {
                if case .writing(let path) = permission { try Self.check(path, "writing") }
                continue
            }
            try Self.check(path, "reading")
        }
        let mode: Sandbox.Mode =
            switch mode {
            case .enforced: .enforced
            case .bestEffort: .bestEffort
            case .off: .off
            }
        var sandbox = Sandbox(mode: mode, identity: try identity(logger), root: root, features: features.union(self.features))
        sandbox.readablePaths = readablePaths
        sandbox.writablePaths = writablePaths
        return sandbox
    }

    /// All mistakes that `prepare` refuses. Each part is prepared alone, because `prepare` stops at
    /// the first.
    var faults: [ConfigurationError] {
        var bare = self
        (bare.root, bare.allows, bare.keptDescriptors) = (nil, [], [])
        var parts = [bare]
        if !keptDescriptors.isEmpty {
            var part = bare
            part.keptDescriptors = keptDescriptors
            parts.append(part)
        }
        if root != nil {
            var part = bare
            part.root = root
            parts.append(part)
        }
        for permission in allows.sorted(by: { "\($0)" < "\($1)" }) {
            var part = bare
            part.allows = [permission]
            parts.append(part)
        }
        let silent = Logger(label: "", factory: { _ in SwiftLogNoOpLogHandler() })
        var found: [ConfigurationError] = []
        for part in parts {
            // A mistake in `bare` is found again in each part.
            do { _ = try part.prepare(features: [], logger: silent) } catch { if !found.contains(error) { found.append(error) } }
            // `prepare` does not look up the group of an invalid user.
            guard part.user != nil, let fault = part.groupFault, !found.contains(fault) else { continue }
            found.append(fault)
        }
        return found
    }

    private var groupFault: ConfigurationError? {
        guard let group else { return nil }
        do { try Sandbox.Identity.check(group: group) } catch { return .sandbox(error.description) }
        return nil
    }

    private static func check(_ path: String, _ permission: String) throws(ConfigurationError) {
        guard path.hasPrefix("/") else { throw .sandbox("allow \(permission): expected an absolute path, got \"\(path)\"") }
        do { _ = try FileSystem.openName(path) } catch { throw .sandbox("allow \(permission): \"\(path)\": \(error.reason)") }
    }

    /// The workers' user and group; nil: those of the master.
    private func identity(_ logger: Logger) throws(ConfigurationError) -> Sandbox.Identity? {
        let isRoot = Confinement.identity.effectiveUser == 0
        guard let user else {
            guard group == nil else { throw .sandbox("a group requires a user") }
            guard isRoot else { return nil }
            return try find(Self.defaultUser)
        }
        let identity = try find(user)
        guard isRoot || identity.user == Confinement.identity.user else {
            throw .sandbox("only root can make its workers user \"\(user)\"")
        }
        if identity.user == 0 { logger.warning("the workers run as root, as configured") }
        return isRoot ? identity : nil
    }

    private static let defaultUser = "nobody"

    /// Logs the default user if the server was started as root.
    func announceUser(_ logger: Logger) {
        guard user == nil, Confinement.identity.effectiveUser == 0 else { return }
        logger.notice("started as root: the workers run as \(Self.defaultUser)")
    }

    /// Files for name resolution. Without the random device c-ares uses guessable query numbers.
    private static let clientFiles = [
        "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/svc.conf", "/dev/urandom",
    ]

    private func find(_ user: String) throws(ConfigurationError) -> Sandbox.Identity {
        do { return try Sandbox.Identity(user: user, group: group) } catch { throw .sandbox(error.description) }
    }
}

extension SandboxOptions.Permission: CustomStringConvertible {
    /// Parses `threads`, `connecting`, `reading:/PATH` or `writing:/PATH`; nil for anything else.
    public init?(parsing text: String) {
        switch text {
        case "threads": self = .threads
        case "connecting": self = .connecting
        default:
            guard let colon = text.firstIndex(of: ":") else { return nil }
            let path = String(text[text.index(after: colon)...])
            guard path.hasPrefix("/") else { return nil }
            switch text[..<colon] {
            case "reading": self = .reading(path)
            case "writing": self = .writing(path)
            default: return nil
            }
        }
    }

    public var description: String {
        switch self {
        case .threads: "threads"
        case .connecting: "connecting"
        case .reading(let path): "reading:\(path)"
        case .writing(let path): "writing:\(path)"
        }
    }
}

/// One result of `Server.testSandbox`.
public struct SandboxFinding: Sendable {
    /// The action that was attempted.
    public let attempt: String
    /// The layer that was switched off; nil: none.
    public let without: String?
    /// The expected result: `allowed` or `refused`.
    public let wanted: String
    public let got: String
    public let isAsWanted: Bool
}

extension Server {
    /// Tests the sandbox: each attempt of an attacker runs in a process of its own, with the whole
    /// sandbox and with each layer switched off. Call it from a process with one thread.
    ///
    /// - Parameter report: called with each result.
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
