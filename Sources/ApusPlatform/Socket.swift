import CLinux
package import Glibc

/// System calls on sockets. All sockets made here are non-blocking and close-on-exec.
///
/// Sending and receiving says for itself that it does not wait: whether a socket is non-blocking belongs to the open file, and whoever shares
/// it, such as a worker its mailbox, could change that for all.
package enum Socket {
    private static var atOnce: Int32 { Int32(MSG_DONTWAIT) }
    private static var atOnceWithoutSignal: Int32 { Int32(MSG_DONTWAIT | MSG_NOSIGNAL) }

    /// `socket(2)`: a stream socket of the address's family.
    package static func stream(for address: SocketAddress) throws(SystemError) -> OwnedDescriptor {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        return OwnedDescriptor(rawValue: try blockingSyscall("socket") { socket(address.family, kind, 0) })
    }

    /// `socketpair(2)` of `SOCK_SEQPACKET`: record boundaries are kept, and each end sees when the other is gone.
    package static func packetPair() throws(SystemError) -> PacketPair {
        var ends: (Int32, Int32) = (-1, -1)
        let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try blockingSyscall("socketpair") {
            unsafe withUnsafeMutableBytes(of: &ends) {
                unsafe socketpair(AF_UNIX, kind, 0, $0.assumingMemoryBound(to: Int32.self).baseAddress)
            }
        }
        return PacketPair(OwnedDescriptor(rawValue: ends.0), OwnedDescriptor(rawValue: ends.1))
    }

    package static func bind(_ descriptor: Int32, to address: SocketAddress) throws(SystemError) {
        try blockingSyscall("bind") { unsafe address.withSockaddr { unsafe Glibc.bind(descriptor, $0, $1) } }
    }

    /// `listen(2)`; the kernel caps `backlog` at `net.core.somaxconn`.
    package static func listen(_ descriptor: Int32, backlog: Int32) throws(SystemError) {
        try blockingSyscall("listen") { Glibc.listen(descriptor, backlog) }
    }

    /// Starts to connect. `.wouldBlock` means in progress: writability tells the end, `pendingError` the outcome.
    package static func connect(_ descriptor: Int32, to address: SocketAddress) throws(SystemError) -> IOResult<Int32> {
        do {
            return try syscall("connect") { unsafe address.withSockaddr { unsafe Glibc.connect(descriptor, $0, $1) } }
        } catch  where error.code == EINPROGRESS {
            return .wouldBlock
        }
    }

    /// `accept4(2)`: the next connection, non-blocking and close-on-exec, and where it comes from.
    package static func accept(_ listener: Int32) throws(SystemError) -> IOResult<(descriptor: Int32, peer: SocketAddress)> {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = try syscall("accept4") {
            unsafe apus_accept(listener, &storage, &length)
        }
        switch result {
        case .wouldBlock: return .wouldBlock
        case .done(let descriptor): return .done((descriptor, SocketAddress(&storage) ?? .unix(path: "")))
        }
    }

    /// `recv(2)` into `buffer`; 0 bytes mean that the peer will send no more.
    package static func receive(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> IOResult<Int> {
        try syscall("recv") { unsafe recv(descriptor, buffer.baseAddress, buffer.count, atOnce) }
    }

    /// `recv(2)` of one packet of at most `maxBytes`; empty at the end.
    package static func receivePacket(_ descriptor: Int32, maxBytes: Int) throws(SystemError) -> IOResult<[UInt8]> {
        var result = IOResult<Int>.wouldBlock
        var failure: SystemError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: maxBytes) { buffer, used in
            do throws(SystemError) {
                result = try unsafe receive(descriptor, into: UnsafeMutableRawBufferPointer(buffer))
                if case .done(let count) = result { used = count }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return switch result {
        case .done: .done(bytes)
        case .wouldBlock: .wouldBlock
        }
    }

    /// `send(2)` of one packet: all of it or nothing.
    package static func send(_ descriptor: Int32, _ packet: [UInt8]) throws(SystemError) -> IOResult<Int> {
        var result = IOResult<Int>.wouldBlock
        var failure: SystemError?
        unsafe packet.withUnsafeBytes { bytes in
            do throws(SystemError) { result = try unsafe send(descriptor, bytes) } catch { failure = error }
        }
        if let failure { throw failure }
        return result
    }

    /// Bytes that were written and that the peer has not acknowledged (`SIOCOUTQ`); 0 when it cannot be told.
    package static func unacknowledgedBytes(_ descriptor: Int32) -> Int { max(0, Int(apus_unacknowledged_bytes(descriptor))) }

    /// Whether bytes wait to be received; false for the end, too.
    package static func hasInput(_ descriptor: Int32) -> Bool {
        var byte: UInt8 = 0
        return unsafe recv(descriptor, &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) > 0
    }

    /// `send(2)` without SIGPIPE; the number of bytes the kernel took.
    package static func send(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        try syscall("send") { unsafe Glibc.send(descriptor, bytes.baseAddress, bytes.count, atOnceWithoutSignal) }
    }

    /// `sendmsg(2)` of several pieces, in order, without SIGPIPE.
    package static func send(_ descriptor: Int32, pieces: UnsafeMutableBufferPointer<iovec>) throws(SystemError) -> IOResult<Int> {
        var message = unsafe msghdr()
        unsafe message.msg_iov = pieces.baseAddress
        unsafe message.msg_iovlen = pieces.count
        return try syscall("sendmsg") { unsafe sendmsg(descriptor, &message, atOnceWithoutSignal) }
    }

    /// `shutdown(2)` of the sending side: the peer reads to the end, then sees it.
    package static func shutdownWrite(_ descriptor: Int32) throws(SystemError) {
        try blockingSyscall("shutdown") { shutdown(descriptor, Int32(SHUT_WR)) }
    }

    /// Whether the peer, or somebody who shares its end, has said that no more will come, whatever is still to be read.
    package static func isShut(_ descriptor: Int32) -> Bool {
        // The flags of poll(2) are those of epoll.
        let end: Readiness = [.peerClosed, .hangUp]
        var state = pollfd(fd: descriptor, events: Int16(truncatingIfNeeded: end.rawValue), revents: 0)
        let count = unsafe poll(&state, 1, 0)
        return count > 0 && !Readiness(rawValue: UInt32(UInt16(bitPattern: state.revents))).isDisjoint(with: end)
    }

    /// The address the socket is bound to, with the port the kernel chose.
    package static func localAddress(of descriptor: Int32) throws(SystemError) -> SocketAddress {
        try unsafe address("getsockname", getsockname, descriptor)
    }

    /// The address of the other side.
    package static func peerAddress(of descriptor: Int32) throws(SystemError) -> SocketAddress {
        try unsafe address("getpeername", getpeername, descriptor)
    }

    private static func address(
        _ name: StaticString, _ call: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32,
        _ descriptor: Int32
    ) throws(SystemError) -> SocketAddress {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try blockingSyscall(name) {
            // SAFETY: sockaddr_storage is as large and aligned as any sockaddr_*; `length` is its size.
            unsafe withUnsafeMutablePointer(to: &storage) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe call(descriptor, $0, &length) }
            }
        }
        guard let address = SocketAddress(&storage) else { throw SystemError(code: EAFNOSUPPORT, call: name) }
        return address
    }

    /// New connections go to the first `count` sockets of the SO_REUSEPORT group that `listener` is in, but for those at `except`, in ascending
    /// order and fewer than `count`; chosen at random.
    package static func steer(_ listener: Int32, to count: Int, except: [Int] = []) throws(SystemError) {
        let except = except.map { UInt32($0) }
        try blockingSyscall("setsockopt") { unsafe apus_steer(listener, UInt32(count), except, UInt32(except.count)) }
    }

    /// Whether the descriptor is a stream socket that listens.
    package static func isListening(_ descriptor: Int32) -> Bool {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return unsafe getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
    }

    /// Makes a socket that was handed down as those that are made here: non-blocking and close-on-exec.
    package static func adopt(_ descriptor: Int32) throws(SystemError) {
        let flags = try blockingSyscall("fcntl") { fcntl(descriptor, F_GETFL) }
        try blockingSyscall("fcntl") { fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) }
        try blockingSyscall("fcntl") { fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    }

    /// Sends one datagram to the service manager's socket at `path` (abstract if it begins with @).
    package static func notify(_ path: String, _ text: String) throws(SystemError) {
        try blockingSyscall("sendto") { unsafe apus_notify(path, text) }
    }

    /// The error a connect in progress ended with (`SO_ERROR`); nil when it succeeded.
    package static func pendingError(of descriptor: Int32) throws(SystemError) -> SystemError? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        try blockingSyscall("getsockopt") { unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) }
        return code == 0 ? nil : SystemError(code: code, call: "connect")
    }

    /// Socket options that Apus sets; each is an `int`.
    package enum Option {
        /// Bind although old connections linger in TIME_WAIT.
        case reuseAddress
        /// Several listeners on one address, the kernel spreads connects over them.
        case reusePort
        /// Send small segments at once (Nagle off): writes are corked by us.
        case noDelay
        /// Acknowledge what has come, without waiting for an answer to carry that.
        case acknowledgeNow
        /// Listen on IPv6 only.
        case ipv6Only
        /// Bytes the kernel may hold to send.
        case sendBuffer(Int32)
        /// The same beyond the system's limit; needs CAP_NET_ADMIN.
        case sendBufferForced(Int32)
        /// Probe a peer that is silent.
        case keepAlive
        /// Seconds of silence before the first probe, seconds between probes, and how many may go unanswered.
        case keepAliveIdle(Int32)
        case keepAliveInterval(Int32)
        case keepAliveProbes(Int32)
        /// A bind without a port chooses one only when it connects: so many may share it as have different destinations.
        case bindWithoutPort

        var parameters: (level: Int32, name: Int32, value: Int32) {
            switch self {
            case .reuseAddress: (SOL_SOCKET, SO_REUSEADDR, 1)
            case .reusePort: (SOL_SOCKET, SO_REUSEPORT, 1)
            case .noDelay: (Int32(IPPROTO_TCP), TCP_NODELAY, 1)
            case .acknowledgeNow: (Int32(IPPROTO_TCP), TCP_QUICKACK, 1)
            case .ipv6Only: (Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1)
            case .sendBuffer(let bytes): (SOL_SOCKET, SO_SNDBUF, bytes)
            case .sendBufferForced(let bytes): (SOL_SOCKET, SO_SNDBUFFORCE, bytes)
            case .keepAlive: (SOL_SOCKET, SO_KEEPALIVE, 1)
            case .keepAliveIdle(let seconds): (Int32(IPPROTO_TCP), TCP_KEEPIDLE, seconds)
            case .keepAliveInterval(let seconds): (Int32(IPPROTO_TCP), TCP_KEEPINTVL, seconds)
            case .keepAliveProbes(let count): (Int32(IPPROTO_TCP), TCP_KEEPCNT, count)
            case .bindWithoutPort: (Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, 1)
            }
        }
    }

    /// Sends and receives by one network interface only, such as `eth0` (`SO_BINDTODEVICE`).
    package static func bind(_ descriptor: Int32, toInterface name: String) throws(SystemError) {
        try blockingSyscall("setsockopt SO_BINDTODEVICE") {
            unsafe setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, name, socklen_t(name.utf8.count))
        }
    }

    package static func set(_ option: Option, on descriptor: Int32) throws(SystemError) {
        var (level, name, value) = option.parameters
        try blockingSyscall("setsockopt") {
            unsafe setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
        }
    }
}

/// Two connected sockets. Another module takes the pair apart with `release`.
package struct PacketPair: ~Copyable {
    package var first: OwnedDescriptor
    package var second: OwnedDescriptor

    init(_ first: consuming OwnedDescriptor, _ second: consuming OwnedDescriptor) {
        self.first = first
        self.second = second
    }

    /// Gives both ends up without closing them; the caller wraps each in an owner of its own at once.
    package consuming func release() -> (first: Int32, second: Int32) { (first.release(), second.release()) }
}
