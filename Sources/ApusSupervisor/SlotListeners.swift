package import ApusPlatform

/// The sockets of one address.
package final class ListenerGroup {
    enum Kind: Equatable {
        /// One per slot, in the order of slots, which is the order of the kernel's SO_REUSEPORT
        /// group.
        case perSlot
        /// Every worker waits on all of them: a Unix socket, which cannot be split, or the sockets
        /// that a service manager has opened.
        case shared
    }

    /// The address of the configuration; port 0 stays 0.
    let requested: SocketAddress
    /// The address with its actual port.
    package let bound: SocketAddress
    let kind: Kind
    fileprivate(set) var sockets: [Int32]
    /// The owner of the file of a Unix socket.
    enum FileOwner {
        /// This master: it removes the file when it closes the socket.
        case thisProcess
        /// The program that has handed down the socket, until `takeFiles`.
        case predecessor
        /// Another process, or there is no file.
        case other
    }
    fileprivate(set) var fileOwner: FileOwner

    init(requested: SocketAddress, bound: SocketAddress, kind: Kind, sockets: [Int32], fileOwner: FileOwner) {
        self.requested = requested
        self.bound = bound
        self.kind = kind
        self.sockets = sockets
        self.fileOwner = fileOwner
    }

    func sockets(of slot: Int) -> [Int32] {
        switch kind {
        case .perSlot: slot < sockets.count && sockets[slot] >= 0 ? [sockets[slot]] : []
        case .shared: sockets.filter { $0 >= 0 }
        }
    }

    /// Removes the file first: once the socket is closed, a new master may use the path, and its
    /// file must stay.
    fileprivate func close() {
        if case .thisProcess = fileOwner, case .unix(let path) = bound { FileSystem.remove(path) }
        fileOwner = .other
        for socket in sockets where socket >= 0 { OwnedDescriptor.close(socket) }
        sockets = []
    }
}

/// The listening sockets of a server, one per TCP address and worker slot, made by the master and
/// kept for its life.
///
/// A slot's socket outlives the slot's workers: the successor serves what waits in its accept queue
/// while a worker is being replaced. A Unix socket cannot be split (SO_REUSEPORT does not apply):
/// all slots share it.
///
/// Slots are added and removed at the end only, so that the number of a slot is the index of its
/// socket in the kernel's group. A BPF program on the group (`steer`) keeps new connections away
/// from slots that have no worker yet, or are about to be removed.
package final class SlotListeners {
    /// Connections that the kernel may queue per socket; it caps this at `net.core.somaxconn`.
    package static let defaultBacklog: Int32 = 4096
    /// Attempts to get a port of the kernel's choice.
    private static let maxPortAttempts = 8
    /// In a worker, the number of a socket of another slot.
    private static let closed: Int32 = -1

    package private(set) var slots: Int
    /// All open groups, in the order of opening.
    private var groups: [ListenerGroup] = []
    /// Groups that were handed down and not requested yet.
    private var inherited: [ListenerGroup]
    /// Files of sockets that were handed down and closed here. They are removed by `takeFiles`,
    /// when the predecessor is about to end.
    private var leftFiles: [String] = []
    private let backlog: Int32
    /// Slots that new connections are not steered to, because their workers do not serve.
    private var exceptions: [Int] = []

    /// - Parameter inherited: sockets that another process has opened, to be used when their
    ///   address is asked for.
    package init(slots: Int, backlog: Int32 = SlotListeners.defaultBacklog, inherited: [ListenerGroup] = []) {
        precondition(slots > 0, "a server has at least one worker")
        let given = inherited.filter { $0.kind == .perSlot }.map(\.sockets.count).max() ?? 0
        self.slots = max(slots, given)
        self.backlog = backlog
        self.inherited = inherited
    }

    /// Opens the addresses for `slots` slots.
    package convenience init(
        addresses: [SocketAddress], slots: Int, backlog: Int32 = SlotListeners.defaultBacklog
    ) throws(ListenError) {
        self.init(slots: slots, backlog: backlog)
        _ = try open(addresses)
    }

    deinit { close() }

    /// The addresses with their actual ports, in the order they were opened.
    package var boundAddresses: [SocketAddress] { groups.map(\.bound) }

    /// The sockets that the slot's worker accepts from, in the order of `boundAddresses`.
    package func descriptors(for slot: Int) -> [Int32] { groups.flatMap { $0.sockets(of: slot) } }

    /// The sockets that the slot's worker accepts from.
    package func listeners(for slot: Int) -> [WorkerListener] { Self.listeners(for: slot, of: groups) }

    /// The sockets of `groups` that a worker of the slot accepts from.
    package static func listeners(for slot: Int, of groups: [ListenerGroup]) -> [WorkerListener] {
        groups.enumerated().flatMap { place, group in
            group.sockets(of: slot).map {
                WorkerListener(descriptor: $0, place: place, address: group.bound, isShared: group.kind == .shared)
            }
        }
    }

    // MARK: A generation's addresses

    /// Returns the groups of these addresses: those that are open already, and new ones for the
    /// others.
    ///
    /// - Throws: `ListenError`; then nothing has changed.
    package func open(_ addresses: [SocketAddress]) throws(ListenError) -> [ListenerGroup] {
        var wanted: [ListenerGroup] = []
        var added: [ListenerGroup] = []
        var taken: [ListenerGroup] = []
        for address in addresses {
            if let open = groups.first(where: { $0.requested == address && !isIn(wanted, $0) }) {
                wanted.append(open)
                continue
            }
            do throws(SystemError) {
                let group: ListenerGroup
                if let inherited = try takeInherited(address) {
                    group = inherited
                    taken.append(group)
                } else {
                    group = try listen(on: address)
                    added.append(group)
                }
                wanted.append(group)
            } catch {
                for group in added { group.close() }
                // They are handed down only once.
                inherited += taken
                throw ListenError(address: address, cause: error)
            }
        }
        groups += taken + added
        return wanted
    }

    /// Closes every group that is in none of the lists.
    package func keep(only wanted: [ListenerGroup]) {
        for group in groups where !isIn(wanted, group) { group.close() }
        groups.removeAll { !isIn(wanted, $0) }
    }

    private func isIn(_ list: [ListenerGroup], _ group: ListenerGroup) -> Bool { list.contains { $0 === group } }

    /// In a worker: closes every socket except the slot's in `wanted`. The files stay the master's.
    package func keepOnly(slot: Int, of wanted: [ListenerGroup]? = nil) {
        let kept = Set((wanted ?? groups).flatMap { $0.sockets(of: slot) })
        for group in groups {
            group.fileOwner = .other
            for (place, socket) in group.sockets.enumerated() where !kept.contains(socket) {
                OwnedDescriptor.close(socket)
                group.sockets[place] = Self.closed
            }
        }
        for group in inherited {
            group.fileOwner = .other
            group.close()
        }
    }

    /// Closes every socket and removes the socket files.
    package func close() {
        for group in groups + inherited { group.close() }
        groups = []
        inherited = []
    }

    // MARK: Slots

    /// Adds a slot. Where the kernel can steer, the slot gets no new connection until `steer`.
    package func addSlot() throws(ListenError) {
        for group in groups where group.kind == .perSlot && group.sockets.count == slots {
            do {
                if slots > 1 { try steer(group, to: slots) }
                group.sockets.append(try Self.joined(group.bound, backlog: backlog).release())
                // Two sockets are a group: with one, there was nothing to steer.
                try steer(group, to: slots)
            } catch {
                for group in groups where group.kind == .perSlot && group.sockets.count > slots {
                    OwnedDescriptor.close(group.sockets.removeLast())
                }
                throw ListenError(address: group.bound, cause: error)
            }
        }
        slots += 1
    }

    /// Steers new connections to the first `count` slots, except `exceptions` unless these are all.
    /// Connections that others have got already wait for their workers.
    package func steer(to count: Int, except exceptions: [Int] = []) throws(ListenError) {
        self.exceptions = exceptions
        for group in groups where group.kind == .perSlot && group.sockets.count > 1 {
            do {
                try steer(group, to: count)
            } catch {
                throw ListenError(address: group.bound, cause: error)
            }
        }
    }

    private func steer(_ group: ListenerGroup, to count: Int) throws(SystemError) {
        let left = exceptions.filter { $0 < count }
        try Socket.steer(group.sockets[0], to: count, except: left.count < count ? left : [])
    }

    /// Closes the last slot's sockets in this process; a worker may still hold them.
    package func removeLastSlot() {
        precondition(slots > 1, "a server has at least one worker")
        slots -= 1
        for group in groups where group.kind == .perSlot && group.sockets.count > slots {
            OwnedDescriptor.close(group.sockets.removeLast())
        }
    }

    // MARK: Handing down

    /// The environment variable for a new program: `ADDRESS=KIND:N,N;…`, with the addresses of the
    /// configuration.
    package var handedDown: String { Inheritance.text(of: groups) }

    package var allDescriptors: [Int32] { groups.flatMap(\.sockets) }

    /// Another process owns the files of the Unix sockets now.
    package func giveUpFiles() { for group in groups { group.fileOwner = .other } }

    /// This process owns the files of the Unix sockets that the predecessor has handed down.
    package func takeFiles() {
        for group in groups where group.fileOwner == .predecessor { group.fileOwner = .thisProcess }
        for path in leftFiles { FileSystem.remove(path) }
        leftFiles = []
    }

    private func takeInherited(_ address: SocketAddress) throws(SystemError) -> ListenerGroup? {
        guard let index = inherited.firstIndex(where: { $0.requested == address || $0.bound == address }) else { return nil }
        let given = inherited[index]
        // If one cannot join, those that have joined stay in the group.
        while given.kind == .perSlot, given.sockets.count < slots {
            given.sockets.append(try Self.joined(given.bound, backlog: backlog).release())
        }
        inherited.remove(at: index)
        return ListenerGroup(
            requested: address, bound: given.bound, kind: given.kind, sockets: given.sockets, fileOwner: given.fileOwner)
    }

    /// Closes the groups that were handed down and not requested.
    ///
    /// - Returns: Their addresses.
    package func closeUnclaimed() -> [SocketAddress] {
        defer { inherited = [] }
        for group in inherited {
            if group.fileOwner == .predecessor, case .unix(let path) = group.bound { leftFiles.append(path) }
            group.close()
        }
        return inherited.map(\.bound)
    }

    // MARK: TCP

    private func listen(on address: SocketAddress) throws(SystemError) -> ListenerGroup {
        switch address {
        case .ipv4, .ipv6: try listenPerSlot(on: address)
        case .unix(let path): try listenShared(on: address, path: path)
        }
    }

    /// The first socket listens alone, *without* SO_REUSEPORT, and opens the group afterwards. So
    /// the kernel refuses an address that is in use, even by another Apus of the same user, and of
    /// two masters that start together only one gets it.
    private func listenPerSlot(on address: SocketAddress) throws(SystemError) -> ListenerGroup {
        let first = try listenAlone(on: address)
        try Socket.set(.reuseAddress, on: first.rawValue)
        try Socket.set(.reusePort, on: first.rawValue)
        let bound = try Socket.localAddress(of: first.rawValue)
        var sockets = [first.release()]
        do {
            for _ in 1..<max(slots, 1) { sockets.append(try Self.joined(bound, backlog: backlog).release()) }
        } catch {
            for socket in sockets { OwnedDescriptor.close(socket) }
            throw error
        }
        return ListenerGroup(requested: address, bound: bound, kind: .perSlot, sockets: sockets, fileOwner: .other)
    }

    /// A further socket of a group.
    private static func joined(_ bound: SocketAddress, backlog: Int32) throws(SystemError) -> OwnedDescriptor {
        let socket = try socket(for: bound)
        try Socket.set(.reuseAddress, on: socket.rawValue)
        try Socket.set(.reusePort, on: socket.rawValue)
        try Socket.bind(socket.rawValue, to: bound)
        try Socket.listen(socket.rawValue, backlog: backlog)
        return socket
    }

    private func listenAlone(on address: SocketAddress) throws(SystemError) -> OwnedDescriptor {
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
                // Another process got the same port and listened first.
                attempt += 1
            }
        }
    }

    private static func socket(for address: SocketAddress) throws(SystemError) -> OwnedDescriptor {
        let socket = try Socket.stream(for: address)
        // Accepted connections inherit it: output is coalesced by Apus, so Nagle would only delay
        // it.
        if address.port != nil { try Socket.set(.noDelay, on: socket.rawValue) }
        switch address {
        // `[::]` must not include the IPv4 port, which has an entry of its own.
        case .ipv6: try Socket.set(.ipv6Only, on: socket.rawValue)
        case .ipv4, .unix: break
        }
        return socket
    }

    // MARK: Unix

    private func listenShared(on address: SocketAddress, path: String) throws(SystemError) -> ListenerGroup {
        guard path.utf8.count <= SocketAddress.maxUnixPathBytes else {
            throw SystemError(code: SystemError.nameTooLong, call: "bind")
        }
        if FileSystem.isSocket(path) {
            guard try Self.isStale(address) else { throw SystemError(code: SystemError.addressInUse, call: "bind") }
            FileSystem.remove(path)
        }
        let socket = try Socket.stream(for: address)
        try Socket.bind(socket.rawValue, to: address)
        do {
            try Socket.listen(socket.rawValue, backlog: backlog)
        } catch {
            FileSystem.remove(path)
            throw error
        }
        return ListenerGroup(requested: address, bound: address, kind: .shared, sockets: [socket.release()], fileOwner: .thisProcess)
    }

    /// Whether no process listens on the socket file, because its master was killed.
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
