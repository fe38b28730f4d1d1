package import ApusBus
import ApusPlatform

/// The rights that a worker gives up before it serves. Each step is irreversible.
package struct Sandbox: Sendable {
    package enum Mode: Sendable {
        /// A system that lacks a part is refused.
        case enforced
        /// The parts that the system lacks are left out.
        case bestEffort
        case off
    }

    /// A part of the sandbox, in the order of entering.
    package enum Layer: String, CaseIterable, Sendable {
        case limits, user, capabilities, dumping, newPrivileges = "no-new-privileges", landlock, seccomp
    }

    package var mode: Mode
    /// The user and group of the workers; nil: unchanged.
    package var identity: Identity?
    /// The directory that becomes the root of the workers' file system; nil: unchanged.
    package var root: String?
    /// What the workers do, and therefore may call.
    package var features: Set<SystemCalls.Feature>
    /// Open descriptors of directories and files that may be read.
    package var readable: [Int32] = []
    /// Files and directories that may be opened by name. Those that do not exist when the sandbox
    /// is entered stay inaccessible.
    package var readablePaths: [String] = []
    /// Files and directories that the application may also write.
    package var writablePaths: [String] = []
    /// The layers to enter; the self-test omits some.
    var layers = Set(Layer.allCases)

    package struct Identity: Sendable, Equatable {
        package let user: UInt32
        package let group: UInt32

        package init(user: UInt32, group: UInt32) {
            self.user = user
            self.group = group
        }

        /// Looks up a user and a group.
        ///
        /// - Parameters:
        ///   - user: A name or a number.
        ///   - group: A name or a number; nil: the user's own group.
        package init(user name: String, group groupName: String?) throws(SandboxError) {
            let ids: (user: UInt32, group: UInt32)
            do { ids = try Confinement.find(user: name) } catch { throw Self.missing("user", name, error) }
            // setresuid(2) would leave the user unchanged.
            guard ids.user != .max else { throw SandboxError("there is no user \"\(name)\"") }
            user = ids.user
            guard let groupName else {
                group = ids.group
                return
            }
            group = try Self.find(group: groupName)
        }

        /// Checks that a group exists: `init` stops at a user that does not.
        package static func check(group name: String) throws(SandboxError) { _ = try find(group: name) }

        private static func find(group name: String) throws(SandboxError) -> UInt32 {
            do { return try Confinement.find(group: name) } catch { throw missing("group", name, error) }
        }

        private static func missing(_ kind: String, _ name: String, _ error: SystemError) -> SandboxError {
            // The only code that the calls have for an unknown name.
            if error.code == SystemError.noSuchFile { return SandboxError("there is no \(kind) \"\(name)\"") }
            return SandboxError("the \(kind) \"\(name)\" cannot be looked up: \(error.reason)")
        }
    }

    package init(mode: Mode, identity: Identity?, root: String?, features: Set<SystemCalls.Feature>) {
        self.mode = mode
        self.identity = identity
        self.root = root
        self.features = features
    }

    /// The parts that this kernel lacks.
    package static var shortcomings: [String] {
        var missing: [String] = []
        if Confinement.landlockVersion == nil { missing.append("Landlock") }
        if !SystemCallFilter.isSupported { missing.append("seccomp") }
        return missing
    }

    /// Read by libraries that have no other source of randomness, such as Foundation's `UUID()`.
    package static let randomDevice = "/dev/urandom"
    /// Read by formatters when they are made. They contain no secrets.
    private static let timeZones = ["/etc/localtime", "/usr/share/zoneinfo"]

    /// Dispatch counts its running threads by files below it, and ends the process if it cannot:
    /// see `open` in Interposition.c. They belong to the process that opens this.
    package static let ownThreads = "/proc/self/task"

    /// Enters the sandbox. An attacker who controls the process afterwards can do only what is
    /// left. With the mode `.off` only the user and the groups change.
    ///
    /// - Parameters:
    ///   - controlChannel: The descriptor of the worker's control channel; nil: there is none.
    ///   - row: Where a forbidden system call is noted.
    ///   - userChanged: Called after a change of the user, which makes the kernel forget some
    ///     settings.
    /// - Throws: `SandboxError`, which names the step.
    package func enter(
        controlChannel: Int32?, noting row: Scoreboard.Row?, userChanged: () throws -> Void = {}
    ) throws(SandboxError) {
        if mode == .off {
            if identity != nil { try becomeUser(userChanged) }
            return
        }
        if layers.contains(.limits) { try step("rlimits", limit) }
        if let root { try step("chroot to \"\(root)\"") { () throws(SystemError) in try Confinement.changeRoot(to: root) } }
        if layers.contains(.user) { try becomeUser(userChanged) }
        if layers.contains(.capabilities) {
            try step("capabilities", Confinement.dropCapabilities)
            guard !Confinement.hasCapabilities else { throw SandboxError("capabilities: expected none, some are left") }
        }
        if layers.contains(.dumping) { try step("not dumpable", Confinement.forbidDumping) }
        if layers.contains(.newPrivileges) || layers.contains(.seccomp) || layers.contains(.landlock) {
            try step("no_new_privs", Confinement.forbidNewPrivileges)
        }
        if layers.contains(.landlock) {
            if let version = Confinement.landlockVersion {
                try step("Landlock") { () throws(SystemError) in
                    let named = Self.open([Self.randomDevice] + Self.timeZones + readablePaths)
                    let writable = Self.open(writablePaths)
                    defer { for descriptor in named + writable { OwnedDescriptor.close(descriptor) } }
                    // Never closed: while nothing refers to a directory of /proc, the kernel may
                    // forget it, and with it Landlock's rule.
                    let threads = features.contains(.threads) ? Self.open([Self.ownThreads]) : []
                    try Confinement.landlock(
                        version: version, readable: readable + named + threads, writable: writable, mayConnect: features.contains(.clients))
                }
            } else if mode == .enforced {
                throw SandboxError("Landlock: not supported by this kernel")
            }
        }
        Confinement.extent = .confined(mayConnect: features.contains(.clients))
        if layers.contains(.seccomp) {
            if !features.contains(.threads) { Process.refuseThreads() }
            if SystemCallFilter.isSupported {
                try SystemCallFilter.load(
                    SystemCalls.allowed(for: features), controlChannel: controlChannel, noting: row)
            } else if mode == .enforced {
                throw SandboxError("seccomp: not supported by this kernel")
            }
        }
    }

    private static func open(_ paths: [String]) -> [Int32] { paths.compactMap { try? FileSystem.openName($0).release() } }

    private func limit() throws(SystemError) {
        if !features.contains(.threads) { try Confinement.limit(.processes, to: 0) }
        try Confinement.limit(.coreSize, to: 0)
        // Workers append their own lines to a log that is a file.
        if !features.contains(.writing), !Confinement.isRegularFile(1), !Confinement.isRegularFile(2) {
            try Confinement.limit(.fileSize, to: 0)
        }
    }

    private func becomeUser(_ userChanged: () throws -> Void) throws(SandboxError) {
        // Only root can drop the bounding set. For other users no_new_privs makes it irrelevant.
        _ = Confinement.dropBoundingSet()
        guard let identity else { return }
        let name = "user \(identity.user) and group \(identity.group)"
        try step(name) { () throws(SystemError) in try Confinement.setIdentity(user: identity.user, group: identity.group) }
        let now = Confinement.identity
        guard now.user == identity.user, now.effectiveUser == identity.user, now.group == identity.group, now.groups == 0 else {
            throw SandboxError(
                "\(name): got user \(now.user) and group \(now.group), with \(now.groups) further groups")
        }
        do { try userChanged() } catch { throw SandboxError("parent-death signal: \(error)") }
    }

    private func step(_ name: String, _ body: () throws(SystemError) -> Void) throws(SandboxError) {
        do { try body() } catch { throw SandboxError("\(name): \(error)") }
    }
}

/// A step of the sandbox has failed. The description names the step and the reason.
package struct SandboxError: Error, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
