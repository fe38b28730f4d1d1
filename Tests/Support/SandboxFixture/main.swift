// A server whose handlers do what they must not, or die: `SandboxFixture FILE [connect]` writes its address to FILE. `GET /call/NAME` makes
// the system call of that name and answers with 0 or its errno; `GET /do/NAME` does what `Deed` says and answers with what came of it.
// `GET /fetch` answers with what is found at the address in `X-Address`, asked for from the address in `X-From`. With `connect`, handlers may
// connect to other servers; `workers` makes four of them, `quarantine` turns away who makes them die;
// with `roots=FILE` handlers' clients trust those authorities alone, with `unlisted` without them in `Server.clientTLS`.
import Apus
import CSeccomp
import Glibc

/// `syscall(2)`, which is variadic and so out of Swift's sight.
private typealias RawCall = @convention(c) (Int, Int, Int, Int, Int, Int, Int) -> Int
private let rawCall = unsafeBitCast(dlsym(nil, "syscall"), to: RawCall.self)

/// 0, or the errno.
private func call(_ name: String) -> Int32 {
    let number = seccomp_syscall_resolve_name(name)
    return rawCall(Int(number), 0, 0, 0, 0, 0, 0) < 0 ? errno : 0
}

/// Without this, the optimiser would see what comes.
@inline(never) func opaque<Value>(_ value: Value) -> Value { value }

enum Deed: String, CaseIterable {
    // The process dies of these.
    case fatalError, bounds, overflow, cast, abort, segfault, freeTwice, exit, stack, writableCode, executableCode, terminate, spin
    // And lives through these.
    case memory, thread, sort, resolve, datagram, roots, passwd, hosts, bind, loopback, warn

    func done() -> String {
        switch self {
        case .fatalError: Swift.fatalError("the handler has given up\nand says so")
        case .bounds: return "\([1, 2, 3][opaque(7)])"
        case .overflow: return "\(opaque(Int.max) + opaque(1))"
        case .cast:
            // swift-format-ignore: NeverForceUnwrap
            return "\(opaque("text" as Any) as! Int)"
        case .abort: Glibc.abort()
        case .segfault: return "\(UnsafePointer<Int>(bitPattern: opaque(8))?.pointee ?? 0)"
        case .freeTwice:
            let memory = malloc(opaque(40))
            free(memory)
            // What the allocator keeps in a freed piece tells it that it is freed; it writes why it ends the process.
            free(opaque(memory))
            return "lives"
        case .exit: Glibc.exit(3)
        case .writableCode:
            let all = PROT_READ | PROT_WRITE | PROT_EXEC
            return "\(mmap(nil, 4096, all, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)"
        case .executableCode:
            let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            return "\(mprotect(memory, 4096, PROT_READ | PROT_EXEC))"
        case .terminate: return "\(kill(getpid(), SIGTERM))"
        case .spin:
            while getpid() > 0 {}
            return "has ended"
        case .stack: return "\(Self.deep(0))"
        case .memory: return Self.useMemory()
        case .thread: return "\(helper?.work() ?? 0)"
        case .sort:
            var numbers = (0..<100_000).map { $0 &* 2_654_435_761 % 1_000_003 }
            qsort(&numbers, numbers.count, MemoryLayout<Int>.stride) { a, b in
                guard let a, let b else { return 0 }
                let difference = a.load(as: Int.self) - b.load(as: Int.self)
                return difference < 0 ? -1 : difference > 0 ? 1 : 0
            }
            return "\(numbers == numbers.sorted())"
        case .resolve: return Self.resolve()
        case .datagram:
            let socket = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
            return socket < 0 ? "errno \(errno)" : "\(close(socket))"
        case .roots: return Self.read("/etc/ssl/certs/ca-certificates.crt")
        case .passwd: return Self.read("/etc/passwd")
        case .hosts: return Self.read("/etc/hosts")
        case .bind: return Self.bindsToAnyPort()
        case .loopback: return Self.connects()
        case .warn:
            fputs("only a warning\n", dlsym(nil, "stderr").assumingMemoryBound(to: UnsafeMutablePointer<FILE>.self).pointee)
            return "warned"
        }
    }

    private static func deep(_ level: Int) -> Int { opaque(level) < 0 ? 0 : deep(level + 1) + opaque(1) }

    /// Small, large and growing pieces, given back; then what is left at the top goes back to the system.
    private static func useMemory() -> String {
        var pieces: [UnsafeMutableRawPointer?] = []
        for round in 0..<2000 { pieces.append(malloc(16 << (round % 14))) }
        for index in pieces.indices { pieces[index] = realloc(pieces[index], 64 << (index % 12)) }
        var large = malloc(1 << 20)
        for size in 1...40 { large = realloc(large, size << 20) }
        for piece in pieces { free(piece) }
        free(large)
        return "\(unsafeBitCast(dlsym(nil, "malloc_trim"), to: (@convention(c) (Int) -> Int32).self)(0))"
    }

    private static func read(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "errno \(errno)" }
        defer { fclose(file) }
        return fgetc(file) == EOF ? "empty" : "read"
    }

    private static func resolve() -> String {
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo("localhost", nil, nil, &list)
        freeaddrinfo(list)
        return "\(code)"
    }

    private static func bindsToAnyPort() -> String {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { return "errno \(errno)" }
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        return result == 0 ? "bound" : "errno \(errno)"
    }

    private static func connects() -> String {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { return "errno \(errno)" }
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        // Nobody listens there.
        address.sin_port = UInt16(1).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        return result == 0 ? "connected" : "errno \(errno)"
    }
}

/// A thread that a worker has started before it entered the sandbox, in which it works. What it allocates comes from an arena of its own,
/// which grows in its own way.
private final class Helper: @unchecked Sendable {
    private let wanted = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private let done = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    /// Between `wanted` and `done` the thread's, else the worker's.
    private var pieces = 0

    init() {
        sem_init(wanted, 0, 0)
        sem_init(done, 0, 0)
        var thread = pthread_t()
        let run: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = { argument in
            guard let argument else { return nil }
            let helper = Unmanaged<Helper>.fromOpaque(argument).takeRetainedValue()
            while true {
                sem_wait(helper.wanted)
                helper.allocate()
                sem_post(helper.done)
            }
        }
        guard pthread_create(&thread, nil, run, Unmanaged.passRetained(self).toOpaque()) == 0 else { return }
        pthread_detach(thread)
    }

    private func allocate() {
        let memory = (0..<4000).map { _ in malloc(opaque(1000)) }
        pieces = memory.count { $0 != nil }
        for piece in memory { free(piece) }
    }

    /// How many pieces of 4,000 it got.
    func work() -> Int {
        sem_post(wanted)
        sem_wait(done)
        return pieces
    }
}

nonisolated(unsafe) private var helper: Helper?

let arguments = CommandLine.arguments.dropFirst()
var server = Server()
server.workers = .count(arguments.contains("workers") ? 4 : 1)
server.quarantine = arguments.contains("quarantine")
server.listen(on: .tcp("127.0.0.1", port: 0))
server.portFile = arguments.first
server.onWorkerStart = { _ in helper = Helper() }
var clientTLS = ClientTLS()
if let roots = arguments.first(where: { $0.hasPrefix("roots=") }) {
    clientTLS.roots = .file(String(roots.dropFirst(6)))
    if !arguments.contains("unlisted") { server.clientTLS = [clientTLS] }
}
let trusted = clientTLS
if arguments.contains("connect") { server.sandbox.allows.insert(.connecting) }
for name in ["execve", "ptrace", "bpf", "open", "socket", "clone3", "listen"] {
    server.http(.get, at: "/call/" + name) { $0.respond(text: "\(call(name))", type: "text/plain") }
}
for deed in Deed.allCases {
    server.http(.get, at: "/do/" + deed.rawValue) { $0.respond(text: deed.done(), type: "text/plain") }
}
server.http(.get, at: "/run") { try $0.worker.run() }
server.http(.get, at: "/fetch") { exchange in
    var options = ClientOptions()
    options.keepAlive = ClientOptions.KeepAlive()
    options.bindAddress = exchange.request.fields["x-from"]
    options.timeouts.name = .seconds(2)
    options.tls = trusted
    exchange.worker.request(exchange.request.fields["x-address"] ?? "", options: options) { result in
        switch result {
        case .success(let response): exchange.respond(text: String(decoding: response.body, as: UTF8.self))
        case .failure(let error): exchange.respond(text: "\(error)")
        }
    }
}
try server.run()
