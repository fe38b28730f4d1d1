import CLinux
import Glibc
import Synchronization

/// Calls by which a process permanently gives up privileges.
package enum Confinement {
    /// What the sandbox leaves to this process, for the texts of errors.
    package enum Extent: Sendable {
        case unconfined
        case confined(mayConnect: Bool)
    }

    private static let noted = Mutex(Extent.unconfined)

    /// Set when a worker enters the sandbox.
    package static var extent: Extent {
        get { noted.withLock { $0 } }
        set { noted.withLock { $0 = newValue } }
    }

    /// Closes all descriptors except `kept` (`close_range(2)`).
    package static func closeDescriptors(except kept: [Int32]) throws(SystemError) {
        var first: UInt32 = 0
        for number in Set(kept).sorted() {
            let number = UInt32(number)
            if number > first { try blockingSyscall("close_range") { apus_close_range(first, number - 1) } }
            first = number + 1
        }
        try blockingSyscall("close_range") { apus_close_range(first, .max) }
    }

    /// A resource of `setrlimit(2)`.
    package enum Resource {
        case processes
        case fileSize
        case coreSize

        var number: Int32 {
            switch self {
            case .processes: apus_limit_processes
            case .fileSize: apus_limit_file_size
            case .coreSize: apus_limit_core_size
            }
        }
    }

    package static func limit(_ resource: Resource, to value: UInt64) throws(SystemError) {
        try blockingSyscall("setrlimit") { apus_limit(resource.number, value) }
    }

    package static func changeRoot(to path: String) throws(SystemError) { try blockingSyscall("chroot") { unsafe apus_chroot(path) } }

    /// Clears the supplementary groups, then sets the real, effective and saved group and user IDs.
    package static func setIdentity(user: UInt32, group: UInt32) throws(SystemError) {
        try blockingSyscall("setresuid") { apus_set_identity(user, group) }
    }

    /// The real and effective IDs, and the number of supplementary groups.
    package static var identity: (user: UInt32, effectiveUser: UInt32, group: UInt32, groups: Int) {
        (getuid(), geteuid(), getgid(), Int(getgroups(0, nil)))
    }

    /// Clears the capability bounding set.
    ///
    /// - Returns: false if the process lacks the privilege.
    package static func dropBoundingSet() -> Bool {
        for capability: Int32 in 0..<64 where apus_drop_bounding_capability(capability) != 0 {
            // EINVAL: the last capability has been passed.
            if errno == EPERM { return false }
            if errno == EINVAL { break }
        }
        return true
    }

    package static func dropCapabilities() throws(SystemError) {
        try blockingSyscall("prctl") { apus_clear_ambient_capabilities() }
        try blockingSyscall("capset") { apus_clear_capabilities() }
    }

    package static var hasCapabilities: Bool { apus_capabilities() != 0 }

    /// Disables core dumps and ptrace by the same user; `/proc` entries belong to root.
    package static func forbidDumping() throws(SystemError) { try blockingSyscall("prctl") { apus_forbid_dumping() } }

    /// Prevents executed programs from gaining privileges (`PR_SET_NO_NEW_PRIVS`).
    package static func forbidNewPrivileges() throws(SystemError) { try blockingSyscall("prctl") { apus_forbid_new_privileges() } }

    /// The kernel's Landlock ABI version; nil if it has none.
    package static var landlockVersion: Int32? {
        let version = apus_landlock_version()
        return version > 0 ? version : nil
    }

    /// Denies all file system access except reading below `readable`, and reading and writing below
    /// `writable`. As far as the kernel's version supports it, also denies connecting unless
    /// `mayConnect`, binding except to a port that the kernel chooses, and signals and abstract
    /// sockets of other processes.
    package static func landlock(version: Int32, readable: [Int32], writable: [Int32], mayConnect: Bool) throws(SystemError) {
        let rules = OwnedDescriptor(
            rawValue: try blockingSyscall("landlock_create_ruleset") { apus_landlock_create(version, mayConnect ? 1 : 0) })
        let number = rules.rawValue
        for descriptor in readable {
            let isDirectory: Int32 = try FileSystem.information(descriptor).kind == .directory ? 1 : 0
            try blockingSyscall("landlock_add_rule") { apus_landlock_allow_reading(number, descriptor, isDirectory) }
        }
        for descriptor in writable {
            let isDirectory: Int32 = try FileSystem.information(descriptor).kind == .directory ? 1 : 0
            try blockingSyscall("landlock_add_rule") { apus_landlock_allow_writing(version, number, descriptor, isDirectory) }
        }
        if mayConnect, version >= 4 { try blockingSyscall("landlock_add_rule") { apus_landlock_allow_any_port(number) } }
        try blockingSyscall("landlock_restrict_self") { apus_landlock_restrict(number) }
        _ = consume rules
    }

    /// Looks up a user by name or number.
    ///
    /// - Returns: the user's ID and primary group ID.
    /// - Throws: `SystemError` if the lookup fails.
    package static func find(user: String) throws(SystemError) -> (user: UInt32, group: UInt32) {
        if let number = UInt32(user) { return (number, number) }
        var ids: (user: UInt32, group: UInt32) = (0, 0)
        let code = unsafe apus_find_user(user, &ids.user, &ids.group)
        guard code == 0 else { throw SystemError(code: code, call: "getpwnam") }
        return ids
    }

    package static func find(group: String) throws(SystemError) -> UInt32 {
        if let number = UInt32(group) { return number }
        var id: UInt32 = 0
        let code = unsafe apus_find_group(group, &id)
        guard code == 0 else { throw SystemError(code: code, call: "getgrnam") }
        return id
    }

    /// Whether a descriptor is a regular file, to which a file size limit applies.
    package static func isRegularFile(_ descriptor: Int32) -> Bool {
        guard let information = try? FileSystem.information(descriptor) else { return false }
        return information.kind == .regular
    }

    /// Makes a system call by number, as an attacker would.
    ///
    /// - Returns: 0 on success, otherwise the errno.
    package static func attempt(call number: Int, _ arguments: [Int]) -> Int32 {
        let all = arguments + Array(repeating: 0, count: 6 - arguments.count)
        return apus_raw_call(number, all[0], all[1], all[2], all[3], all[4], all[5]) == -1 ? errno : 0
    }

    /// Makes a system call through the 32-bit entry.
    ///
    /// - Returns: 0 on success, otherwise the errno.
    package static func attemptCompatibleCall() -> Int32 {
        let result = apus_compatible_getpid()
        return result > 0 ? 0 : Int32(clamping: -result)
    }
}
