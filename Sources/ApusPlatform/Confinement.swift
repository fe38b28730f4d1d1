import CLinux
import Glibc

/// Calls by which a process gives up what it may do, for good.
package enum Confinement {
    /// Closes every descriptor but these (`close_range(2)`).
    package static func closeDescriptors(except kept: [Int32]) throws(SystemError) {
        var first: UInt32 = 0
        for number in Set(kept).sorted() {
            let number = UInt32(number)
            if number > first { try blockingSyscall("close_range") { apus_close_range(first, number - 1) } }
            first = number + 1
        }
        try blockingSyscall("close_range") { apus_close_range(first, .max) }
    }

    /// What `setrlimit(2)` limits.
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

    /// No supplementary groups, then group and user: real, effective and saved.
    package static func setIdentity(user: UInt32, group: UInt32) throws(SystemError) {
        try blockingSyscall("setresuid") { apus_set_identity(user, group) }
    }

    /// Real and effective ids, and the number of supplementary groups.
    package static var identity: (user: UInt32, effectiveUser: UInt32, group: UInt32, groups: Int) {
        (getuid(), geteuid(), getgid(), Int(getgroups(0, nil)))
    }

    /// Empties the bounding set, as far as this process may, and says whether it did.
    package static func dropBoundingSet() -> Bool {
        for capability: Int32 in 0..<64 where apus_drop_bounding_capability(capability) != 0 {
            // EINVAL: there are no more.
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

    /// No core dumps, no ptrace by the same user, /proc belongs to root.
    package static func forbidDumping() throws(SystemError) { try blockingSyscall("prctl") { apus_forbid_dumping() } }

    /// No program that is executed gets more rights.
    package static func forbidNewPrivileges() throws(SystemError) { try blockingSyscall("prctl") { apus_forbid_new_privileges() } }

    /// The version of Landlock that the kernel speaks; nil if it has none.
    package static var landlockVersion: Int32? {
        let version = apus_landlock_version()
        return version > 0 ? version : nil
    }

    /// Forbids all of the file system but reading beneath `readable` and reading and writing beneath `writable`, connecting unless
    /// `mayConnect`, binding (but then to a port that the kernel chooses), and signals and abstract sockets of others, as far as the kernel's
    /// version knows of these.
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

    /// The ids of a user, by name or number, and of the group to go with it.
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

    /// Whether a descriptor is a regular file, whose growth a limit on file sizes would stop.
    package static func isRegularFile(_ descriptor: Int32) -> Bool {
        guard let information = try? FileSystem.information(descriptor) else { return false }
        return information.kind == .regular
    }

    /// A system call by its number, as an attacker would make it.
    ///
    /// - Returns: 0 if it was carried out, else the errno.
    package static func attempt(call number: Int, _ arguments: [Int]) -> Int32 {
        let all = arguments + Array(repeating: 0, count: 6 - arguments.count)
        return apus_raw_call(number, all[0], all[1], all[2], all[3], all[4], all[5]) == -1 ? errno : 0
    }

    /// The same by the gate of 32-bit programs.
    package static func attemptCompatibleCall() -> Int32 {
        let result = apus_compatible_getpid()
        return result > 0 ? 0 : Int32(clamping: -result)
    }
}
