import CLinux
import Glibc

/// A child process and the pidfd that becomes readable when it ends.
package struct ChildProcess: ~Copyable {
    package let pid: Int32
    /// A pidfd: refers to this process even after its ID has been reused.
    package let descriptor: OwnedDescriptor
}

/// How a process ended.
package enum ProcessEnd: Equatable, Sendable, CustomStringConvertible {
    case exited(Int32)
    case signaled(Int32)

    package var description: String {
        switch self {
        case .exited(let status): return "exit \(status)"
        case .signaled(let signal): return "killed by \(Signal.name(of: signal))"
        }
    }
}

/// Process calls. A process that calls `fork` must have a single thread: no Task or Dispatch queue
/// may have run.
package enum Process {
    package static var id: Int32 { getpid() }

    /// Forks (`fork(2)`). The child runs `body` and ends by `_exit` with its result as status, so
    /// it never returns from here, and the parent's exit handlers do not run in it.
    package static func fork(_ body: () -> Int32) throws(SystemError) -> ChildProcess {
        // Otherwise both processes would write the C library's buffered output.
        apus_flush_streams()
        let pid = try blockingSyscall("fork") { apus_fork() }
        if pid == 0 {
            let status = body()
            apus_flush_streams()
            _exit(status)
        }
        do {
            let descriptor = try blockingSyscall("pidfd_open") { apus_pidfd_open(pid) }
            return ChildProcess(pid: pid, descriptor: OwnedDescriptor(rawValue: descriptor))
        } catch {
            // Without a pidfd its end would go unnoticed, so kill it.
            kill(pid, SIGKILL)
            _ = waitpid(pid, nil, 0)
            throw error
        }
    }

    /// Reaps a child that has ended; nil while it runs.
    package static func reap(_ pid: Int32) -> ProcessEnd? { collect(pid, options: WNOHANG) }

    /// Whether orphaned processes become children of this one: it is PID 1, or a subreaper
    /// (`PR_SET_CHILD_SUBREAPER`).
    package static let inheritsOrphans = apus_inherits_orphans() != 0

    /// A child that has ended and was not reaped; nil if there is none.
    package static func endedChild() -> Int32? {
        let pid = apus_ended_child()
        return pid > 0 ? pid : nil
    }

    /// Kills a child and reaps it; nil if it is not a child.
    package static func killAndReap(_ pid: Int32) -> ProcessEnd? {
        kill(pid, SIGKILL)
        return collect(pid, options: 0)
    }

    /// Waits for a child's end and reaps it; nil if it is not a child.
    package static func waitForEnd(of pid: Int32) -> ProcessEnd? { collect(pid, options: 0) }

    /// Opens a pidfd (`pidfd_open(2)`).
    package static func handle(of pid: Int32) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("pidfd_open") { apus_pidfd_open(pid) })
    }

    private static func collect(_ pid: Int32, options: Int32) -> ProcessEnd? {
        var status: Int32 = 0
        guard let ended = try? blockingSyscall("waitpid", { unsafe waitpid(pid, &status, options) }), ended == pid else {
            return nil
        }
        return apus_exited(status) != 0 ? .exited(apus_exit_status(status)) : .signaled(apus_term_signal(status))
    }

    /// Sends `signal` to a child that was not reaped, whose ID is therefore still valid.
    package static func signal(_ pid: Int32, _ signal: Int32) { kill(pid, signal) }

    /// Ends this process at once, without exit handlers.
    package static func exitNow(_ status: Int32) -> Never { _exit(status) }

    /// Ends this process with exit handlers, which flush buffered output.
    package static func end(_ status: Int32) -> Never { exit(status) }

    /// The parent process; 1 or a subreaper once that has ended.
    package static var parent: Int32 { getppid() }

    /// Makes the death of `parent` interrupt this process: the listeners' descriptors are replaced
    /// with /dev/null, so that their addresses are free even if a callback is stuck, and SIGALRM
    /// ends the process after `seconds`. The kernel resets this when the process changes its user:
    /// call it again then.
    ///
    /// - Throws: `SystemError`: the kernel's, or `ESRCH` if the parent has ended already.
    package static func guardOrphan(of parent: Int32, listeners: [Int32], seconds: Int) throws(SystemError) {
        try blockingSyscall("prctl") {
            unsafe apus_guard_orphan(parent, listeners, Int32(listeners.count), UInt32(clamping: seconds))
        }
        if getppid() != parent { throw SystemError(code: ESRCH, call: "getppid") }
    }

    /// Replaces the listeners of `guardOrphan`: at most as many as at first, or 4,096.
    package static func guardListeners(_ listeners: [Int32]) {
        _ = unsafe apus_guard_listeners(listeners, Int32(listeners.count))
    }

    /// Executes the program `arguments[0]`, searched in PATH if it has no slash (`execvp(3)`). It
    /// inherits the descriptors `keeping`.
    ///
    /// - Returns: the error; only on failure.
    package static func execute(_ arguments: [String], keeping: [Int32]) -> SystemError {
        for descriptor in keeping { _ = fcntl(descriptor, F_SETFD, 0) }
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe arguments.map { unsafe strdup($0) } + [nil]
        _ = unsafe apus_execute(arguments[0], &pointers)
        return SystemError(code: errno, call: "execvp")
    }

    /// The number of threads of this process; 1 if /proc is unavailable.
    package static var threadCount: Int { max(1, FileSystem.entryCount(of: "/proc/self/task")) }

    /// Starts a thread that ends at once, and waits for it.
    ///
    /// - Returns: 0, or the errno.
    package static func attemptThread() -> Int32 {
        var thread = pthread_t()
        let code = unsafe pthread_create(&thread, nil, { _ in nil }, nil)
        return code == 0 ? pthread_join(thread, nil) : code
    }

    /// Initialises process-wide library state so that no file is needed later: reads the time zone
    /// and the locales, sets TZ to the zone's name if unset, locates Foundation's main bundle,
    /// caches the working directory, the root directory's status and the memory size, and makes
    /// standard output line-buffered.
    package static func loadEnvironment() {
        apus_load_time_zone()
        apus_load_bundle()
        apus_load_facts()
        apus_prepare_streams()
    }

    /// Makes `pthread_create` start no more threads: it fails, or for detached threads succeeds
    /// without running them. The first refusal is logged.
    package static func refuseThreads() { apus_refuse_threads() }

    /// Sets the command line that `ps` shows, truncated to the room of the original one.
    package static func setTitle(_ title: String) { unsafe apus_set_title(title) }

    /// The number of CPUs that this process may run on.
    package static func usableProcessors() -> Int {
        max(1, Int(apus_usable_processors()))
    }

    /// Raises the limit on open descriptors to its hard limit, and returns it.
    package static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// The value of an environment variable; nil if unset.
    package static func environment(_ name: String) -> String? {
        guard let value = unsafe getenv(name) else { return nil }
        return unsafe String(cString: value)
    }

    /// Sets an environment variable for this process and its future children.
    package static func setEnvironment(_ name: String, to value: String) { _ = unsafe setenv(name, value, 1) }

    package static func removeEnvironment(_ name: String) { _ = unsafe unsetenv(name) }

    /// Whether `descriptor` is open.
    package static func isOpen(_ descriptor: Int32) -> Bool { fcntl(descriptor, F_GETFD) >= 0 }

    /// Opens `/dev/null` as each of the descriptors 0, 1 and 2 that is closed.
    package static func occupyStandardDescriptors() {
        while true {
            let number = unsafe open("/dev/null", O_RDWR)
            if number <= 2, number >= 0 { continue }
            if number > 2 { _ = close(number) }
            return
        }
    }

    /// Sleeps, in a process without a loop.
    package static func pause(milliseconds: Int32) { _ = poll(nil, 0, milliseconds) }
}

/// Signals, received by a descriptor instead of by handlers.
package enum Signal {
    package static let terminate = SIGTERM
    package static let interrupt = SIGINT
    package static let quit = SIGQUIT
    package static let abort = SIGABRT
    package static let kill = SIGKILL
    package static let stop = SIGSTOP
    package static let resume = SIGCONT
    package static let child = SIGCHLD
    package static let hangUp = SIGHUP
    package static let user1 = SIGUSR1
    package static let user2 = SIGUSR2
    package static let terminalInput = SIGTTIN
    package static let terminalOutput = SIGTTOU
    package static let windowChange = SIGWINCH
    /// A real-time signal whose value (`sigqueue(3)`) is a log level.
    package static let logLevel = __libc_current_sigrtmin() + 1
    package static let fileSize = SIGXFSZ
    package static let brokenPipe = SIGPIPE
    /// A system call denied by a seccomp filter.
    package static let badCall = SIGSYS
    /// Raised by a failed assertion or an invalid operation.
    package static let traps = [SIGILL, SIGTRAP, SIGFPE, SIGABRT]
    /// Raised by an invalid memory access.
    package static let memoryFaults = [SIGSEGV, SIGBUS]
    /// Raised by faults and assertions; language runtimes often install handlers for them.
    package static let faults = [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS]

    /// Blocks `signals` in this process and returns a descriptor that receives them
    /// (`signalfd(2)`).
    package static func descriptor(for signals: [Int32]) throws(SystemError) -> OwnedDescriptor {
        try block(signals)
        var set = mask(signals)
        return OwnedDescriptor(
            rawValue: try blockingSyscall("signalfd") { unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC)) })
    }

    /// Blocks `signals` in this thread, and in those that it starts and the processes that it
    /// forks.
    package static func block(_ signals: [Int32]) throws(SystemError) {
        var set = mask(signals)
        try blockingSyscall("sigprocmask") { unsafe sigprocmask(SIG_BLOCK, &set, nil) }
    }

    /// Unblocks `signals`; pending ones take their default action.
    package static func unblock(_ signals: [Int32]) {
        var set = mask(signals)
        _ = unsafe sigprocmask(SIG_UNBLOCK, &set, nil)
    }

    package static func ignore(_ signal: Int32) { _ = Glibc.signal(signal, SIG_IGN) }

    package static func restoreDefault(_ signal: Int32) { _ = Glibc.signal(signal, SIG_DFL) }

    /// A received signal.
    package struct Received {
        package let number: Int32
        /// The sending process; nil if the kernel sent it, such as for a terminal.
        package let sender: Int32?
        /// The value of a queued signal; otherwise 0.
        package let value: Int32
    }

    /// The next received signal; nil if there is none.
    package static func next(from descriptor: Int32) -> Received? {
        var info = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        guard unsafe read(descriptor, &info, size) == size else { return nil }
        // `si_code` is at most 0 (`SI_USER`) for signals of processes, positive for the kernel's.
        return Received(
            number: Int32(truncatingIfNeeded: info.ssi_signo), sender: info.ssi_code <= 0 ? Int32(bitPattern: info.ssi_pid) : nil,
            value: info.ssi_int)
    }

    /// Sends a signal with a value (`sigqueue(3)`).
    package static func queue(_ signal: Int32, _ value: Int32, to pid: Int32) throws(SystemError) {
        var content = unsafe sigval()
        unsafe content.sival_int = value
        let number = unsafe content
        try blockingSyscall("sigqueue") { unsafe sigqueue(pid, signal, number) }
    }

    /// Whether a process has blocked this signal, which would otherwise end it. False if /proc is
    /// unavailable.
    package static func isBlocked(_ signal: Int32, in pid: Int32) -> Bool {
        guard let text = try? FileSystem.contents(of: "/proc/\(pid)/status", maxBytes: 16_384),
            let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first(where: { $0.hasPrefix("SigBlk:") }),
            let mask = line.split(separator: "\t").last.flatMap({ UInt64($0, radix: 16) })
        else { return false }
        return mask >> UInt64(signal - 1) & 1 == 1
    }

    /// `SIGKILL`, `SIGSEGV`, …
    package static func name(of signal: Int32) -> String {
        guard let text = unsafe apus_signal_name(signal) else { return "signal \(signal)" }
        return unsafe "SIG" + String(cString: text)
    }

    private static func mask(_ signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in signals { unsafe sigaddset(&set, signal) }
        return set
    }
}
