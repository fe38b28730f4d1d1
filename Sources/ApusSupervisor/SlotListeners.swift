package import ApusPlatform

/// Why an address cannot be listened on.
package struct ListenError: Error, Equatable, CustomStringConvertible {
    package let address: SocketAddress
    package let cause: SystemError

    /// `cannot listen on 127.0.0.1:80: bind: Permission denied`
    package var description: String { "cannot listen on \(address): \(cause)" }

    /// Whether somebody else has the address.
    package var isAddressInUse: Bool { cause.code == SystemError.addressInUse }
}

/// The listening sockets of a server, one per TCP address and worker slot, made once by the master and kept for its life.
///
/// A slot's socket outlives the slot's workers: what waits in its accept queue while a worker is being replaced is served by
/// the successor. A Unix socket cannot be split (there is no SO_REUSEPORT for them): all slots share it, and each worker
/// watches it with `Readiness.exclusive`.
package final class SlotListeners {
    /// What the kernel may queue per socket before a worker accepts; it caps this at `net.core.somaxconn`.
    package static let defaultBacklog: Int32 = 4096
    /// How often a port of the kernel's choice is asked for before giving up.
    private static let maxPortAttempts = 8

    /// The addresses with their actual ports, in the order given.
    package private(set) var boundAddresses: [SocketAddress] = []
    package let slots: Int
    /// Each slot's sockets, one per address in the order given.
    private var perSlot: [[Int32]]
    /// Those of them that are the same in every slot.
    private var shared: [Int32] = []
    /// Socket files to remove at the end; in the master only.
    private var socketFiles: [String] = []

    package init(addresses: [SocketAddress], slots: Int, backlog: Int32 = SlotListeners.defaultBacklog) throws(ListenError) {
        precondition(slots > 0, "a server has at least one worker")
        self.slots = slots
        perSlot = Array(repeating: [], count: slots)
        for address in addresses {
            do {
                switch address {
                case .ipv4, .ipv6: try listenPerSlot(on: address, backlog: backlog)
                case .unix(let path): try listenShared(on: address, path: path, backlog: backlog)
                }
            } catch {
                close()
                throw ListenError(address: address, cause: error)
            }
        }
    }

    deinit { close() }

    /// The sockets that the slot's worker accepts from, in the order of `boundAddresses`.
    package func descriptors(for slot: Int) -> [Int32] { perSlot[slot] }

    /// In a worker: closes the other slots' sockets, and leaves the files to the master.
    package func keepOnly(slot: Int) {
        for other in perSlot.indices where other != slot { closeOwn(of: other) }
        socketFiles = []
    }

    /// Closes every socket and removes the socket files. The files go first: once a socket is closed, a new master may
    /// take the path, and its file must stay.
    package func close() {
        for path in socketFiles { FileSystem.remove(path) }
        socketFiles = []
        for slot in perSlot.indices { closeOwn(of: slot) }
        for descriptor in shared { OwnedDescriptor.close(descriptor) }
        shared = []
    }

    private func closeOwn(of slot: Int) {
        for descriptor in perSlot[slot] where !shared.contains(descriptor) { OwnedDescriptor.close(descriptor) }
        perSlot[slot] = []
    }

    // MARK: TCP

    /// The first socket listens alone, *without* SO_REUSEPORT, and only then opens the group: so an address that anybody
    /// listens on already, another Apus of the same user too, is refused by the kernel, with no gap in which two masters
    /// that start together could both pass a test.
    private func listenPerSlot(on address: SocketAddress, backlog: Int32) throws(SystemError) {
        let first = try listenAlone(on: address, backlog: backlog)
        try Socket.set(.reuseAddress, on: first.rawValue)
        try Socket.set(.reusePort, on: first.rawValue)
        let bound = try Socket.localAddress(of: first.rawValue)
        perSlot[0].append(first.release())
        for slot in perSlot.indices.dropFirst() {
            let socket = try Self.socket(for: bound)
            try Socket.set(.reuseAddress, on: socket.rawValue)
            try Socket.set(.reusePort, on: socket.rawValue)
            try Socket.bind(socket.rawValue, to: bound)
            try Socket.listen(socket.rawValue, backlog: backlog)
            perSlot[slot].append(socket.release())
        }
        boundAddresses.append(bound)
    }

    private func listenAlone(on address: SocketAddress, backlog: Int32) throws(SystemError) -> OwnedDescriptor {
        var attempt = 1
        while true {
            let socket = try Self.socket(for: address)
            // A port of the kernel's choice needs no reuse of an old one.
            if address.port != 0 { try Socket.set(.reuseAddress, on: socket.rawValue) }
            try Socket.bind(socket.rawValue, to: address)
            do {
                try Socket.listen(socket.rawValue, backlog: backlog)
                return socket
            } catch  where error.code == SystemError.addressInUse && address.port == 0 && attempt < Self.maxPortAttempts {
                // Somebody was given the same port and listened first: ask for another.
                attempt += 1
            }
        }
    }

    private static func socket(for address: SocketAddress) throws(SystemError) -> OwnedDescriptor {
        let socket = try Socket.stream(for: address)
        // Accepted connections inherit it: what is corked by us shall not wait for the kernel as well.
        if address.port != nil { try Socket.set(.noDelay, on: socket.rawValue) }
        switch address {
        // `[::]` must not take the IPv4 port too, which has its own entry.
        case .ipv6: try Socket.set(.ipv6Only, on: socket.rawValue)
        case .ipv4, .unix: break
        }
        return socket
    }

    // MARK: Unix

    private func listenShared(on address: SocketAddress, path: String, backlog: Int32) throws(SystemError) {
        guard path.utf8.count <= SocketAddress.maxUnixPathBytes else {
            throw SystemError(code: SystemError.nameTooLong, call: "bind")
        }
        if FileSystem.isSocket(path) {
            guard try Self.isStale(address) else { throw SystemError(code: SystemError.addressInUse, call: "bind") }
            FileSystem.remove(path)
        }
        let socket = try Socket.stream(for: address)
        try Socket.bind(socket.rawValue, to: address)
        socketFiles.append(path)
        try Socket.listen(socket.rawValue, backlog: backlog)
        let descriptor = socket.release()
        shared.append(descriptor)
        for slot in perSlot.indices { perSlot[slot].append(descriptor) }
        boundAddresses.append(address)
    }

    /// Whether nobody listens behind a socket file: a master that was killed leaves it.
    private static func isStale(_ address: SocketAddress) throws(SystemError) -> Bool {
        let probe = try Socket.stream(for: address)
        do {
            _ = try Socket.connect(probe.rawValue, to: address)
            return false  // connected, or its queue is full
        } catch  where error.code == SystemError.connectionRefused || error.code == SystemError.noSuchFile {
            return true
        }
    }
}
