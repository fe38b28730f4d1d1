/// The system calls of workers: two tables, with a reason in each row. `all` lists the calls that
/// are allowed, `refused` those that return an errno, because libraries try them and work without.
/// A call in neither table ends the process: only an attacker makes it.
package enum SystemCalls {
    /// Something that workers do. A feature that is off adds no call.
    package enum Feature: CaseIterable, Sendable {
        /// What every worker does.
        case base
        /// Serving files.
        case files
        /// TLS.
        case tls
        /// Connections to other servers (permission `.connecting`).
        case clients
        /// Threads of the application (permission `.threads`).
        case threads
        /// Files that the application reads (permission `.reading`, and part of `.writing`).
        case reading
        /// Files that the application writes (permission `.writing`).
        case writing

        /// Features that need a permission.
        package static let permissions: Set<Feature> = [.clients, .threads, .reading, .writing]
    }

    struct Rule: Sendable {
        let name: String
        let feature: Feature
        let reason: String
        /// Alternatives; each is a list of conditions that must hold together. Empty: always.
        var conditions: [[Condition]] = []
        /// Omitted on architectures that have the call of this name.
        var insteadOf: String?

        init(_ name: String, _ feature: Feature, _ reason: String, _ conditions: [[Condition]] = [], insteadOf: String? = nil) {
            self.name = name
            self.feature = feature
            self.reason = reason
            self.conditions = conditions
            self.insteadOf = insteadOf
        }
    }

    /// A condition on an argument.
    struct Condition: Sendable, Equatable {
        let argument: UInt32
        /// The bits that are compared.
        let mask: UInt64
        let value: Value

        enum Value: Sendable, Equatable {
            case number(UInt64)
            /// The number of the process that loads the filter.
            case ownProcess
            /// The descriptor of the control channel. Without one the rule is omitted.
            case controlChannel
        }

        static func argument(_ number: UInt32, is value: Int) -> Condition {
            Condition(argument: number, mask: .max, value: .number(UInt64(bitPattern: Int64(value))))
        }
        static func argument(_ number: UInt32, masked mask: Int, is value: Int) -> Condition {
            Condition(argument: number, mask: UInt64(bitPattern: Int64(mask)), value: .number(UInt64(bitPattern: Int64(value))))
        }
        /// A number of 32 bits; the upper half of the register is ignored.
        static func argument(_ number: UInt32, is32 value: Int) -> Condition { .argument(number, masked: 0xffff_ffff, is: value) }
        static func isOwnProcess(_ number: UInt32) -> Condition { Condition(argument: number, mask: 0xffff_ffff, value: .ownProcess) }
        static func isControlChannel(_ number: UInt32) -> Condition {
            Condition(argument: number, mask: 0xffff_ffff, value: .controlChannel)
        }
    }

    // Constants of the kernel, the same on every architecture that Apus supports.
    private static let protExec = 4
    private static let siocoutq = 0x5411
    private static let fionread = 0x541b
    private static let (ipLevel, socketLevel, tcpLevel, ipv6Level) = (0, 1, 6, 41)
    private static let (noDelay, keepAliveIdle, keepAliveInterval, keepAliveProbes, quickAcknowledgement) = (1, 4, 5, 6, 12)
    private static let (congestion, userTimeout, notSentLowWater) = (13, 18, 25)
    private static let (socketError, sendBuffer, receiveBuffer, keepAlive, priority, linger, bindToDevice) = (4, 7, 8, 9, 12, 13, 25)
    private static let (typeOfService, bindWithoutPort, trafficClass) = (1, 24, 67)
    /// IP_RECVERR and IPV6_RECVERR.
    private static let (receiveErrors, receiveErrors6) = (11, 25)
    private static let netlink = 16
    private static let (inet, inet6, unix) = (2, 10, 1)
    /// The type of a socket without its flags, and SOCK_STREAM. A datagram socket of a pair could
    /// send to any Unix socket of the system.
    private static let (socketType, stream) = (0xf, 1)
    /// All flags of pipe2 except O_CLOEXEC and O_NONBLOCK.
    private static let otherPipeFlags = 0xffff_ffff & ~0o2004000
    private static let acceptFlags = 0o2004000
    private static let (getDescriptorFlags, setDescriptorFlags, getFlags, setFlags, duplicate) = (1, 2, 3, 4, 1030)
    private static let fileLocks = [5, 6, 7, 36, 37, 38]
    /// Descriptors that are shared with the master must stay non-blocking.
    private static let nonBlocking = 0o4000
    private static let (dontNeed, free) = (4, 8)
    private static let (setName, getName) = (15, 16)
    /// CLONE_VM | CLONE_THREAD: a thread of this process, not another process.
    private static let threadFlags = 0x10100
    private static let emptyPath = 0x1000
    private static let standardError = 2
    /// O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, and O_TMPFILE's own bit.
    private static let writingFlags = 0o20003103
    private static let writingFlagBits = [0o1, 0o2, 0o100, 0o1000, 0o2000, 0o20000000]

    private static func option(_ level: Int, _ name: Int) -> [Condition] { [.argument(1, is32: level), .argument(2, is32: name)] }

    static let all: [Rule] = [
        // The frequent calls have no conditions, since these would be evaluated for each call.
        Rule("epoll_wait", .base, "the loop waits"),
        Rule("epoll_pwait", .base, "the loop waits", insteadOf: "epoll_wait"),
        Rule("epoll_ctl", .base, "the loop adds and removes descriptors"),
        Rule("recvfrom", .base, "connections and mailboxes are read"),
        Rule("recvmsg", .base, "orders of the master, some with listeners of another slot", [[.isControlChannel(0)]]),
        Rule("sendto", .base, "connections and mailboxes are written"),
        Rule("sendmsg", .base, "several pieces leave in one call"),
        Rule("read", .base, "eventfd and signalfd"),
        Rule("write", .base, "log lines, eventfd"),
        Rule("pwritev2", .base, "log lines, without waiting", [[.argument(0, is32: standardError)]]),
        Rule("writev", .base, "messages of the C library before abort", [[.argument(0, is32: standardError)]]),
        Rule("close", .base, "connections end"),
        Rule("accept4", .base, "connections begin", [[.argument(3, is32: acceptFlags)]]),
        Rule("shutdown", .base, "the end of output, before the peer's", [[.argument(1, is32: 1)]]),
        Rule("ioctl", .base, "bytes that the peer has not acknowledged", [[.argument(1, is32: siocoutq)]]),
        Rule(
            "fcntl", .base, "a listener replaces its spare descriptor; libraries read flags",
            [
                [.argument(1, is32: duplicate)], [.argument(1, is32: getDescriptorFlags)], [.argument(1, is32: setDescriptorFlags)],
                [.argument(1, is32: getFlags)],
            ]),
        Rule("pipe", .base, "Foundation's Pipe traps without it; nothing leaves the process"),
        Rule("pipe2", .base, "the same", [[.argument(1, masked: otherPipeFlags, is: 0)]]),
        Rule("mmap", .base, "memory that is not executable", [[.argument(2, masked: protExec, is: 0)]]),
        Rule("mprotect", .base, "memory of the allocator that is not executable", [[.argument(2, masked: protExec, is: 0)]]),
        Rule("munmap", .base, "memory is given back"),
        Rule("mremap", .base, "large buffers grow", [[.argument(3, masked: ~1, is: 0)]]),
        Rule("madvise", .base, "memory is given back", [[.argument(2, is32: dontNeed)], [.argument(2, is32: free)]]),
        Rule("brk", .base, "memory"),
        Rule("futex", .base, "locks of the runtime, between threads of the application"),
        Rule("getrandom", .base, "masking keys, jitter"),
        // Without a permission, Landlock allows only /dev/urandom and the time zones. Without the
        // random device Foundation's UUID() is constant.
        Rule("openat", .base, "the random device, for libraries that have no other source", [[.argument(2, masked: writingFlags, is: 0)]]),
        Rule("newfstatat", .base, "the C library prepares a stream", [[.argument(3, masked: emptyPath, is: emptyPath)]]),
        Rule("fstat", .base, "the same, by C libraries later than Debian 12's"),
        Rule("clock_nanosleep", .base, "an application sleeps"),
        Rule(
            "setsockopt", .base, "options that a handler may set on its socket",
            [
                option(tcpLevel, noDelay), option(tcpLevel, userTimeout), option(tcpLevel, notSentLowWater), option(tcpLevel, congestion),
                option(tcpLevel, keepAliveIdle), option(tcpLevel, keepAliveInterval), option(tcpLevel, keepAliveProbes),
                option(tcpLevel, quickAcknowledgement), option(socketLevel, keepAlive), option(socketLevel, sendBuffer),
                option(socketLevel, receiveBuffer), option(socketLevel, priority), option(socketLevel, linger),
                option(ipLevel, typeOfService), option(ipv6Level, trafficClass),
            ]),
        Rule("getsockopt", .base, "a handler reads options and TCP_INFO; how a connect ended"),
        Rule("getuid", .base, "libraries compare users; it cannot fail"),
        Rule("geteuid", .base, "the same"),
        Rule("getegid", .base, "the same for groups: Foundation looks for the home directory"),
        // On most machines the vDSO implements these two without a system call; with some clock
        // sources, such as hpet, it makes one.
        Rule("clock_gettime", .base, "the clock, where the vDSO has none"),
        Rule("gettimeofday", .base, "the same"),
        Rule("getpid", .base, "a worker's identity; OpenSSL detects forks"),
        Rule("gettid", .base, "abort"),
        Rule("tgkill", .base, "abort", [[.isOwnProcess(0)]]),
        Rule("rt_sigprocmask", .base, "abort"),
        Rule("rt_sigaction", .base, "abort; the death of the master"),
        // When the master dies, even if the loop hangs: see `WorkerCommand.masterDied`.
        Rule("getppid", .base, "whether the master has died"),
        Rule("dup3", .base, "the listeners' addresses become free"),
        Rule("alarm", .base, "an orphan ends in time"),
        Rule("rt_sigreturn", .base, "the end of that signal's handler"),
        Rule("exit_group", .base, "the end"),

        Rule("openat2", .files, "a file beneath a root that is open already", [[.argument(3, is: 24)]]),
        // Of an open link: the path is empty, which cannot be compared here. AT_FDCWD, a negative
        // number, is excluded.
        Rule("readlinkat", .files, "an absolute symbolic link that stays beneath the root", [[.argument(0, masked: 0x8000_0000, is: 0)]]),
        Rule("sendfile", .files, "a file leaves without a copy"),
        Rule("pread64", .files, "a file leaves through TLS"),

        Rule(
            "socket", .clients, "connections, queries of name servers",
            [[.argument(0, is32: inet)], [.argument(0, is32: inet6)], [.argument(0, is32: unix)]]),
        Rule("connect", .clients, "the same"),
        Rule("getpeername", .clients, "the peer of a handler's client; accept returns those of servers"),
        Rule("bind", .clients, "a source address"),
        Rule(
            "setsockopt", .clients, "the source of a connection; errors of the C library's queries",
            [
                option(socketLevel, bindToDevice), option(ipLevel, bindWithoutPort), option(ipLevel, receiveErrors),
                option(ipv6Level, receiveErrors6),
            ]),
        Rule(
            "fcntl", .clients, "the resolver's sockets",
            [[.argument(1, is32: setFlags), .argument(2, masked: nonBlocking, is: nonBlocking)]]),
        Rule("ioctl", .clients, "the size of an answer that waits", [[.argument(1, is32: fionread)]]),
        Rule("sendmmsg", .clients, "the C library's queries, of two kinds of addresses at once"),
        Rule("poll", .clients, "the C library waits for a name server"),
        Rule("socketpair", .clients, "curl wakes its loop", [[.argument(0, is32: unix), .argument(1, masked: socketType, is: stream)]]),
        Rule("lseek", .clients, "the C library reads /etc/hosts"),
        Rule("getsockname", .clients, "the C library sorts addresses by their sources; curl"),
        Rule("newfstatat", .clients, "the same"),
        Rule("getdents64", .clients, "OpenSSL lists the directory of authorities"),
        Rule("writev", .clients, "queries of name servers by TCP"),

        Rule("clone", .threads, "a thread starts", [[.argument(0, masked: threadFlags, is: threadFlags)]]),
        Rule("exit", .threads, "a thread ends"),
        Rule("set_robust_list", .threads, "a thread starts"),
        Rule("rseq", .threads, "the same"),
        Rule("sched_yield", .threads, "a lock is contended"),
        Rule("sched_getaffinity", .threads, "Dispatch counts processors"),
        Rule("eventfd2", .threads, "Dispatch wakes its manager"),
        Rule("epoll_create1", .threads, "Dispatch's manager waits"),
        Rule("timerfd_create", .threads, "Dispatch's timers"),
        Rule("timerfd_settime", .threads, "the same"),
        Rule("poll", .threads, "threads wait for descriptors"),
        Rule("membarrier", .threads, "threads synchronise"),
        Rule("prctl", .threads, "threads have names", [[.argument(0, is32: setName)], [.argument(0, is32: getName)]]),

        // Landlock does not restrict these: names and attributes can be read everywhere, contents
        // only beneath the paths of the permissions.
        Rule("newfstatat", .reading, "size and time of a file"),
        Rule("statx", .reading, "the same"),
        Rule("access", .reading, "whether a file exists"),
        Rule("faccessat", .reading, "the same"),
        Rule("faccessat2", .reading, "the same"),
        Rule("readlink", .reading, "the target of a symbolic link"),
        Rule("readlinkat", .reading, "the same"),
        Rule("getcwd", .reading, "relative paths"),
        // Landlock restricts these to the paths of the permissions.
        Rule("getdents64", .reading, "a directory is listed"),
        Rule("lseek", .reading, "a file is read at an offset"),
        Rule("pread64", .reading, "the same"),
        Rule("readv", .reading, "a file is read into several buffers"),
        Rule("fadvise64", .reading, "a file will be read in order"),

        // Landlock restricts these to the paths of the permissions.
        Rule("openat", .writing, "a file is made or written"),
        Rule("pwrite64", .writing, "a file is written at an offset"),
        Rule("writev", .writing, "a file is written from several buffers"),
        Rule("ftruncate", .writing, "a file is truncated"),
        Rule("fallocate", .writing, "space for a file"),
        Rule("fsync", .writing, "a file is flushed to disk"),
        Rule("fdatasync", .writing, "the same"),
        Rule("flock", .writing, "a file is locked"),
        Rule("fcntl", .writing, "the same", fileLocks.map { [.argument(1, is32: $0)] }),
        Rule("mkdir", .writing, "a directory is made"),
        Rule("mkdirat", .writing, "the same"),
        Rule("unlink", .writing, "a file is removed"),
        Rule("unlinkat", .writing, "the same"),
        Rule("rmdir", .writing, "a directory is removed"),
        Rule("rename", .writing, "a file replaces another"),
        Rule("renameat", .writing, "the same"),
        Rule("renameat2", .writing, "the same"),
    ]

    static func allowed(for features: Set<Feature>) -> [Rule] { all.filter { $0.feature == .base || features.contains($0.feature) } }

    /// A call that returns an errno instead of ending the process.
    struct Refusal: Sendable {
        let name: String
        let errno: Int32
        let reason: String
        /// As in `Rule`; calls that do not match are allowed or end the process. Empty: all calls
        /// that are not allowed.
        var conditions: [[Condition]] = []

        init(_ name: String, _ errno: Int32, _ reason: String, _ conditions: [[Condition]] = []) {
            self.name = name
            self.errno = errno
            self.reason = reason
            self.conditions = conditions
        }
    }

    private static let (notPermitted, interrupted, noChild, tryAgain, accessDenied, invalid, noTerminal, illegalSeek, noSuchCall) = (
        Int32(1), Int32(4), Int32(10), Int32(11), Int32(13), Int32(22), Int32(25), Int32(29), Int32(38)
    )

    /// TCGETS, TCSETS to TCSETSF, TIOCGPGRP, TIOCSPGRP, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX and
    /// FIOCLEX, but not TIOCSTI.
    private static let terminalRequests = [0x5401, 0x5402, 0x5403, 0x5404, 0x540f, 0x5410, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451]
    /// MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_COLD, MADV_PAGEOUT and
    /// others that do not change the content of memory.
    private static let adviceWithoutEffect = [0, 1, 2, 3, 14, 15, 16, 17, 20, 21, 22, 23, 25]

    /// Calls that fail as for a file that this user may not access.
    private static func denied(_ names: String...) -> [Refusal] {
        names.map { Refusal($0, accessDenied, "a file that may not be accessed") }
    }
    private static func forbidden(_ reason: String, _ names: String...) -> [Refusal] {
        names.map { Refusal($0, notPermitted, reason) }
    }

    /// A row has no effect if a feature that is on allows its call without conditions.
    static let refused: [Refusal] =
        denied(
            "open", "creat", "access", "faccessat", "faccessat2", "stat", "lstat", "statx", "statfs", "fstatfs", "readlink", "readlinkat",
            "getcwd", "chdir", "fchdir", "getdents", "getdents64", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat",
            "renameat2", "link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "chown", "fchown",
            "lchown", "fchownat", "truncate", "ftruncate", "fallocate", "utimensat", "utime", "utimes", "fsync", "fdatasync", "flock",
            "getxattr", "lgetxattr", "fgetxattr", "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr", "openat2",
            "pread64", "readv", "pwrite64")
        + [
            Refusal("openat", accessDenied, "opening a file for writing", writingFlagBits.map { [.argument(2, masked: $0, is: $0)] }),
            Refusal("newfstatat", accessDenied, "a file by name", [[.argument(3, masked: emptyPath, is: 0)]]),
            Refusal("lseek", illegalSeek, "streams of the C library"),
            Refusal("socket", accessDenied, "name services, syslog"),
            // Has an effect where other sockets are allowed.
            Refusal("socket", accessDenied, "the C library lists interfaces", [[.argument(0, is32: netlink)]]),
            // Has an effect where pairs of streams are allowed.
            Refusal("socketpair", notPermitted, "a pair of datagram sockets", [2, 5].map { [.argument(1, masked: socketType, is: $0)] }),
            Refusal("ioctl", noTerminal, "whether a descriptor is a terminal", terminalRequests.map { [.argument(1, is32: $0)] }),
            Refusal("fcntl", accessDenied, "a file is locked", fileLocks.map { [.argument(1, is32: $0)] }),
            Refusal("madvise", invalid, "advice of allocators", adviceWithoutEffect.map { [.argument(2, is32: $0)] }),
            Refusal("prctl", notPermitted, "threads have names", [[.argument(0, is32: setName)], [.argument(0, is32: getName)]]),
            // The C library falls back to clone, whose flags can be compared.
            Refusal("clone3", noSuchCall, "a thread"),
            Refusal("clone", tryAgain, "a thread, without the permission", [[.argument(0, masked: threadFlags, is: threadFlags)]]),
            Refusal("sysinfo", noSuchCall, "qsort reads the size of memory"),
            Refusal("uname", noSuchCall, "the C library reads the version of the kernel"),
            Refusal("rseq", noSuchCall, "the C library's restartable sequences"),
            Refusal("membarrier", noSuchCall, "synchronisation of threads"),
            Refusal("getsockname", accessDenied, "a socket's own address, known from its listener"),
            Refusal("getpeername", accessDenied, "a peer's address, known from accept"),
            Refusal("restart_syscall", interrupted, "a sleep ends early after SIGCONT"),
            Refusal("wait4", noChild, "a child process"),
            Refusal("getitimer", invalid, "profilers"),
        ]
        + forbidden(
            "a library's own loop or timer", "eventfd2", "epoll_create1", "timerfd_create", "timerfd_settime", "timerfd_gettime",
            "pipe2", "socketpair", "poll", "ppoll", "select", "pselect6", "inotify_init1", "memfd_create")
        + forbidden(
            "scheduling and accounting", "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_getscheduler",
            "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min", "getpriority", "setpriority", "getrusage", "times",
            "prlimit64", "getrlimit", "mlock", "mlock2", "munlock", "sigaltstack", "set_robust_list", "umask")
        + forbidden("process groups and sessions", "getgroups", "getpgrp", "getpgid", "getsid")
}
