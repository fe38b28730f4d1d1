package import ApusPlatform
import CSeccomp

/// Tries what an attacker would who has taken over a worker: with the whole sandbox, and with each of its layers switched off, so that it shows
/// which layers stop what. Every attempt is made by a child process of its own.
package struct SandboxSelfTest {
    /// What came of an attempt.
    package enum Outcome: Equatable, Sendable, CustomStringConvertible {
        case allowed
        case refused(errno: Int32)
        case killed
        /// The sandbox could not be entered, or the child ended otherwise.
        case broken(String)

        package var description: String {
            switch self {
            case .allowed: "allowed"
            case .refused(let code): "refused: \(SystemError(code: code, call: "").reason)"
            case .killed: "killed"
            case .broken(let what): "broken: \(what)"
            }
        }
    }

    /// One line of the result.
    package struct Line: Sendable {
        package let attempt: String
        /// The layer that is switched off; nil: none.
        package let without: String?
        package let isWanted: Bool
        package let got: Outcome
        package let asWanted: Bool
    }

    struct Attempt {
        let name: String
        /// Each of these alone stops it. Empty: it must succeed.
        let stoppedBy: Set<Sandbox.Layer>
        /// The permissions that the worker has.
        var permissions: Set<SystemCalls.Feature> = []
        /// Gives 0 if it was done, else the errno.
        let body: (Stage) -> Int32
    }

    private let sandbox: Sandbox

    /// - Parameter identity: what workers become.
    package init(identity: Sandbox.Identity?) {
        sandbox = Sandbox(mode: .enforced, identity: identity, root: nil, features: [.files, .tls])
    }

    /// Makes all attempts and gives each with what was wanted of it.
    package func run(_ report: (Line) -> Void) throws(SystemError) {
        let stage = try Stage()
        for attempt in Self.attempts {
            // What the system refuses anyhow proves nothing.
            let baseline = outcome(of: attempt, on: stage, layers: [])
            for layer in [nil] + Sandbox.Layer.allCases.map({ $0 }) {
                let layers = Set(Sandbox.Layer.allCases).subtracting(layer.map { [$0] } ?? [])
                let got = outcome(of: attempt, on: stage, layers: layers)
                let isWanted = baseline == .allowed && attempt.stoppedBy.isDisjoint(with: effective(layers))
                let asWanted =
                    switch got {
                    case .allowed: isWanted
                    case .refused, .killed: !isWanted
                    case .broken: false
                    }
                report(Line(attempt: attempt.name, without: layer?.rawValue, isWanted: isWanted, got: got, asWanted: asWanted))
            }
        }
    }

    /// Who is not root, and stays what he is, has no capabilities to lose and no user to leave; Landlock's older versions know less.
    private func effective(_ layers: Set<Sandbox.Layer>) -> Set<Sandbox.Layer> {
        sandbox.identity == nil && layers.contains(.user) ? layers.subtracting([.user]) : layers
    }

    private func outcome(of attempt: Attempt, on stage: Stage, layers: Set<Sandbox.Layer>) -> Outcome {
        var sandbox = sandbox
        sandbox.layers = layers
        sandbox.readable = [stage.directory.rawValue]
        sandbox.features.formUnion(attempt.permissions)
        if attempt.permissions.contains(.reading) { sandbox.readablePaths = [stage.given] }
        if attempt.permissions.contains(.writing) { sandbox.writablePaths = [stage.given] }
        do {
            try stage.restore()
            let child = try Process.fork {
                for signal in Signal.faults { Signal.restoreDefault(signal) }
                do throws(SandboxError) {
                    try sandbox.enter(hearing: stage.ordersEnd.rawValue, noting: nil)
                } catch {
                    try? FileSystem.writeAll(2, "sandbox: \(error)\n")
                    return Self.cannotEnter
                }
                return attempt.body(stage)
            }
            switch Process.waitForEnd(of: child.pid) {
            case .exited(0): return .allowed
            case .exited(Self.cannotEnter): return .broken("the sandbox cannot be entered")
            case .exited(let code): return .refused(errno: code)
            case .signaled(Signal.badCall): return .killed
            case let end: return .broken(end.map { "\($0)" } ?? "its end was lost")
            }
        } catch {
            return .broken("\(error)")
        }
    }

    /// No errno is that large.
    private static let cannotEnter: Int32 = 250

    // MARK: What is attempted

    /// What the attempts are made on, prepared outside of the sandbox.
    final class Stage {
        let place: String
        /// What a permission names: every user may write there.
        let given: String
        let directory: OwnedDescriptor
        let listener: OwnedDescriptor
        let client: OwnedDescriptor
        let unbound: OwnedDescriptor
        let bound: OwnedDescriptor
        /// A pair like the one that the master's orders come through, and another one.
        let orders, ordersEnd: OwnedDescriptor
        let letters, lettersEnd: OwnedDescriptor
        let master: Int32
        let masterHandle: OwnedDescriptor

        init() throws(SystemError) {
            place = try FileSystem.makeTemporaryDirectory()
            given = try FileSystem.makeTemporaryDirectory(mode: 0o777)
            directory = try FileSystem.openDirectory(place)
            let loopback = SocketAddress(numericHost: "127.0.0.1", port: 0)
            guard let loopback else { throw SystemError(code: SystemError.noSuchFile, call: "inet_pton") }
            listener = try Socket.stream(for: loopback)
            try Socket.bind(listener.rawValue, to: loopback)
            try Socket.listen(listener.rawValue, backlog: 1)
            client = try Socket.stream(for: loopback)
            _ = try Socket.connect(client.rawValue, to: try Socket.localAddress(of: listener.rawValue))
            unbound = try Socket.stream(for: loopback)
            bound = try Socket.stream(for: loopback)
            try Socket.bind(bound.rawValue, to: loopback)
            let pairs = (try Socket.packetPair().release(), try Socket.packetPair().release())
            orders = OwnedDescriptor(rawValue: pairs.0.first)
            ordersEnd = OwnedDescriptor(rawValue: pairs.0.second)
            letters = OwnedDescriptor(rawValue: pairs.1.first)
            lettersEnd = OwnedDescriptor(rawValue: pairs.1.second)
            master = Process.id
            masterHandle = try Process.handle(of: Process.id)
        }

        /// Undoes what an attempt may have done.
        func restore() throws(SystemError) {
            try FileSystem.replace(place + "/page.html", with: "a page")
            try FileSystem.replace(place + "/key.pem", with: "a key", mode: 0o600)
            try FileSystem.replace(given + "/file", with: "a file")
            for name in ["/written", "/created"] { FileSystem.remove(place + name) }
            for name in Self.made { FileSystem.remove(given + name) }
        }

        private static let made = ["/created", "/renamed", "/link"]

        deinit {
            for name in ["/page.html", "/key.pem", "/written", "/created"] { FileSystem.remove(place + name) }
            for name in ["/file"] + Self.made { FileSystem.remove(given + name) }
            FileSystem.removeDirectory(place)
            FileSystem.removeDirectory(given)
        }
    }

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

    private static var attempts: [Attempt] {
        [
            Attempt(name: "read a file beneath a mounted root", stoppedBy: []) { stage in
                do throws(SystemError) {
                    let file = try FileSystem.openBeneath(stage.directory.rawValue, "page.html")
                    return try FileSystem.contents(file.rawValue, maxBytes: 16).count == 6 ? 0 : 5
                } catch {
                    return error.code
                }
            },
            Attempt(name: "send on a connection", stoppedBy: []) { stage in
                do throws(SystemError) {
                    return if case .done(1) = try Socket.send(stage.client.rawValue, [1]) { 0 } else { 11 }
                } catch {
                    return error.code
                }
            },
            Attempt(name: "receive a descriptor with the master's orders", stoppedBy: []) { stage in
                Self.passDescriptor(from: stage.orders.rawValue, to: stage.ordersEnd.rawValue)
            },
            Attempt(name: "receive a descriptor from elsewhere", stoppedBy: [.seccomp]) { stage in
                Self.passDescriptor(from: stage.letters.rawValue, to: stage.lettersEnd.rawValue)
            },
            Attempt(name: "read /etc/passwd", stoppedBy: [.landlock]) { _ in Self.open("/etc/passwd", flags: 0) },
            Attempt(name: "read a key beside the pages", stoppedBy: [.user]) { stage in
                do throws(SystemError) {
                    _ = try FileSystem.openBeneath(stage.directory.rawValue, "key.pem")
                    return 0
                } catch {
                    return error.code
                }
            },
            Attempt(name: "read a key by its path", stoppedBy: [.user]) { stage in
                Self.open(stage.place + "/key.pem", flags: 0)
            },
            Attempt(name: "create a file", stoppedBy: [.user, .landlock, .seccomp]) { stage in
                Self.open(stage.place + "/created", flags: openCreate)
            },
            Attempt(name: "create a file beneath the root", stoppedBy: [.user, .landlock]) { stage in
                do throws(SystemError) {
                    _ = try FileSystem.createBeneath(stage.directory.rawValue, "written")
                    return 0
                } catch {
                    return error.code
                }
            },
            Attempt(name: "unlink", stoppedBy: [.user, .landlock, .seccomp]) { stage in
                Self.withPath(stage.place + "/page.html") { Self.call("unlinkat", atWorkingDirectory, $0, 0) }
            },
            Attempt(name: "a Unix socket", stoppedBy: [.seccomp]) { _ in Self.call("socket", 1, 1, 0) },
            Attempt(name: "a netlink socket", stoppedBy: [.seccomp]) { _ in Self.call("socket", 16, 3, 0) },
            Attempt(name: "a packet socket", stoppedBy: [.user, .capabilities, .seccomp]) { _ in Self.call("socket", 17, 3, 0) },
            Attempt(name: "bind", stoppedBy: [.landlock, .seccomp]) { Self.withLoopback($0.unbound.rawValue, "bind") },
            Attempt(name: "connect", stoppedBy: [.landlock, .seccomp]) { stage in
                Self.withLoopback(
                    stage.unbound.rawValue, "connect", port: (try? Socket.localAddress(of: stage.listener.rawValue))?.port ?? 0)
            },
            Attempt(name: "listen", stoppedBy: [.seccomp]) { Self.call("listen", Int($0.bound.rawValue), 1) },
            Attempt(name: "execve", stoppedBy: [.landlock, .seccomp]) { _ in
                Self.withPath("/bin/true") { Self.call("execve", $0, 0, 0) }
            },
            Attempt(name: "execveat", stoppedBy: [.landlock, .seccomp]) { _ in
                Self.withPath("/bin/true") { Self.call("execveat", atWorkingDirectory, $0, 0, 0, 0) }
            },
            Attempt(name: "clone", stoppedBy: [.limits, .seccomp]) { _ in Self.clone() },
            Attempt(name: "ptrace the master", stoppedBy: [.user, .landlock, .seccomp]) {
                Self.call("ptrace", 16896 + 6, Int($0.master), 0, 0)
            },
            Attempt(name: "read the master's memory", stoppedBy: [.user, .landlock, .seccomp]) { stage in
                Self.withVector { Self.call("process_vm_readv", Int(stage.master), $0, 1, $0, 1, 0) }
            },
            Attempt(name: "take a descriptor of the master's", stoppedBy: [.user, .landlock, .seccomp]) {
                Self.call("pidfd_getfd", Int($0.masterHandle.rawValue), 0, 0)
            },
            Attempt(name: "signal the master", stoppedBy: [.user, .landlock, .seccomp]) { Self.call("kill", Int($0.master), 0) },
            Attempt(name: "signal a thread of the master's", stoppedBy: [.user, .landlock, .seccomp]) {
                Self.call("tgkill", Int($0.master), Int($0.master), 0)
            },
            Attempt(name: "memory to write and execute", stoppedBy: [.seccomp]) { _ in Self.call("mmap", 0, 4096, 7, 0x22, -1, 0) },
            Attempt(name: "make memory executable", stoppedBy: [.seccomp]) { _ in Self.makeExecutable() },
            Attempt(name: "setuid(0)", stoppedBy: [.user, .seccomp]) { _ in Self.call("setuid", 0) },
            Attempt(name: "unshare", stoppedBy: [.user, .capabilities, .seccomp]) { _ in Self.call("unshare", 0x20000) },
            Attempt(name: "mount", stoppedBy: [.user, .capabilities, .landlock, .seccomp]) { stage in
                Self.withPath(stage.place) { Self.call("mount", $0, $0, 0, 4096, 0) }
            },
            Attempt(name: "chroot", stoppedBy: [.user, .capabilities, .seccomp]) { _ in Self.withPath("/") { Self.call("chroot", $0) } },
            Attempt(name: "bpf", stoppedBy: [.user, .capabilities, .seccomp]) { _ in
                // BPF_PROG_GET_NEXT_ID, which wants CAP_SYS_ADMIN.
                Self.withVector { Self.call("bpf", 11, $0, 16) }
            },
            Attempt(name: "io_uring_setup", stoppedBy: [.seccomp]) { _ in
                Self.withMemory(256) { Self.call("io_uring_setup", 1, $0) }
            },
            Attempt(name: "userfaultfd", stoppedBy: [.seccomp]) { _ in Self.call("userfaultfd", 1) },
            Attempt(name: "keyctl", stoppedBy: [.seccomp]) { _ in Self.call("keyctl", 0, -3, 1) },
            Attempt(name: "int 0x80", stoppedBy: [.seccomp]) { _ in Confinement.attemptCompatibleCall() },
            Attempt(name: "start a thread", stoppedBy: [.limits, .seccomp]) { _ in Process.attemptThread() },
        ] + permitted
    }

    /// What a permission adds, and that it adds no more.
    private static var permitted: [Attempt] {
        [
            Attempt(name: "threads: start a thread", stoppedBy: [], permissions: [.threads]) { _ in Process.attemptThread() },
            Attempt(name: "threads: start a process", stoppedBy: [.seccomp], permissions: [.threads]) { _ in Self.clone() },
            Attempt(name: "threads: execve", stoppedBy: [.landlock, .seccomp], permissions: [.threads]) { _ in
                Self.withPath("/bin/true") { Self.call("execve", $0, 0, 0) }
            },
            Attempt(name: "reading: read a file beneath the path", stoppedBy: [], permissions: [.reading]) {
                Self.open($0.given + "/file", flags: 0)
            },
            Attempt(name: "reading: read /etc/passwd", stoppedBy: [.landlock], permissions: [.reading]) { _ in
                Self.open("/etc/passwd", flags: 0)
            },
            Attempt(name: "reading: leave the path by ..", stoppedBy: [.landlock], permissions: [.reading]) {
                Self.open($0.given + "/../../etc/passwd", flags: 0)
            },
            Attempt(name: "reading: read by /proc/self/root", stoppedBy: [.landlock], permissions: [.reading]) { _ in
                Self.open("/proc/self/root/etc/passwd", flags: 0)
            },
            Attempt(name: "reading: create a file beneath the path", stoppedBy: [.landlock, .seccomp], permissions: [.reading]) {
                Self.open($0.given + "/created", flags: openCreate)
            },
            Attempt(name: "reading: remove a file", stoppedBy: [.landlock, .seccomp], permissions: [.reading]) { stage in
                Self.withPath(stage.given + "/file") { Self.call("unlinkat", atWorkingDirectory, $0, 0) }
            },
            Attempt(name: "writing: create and rename a file beneath the path", stoppedBy: [], permissions: [.reading, .writing]) { stage in
                let created = Self.open(stage.given + "/created", flags: openCreate)
                guard created == 0 else { return created }
                return Self.withPath(stage.given + "/created") { old in
                    Self.withPath(stage.given + "/renamed") { Self.call("renameat2", atWorkingDirectory, old, atWorkingDirectory, $0, 0) }
                }
            },
            Attempt(name: "writing: create a file elsewhere", stoppedBy: [.user, .landlock], permissions: [.reading, .writing]) {
                Self.open($0.place + "/created", flags: openCreate)
            },
            Attempt(name: "writing: read /etc/passwd", stoppedBy: [.landlock], permissions: [.reading, .writing]) { _ in
                Self.open("/etc/passwd", flags: 0)
            },
            Attempt(name: "writing: link to another's file", stoppedBy: [.landlock, .seccomp], permissions: [.reading, .writing]) { stage in
                Self.withPath("/etc/passwd") { old in
                    Self.withPath(stage.given + "/link") { Self.call("symlinkat", old, atWorkingDirectory, $0) }
                }
            },
            Attempt(name: "writing: change a file's mode", stoppedBy: [.user, .seccomp], permissions: [.reading, .writing]) { stage in
                Self.withPath(stage.given + "/file") { Self.call("fchmodat", atWorkingDirectory, $0, 0o777) }
            },
            Attempt(name: "connecting: a TCP socket", stoppedBy: [], permissions: [.clients]) { _ in Self.call("socket", 2, 1, 0) },
            Attempt(name: "connecting: a netlink socket", stoppedBy: [.seccomp], permissions: [.clients]) { _ in
                Self.call("socket", 16, 3, 0)
            },
            Attempt(name: "connecting: listen", stoppedBy: [.seccomp], permissions: [.clients]) {
                Self.call("listen", Int($0.bound.rawValue), 1)
            },
            Attempt(name: "connecting: read /etc/passwd", stoppedBy: [.landlock], permissions: [.clients]) { _ in
                Self.open("/etc/passwd", flags: 0)
            },
        ]
    }

    private static let atWorkingDirectory = -100
    private static let openCreate = 0o101

    private static func call(_ name: String, _ arguments: Int...) -> Int32 {
        let number = unsafe seccomp_syscall_resolve_name(name)
        // ENOSYS: this machine has no such call.
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

    /// An iovec of eight bytes that every process of this program has at the same place.
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

    /// `fork` by the bare call. The child ends at once.
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
