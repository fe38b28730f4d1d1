package import ApusBus
import ApusPlatform

/// What a worker gives up before it serves, and in which order. Each step is for good.
package struct Sandbox: Sendable {
    /// What to do where the system cannot give all of it.
    package enum Mode: Sendable { case enforced, bestEffort, off }

    /// A part of the sandbox, in the order of entering.
    package enum Layer: String, CaseIterable, Sendable {
        case limits, user, capabilities, dumping, newPrivileges = "no-new-privileges", landlock, seccomp
    }

    package var mode: Mode
    /// What the workers become; nil: they stay what they are.
    package var identity: Identity?
    /// The directory that becomes the root of their file system.
    package var root: String?
    /// What they do besides serving connections, and so may call.
    package var features: Set<SystemCalls.Feature>
    /// Directories, and files, opened already, beneath which they may read.
    package var readable: [Int32] = []
    /// Files, and directories, that are opened by their names later; those that do not exist by now stay out of reach.
    package var readablePaths: [String] = []
    /// Directories, and files, that the application may write, too.
    package var writablePaths: [String] = []
    /// For the self-test.
    var layers = Set(Layer.allCases)

    package struct Identity: Sendable, Equatable {
        package let user: UInt32
        package let group: UInt32

        package init(user: UInt32, group: UInt32) {
            self.user = user
            self.group = group
        }

        /// - Parameters:
        ///   - user: a name or a number.
        ///   - group: the same; nil: the user's own.
        package init(user name: String, group groupName: String?) throws(SandboxError) {
            let ids: (user: UInt32, group: UInt32)
            do { ids = try Confinement.find(user: name) } catch { throw Self.missing("user", name, error) }
            // The calls that change the user take it for "as it is".
            guard ids.user != .max else { throw SandboxError("there is no user \"\(name)\"") }
            user = ids.user
            guard let groupName else {
                group = ids.group
                return
            }
            do { group = try Confinement.find(group: groupName) } catch { throw Self.missing("group", groupName, error) }
        }

        private static func missing(_ kind: String, _ name: String, _ error: SystemError) -> SandboxError {
            // The calls have no other word for a name that is not there.
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

    /// What the kernel lacks; empty if nothing.
    package static var shortcomings: [String] {
        var missing: [String] = []
        if Confinement.landlockVersion == nil { missing.append("Landlock") }
        if !SystemCallFilter.isSupported { missing.append("seccomp") }
        return missing
    }

    /// Read by libraries that know no other source of randomness, such as Foundation's `UUID()`.
    package static let randomDevice = "/dev/urandom"
    /// Read by formatters when they are made, not before: no secrets.
    private static let timeZones = ["/etc/localtime", "/usr/share/zoneinfo"]

    /// Gives it all up. What comes later in the process is what an attacker who has taken it over may do. With the mode `.off` only the user
    /// and the groups are given up.
    ///
    /// - Parameters:
    ///   - channel: where the master's orders come from; nil: there are none.
    ///   - row: where a forbidden system call is noted.
    ///   - changedUser: called when the user has been changed, which makes the kernel forget some settings.
    package func enter(
        hearing channel: Int32?, noting row: Scoreboard.Row?, changedUser: () throws -> Void = {}
    ) throws(SandboxError) {
        if mode == .off {
            if identity != nil { try becomeUser(changedUser) }
            return
        }
        if layers.contains(.limits) { try step("rlimits", limit) }
        if let root { try step("chroot to \"\(root)\"") { () throws(SystemError) in try Confinement.changeRoot(to: root) } }
        if layers.contains(.user) { try becomeUser(changedUser) }
        if layers.contains(.capabilities) {
            try step("capabilities", Confinement.dropCapabilities)
            guard !Confinement.hasCapabilities else { throw SandboxError("capabilities: some are left") }
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
                    try Confinement.landlock(
                        version: version, readable: readable + named, writable: writable, mayConnect: features.contains(.clients))
                }
            } else if mode == .enforced {
                throw SandboxError("Landlock: this kernel has none")
            }
        }
        if layers.contains(.seccomp) {
            if !features.contains(.threads) { Process.refuseThreads() }
            if SystemCallFilter.isSupported {
                try SystemCallFilter.load(SystemCalls.allowed(for: features), channel: channel, noting: row)
            } else if mode == .enforced {
                throw SandboxError("seccomp: this kernel has none")
            }
        }
    }

    private static func open(_ paths: [String]) -> [Int32] { paths.compactMap { try? FileSystem.openName($0).release() } }

    private func limit() throws(SystemError) {
        if !features.contains(.threads) { try Confinement.limit(.processes, to: 0) }
        try Confinement.limit(.coreSize, to: 0)
        // A log that is a file grows by the workers' own lines.
        if !features.contains(.writing), !Confinement.isRegularFile(1), !Confinement.isRegularFile(2) {
            try Confinement.limit(.fileSize, to: 0)
        }
    }

    private func becomeUser(_ changedUser: () throws -> Void) throws(SandboxError) {
        // Who may not, as nobody but root may, has none that no_new_privs would not make useless.
        _ = Confinement.dropBoundingSet()
        guard let identity else { return }
        let name = "user \(identity.user) and group \(identity.group)"
        try step(name) { () throws(SystemError) in try Confinement.setIdentity(user: identity.user, group: identity.group) }
        let now = Confinement.identity
        guard now.user == identity.user, now.effectiveUser == identity.user, now.group == identity.group, now.groups == 0 else {
            throw SandboxError("\(name): the process is user \(now.user) and group \(now.group), in \(now.groups) more groups")
        }
        do { try changedUser() } catch { throw SandboxError("parent-death signal: \(error)") }
    }

    private func step(_ name: String, _ body: () throws(SystemError) -> Void) throws(SandboxError) {
        do { try body() } catch { throw SandboxError("\(name): \(error)") }
    }
}

/// A step of the sandbox could not be taken: which, and why.
package struct SandboxError: Error, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
