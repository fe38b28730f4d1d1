import CLinux
import Glibc

/// A child's identity and the descriptor that becomes readable when it ends.
package struct ChildProcess: ~Copyable {
    package let pid: Int32
    /// A pidfd: names this very process even after its number has been reused.
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

/// Calls about processes. The caller of `fork` has one thread: no Task, no Dispatch queue has run.
package enum Process {
    package static var id: Int32 { getpid() }

    /// `fork(2)`. In the child `body` runs and its result is the exit status; the child never returns from here and
    /// ends with `_exit`, so nothing the parent registered for its own end runs twice.
    package static func fork(_ body: () -> Int32) throws(SystemError) -> ChildProcess {
        // What waits in the C library's streams would be written by both.
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
            // Without a pidfd nobody would notice its end: it must not live.
            kill(pid, SIGKILL)
            _ = waitpid(pid, nil, 0)
            throw error
        }
    }

    /// Collects a child that has ended; nil while it runs.
    package static func reap(_ pid: Int32) -> ProcessEnd? { collect(pid, options: WNOHANG) }

    /// Whether processes whose parents have ended become children of this one: it is PID 1, or has asked for them (`PR_SET_CHILD_SUBREAPER`).
    package static let inheritsOrphans = apus_inherits_orphans() != 0

    /// A child that has ended and waits to be reaped; nil if there is none.
    package static func endedChild() -> Int32? {
        let pid = apus_ended_child()
        return pid > 0 ? pid : nil
    }

    /// Kills a child and waits for its end; nil when it was no child.
    package static func killAndReap(_ pid: Int32) -> ProcessEnd? {
        kill(pid, SIGKILL)
        return collect(pid, options: 0)
    }

    /// Waits for a child's end; nil when it was no child.
    package static func waitForEnd(of pid: Int32) -> ProcessEnd? { collect(pid, options: 0) }

    /// A pidfd of a process.
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

    /// Sends `signal` to a child that has not been reaped, so the number is still its own.
    package static func signal(_ pid: Int32, _ signal: Int32) { kill(pid, signal) }

    /// Ends this process at once, without the exit handlers.
    package static func exitNow(_ status: Int32) -> Never { _exit(status) }

    /// Ends this process, with the exit handlers: what is printed is written.
    package static func end(_ status: Int32) -> Never { exit(status) }

    /// The process that started this one; 1, or a subreaper's number, once that has died.
    package static var parent: Int32 { getppid() }

    /// From here on the death of `parent` interrupts whatever this process does: the listeners' numbers name /dev/null instead, so that their
    /// addresses are free although a callback is stuck, and SIGALRM ends the process after `seconds`. The kernel forgets this wish when the
    /// process changes its user: call it again then.
    ///
    /// - Throws: When the kernel refuses, or `ESRCH` when the parent has died already.
    package static func guardOrphan(of parent: Int32, listeners: [Int32], seconds: Int) throws(SystemError) {
        try blockingSyscall("prctl") {
            unsafe apus_guard_orphan(parent, listeners, Int32(listeners.count), UInt32(clamping: seconds))
        }
        if getppid() != parent { throw SystemError(code: ESRCH, call: "getppid") }
    }

    /// Other listeners for `guardOrphan`: no more than it took at first, or 4,096.
    package static func guardListeners(_ listeners: [Int32]) {
        _ = unsafe apus_guard_listeners(listeners, Int32(listeners.count))
    }

    /// Replaces the program of this process by `arguments[0]`, looked up in PATH if it has no slash (`execvp(3)`). `keeping` are descriptors
    /// that the new program inherits. Returns only when that fails.
    package static func execute(_ arguments: [String], keeping: [Int32]) -> SystemError {
        for descriptor in keeping { _ = fcntl(descriptor, F_SETFD, 0) }
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe arguments.map { unsafe strdup($0) } + [nil]
        _ = unsafe apus_execute(arguments[0], &pointers)
        return SystemError(code: errno, call: "execvp")
    }

    /// How many threads this process has; 1 where /proc cannot tell.
    package static var threadCount: Int { max(1, FileSystem.entryCount(of: "/proc/self/task")) }

    /// Starts a thread that ends at once and waits for it.
    ///
    /// - Returns: 0, or the errno.
    package static func attemptThread() -> Int32 {
        var thread = pthread_t()
        let code = unsafe pthread_create(&thread, nil, { _ in nil }, nil)
        return code == 0 ? pthread_join(thread, nil) : code
    }

    /// Prepares what libraries keep for the process: the time zone and the locales are read, TZ is set to the zone's name if it is unset,
    /// Foundation's main bundle is looked for, the working directory, the root directory's status and the machine's memory are kept, and lines of standard output leave as they end. Nothing of it needs a file afterwards.
    package static func loadEnvironment() {
        apus_load_time_zone()
        apus_load_bundle()
        apus_load_facts()
        apus_prepare_streams()
    }

    /// From here on `pthread_create` starts no thread: detached ones never run, for others the call fails. The first is noted in the log.
    package static func refuseThreads() { apus_refuse_threads() }

    /// What `ps` shows as this process's command line, as far as the room of the original one reaches.
    package static func setTitle(_ title: String) { unsafe apus_set_title(title) }

    /// CPUs that this process may run on.
    package static func usableProcessors() -> Int {
        max(1, Int(apus_usable_processors()))
    }

    /// Raises the limit on open descriptors to what the system allows this process, and gives it.
    package static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// The value of an environment variable; nil if it is not set.
    package static func environment(_ name: String) -> String? {
        guard let value = unsafe getenv(name) else { return nil }
        return unsafe String(cString: value)
    }

    /// Sets an environment variable for this process and those it forks.
    package static func setEnvironment(_ name: String, to value: String) { _ = unsafe setenv(name, value, 1) }

    package static func removeEnvironment(_ name: String) { _ = unsafe unsetenv(name) }

    /// Whether `descriptor` is open.
    package static func isOpen(_ descriptor: Int32) -> Bool { fcntl(descriptor, F_GETFD) >= 0 }

    /// Opens `/dev/null` as those of the descriptors 0, 1 and 2 that are closed.
    package static func occupyStandardDescriptors() {
        while true {
            let number = unsafe open("/dev/null", O_RDWR)
            if number <= 2, number >= 0 { continue }
            if number > 2 { _ = close(number) }
            return
        }
    }

    /// Lets `milliseconds` pass in a process that has no loop yet.
    package static func pause(milliseconds: Int32) { _ = poll(nil, 0, milliseconds) }
}

/// Signals, as a descriptor to watch instead of handlers that interrupt.
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
    /// Comes with a number (`sigqueue(3)`): of a level of the log.
    package static let logLevel = __libc_current_sigrtmin() + 1
    package static let fileSize = SIGXFSZ
    package static let brokenPipe = SIGPIPE
    /// A system call that a filter forbids.
    package static let badCall = SIGSYS
    /// Raised by a process that finds itself broken.
    package static let traps = [SIGILL, SIGTRAP, SIGFPE, SIGABRT]
    /// Raised by the use of memory that is not there.
    package static let memoryFaults = [SIGSEGV, SIGBUS]
    /// Those that a fault or an assertion raises; language runtimes like to install handlers for them.
    package static let faults = [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS]

    /// Blocks `signals` for this process and gives a descriptor that reports them (`signalfd(2)`).
    package static func descriptor(for signals: [Int32]) throws(SystemError) -> OwnedDescriptor {
        var set = mask(signals)
        try blockingSyscall("sigprocmask") { unsafe sigprocmask(SIG_BLOCK, &set, nil) }
        return OwnedDescriptor(
            rawValue: try blockingSyscall("signalfd") { unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC)) })
    }

    /// Lets `signals` through again; those that wait are delivered to their default action.
    package static func unblock(_ signals: [Int32]) {
        var set = mask(signals)
        _ = unsafe sigprocmask(SIG_UNBLOCK, &set, nil)
    }

    package static func ignore(_ signal: Int32) { _ = Glibc.signal(signal, SIG_IGN) }

    package static func restoreDefault(_ signal: Int32) { _ = Glibc.signal(signal, SIG_DFL) }

    /// A signal that came in.
    package struct Received {
        package let number: Int32
        /// The process that sent it; nil for the kernel, which speaks for a terminal.
        package let sender: Int32?
        /// What came with it, if it was queued with something.
        package let value: Int32
    }

    /// The next signal that came in; nil when there is none.
    package static func next(from descriptor: Int32) -> Received? {
        var info = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        guard unsafe read(descriptor, &info, size) == size else { return nil }
        // SI_USER is 0, other processes' calls are below it; the kernel's own reasons are above.
        return Received(
            number: Int32(truncatingIfNeeded: info.ssi_signo), sender: info.ssi_code <= 0 ? Int32(bitPattern: info.ssi_pid) : nil,
            value: info.ssi_int)
    }

    /// Sends a signal with a number.
    package static func queue(_ signal: Int32, _ value: Int32, to pid: Int32) throws(SystemError) {
        var content = unsafe sigval()
        unsafe content.sival_int = value
        let number = unsafe content
        try blockingSyscall("sigqueue") { unsafe sigqueue(pid, signal, number) }
    }

    /// Whether a process keeps this signal waiting until it reads it: other processes may die of it. False where /proc cannot tell.
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
