import ApusPlatform
import ApusSupervisor
import Glibc
import Testing

@Suite("Slot listeners")
struct SlotListenersTests {
    static let anyPort: [SocketAddress] = [.ipv4(0x7F00_0001, port: 0), .ipv6(high: 0, low: 1, port: 0, scope: 0)]

    @Test("each slot has a listener of its own on the one port that the kernel chose", arguments: anyPort)
    func onePerSlot(address: SocketAddress) throws {
        let listeners = try SlotListeners(addresses: [address], slots: 3)
        let bound = try #require(listeners.boundAddresses.first)
        #expect(bound.port != 0 && bound.host == address.host)
        let all = (0..<3).flatMap { listeners.descriptors(for: $0) }
        #expect(Set(all).count == 3)
        for descriptor in all { #expect(try Socket.localAddress(of: descriptor) == bound) }
        // The kernel spreads connects over the whole group, the first listener included.
        var counts = [0, 0, 0]
        let clients = try (0..<200).map { _ in try Client(to: bound) }
        for slot in 0..<3 { counts[slot] = accept(listeners.descriptors(for: slot)[0]) }
        #expect(counts.reduce(0, +) == clients.count)
        #expect(counts.allSatisfy { $0 > 20 }, "\(counts)")
    }

    @Test("a second group on the same port is refused although it is the same user's, with the address in the reason")
    func inUse() throws {
        let first = try SlotListeners(addresses: [Self.anyPort[0]], slots: 2)
        let address = first.boundAddresses[0]
        let error = #expect(throws: ListenError.self) { try SlotListeners(addresses: [address], slots: 2) }
        #expect(error?.isAddressInUse == true)
        #expect(error?.description == "cannot listen on \(address): bind: Address already in use")
        // The wildcard address takes the port on every host address, so it collides, too.
        let wildcard = #expect(throws: ListenError.self) {
            try SlotListeners(addresses: [.ipv4(0, port: address.port ?? 0)], slots: 1)
        }
        #expect(wildcard?.isAddressInUse == true)
        first.close()
        try listenEventually(on: address)
    }

    @Test("an address given twice is in use the second time; what was opened before is closed again")
    func twice() throws {
        let free = try SlotListeners(addresses: [Self.anyPort[0]], slots: 1)
        let address = free.boundAddresses[0]
        free.close()
        #expect(throws: ListenError.self) { try SlotListeners(addresses: [address, address], slots: 2) }
        try listenEventually(on: address)
    }

    @Test("the IPv4 and the IPv6 wildcard can share a port")
    func dualStack() throws {
        let v6 = try SlotListeners(addresses: [.ipv6(high: 0, low: 0, port: 0, scope: 0)], slots: 2)
        let port = try #require(v6.boundAddresses[0].port)
        _ = try SlotListeners(addresses: [.ipv4(0, port: port)], slots: 2)
    }

    @Test("connections that linger in TIME_WAIT do not keep a new master from the port")
    func timeWait() throws {
        let old = try SlotListeners(addresses: [Self.anyPort[0]], slots: 1)
        let address = old.boundAddresses[0]
        do {
            let client = try Client(to: address)
            #expect(accept(old.descriptors(for: 0)[0]) == 1)  // closes first: TIME_WAIT is on our side
            _ = consume client
        }
        old.close()
        try listenEventually(on: address)
    }

    @Test("a worker that keeps only its slot still listens; descriptors of two addresses keep their order")
    func keepOnly() throws {
        let listeners = try SlotListeners(addresses: Self.anyPort, slots: 2)
        let kept = listeners.descriptors(for: 1)
        listeners.keepOnly(slot: 1)
        #expect(listeners.descriptors(for: 0).isEmpty)
        #expect(try kept.map { try Socket.localAddress(of: $0) } == listeners.boundAddresses)
        for (descriptor, address) in zip(kept, listeners.boundAddresses) {
            let clients = try (0..<10).map { _ in try Client(to: address) }
            #expect(accept(descriptor) == clients.count)
        }
    }

    @Test("a Unix socket is one for all slots, and its file goes when the master closes")
    func unix() throws {
        let path = temporaryPath()
        let listeners = try SlotListeners(addresses: [.unix(path: path), Self.anyPort[0]], slots: 2)
        #expect(listeners.descriptors(for: 0)[0] == listeners.descriptors(for: 1)[0])
        #expect(listeners.descriptors(for: 0)[1] != listeners.descriptors(for: 1)[1])
        let client = try Client(to: .unix(path: path))
        #expect(accept(listeners.descriptors(for: 1)[0]) == 1)
        _ = consume client

        let error = #expect(throws: ListenError.self) { try SlotListeners(addresses: [.unix(path: path)], slots: 1) }
        #expect(error?.description == "cannot listen on unix:\(path): bind: Address already in use")
        #expect(FileSystem.isSocket(path))
        listeners.close()
        #expect(!FileSystem.isSocket(path))
    }

    @Test("the file that a killed master left is taken over")
    func stale() throws {
        let path = temporaryPath()
        do {
            let killed = try SlotListeners(addresses: [.unix(path: path)], slots: 1)
            killed.keepOnly(slot: 0)  // forgets the file, as a kill does
            killed.close()
        }
        #expect(FileSystem.isSocket(path))
        let listeners = try SlotListeners(addresses: [.unix(path: path)], slots: 1)
        let client = try Client(to: .unix(path: path))
        #expect(accept(listeners.descriptors(for: 0)[0]) == 1)
        _ = consume client
    }

    @Test(
        "a socket's file stays the first program's until the second one takes it, whatever becomes of the second one",
        arguments: ["/a", "/with;semicolon=%3B:1,2"])
    func handedDownFile(name: String) throws {
        let path = temporaryPath() + name.replacing("/", with: "-")
        let first = try SlotListeners(addresses: [.unix(path: path)], slots: 1)
        do {
            let failing = second(after: first)
            _ = try failing.open([.unix(path: path)])
            failing.close()
            #expect(FileSystem.isSocket(path))
        }
        do {
            let changed = second(after: first)
            #expect(changed.closeUnclaimed() == [.unix(path: path)])
            changed.close()
            #expect(FileSystem.isSocket(path))
        }
        do {
            // An address that is in use does not use up what was handed down.
            let blocked = second(after: first)
            let taken = try SlotListeners(addresses: [Self.anyPort[0]], slots: 1)
            let error = #expect(throws: ListenError.self) { try blocked.open([.unix(path: path), taken.boundAddresses[0]]) }
            #expect(error?.address == taken.boundAddresses[0])
            _ = try blocked.open([.unix(path: path)])
            blocked.close()
            #expect(FileSystem.isSocket(path))
        }
        let next = second(after: first)
        _ = try next.open([.unix(path: path)])
        first.giveUpFiles()
        next.takeFiles()
        first.close()
        #expect(FileSystem.isSocket(path))
        next.close()
        #expect(!FileSystem.isSocket(path))
    }

    @Test("the file of a handed-down socket that nobody wants goes when the second program takes over")
    func unwantedFile() throws {
        let path = temporaryPath()
        let first = try SlotListeners(addresses: [.unix(path: path)], slots: 1)
        let next = second(after: first)
        _ = next.closeUnclaimed()
        first.giveUpFiles()
        next.takeFiles()
        #expect(!FileSystem.isSocket(path))
    }

    /// What a program gets that is started by one with a single socket. It has descriptors of its own; here it is in the same process.
    private func second(after first: SlotListeners) -> SlotListeners {
        let copy = fcntl(first.descriptors(for: 0)[0], F_DUPFD_CLOEXEC, 3)
        let text = first.handedDown.split(separator: ":").dropLast().joined(separator: ":") + ":\(copy)"
        return SlotListeners(slots: 1, inherited: Inheritance.groups(in: text))
    }

    @Test("a file that is no socket is never removed")
    func notASocket() throws {
        let path = temporaryPath()
        try FileSystem.replace(path, with: "precious")
        defer { FileSystem.remove(path) }
        let error = #expect(throws: ListenError.self) { try SlotListeners(addresses: [.unix(path: path)], slots: 1) }
        #expect(error?.isAddressInUse == true)
        let directory = try FileSystem.openDirectory("/tmp")
        _ = try FileSystem.openBeneath(directory.rawValue, String(path.dropFirst(5)))
    }

    @Test("a path that is too long is an error, not a trap")
    func longPath() {
        let error = #expect(throws: ListenError.self) {
            try SlotListeners(addresses: [.unix(path: "/tmp/" + String(repeating: "x", count: 200))], slots: 1)
        }
        #expect(error?.cause.reason == "File name too long")
    }

    /// The port is free again. Not at once, perhaps: a process that another test spawns just now holds the descriptors until it execs.
    private func listenEventually(on address: SocketAddress) throws {
        let deadline = MonotonicTime.now() + .seconds(5)
        while let error = failure(on: address) {
            guard error.isAddressInUse, MonotonicTime.now() < deadline else { throw error }
            sched_yield()
        }
    }

    private func failure(on address: SocketAddress) -> ListenError? {
        do throws(ListenError) {
            _ = try SlotListeners(addresses: [address], slots: 2)
            return nil
        } catch {
            return error
        }
    }

    private func temporaryPath() -> String { "/tmp/apus-test-\(Process.id)-\(UInt32.random(in: 0...(.max))).sock" }

    /// Takes and closes what waits; the number taken.
    private func accept(_ listener: Int32) -> Int {
        var count = 0
        while case .done(let connection)? = try? Socket.accept(listener) {
            OwnedDescriptor.close(connection.descriptor)
            count += 1
        }
        return count
    }
}

/// A connected client; on loopback a connect ends within the call.
final class Client {
    let socket: OwnedDescriptor

    init(to address: SocketAddress) throws {
        socket = try Socket.stream(for: address)
        if case .wouldBlock = try Socket.connect(socket.rawValue, to: address) {
            var waiting = pollfd(fd: socket.rawValue, events: Int16(POLLOUT), revents: 0)
            guard poll(&waiting, 1, 10_000) == 1 else { throw SystemError(code: ETIMEDOUT, call: "connect") }
            if let error = try Socket.pendingError(of: socket.rawValue) { throw error }
        }
    }

    /// The pid that the fixture's workers answer with; nil when the connection ended without one.
    func readPid(withinMilliseconds: Int32) -> Int32? {
        var waiting = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
        var pid: Int32 = 0
        guard poll(&waiting, 1, withinMilliseconds) == 1, read(socket.rawValue, &pid, 4) == 4 else { return nil }
        return pid
    }
}
