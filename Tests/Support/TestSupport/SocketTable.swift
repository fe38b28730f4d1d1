public import Glibc

/// TCP connections over IPv4, as their sockets tell of them.
public enum SocketTable {
    /// One end of a connection.
    public struct End: Hashable, Sendable, CustomStringConvertible {
        /// In the host's order of bytes.
        public let address: UInt32
        public let port: UInt16

        public var description: String {
            [24, 16, 8, 0].map { "\(address >> $0 & 0xff)" }.joined(separator: ".") + ":\(port)"
        }
    }

    public static func localEnd(of descriptor: Int32) -> End? { end { getsockname(descriptor, $0, $1) } }

    /// Nil if there is no connection, or no more.
    public static func peer(of descriptor: Int32) -> End? { end { getpeername(descriptor, $0, $1) } }

    private static func end(_ ask: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32) -> End? {
        var address = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { ask($0, &size) }
        }
        guard result == 0, address.sin_family == sa_family_t(AF_INET) else { return nil }
        return End(address: UInt32(bigEndian: address.sin_addr.s_addr), port: UInt16(bigEndian: address.sin_port))
    }

    /// The other ends of the connections to a local port that a process holds: what it has accepted and not closed. Whole only if the
    /// process is stopped meanwhile; nil if it cannot be looked into, or ends meanwhile.
    ///
    /// Each descriptor is copied (`pidfd_getfd(2)`) and asked. /proc/net/tcp would say the same, but has a line for each connection of the
    /// machine: while another test holds a hundred thousand, a look takes seconds.
    public static func acceptedPeers(of pid: pid_t, at port: UInt16) -> Set<End>? {
        let process = systemCall(pidfdOpen, Int(pid), 0, 0)
        guard process >= 0 else { return nil }
        defer { close(Int32(process)) }
        let numbers = Files.names(in: "/proc/\(pid)/fd").compactMap { Int($0) }
        if numbers.isEmpty { return nil }
        var peers: Set<End> = []
        for number in numbers {
            let copy = Int32(systemCall(pidfdGetDescriptor, process, number, 0))
            guard copy >= 0 else { return nil }
            defer { close(copy) }
            if localEnd(of: copy)?.port == port, let peer = peer(of: copy) { peers.insert(peer) }
        }
        return peers
    }

    /// `syscall(2)`, which is variadic and so out of Swift's sight; and two calls for which Debian 12's C library has no names. They have the
    /// same numbers on every machine.
    private static let systemCall = unsafeBitCast(dlsym(nil, "syscall"), to: (@convention(c) (Int, Int, Int, Int) -> Int).self)
    private static let (pidfdOpen, pidfdGetDescriptor) = (434, 438)
}
