import CLinux
package import Glibc

/// System calls on sockets. All sockets created here are non-blocking and close-on-exec.
///
/// Send and receive calls pass `MSG_DONTWAIT`: `O_NONBLOCK` belongs to the open file description,
/// and a process that shares it, such as a worker its mailbox, could clear it for all.
package enum Socket {
    private static var atOnce: Int32 { Int32(MSG_DONTWAIT) }
    private static var atOnceWithoutSignal: Int32 { Int32(MSG_DONTWAIT | MSG_NOSIGNAL) }

    /// Creates a stream socket of the address's family (`socket(2)`).
    package static func stream(for address: SocketAddress) throws(SystemError) -> OwnedDescriptor {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        return OwnedDescriptor(rawValue: try blockingSyscall("socket") { socket(address.family, kind, 0) })
    }

    /// Creates a `SOCK_SEQPACKET` pair (`socketpair(2)`): packet boundaries are preserved, and each
    /// end detects the other's close.
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

    /// Listens (`listen(2)`); the kernel limits `backlog` to `net.core.somaxconn`.
    package static func listen(_ descriptor: Int32, backlog: Int32) throws(SystemError) {
        try blockingSyscall("listen") { Glibc.listen(descriptor, backlog) }
    }

    /// Starts connecting. `.wouldBlock` means in progress: when the socket becomes writable,
    /// `pendingError` returns the result.
    package static func connect(_ descriptor: Int32, to address: SocketAddress) throws(SystemError) -> IOResult<Int32> {
        do {
            return try syscall("connect") { unsafe address.withSockaddr { unsafe Glibc.connect(descriptor, $0, $1) } }
        } catch  where error.code == EINPROGRESS {
            return .wouldBlock
        }
    }

    /// Accepts a connection, non-blocking and close-on-exec, with the peer's address
    /// (`accept4(2)`).
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

    /// Receives into `buffer` (`recv(2)`); 0 bytes at the end of input.
    package static func receive(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> IOResult<Int> {
        try syscall("recv") { unsafe recv(descriptor, buffer.baseAddress, buffer.count, atOnce) }
    }

    /// Receives one packet of at most `maxBytes` (`recv(2)`); empty at the end of input.
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

    /// Sends one packet (`send(2)`): all of it or nothing.
    package static func send(_ descriptor: Int32, _ packet: [UInt8]) throws(SystemError) -> IOResult<Int> {
        var result = IOResult<Int>.wouldBlock
        var failure: SystemError?
        unsafe packet.withUnsafeBytes { bytes in
            do throws(SystemError) { result = try unsafe send(descriptor, bytes) } catch { failure = error }
        }
        if let failure { throw failure }
        return result
    }

    /// Bytes sent and not acknowledged by the peer (`SIOCOUTQ`); 0 if unknown.
    package static func unacknowledgedBytes(_ descriptor: Int32) -> Int { max(0, Int(apus_unacknowledged_bytes(descriptor))) }

    /// Whether bytes can be received; false at the end of input.
    package static func hasInput(_ descriptor: Int32) -> Bool {
        var byte: UInt8 = 0
        return unsafe recv(descriptor, &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) > 0
    }

    /// Sends without SIGPIPE (`send(2)`).
    ///
    /// - Returns: the number of bytes that the kernel took.
    package static func send(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        try syscall("send") { unsafe Glibc.send(descriptor, bytes.baseAddress, bytes.count, atOnceWithoutSignal) }
    }

    /// Sends several buffers in order, without SIGPIPE (`sendmsg(2)`).
    package static func send(_ descriptor: Int32, pieces: UnsafeMutableBufferPointer<iovec>) throws(SystemError) -> IOResult<Int> {
        var message = unsafe msghdr()
        unsafe message.msg_iov = pieces.baseAddress
        unsafe message.msg_iovlen = pieces.count
        return try syscall("sendmsg") { unsafe sendmsg(descriptor, &message, atOnceWithoutSignal) }
    }

    /// Shuts down the sending side (`shutdown(2)`).
    package static func shutdownWrite(_ descriptor: Int32) throws(SystemError) {
        try blockingSyscall("shutdown") { shutdown(descriptor, Int32(SHUT_WR)) }
    }

    /// Whether the peer's sending side was shut down, whatever is still unread.
    package static func isShut(_ descriptor: Int32) -> Bool {
        // The flags of poll(2) equal those of epoll(7).
        let end: Readiness = [.peerClosed, .hangUp]
        var state = pollfd(fd: descriptor, events: Int16(truncatingIfNeeded: end.rawValue), revents: 0)
        let count = unsafe poll(&state, 1, 0)
        return count > 0 && !Readiness(rawValue: UInt32(UInt16(bitPattern: state.revents))).isDisjoint(with: end)
    }

    /// The bound address, with the port that the kernel chose.
    package static func localAddress(of descriptor: Int32) throws(SystemError) -> SocketAddress {
        try unsafe address("getsockname", getsockname, descriptor)
    }

    /// The peer's address.
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
            // SAFETY: sockaddr_storage is as large and aligned as any sockaddr_*; `length` is its
            // size.
            unsafe withUnsafeMutablePointer(to: &storage) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe call(descriptor, $0, &length) }
            }
        }
        guard let address = SocketAddress(&storage) else { throw SystemError(code: EAFNOSUPPORT, call: name) }
        return address
    }

    /// Distributes new connections at random over the first `count` sockets of the listener's
    /// SO_REUSEPORT group.
    ///
    /// - Parameter except: indices to skip, ascending, fewer than `count`.
    package static func steer(_ listener: Int32, to count: Int, except: [Int] = []) throws(SystemError) {
        let except = except.map { UInt32($0) }
        try blockingSyscall("setsockopt") { unsafe apus_steer(listener, UInt32(count), except, UInt32(except.count)) }
    }

    /// Whether the descriptor is a listening stream socket.
    package static func isListening(_ descriptor: Int32) -> Bool {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return unsafe getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
    }

    /// Makes an inherited socket non-blocking and close-on-exec.
    package static func adopt(_ descriptor: Int32) throws(SystemError) {
        let flags = try blockingSyscall("fcntl") { fcntl(descriptor, F_GETFL) }
        try blockingSyscall("fcntl") { fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) }
        try blockingSyscall("fcntl") { fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    }

    /// Sends one datagram to the service manager's socket at `path` (abstract if it starts with @).
    package static func notify(_ path: String, _ text: String) throws(SystemError) {
        try blockingSyscall("sendto") { unsafe apus_notify(path, text) }
    }

    /// The result of a connect in progress (`SO_ERROR`); nil on success.
    package static func pendingError(of descriptor: Int32) throws(SystemError) -> SystemError? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        try blockingSyscall("getsockopt") { unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) }
        return code == 0 ? nil : SystemError(code: code, call: "connect")
    }

    /// Socket options that Apus sets; each is an `int`.
    package enum Option {
        /// Allow binding while old connections are in TIME_WAIT.
        case reuseAddress
        /// Allow several listeners per address; the kernel distributes connections.
        case reusePort
        /// Disable Nagle's algorithm: writes are corked here.
        case noDelay
        /// Send delayed acknowledgements now.
        case acknowledgeNow
        /// IPv6 only.
        case ipv6Only
        /// Size of the send buffer, in bytes.
        case sendBuffer(Int32)
        /// As `sendBuffer`, beyond the system's limit; requires CAP_NET_ADMIN.
        case sendBufferForced(Int32)
        /// Enable TCP keep-alive.
        case keepAlive
        /// Seconds of silence before the first probe, seconds between probes, and the number of
        /// unanswered probes that ends the connection.
        case keepAliveIdle(Int32)
        case keepAliveInterval(Int32)
        case keepAliveProbes(Int32)
        /// Choose the local port at connect, so that connections to different destinations can
        /// share it.
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

    /// Restricts the socket to one network interface, such as `eth0` (`SO_BINDTODEVICE`).
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

/// Two connected sockets. Other modules take them by `release`.
package struct PacketPair: ~Copyable {
    package var first: OwnedDescriptor
    package var second: OwnedDescriptor

    init(_ first: consuming OwnedDescriptor, _ second: consuming OwnedDescriptor) {
        self.first = first
        self.second = second
    }

    /// Returns both ends without closing them; the caller must wrap each in an owner at once.
    package consuming func release() -> (first: Int32, second: Int32) { (first.release(), second.release()) }
}
