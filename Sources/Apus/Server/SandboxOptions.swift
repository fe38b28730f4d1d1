import ApusPlatform
import ApusSupervisor
import ApusTransport
import Logging

/// What the workers of a server give up before they serve, so that an attacker who takes one over can do almost nothing: they close the
/// descriptors that they were not meant to have, may have no child processes and write no files, become an unprivileged user without
/// capabilities, see nothing of the file system but the directories that are served (Landlock), and may make only the system calls that
/// serving needs (seccomp).
///
/// Ordinary code lives in it: logging, `print`, dates, time zones, formatters, `UUID()` and sleeping work, and files outside of what may be
/// read fail to open. What needs more is asked for in `allows`, or is done in `Server.whenWorkerStarts`, before the sandbox is entered.
public struct SandboxOptions: Sendable {
    public var mode = Mode.enforced
    /// What workers become, a name or a number, when the server is started as root. Nil: `nobody`.
    public var user: String?
    /// The group, a name or a number. Nil: the user's own.
    public var group: String?
    /// A directory to become the root of the workers' file system.
    public var root: String?
    /// What handlers may do besides serving. Each permission adds exactly that much.
    public var allows: Set<Permission> = []
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

    /// Something that handlers may do besides serving.
    public enum Permission: Sendable, Hashable {
        /// Start threads, by Dispatch or directly. Without it a thread that is started in a worker never runs, and the log says so; a `Task` needs
        /// no thread, it runs on the worker's loop.
        case threads
        /// Read the file, or all files beneath the directory, of this path. Names and attributes (`stat`, `readlink`) can then be looked up
        /// everywhere: Landlock has no rule for these.
        case reading(String)
        /// Read and write the file, or read, make, write, rename and remove files and directories beneath the directory, of this path. The rights of
        /// the workers' user apply, too.
        case writing(String)
        /// Connect to other servers, and read what that takes: `/etc/hosts`, the resolver's configuration and the system's certificates of
        /// authorities, those that exist when a worker starts.
        case connecting
    }

    public init() {}

    /// What `Permission(parsing:)` accepts.
    package static let permissionForms = "threads, connecting, reading:/PATH or writing:/PATH"

    /// Features of the workers that the permissions ask for.
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

    /// Checks it, in the master: names are looked up before anything is given up.
    func prepare(features: Set<SystemCalls.Feature>, logger: Logger) throws(ConfigurationError) -> Sandbox {
        if let wrong = keptDescriptors.first(where: { $0 < 0 }) { throw .sandbox("\(wrong) is no descriptor that workers could keep") }
        switch mode {
        case .off: logger.warning("the sandbox is off: an attacker who takes over a worker has all rights of its user")
        case .bestEffort where !Sandbox.shortcomings.isEmpty:
            logger.warning("the sandbox is incomplete: this kernel has no \(Sandbox.shortcomings.joined(separator: " and no "))")
        case .enforced where !Sandbox.shortcomings.isEmpty:
            throw .sandbox(
                "this kernel has no \(Sandbox.shortcomings.joined(separator: " and no ")): ask for a sandbox of best effort, or for none")
        case .enforced, .bestEffort: break
        }
        if let root, mode != .off {
            do { _ = try FileSystem.openDirectory(root) } catch { throw .sandbox("chroot to \"\(root)\": \(error.reason)") }
            if (try? FileSystem.openName(root + Sandbox.randomDevice)) == nil {
                logger.warning("\"\(root)\" has no \(Sandbox.randomDevice): Foundation's UUID() is constant in the workers")
            }
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

    /// All that `prepare` refuses: the sandbox is prepared without directories, and with one at a time.
    var faults: [ConfigurationError] {
        var bare = self
        (bare.root, bare.allows) = (nil, [])
        var parts = [bare]
        if root != nil {
            parts.append(bare)
            parts[1].root = root
        }
        for permission in allows.sorted(by: { "\($0)" < "\($1)" }) {
            var part = bare
            part.allows = [permission]
            parts.append(part)
        }
        let silent = Logger(label: "", factory: { _ in SwiftLogNoOpLogHandler() })
        var found: [ConfigurationError] = []
        for part in parts {
            // What is wrong with the bare sandbox is wrong with each of them.
            do { _ = try part.prepare(features: [], logger: silent) } catch { if !found.contains(error) { found.append(error) } }
        }
        return found
    }

    private static func check(_ path: String, _ permission: String) throws(ConfigurationError) {
        guard path.hasPrefix("/") else { throw .sandbox("allow \(permission): expected an absolute path, got \"\(path)\"") }
        do { _ = try FileSystem.openName(path) } catch { throw .sandbox("allow \(permission): \"\(path)\": \(error.reason)") }
    }

    /// What workers become; nil: what they are.
    private func identity(_ logger: Logger) throws(ConfigurationError) -> Sandbox.Identity? {
        let isRoot = Confinement.identity.effectiveUser == 0
        guard let user else {
            guard group == nil else { throw .sandbox("a group wants a user to go with it") }
            guard isRoot else { return nil }
            return try find(Self.defaultUser)
        }
        let identity = try find(user)
        guard isRoot || identity.user == Confinement.identity.user else {
            throw .sandbox("only root can make its workers user \"\(user)\"")
        }
        if identity.user == 0 { logger.warning("the workers run as root, as asked for") }
        return isRoot ? identity : nil
    }

    private static let defaultUser = "nobody"

    /// Says whom nobody has chosen.
    func announceUser(_ logger: Logger) {
        guard user == nil, Confinement.identity.effectiveUser == 0 else { return }
        logger.notice("started as root: the workers run as \(Self.defaultUser)")
    }

    /// What names are resolved with. c-ares draws the numbers of its queries from the device, and from a guessable sequence without it.
    static let clientFiles = [
        "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/svc.conf", "/dev/urandom",
    ]

    private func find(_ user: String) throws(ConfigurationError) -> Sandbox.Identity {
        do { return try Sandbox.Identity(user: user, group: group) } catch { throw .sandbox(error.description) }
    }
}

extension SandboxOptions.Permission: CustomStringConvertible {
    /// `threads`, `connecting`, `reading:/PATH` or `writing:/PATH`; nil for anything else.
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
