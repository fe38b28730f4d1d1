public import Glibc

/// What /proc says of TCP connections over IPv4.
public enum SocketTable {
    /// One end of a connection.
    public struct End: Hashable, Sendable, CustomStringConvertible {
        /// In the host's order of bytes.
        public let address: UInt32
        public let port: UInt16

        public init(address: UInt32, port: UInt16) {
            self.address = address
            self.port = port
        }

        public var description: String {
            [24, 16, 8, 0].map { "\(address >> $0 & 0xff)" }.joined(separator: ".") + ":\(port)"
        }
    }

    /// The other ends of the connections to a local port that a process holds: what it has accepted and not closed. Whole only if the
    /// process is stopped meanwhile; nil if it cannot be looked into.
    public static func acceptedPeers(of pid: pid_t, at port: UInt16) -> Set<End>? {
        let links = Files.names(in: "/proc/\(pid)/fd").compactMap { Files.link("/proc/\(pid)/fd/\($0)") }
        if links.isEmpty { return nil }
        let inodes = Set(links.filter { $0.hasPrefix("socket:[") }.map { $0.dropFirst(8).dropLast() })
        // The table is read page by page, and what comes and goes in a bucket meanwhile may make the kernel skip its neighbour: a connection
        // that stays is missed twice by no likely chance.
        return peers(holding: inodes, at: port).union(peers(holding: inodes, at: port))
    }

    private static func peers(holding inodes: Set<Substring>, at port: UInt16) -> Set<End> {
        // sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode; what waits to be accepted has inode 0.
        let lines = (Files.text("/proc/net/tcp") ?? "").split(separator: "\n").dropFirst()
        return Set(
            lines.compactMap { line in
                let fields = line.split(separator: " ")
                guard fields.count > 9, end(fields[1])?.port == port, inodes.contains(fields[9]), let peer = end(fields[2]), peer.port != 0
                else { return nil }
                return peer
            })
    }

    /// `0100007F:1F90`: the address as it lies in memory, the port as a number.
    private static func end(_ text: Substring) -> End? {
        let parts = text.split(separator: ":")
        guard parts.count == 2, let address = UInt32(parts[0], radix: 16), let port = UInt16(parts[1], radix: 16) else { return nil }
        return End(address: UInt32(bigEndian: address), port: port)
    }
}
