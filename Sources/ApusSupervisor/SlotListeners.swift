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

/// What a worker accepts from.
package struct WorkerListener: Equatable, Sendable {
    /// The supervisor's; the worker closes its copy when it accepts no more.
    package let descriptor: Int32
    /// Its address's place among those of the description.
    package let place: Int
    /// With the port filled in.
    package let address: SocketAddress
    /// Other workers wait on the same socket: only one is to be woken.
    package let isShared: Bool
}

/// The sockets of one address.
package final class ListenerGroup {
    enum Kind: Equatable {
        /// One per slot, in the order of slots, which is the order of the kernel's SO_REUSEPORT group.
        case perSlot
        /// Every worker waits on all of them: a Unix socket, of which there can be one, or those that a service manager has opened.
        case shared
    }

    /// As it was asked for; port 0 stays 0.
    let requested: SocketAddress
    package let bound: SocketAddress
    let kind: Kind
    fileprivate(set) var sockets: [Int32]
    /// Whose the socket's file is.
    enum FileOwner {
        /// It goes with the socket; in the master only.
        case we
        /// The program that has handed the socket down, until `takeFiles`.
        case predecessor
        case somebodyElse
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

    /// The file goes first: once a socket is closed, a new master may take the path, and its file must stay.
    fileprivate func close() {
        if case .we = fileOwner, case .unix(let path) = bound { FileSystem.remove(path) }
        fileOwner = .somebodyElse
        for socket in sockets where socket >= 0 { OwnedDescriptor.close(socket) }
        sockets = []
    }
}

/// The listening sockets of a server, one per TCP address and worker slot, made by the master and kept for its life.
///
/// A slot's socket outlives the slot's workers: what waits in its accept queue while a worker is being replaced is served by
/// the successor. A Unix socket cannot be split (there is no SO_REUSEPORT for them): all slots share it.
///
/// A slot is added and taken away at the end only, so that a slot's number is its socket's place in the kernel's group: a program on the
/// group (`steer`) keeps new connections from the slots that have no worker yet, or shall have none any more.
package final class SlotListeners {
    /// What the kernel may queue per socket before a worker accepts; it caps this at `net.core.somaxconn`.
    package static let defaultBacklog: Int32 = 4096
    /// How often a port of the kernel's choice is asked for before giving up.
    private static let maxPortAttempts = 8
    /// Stands in a worker for a socket of another slot.
    private static let closed: Int32 = -1

    package private(set) var slots: Int
    /// Everything that is open, in the order it was opened.
    private var groups: [ListenerGroup] = []
    /// What was handed down and that nobody has asked for yet.
    private var inherited: [ListenerGroup]
    /// Files of sockets that were handed down and closed: nobody listens there once the program before this one has ended.
    private var leftFiles: [String] = []
    private let backlog: Int32
    /// Slots that new connections do not go to, though they serve.
    private var exceptions: [Int] = []

    /// - Parameter inherited: sockets that another process has opened, to be used when their address is asked for.
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

    /// What the slot's worker accepts from.
    package func listeners(for slot: Int) -> [WorkerListener] { Self.listeners(for: slot, of: groups) }

    /// What a worker of the slot accepts from, of those groups.
    package static func listeners(for slot: Int, of groups: [ListenerGroup]) -> [WorkerListener] {
        groups.enumerated().flatMap { place, group in
            group.sockets(of: slot).map {
                WorkerListener(descriptor: $0, place: place, address: group.bound, isShared: group.kind == .shared)
            }
        }
    }

    // MARK: A generation's addresses

    /// The sockets of these addresses: those that are open already, and new ones for the others. Nothing has changed when it throws.
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
                // Handed down once, never to be had again.
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

    /// In a worker: closes every socket that is not the slot's in `wanted`, and leaves the files to the master.
    package func keepOnly(slot: Int, of wanted: [ListenerGroup]? = nil) {
        let kept = Set((wanted ?? groups).flatMap { $0.sockets(of: slot) })
        for group in groups {
            group.fileOwner = .somebodyElse
            for (place, socket) in group.sockets.enumerated() where !kept.contains(socket) {
                OwnedDescriptor.close(socket)
                group.sockets[place] = Self.closed
            }
        }
        for group in inherited {
            group.fileOwner = .somebodyElse
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

    /// Adds a slot. Where it can be done, no new connection goes there before `steer` says so.
    package func addSlot() throws(ListenError) {
        for group in groups where group.kind == .perSlot && group.sockets.count == slots {
            do {
                if slots > 1 { try steer(group, to: slots) }
                group.sockets.append(try Self.joined(group.bound, backlog: backlog).release())
                // The first two make the group: until now there was none to steer.
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

    /// New connections go to the first `count` slots only, and to none of `exceptions` if any is left. What has come for others waits for their
    /// workers.
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

    /// Closes the last slot's sockets here; a worker may still hold them.
    package func removeLastSlot() {
        precondition(slots > 1, "a server has at least one worker")
        slots -= 1
        for group in groups where group.kind == .perSlot && group.sockets.count > slots {
            OwnedDescriptor.close(group.sockets.removeLast())
        }
    }

    // MARK: Handing down

    /// What a program that takes over is told, in an environment variable: `ADDRESS=KIND:N,N;…`, the address as it was asked for.
    package var handedDown: String {
        groups.map { group in
            let numbers = group.sockets.map(String.init).joined(separator: ",")
            let kind = group.kind == .perSlot ? "slots" : group.fileOwner == .we ? "file" : "shared"
            return "\(Self.escaped("\(group.requested)"))=\(kind):\(numbers)"
        }.joined(separator: ";")
    }

    package var allDescriptors: [Int32] { groups.flatMap(\.sockets) }

    /// A path may have what stands between entries.
    private static func escaped(_ address: String) -> String { address.replacing("%", with: "%25").replacing(";", with: "%3B") }

    private static func unescaped(_ text: some StringProtocol) -> String {
        String(text).replacing("%3B", with: ";").replacing("%25", with: "%")
    }

    /// Somebody else owns the files of the Unix sockets now.
    package func giveUpFiles() { for group in groups { group.fileOwner = .somebodyElse } }

    /// The program that has handed sockets down gives up their files: they are this one's from now on.
    package func takeFiles() {
        for group in groups where group.fileOwner == .predecessor { group.fileOwner = .we }
        for path in leftFiles { FileSystem.remove(path) }
        leftFiles = []
    }

    /// Reads what `handedDown` wrote. What is no listening socket is left out.
    package static func inherit(_ text: String) -> [ListenerGroup] {
        text.split(separator: ";").compactMap { entry in
            guard let equals = entry.lastIndex(of: "="), let requested = SocketAddress(parsing: unescaped(entry[..<equals]))
            else { return nil }
            let parts = entry[entry.index(after: equals)...].split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { return nil }
            let sockets = parts[1].split(separator: ",").compactMap { Int32($0) }.filter(Socket.isListening)
            guard let first = sockets.first, let bound = adopt(sockets, first) else { return nil }
            return ListenerGroup(
                requested: requested, bound: bound, kind: parts[0] == "slots" ? .perSlot : .shared, sockets: sockets,
                fileOwner: parts[0] == "file" ? .predecessor : .somebodyElse)
        }
    }

    /// Sockets that a service manager has opened, one or several for an address.
    package static func inherit(descriptors: Range<Int32>) -> [ListenerGroup] {
        var order: [SocketAddress] = []
        var sockets: [SocketAddress: [Int32]] = [:]
        for descriptor in descriptors where Socket.isListening(descriptor) {
            guard let address = adopt([descriptor], descriptor) else { continue }
            if sockets[address] == nil { order.append(address) }
            sockets[address, default: []].append(descriptor)
        }
        return order.map {
            ListenerGroup(requested: $0, bound: $0, kind: .shared, sockets: sockets[$0] ?? [], fileOwner: .somebodyElse)
        }
    }

    private static func adopt(_ sockets: [Int32], _ first: Int32) -> SocketAddress? {
        for socket in sockets { guard (try? Socket.adopt(socket)) != nil else { return nil } }
        return try? Socket.localAddress(of: first)
    }

    private func takeInherited(_ address: SocketAddress) throws(SystemError) -> ListenerGroup? {
        guard let index = inherited.firstIndex(where: { $0.requested == address || $0.bound == address }) else { return nil }
        let given = inherited[index]
        // What has joined already stays with the group if another cannot.
        while given.kind == .perSlot, given.sockets.count < slots {
            given.sockets.append(try Self.joined(given.bound, backlog: backlog).release())
        }
        inherited.remove(at: index)
        return ListenerGroup(
            requested: address, bound: given.bound, kind: given.kind, sockets: given.sockets, fileOwner: given.fileOwner)
    }

    /// Closes what was handed down and is not wanted.
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

    /// The first socket listens alone, *without* SO_REUSEPORT, and only then opens the group: so an address that anybody
    /// listens on already, another Apus of the same user too, is refused by the kernel, with no gap in which two masters
    /// that start together could both pass a test.
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
        return ListenerGroup(requested: address, bound: bound, kind: .perSlot, sockets: sockets, fileOwner: .somebodyElse)
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
        return ListenerGroup(requested: address, bound: address, kind: .shared, sockets: [socket.release()], fileOwner: .we)
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
