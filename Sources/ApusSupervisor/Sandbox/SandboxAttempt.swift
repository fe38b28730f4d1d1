import ApusPlatform
import CSeccomp

/// Something that an attacker would try in a worker.
struct SandboxAttempt {
    let name: String
    /// The layers that stop it, each alone. Empty: it must succeed.
    let stoppedBy: Set<Sandbox.Layer>
    /// The permissions that the worker has.
    var permissions: Set<SystemCalls.Feature> = []
    /// Returns 0 on success, else the errno.
    let body: (SandboxTargets) -> Int32

    private static func passDescriptor(from sender: Int32, to receiver: Int32) -> Int32 {
        var passed: [Int32] = []
        do throws(SystemError) {
            _ = try Socket.send(sender, [1], passing: [0])
            return unsafe withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { buffer in
                do throws(SystemError) {
                    _ = try unsafe Socket.receive(receiver, into: buffer, passed: &passed)
                    return passed.count == 1 ? 0 : 5
                } catch {
                    return error.code
                }
            }
        } catch {
            return error.code
        }
    }

    static var all: [SandboxAttempt] {
        [
            SandboxAttempt(name: "read a file beneath a mounted root", stoppedBy: []) { targets in
                do throws(SystemError) {
                    let file = try FileSystem.openBeneath(targets.directory.rawValue, "page.html")
                    return try FileSystem.contents(file.rawValue, maxBytes: 16).count == 6 ? 0 : 5
                } catch {
                    return error.code
                }
            },
            SandboxAttempt(name: "send on a connection", stoppedBy: []) { targets in
                do throws(SystemError) {
                    return if case .done(1) = try Socket.send(targets.client.rawValue, [1]) { 0 } else { 11 }
                } catch {
                    return error.code
                }
            },
            SandboxAttempt(name: "a pipe", stoppedBy: []) { _ in Self.withMemory(8) { Self.call("pipe2", $0, 0o2004000) } },
            SandboxAttempt(name: "a pair of sockets", stoppedBy: [.seccomp]) { _ in
                Self.withMemory(8) { Self.call("socketpair", 1, 1, 0, $0) }
            },
            SandboxAttempt(name: "receive a descriptor with the master's orders", stoppedBy: []) { targets in
                Self.passDescriptor(from: targets.channel.rawValue, to: targets.channelEnd.rawValue)
            },
            SandboxAttempt(name: "receive a descriptor from elsewhere", stoppedBy: [.seccomp]) { targets in
                Self.passDescriptor(from: targets.other.rawValue, to: targets.otherEnd.rawValue)
            },
            SandboxAttempt(name: "read /etc/passwd", stoppedBy: [.landlock]) { _ in Self.open("/etc/passwd", flags: 0) },
            SandboxAttempt(name: "read a key beside the pages", stoppedBy: [.user]) { targets in
                do throws(SystemError) {
                    _ = try FileSystem.openBeneath(targets.directory.rawValue, "key.pem")
                    return 0
                } catch {
                    return error.code
                }
            },
            SandboxAttempt(name: "read a key by its path", stoppedBy: [.user]) { targets in
                Self.open(targets.place + "/key.pem", flags: 0)
            },
            SandboxAttempt(name: "create a file", stoppedBy: [.user, .landlock, .seccomp]) { targets in
                Self.open(targets.place + "/created", flags: openCreate)
            },
            SandboxAttempt(name: "create a file beneath the root", stoppedBy: [.user, .landlock]) { targets in
                do throws(SystemError) {
                    _ = try FileSystem.createBeneath(targets.directory.rawValue, "written")
                    return 0
                } catch {
                    return error.code
                }
            },
            SandboxAttempt(name: "unlink", stoppedBy: [.user, .landlock, .seccomp]) { targets in
                Self.withPath(targets.place + "/page.html") { Self.call("unlinkat", atWorkingDirectory, $0, 0) }
            },
            SandboxAttempt(name: "a Unix socket", stoppedBy: [.seccomp]) { _ in Self.call("socket", 1, 1, 0) },
            SandboxAttempt(name: "a netlink socket", stoppedBy: [.seccomp]) { _ in Self.call("socket", 16, 3, 0) },
            SandboxAttempt(name: "a packet socket", stoppedBy: [.user, .capabilities, .seccomp]) { _ in Self.call("socket", 17, 3, 0) },
            SandboxAttempt(name: "bind", stoppedBy: [.landlock, .seccomp]) { Self.withLoopback($0.unbound.rawValue, "bind") },
            SandboxAttempt(name: "connect", stoppedBy: [.landlock, .seccomp]) { targets in
                Self.withLoopback(
                    targets.unbound.rawValue, "connect", port: (try? Socket.localAddress(of: targets.listener.rawValue))?.port ?? 0)
            },
            SandboxAttempt(name: "listen", stoppedBy: [.seccomp]) { Self.call("listen", Int($0.bound.rawValue), 1) },
            SandboxAttempt(name: "execve", stoppedBy: [.landlock, .seccomp]) { _ in
                Self.withPath("/bin/true") { Self.call("execve", $0, 0, 0) }
            },
            SandboxAttempt(name: "execveat", stoppedBy: [.landlock, .seccomp]) { _ in
                Self.withPath("/bin/true") { Self.call("execveat", atWorkingDirectory, $0, 0, 0, 0) }
            },
            SandboxAttempt(name: "clone", stoppedBy: [.limits, .seccomp]) { _ in Self.clone() },
            SandboxAttempt(name: "ptrace the master", stoppedBy: [.user, .landlock, .seccomp]) {
                Self.call("ptrace", 16896 + 6, Int($0.master), 0, 0)
            },
            SandboxAttempt(name: "read the master's memory", stoppedBy: [.user, .landlock, .seccomp]) { targets in
                Self.withVector { Self.call("process_vm_readv", Int(targets.master), $0, 1, $0, 1, 0) }
            },
            SandboxAttempt(name: "take a descriptor of the master's", stoppedBy: [.user, .landlock, .seccomp]) {
                Self.call("pidfd_getfd", Int($0.masterHandle.rawValue), 0, 0)
            },
            SandboxAttempt(name: "signal the master", stoppedBy: [.user, .landlock, .seccomp]) { Self.call("kill", Int($0.master), 0) },
            SandboxAttempt(name: "signal a thread of the master's", stoppedBy: [.user, .landlock, .seccomp]) {
                Self.call("tgkill", Int($0.master), Int($0.master), 0)
            },
            SandboxAttempt(name: "memory to write and execute", stoppedBy: [.seccomp]) { _ in Self.call("mmap", 0, 4096, 7, 0x22, -1, 0) },
            SandboxAttempt(name: "make memory executable", stoppedBy: [.seccomp]) { _ in Self.makeExecutable() },
            SandboxAttempt(name: "setuid(0)", stoppedBy: [.user, .seccomp]) { _ in Self.call("setuid", 0) },
            SandboxAttempt(name: "unshare", stoppedBy: [.user, .capabilities, .seccomp]) { _ in Self.call("unshare", 0x20000) },
            SandboxAttempt(name: "mount", stoppedBy: [.user, .capabilities, .landlock, .seccomp]) { targets in
                Self.withPath(targets.place) { Self.call("mount", $0, $0, 0, 4096, 0) }
            },
            SandboxAttempt(name: "chroot", stoppedBy: [.user, .capabilities, .seccomp]) { _ in
                Self.withPath("/") { Self.call("chroot", $0) }
            },
            SandboxAttempt(name: "bpf", stoppedBy: [.user, .capabilities, .seccomp]) { _ in
                // BPF_PROG_GET_NEXT_ID, which needs CAP_SYS_ADMIN.
                Self.withVector { Self.call("bpf", 11, $0, 16) }
            },
            SandboxAttempt(name: "io_uring_setup", stoppedBy: [.seccomp]) { _ in
                Self.withMemory(256) { Self.call("io_uring_setup", 1, $0) }
            },
            SandboxAttempt(name: "userfaultfd", stoppedBy: [.seccomp]) { _ in Self.call("userfaultfd", 1) },
            SandboxAttempt(name: "keyctl", stoppedBy: [.seccomp]) { _ in Self.call("keyctl", 0, -3, 1) },
            SandboxAttempt(name: "int 0x80", stoppedBy: [.seccomp]) { _ in Confinement.attemptCompatibleCall() },
            SandboxAttempt(name: "start a thread", stoppedBy: [.limits, .seccomp]) { _ in Process.attemptThread() },
        ] + permitted
    }

    /// Attempts with permissions: what each adds, and what it does not.
    private static var permitted: [SandboxAttempt] {
        [
            SandboxAttempt(name: "threads: start a thread", stoppedBy: [], permissions: [.threads]) { _ in Process.attemptThread() },
            SandboxAttempt(name: "threads: start a process", stoppedBy: [.seccomp], permissions: [.threads]) { _ in Self.clone() },
            SandboxAttempt(name: "threads: list the threads of this process", stoppedBy: [], permissions: [.threads]) { _ in
                Self.open("/proc/self/task", flags: openDirectory)
            },
            SandboxAttempt(name: "threads: read the state of the master", stoppedBy: [.landlock], permissions: [.threads]) {
                Self.open("/proc/\($0.master)/stat", flags: 0)
            },
            SandboxAttempt(name: "threads: read /proc/self/status", stoppedBy: [.landlock], permissions: [.threads]) { _ in
                Self.open("/proc/self/status", flags: 0)
            },
            SandboxAttempt(name: "threads: write /proc/self/comm", stoppedBy: [.user, .landlock, .seccomp], permissions: [.threads]) { _ in
                Self.open("/proc/self/comm", flags: 1)
            },
            SandboxAttempt(name: "threads: execve", stoppedBy: [.landlock, .seccomp], permissions: [.threads]) { _ in
                Self.withPath("/bin/true") { Self.call("execve", $0, 0, 0) }
            },
            SandboxAttempt(name: "reading: read a file beneath the path", stoppedBy: [], permissions: [.reading]) {
                Self.open($0.given + "/file", flags: 0)
            },
            SandboxAttempt(name: "reading: read /etc/passwd", stoppedBy: [.landlock], permissions: [.reading]) { _ in
                Self.open("/etc/passwd", flags: 0)
            },
            SandboxAttempt(name: "reading: leave the path by ..", stoppedBy: [.landlock], permissions: [.reading]) {
                Self.open($0.given + "/../../etc/passwd", flags: 0)
            },
            SandboxAttempt(name: "reading: read by /proc/self/root", stoppedBy: [.landlock], permissions: [.reading]) { _ in
                Self.open("/proc/self/root/etc/passwd", flags: 0)
            },
            SandboxAttempt(name: "reading: create a file beneath the path", stoppedBy: [.landlock, .seccomp], permissions: [.reading]) {
                Self.open($0.given + "/created", flags: openCreate)
            },
            SandboxAttempt(name: "reading: remove a file", stoppedBy: [.landlock, .seccomp], permissions: [.reading]) { targets in
                Self.withPath(targets.given + "/file") { Self.call("unlinkat", atWorkingDirectory, $0, 0) }
            },
            SandboxAttempt(name: "writing: create and rename a file beneath the path", stoppedBy: [], permissions: [.reading, .writing]) {
                targets in
                let created = Self.open(targets.given + "/created", flags: openCreate)
                guard created == 0 else { return created }
                return Self.withPath(targets.given + "/created") { old in
                    Self.withPath(targets.given + "/renamed") { Self.call("renameat2", atWorkingDirectory, old, atWorkingDirectory, $0, 0) }
                }
            },
            SandboxAttempt(name: "writing: create a file elsewhere", stoppedBy: [.user, .landlock], permissions: [.reading, .writing]) {
                Self.open($0.place + "/created", flags: openCreate)
            },
            SandboxAttempt(name: "writing: read /etc/passwd", stoppedBy: [.landlock], permissions: [.reading, .writing]) { _ in
                Self.open("/etc/passwd", flags: 0)
            },
            SandboxAttempt(name: "writing: link to another's file", stoppedBy: [.landlock, .seccomp], permissions: [.reading, .writing]) {
                targets in
                Self.withPath("/etc/passwd") { old in
                    Self.withPath(targets.given + "/link") { Self.call("symlinkat", old, atWorkingDirectory, $0) }
                }
            },
            SandboxAttempt(name: "writing: change a file's mode", stoppedBy: [.user, .seccomp], permissions: [.reading, .writing]) {
                targets in
                Self.withPath(targets.given + "/file") { Self.call("fchmodat", atWorkingDirectory, $0, 0o777) }
            },
            SandboxAttempt(name: "connecting: a TCP socket", stoppedBy: [], permissions: [.clients]) { _ in Self.call("socket", 2, 1, 0) },
            SandboxAttempt(name: "connecting: a netlink socket", stoppedBy: [.seccomp], permissions: [.clients]) { _ in
                Self.call("socket", 16, 3, 0)
            },
            SandboxAttempt(name: "connecting: a pair of stream sockets", stoppedBy: [], permissions: [.clients]) { _ in
                Self.withMemory(8) { Self.call("socketpair", 1, 1, 0, $0) }
            },
            SandboxAttempt(name: "connecting: a pair of datagram sockets", stoppedBy: [.seccomp], permissions: [.clients]) { _ in
                Self.withMemory(8) { Self.call("socketpair", 1, 2, 0, $0) }
            },
            SandboxAttempt(name: "connecting: listen", stoppedBy: [.seccomp], permissions: [.clients]) {
                Self.call("listen", Int($0.bound.rawValue), 1)
            },
            SandboxAttempt(name: "connecting: read /etc/passwd", stoppedBy: [.landlock], permissions: [.clients]) { _ in
                Self.open("/etc/passwd", flags: 0)
            },
        ]
    }

    private static let atWorkingDirectory = -100
    private static let openCreate = 0o101
    private static let openDirectory = 0o200000

    private static func call(_ name: String, _ arguments: Int...) -> Int32 {
        let number = unsafe seccomp_syscall_resolve_name(name)
        // ENOSYS: this architecture does not have the call.
        return number < 0 ? 38 : Confinement.attempt(call: Int(number), arguments)
    }

    private static func open(_ path: String, flags: Int) -> Int32 {
        withPath(path) { call("openat", atWorkingDirectory, $0, flags, 0o600) }
    }

    /// Calls `body` with the address of a path.
    private static func withPath(_ path: String, _ body: (Int) -> Int32) -> Int32 {
        unsafe path.withCString { body(Int(bitPattern: $0)) }
    }

    private static func withMemory(_ count: Int, _ body: (Int) -> Int32) -> Int32 {
        var bytes = [UInt8](repeating: 0, count: count)
        return unsafe bytes.withUnsafeMutableBytes { body(Int(bitPattern: $0.baseAddress)) }
    }

    /// Calls `body` with the address of an iovec of eight bytes, which is the same in every process
    /// of this program.
    private static func withVector(_ body: (Int) -> Int32) -> Int32 {
        var target: UInt64 = 0
        return unsafe withUnsafeMutablePointer(to: &target) { pointer in
            var vector = [Int(bitPattern: pointer), 8]
            return unsafe vector.withUnsafeMutableBytes { body(Int(bitPattern: $0.baseAddress)) }
        }
    }

    private static func withLoopback(_ socket: Int32, _ name: String, port: UInt16 = 0) -> Int32 {
        // A sockaddr_in: family 2, the port in network order, 127.0.0.1.
        var address: [UInt8] = [2, 0, UInt8(port >> 8), UInt8(port & 0xff), 127, 0, 0, 1] + Array(repeating: 0, count: 8)
        return unsafe address.withUnsafeMutableBytes { call(name, Int(socket), Int(bitPattern: $0.baseAddress), 16) }
    }

    /// `fork` by the system call itself. The child ends at once.
    private static func clone() -> Int32 {
        let parent = Process.id
        let result = call("clone", 17, 0, 0, 0, 0)
        if Process.id != parent { Process.exitNow(0) }
        return result
    }

    private static func makeExecutable() -> Int32 {
        let page = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
        return call("mprotect", Int(bitPattern: page), 4096, 5)
    }
}
