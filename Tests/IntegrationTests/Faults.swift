import Glibc
import TestSupport

/// Makes chosen system calls of a server fail, by the library of Tests/Support/Faults.
final class Faults: @unchecked Sendable {
    /// In the order of the library's own list.
    enum Call: Int32, CaseIterable, Sendable {
        case recv = 1, send, sendmsg, accept4, epollControl, epollWait, setsockopt, shutdown, ioctl, getpeername, fcntl, openat2, fstat,
            sendfile
        case write, read, recvmsg, pread
    }

    private struct Plan {
        var pid: Int32 = 0
        var call: Int32 = 0
        var error: Int32 = 0
        var countdown: Int32 = 0
        var seen: Int32 = 0
        var fired: Int32 = 0
        var wallClock: Int32 = 0
    }

    private let directory: TemporaryDirectory
    private let plan: UnsafeMutablePointer<Plan>
    /// What a server is started with.
    let environment: [String: String]

    init() throws {
        directory = try TemporaryDirectory()
        let path = directory.path + "/plan"
        try Files.write([UInt8](repeating: 0, count: MemoryLayout<Plan>.size), to: path)
        environment = ["LD_PRELOAD": try Self.build(in: directory), "FAULTS": path]
        let file = open(path, O_RDWR | O_CLOEXEC)
        defer { close(file) }
        guard let memory = mmap(nil, MemoryLayout<Plan>.size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), memory != MAP_FAILED else {
            throw TestFailure.call("mmap")
        }
        plan = memory.bindMemory(to: Plan.self, capacity: 1)
    }

    deinit { munmap(plan, MemoryLayout<Plan>.size) }

    /// Compiles the library and gives its path.
    static func build(in directory: TemporaryDirectory) throws -> String {
        let library = directory.path + "/faults.so"
        let source = Places.package + "/Tests/Support/Faults/faults.c"
        try Integration.run(["clang", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source])
        return library
    }

    /// From now on the n-th such call of the process fails with `error`; 0: none does.
    func arm(_ call: Call, of pid: pid_t, error: Int32, n: Int) {
        disarm()
        plan.pointee.error = error
        plan.pointee.countdown = Int32(n)
        plan.pointee.seen = 0
        plan.pointee.fired = 0
        plan.pointee.call = call.rawValue
        plan.pointee.pid = pid
    }

    /// The server's wall clock is so much ahead of the machine's.
    func moveWallClock(bySeconds offset: Int32) { plan.pointee.wallClock = offset }

    func disarm() { plan.pointee.pid = 0 }

    var hasFired: Bool { plan.pointee.fired > 0 }
    var seen: Int { Int(plan.pointee.seen) }
}
