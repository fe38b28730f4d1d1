/// The system calls that workers may make: one table, each with its reason. What stands nowhere here ends the process.
package enum SystemCalls {
    /// What a worker does; one that it does not do adds nothing.
    package enum Feature: CaseIterable, Sendable {
        /// Every worker.
        case base
        /// It serves files.
        case files
        /// It speaks TLS.
        case tls
        /// It connects to other servers.
        case clients
    }

    struct Rule: Sendable {
        let name: String
        let feature: Feature
        let reason: String
        /// Each line: conditions that must hold together; one line suffices. Empty: always.
        var conditions: [[Condition]] = []
        /// Left out on machines that have the call of this name.
        var insteadOf: String?

        init(_ name: String, _ feature: Feature, _ reason: String, _ conditions: [[Condition]] = [], insteadOf: String? = nil) {
            self.name = name
            self.feature = feature
            self.reason = reason
            self.conditions = conditions
            self.insteadOf = insteadOf
        }
    }

    /// What an argument must be.
    struct Condition: Sendable {
        let argument: UInt32
        /// The bits that are looked at.
        let mask: UInt64
        /// Nil: the number of the process that loads the filter.
        let value: UInt64?

        static func argument(_ number: UInt32, is value: Int) -> Condition {
            Condition(argument: number, mask: .max, value: UInt64(bitPattern: Int64(value)))
        }
        static func argument(_ number: UInt32, masked mask: Int, is value: Int) -> Condition {
            Condition(argument: number, mask: UInt64(bitPattern: Int64(mask)), value: UInt64(bitPattern: Int64(value)))
        }
        /// A number of 32 bits, whatever the upper half of its register holds.
        static func argument(_ number: UInt32, is32 value: Int) -> Condition { .argument(number, masked: 0xffff_ffff, is: value) }
        static func isOwnProcess(_ number: UInt32) -> Condition { Condition(argument: number, mask: 0xffff_ffff, value: nil) }
    }

    // Numbers of the kernel's interface, which are the same on every machine that Apus runs on.
    private static let protExec = 4
    private static let siocoutq = 0x5411
    private static let (ipLevel, socketLevel, tcpLevel) = (0, 1, 6)
    private static let (noDelay, keepAliveIdle, keepAliveInterval, keepAliveProbes, quickAcknowledgement) = (1, 4, 5, 6, 12)
    private static let (socketError, keepAlive, bindToDevice, bindWithoutPort) = (4, 9, 25, 24)
    private static let (inet, inet6, unix) = (2, 10, 1)
    private static let acceptFlags = 0o2004000
    private static let (getFlags, setFlags, setDescriptorFlags, duplicate) = (3, 4, 2, 1030)
    /// Descriptors that the master has, too, must not begin to block.
    private static let nonBlocking = 0o4000
    private static let dontNeed = 4
    private static let setParentDeathSignal = 1
    private static let emptyPath = 0x1000
    private static let standardError = 2
    /// O_WRONLY, O_RDWR, O_CREAT, O_TRUNC and O_APPEND.
    private static let writingFlags = 0o3103

    private static func option(_ level: Int, _ name: Int) -> [Condition] { [.argument(1, is32: level), .argument(2, is32: name)] }

    static let all: [Rule] = [
        // The hot ones have no conditions: those would be looked at with each call.
        Rule("epoll_wait", .base, "the loop waits"),
        Rule("epoll_pwait", .base, "the loop waits", insteadOf: "epoll_wait"),
        Rule("epoll_ctl", .base, "what the loop watches"),
        Rule("recvfrom", .base, "connections and mailboxes are read"),
        Rule("sendto", .base, "connections and mailboxes are written"),
        Rule("sendmsg", .base, "several pieces leave in one call"),
        Rule("read", .base, "eventfd and signalfd"),
        Rule("write", .base, "log lines, eventfd"),
        Rule("pwritev2", .base, "log lines, without waiting", [[.argument(0, is32: standardError)]]),
        Rule("writev", .base, "the C library's last words", [[.argument(0, is32: standardError)]]),
        Rule("close", .base, "connections end"),
        Rule("accept4", .base, "connections begin", [[.argument(3, is32: acceptFlags)]]),
        Rule("shutdown", .base, "the end of our answers, before the peer's", [[.argument(1, is32: 1)]]),
        Rule("ioctl", .base, "how much the peer has not acknowledged", [[.argument(1, is32: siocoutq)]]),
        Rule("fcntl", .base, "a listener that has used its spare descriptor makes another", [[.argument(1, is32: duplicate)]]),
        Rule("mmap", .base, "memory, never to be executed", [[.argument(2, masked: protExec, is: 0)]]),
        Rule("mprotect", .base, "the allocator's; never to be executed", [[.argument(2, masked: protExec, is: 0)]]),
        Rule("munmap", .base, "memory is given back"),
        Rule("mremap", .base, "large buffers grow", [[.argument(3, masked: ~1, is: 0)]]),
        Rule("madvise", .base, "memory is given back", [[.argument(2, is32: dontNeed)]]),
        Rule("brk", .base, "memory"),
        Rule("futex", .base, "locks of the runtime, between threads of the application"),
        Rule("getrandom", .base, "masking keys, jitter"),
        // On most machines the vDSO answers these two; with some clock sources, such as hpet's, it asks the kernel.
        Rule("clock_gettime", .base, "the clock, where the vDSO has none"),
        Rule("gettimeofday", .base, "the same"),
        Rule("getpid", .base, "a worker says who it is; OpenSSL looks for forks"),
        Rule("gettid", .base, "abort"),
        Rule("tgkill", .base, "abort", [[.isOwnProcess(0)]]),
        Rule("rt_sigprocmask", .base, "abort"),
        Rule("rt_sigaction", .base, "abort; the master's death"),
        // What a worker does when the master dies, though its loop be stuck: see `WorkerCommand.masterDied`.
        Rule("getppid", .base, "has the master died?"),
        Rule("prctl", .base, "to be told when it does", [[.argument(0, is32: setParentDeathSignal)]]),
        Rule("dup3", .base, "the listeners' addresses become free"),
        Rule("alarm", .base, "an orphan ends in time"),
        Rule("rt_sigreturn", .base, "the end of that signal's handler"),
        Rule("exit_group", .base, "the end"),

        Rule("setsockopt", .tls, "the end of a handshake is acknowledged", [option(tcpLevel, quickAcknowledgement)]),

        Rule("openat2", .files, "a file beneath a root that is open already", [[.argument(3, is: 24)]]),
        Rule("newfstatat", .files, "size and time of an open file", [[.argument(3, masked: emptyPath, is: emptyPath)]]),
        Rule("fstat", .files, "the same, by C libraries later than Debian 12's"),
        Rule("sendfile", .files, "a file leaves without a copy"),
        Rule("pread64", .files, "a file leaves through TLS"),

        Rule(
            "socket", .clients, "a connection is opened, a name server asked",
            [[.argument(0, is32: inet)], [.argument(0, is32: inet6)], [.argument(0, is32: unix)]]),
        Rule("connect", .clients, "the same"),
        Rule("bind", .clients, "from an address of choice"),
        Rule("getsockopt", .clients, "how a connect ended", [option(socketLevel, socketError)]),
        Rule(
            "setsockopt", .clients, "no delay, keep-alive, and where a connection leaves from",
            [
                option(tcpLevel, noDelay), option(socketLevel, keepAlive), option(tcpLevel, keepAliveIdle),
                option(tcpLevel, keepAliveInterval),
                option(tcpLevel, keepAliveProbes), option(socketLevel, bindToDevice), option(ipLevel, bindWithoutPort),
            ]),
        Rule(
            "fcntl", .clients, "the resolver's sockets",
            [
                [.argument(1, is32: getFlags)], [.argument(1, is32: setFlags), .argument(2, masked: nonBlocking, is: nonBlocking)],
                [.argument(1, is32: setDescriptorFlags)],
            ]),
        // Landlock says which.
        Rule(
            "openat", .clients, "hosts, the resolver's configuration, certificates of authorities",
            [[.argument(2, masked: writingFlags, is: 0)]]),
        Rule("newfstatat", .clients, "the same"),
        Rule("getdents64", .clients, "OpenSSL looks through the directory of authorities"),
        Rule("writev", .clients, "a name server is asked by TCP"),
    ]

    static func allowed(for features: Set<Feature>) -> [Rule] { all.filter { $0.feature == .base || features.contains($0.feature) } }

    /// Calls that libraries try and can do without (sysinfo: the C library's qsort): they get this errno instead of the end.
    static let refused: [(name: String, errno: Int32)] = [
        ("open", 13), ("openat", 13), ("socket", 13), ("clone3", 38), ("sysinfo", 38), ("access", 13), ("stat", 13), ("lseek", 29),
        ("uname", 38),
    ]
}
