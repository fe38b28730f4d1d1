package import ApusPlatform
import CCares

/// Resolves names with c-ares on the worker's loop: no thread, and no descriptor while no query
/// runs.
///
/// `/etc/hosts` and `/etc/resolv.conf` are read anew for the first query after a pause. `localhost`
/// and names below it resolve to the loopback addresses whatever the files contain, and names below
/// `invalid` do not exist; no query is sent for either (RFC 6761 §6.3, §6.4).
@safe package final class Resolver {
    /// Events of a lookup, in this order: addresses, at most twice, then the end.
    package enum Event {
        /// IPv6 first where both are known. IPv4 alone if IPv6 takes more than 50 ms longer (RFC
        /// 8305 §3).
        case addresses([SocketAddress])
        /// No more events; with the failure if there was no address.
        case end(ResolverFailure?)
    }

    private let loop: EventLoop
    /// Name servers instead of the system's: comma-separated `ADDRESS:PORT`.
    private let servers: String?
    private let timer = ClosureTimer()
    private var channel: ares_channel?
    private var sockets: [Int32: ClosureSource] = [:]
    /// Running queries that further lookups may join, because no event has been reported yet.
    private var shared: [String: Query] = [:]
    private var running: [ObjectIdentifier: Query] = [:]
    /// Queries with a result or an expired timer that is not reported yet.
    private var answered: [Query] = []

    /// How long a result for IPv4 waits for IPv6 (RFC 8305 §3).
    static let resolutionDelay = Duration.milliseconds(50)

    /// - Parameter servers: name servers instead of the system's: comma-separated `ADDRESS:PORT`.
    package init(_ loop: EventLoop, servers: String? = nil) {
        self.loop = loop
        self.servers = servers
        timer.body = { [weak self] _, _ in self?.timerFired() }
    }

    deinit {
        for query in running.values { loop.cancel(query) }
        stop()
    }

    /// Whether a descriptor or a timer is in use.
    package var isActive: Bool { unsafe channel != nil }

    /// Resolves a name to addresses with port 0. No event is reported before this returns, nor
    /// after `cancel` of the lookup.
    package func resolve(_ name: String, _ tell: @escaping (Event) -> Void) -> NameLookup {
        let lookup = NameLookup(self, tell)
        if let query = shared[name] {
            query.waiters.append(lookup)
            lookup.query = query
            return lookup
        }
        let query = Query(name, self)
        query.waiters = [lookup]
        lookup.query = query
        running[ObjectIdentifier(query)] = query
        shared[name] = query
        if Self.isName(name, in: "localhost") {
            query.answers = (six: .found([.ipv6(high: 0, low: 1, port: 0, scope: 0)]), four: .found([.ipv4(0x7F00_0001, port: 0)]))
            answered.append(query)
        } else if Self.isName(name, in: "invalid") {
            let failure = ResolverFailure(ARES_ENOTFOUND)
            query.answers = (six: .failed(failure), four: .failed(failure))
            answered.append(query)
        } else {
            ask(query)
        }
        // Results from files are available at once; they are reported in the loop's next turn like
        // all others.
        loop.schedule(timer, at: loop.now)
        return lookup
    }

    /// Whether a name is the top-level domain or below it, with or without a trailing dot.
    private static func isName(_ name: String, in domain: String) -> Bool {
        let lowercase = name.lowercased()
        let plain = lowercase.hasSuffix(".") ? String(lowercase.dropLast()) : lowercase
        return plain == domain || plain.hasSuffix("." + domain)
    }

    // MARK: c-ares

    private func ask(_ query: Query) {
        let channel: ares_channel
        switch unsafe openChannel() {
        case .success(let opened): unsafe channel = unsafe opened
        case .failure(let failure):
            query.answers = (six: .failed(failure), four: .failed(failure))
            answered.append(query)
            return
        }
        for family in [AF_INET6, AF_INET] {
            var hints = ares_addrinfo_hints()
            hints.ai_family = family
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            // Sorting would connect datagram sockets to compare routes; Happy Eyeballs makes that
            // unnecessary.
            hints.ai_flags = ARES_AI_NOSORT
            let request = unsafe Unmanaged.passRetained(FamilyRequest(query, family))
            // SAFETY: c-ares calls back exactly once for each request, at the latest when the
            // channel is destroyed; that releases it.
            unsafe ares_getaddrinfo(
                channel, query.name, nil, &hints,
                { argument, status, _, result in
                    guard let argument = unsafe argument else { return }
                    let request = unsafe Unmanaged<FamilyRequest>.fromOpaque(argument).takeRetainedValue()
                    unsafe request.answered(status, result)
                }, request.toOpaque())
        }
    }

    private func openChannel() -> Result<ares_channel, ResolverFailure> {
        if let channel = unsafe channel { return unsafe .success(channel) }
        let initialised = ares_library_init(ARES_LIB_INIT_ALL)
        guard initialised == ARES_SUCCESS else { return unsafe .failure(ResolverFailure(initialised)) }
        var options = unsafe ares_options()
        unsafe options.sock_state_cb_data = Unmanaged.passUnretained(self).toOpaque()
        unsafe options.sock_state_cb = { data, descriptor, readable, writable in
            guard let data = unsafe data else { return }
            // SAFETY: the channel does not outlive its resolver.
            unsafe Unmanaged<Resolver>.fromOpaque(data)._withUnsafeGuaranteedRef {
                $0.socketChanged(descriptor, isRead: readable != 0, isWritten: writable != 0)
            }
        }
        var opened: ares_channel?
        let status = unsafe ares_init_options(&opened, &options, ARES_OPT_SOCK_STATE_CB)
        guard status == ARES_SUCCESS, let opened = unsafe opened else {
            ares_library_cleanup()
            return unsafe .failure(ResolverFailure(status))
        }
        unsafe channel = unsafe opened
        if let servers {
            let status = unsafe ares_set_servers_ports_csv(opened, servers)
            guard status == ARES_SUCCESS else { return unsafe .failure(ResolverFailure(status)) }
        }
        return unsafe .success(opened)
    }

    /// c-ares's callback for a socket: it was opened, will be closed, or needs other events.
    private func socketChanged(_ descriptor: Int32, isRead: Bool, isWritten: Bool) {
        var interest: Interest = []
        if isRead { interest.insert(.readable) }
        if isWritten { interest.insert(.writable) }
        guard !interest.isEmpty else {
            if let socket = sockets.removeValue(forKey: descriptor) { loop.remove(socket, descriptor: descriptor) }
            return
        }
        do throws(SystemError) {
            if let socket = sockets[descriptor] {
                try loop.update(socket, descriptor: descriptor, for: interest)
            } else {
                let socket = ClosureSource { [unowned self] _, readiness in process(descriptor, readiness) }
                try loop.add(socket, descriptor: descriptor, for: interest)
                sockets[descriptor] = socket
            }
        } catch {
            // The query then times out; a socket cannot be refused here.
        }
    }

    private func process(_ descriptor: Int32, _ readiness: Readiness) {
        guard let channel = unsafe channel else { return }
        let isHungUp = !readiness.isDisjoint(with: .hangUp)
        let none = ares_socket_t(ARES_SOCKET_BAD)
        unsafe ares_process_fd(
            channel, isHungUp || readiness.contains(.readable) ? descriptor : none, readiness.contains(.writable) ? descriptor : none)
        settle()
    }

    private func timerFired() {
        if let channel = unsafe channel {
            let none = ares_socket_t(ARES_SOCKET_BAD)
            unsafe ares_process_fd(channel, none, none)
        }
        settle()
    }

    fileprivate func noteAnswer(_ query: Query) { answered.append(query) }

    /// Reports results, never inside a call of c-ares, and destroys the channel when no query runs.
    private func settle() {
        while !answered.isEmpty {
            let queries = answered
            answered = []
            for query in queries { advance(query) }
        }
        guard !running.isEmpty else { return stop() }
        guard let channel = unsafe channel else { return }
        var next = timeval()
        if unsafe ares_timeout(channel, nil, &next) != nil {
            loop.schedule(timer, after: .seconds(next.tv_sec) + .microseconds(next.tv_usec))
        }
    }

    private func stop() {
        loop.cancel(timer)
        guard let open = unsafe channel else { return }
        unsafe channel = nil
        // Calls back for cancelled queries, and closes the sockets.
        unsafe ares_destroy(open)
        answered = []
        ares_library_cleanup()
    }

    // MARK: Reporting

    private func advance(_ query: Query) {
        guard running[ObjectIdentifier(query)] != nil else { return }
        if case .pending = query.answers.six, case .found = query.answers.four, !query.hasWaited {
            if !query.isScheduled { loop.schedule(query, after: Self.resolutionDelay) }
            return
        }
        loop.cancel(query)
        let known = query.takeKnown()
        let isOver = query.isOver
        if !known.isEmpty || isOver, shared[query.name] === query { shared[query.name] = nil }
        if isOver { running[ObjectIdentifier(query)] = nil }
        let waiters = query.waiters
        if isOver { for waiter in waiters { waiter.query = nil } }
        for waiter in waiters {
            if !known.isEmpty { waiter.tell?(.addresses(known)) }
            if isOver { waiter.end(query.hasFound ? nil : query.failure) }
        }
    }

    fileprivate func waitedLongEnough(_ query: Query) {
        query.hasWaited = true
        answered.append(query)
        settle()
    }

    fileprivate func forget(_ lookup: NameLookup, _ query: Query) {
        query.waiters.removeAll { $0 === lookup }
        guard query.waiters.isEmpty else { return }
        loop.cancel(query)
        running[ObjectIdentifier(query)] = nil
        if shared[query.name] === query { shared[query.name] = nil }
        // Deferred, because this may run inside a call of c-ares.
        if running.isEmpty { loop.schedule(timer, at: loop.now) }
    }
}

/// Why a name has no address.
package struct ResolverFailure: Error, Equatable, CustomStringConvertible {
    /// The c-ares status (`ARES_ENOTFOUND`, …).
    package let status: Int32
    init(_ status: Int32) { self.status = status }

    /// c-ares's description, such as "Domain name not found".
    package var description: String { unsafe String(cString: ares_strerror(status)) }
}

/// A pending lookup of a name.
package final class NameLookup {
    private let resolver: Resolver
    fileprivate var query: Query?
    fileprivate private(set) var tell: ((Resolver.Event) -> Void)?

    fileprivate init(_ resolver: Resolver, _ tell: @escaping (Resolver.Event) -> Void) {
        self.resolver = resolver
        self.tell = tell
    }

    /// Stops reporting events.
    package func cancel() {
        tell = nil
        guard let query else { return }
        self.query = nil
        resolver.forget(self, query)
    }

    fileprivate func end(_ failure: ResolverFailure?) {
        let tell = tell
        self.tell = nil
        tell?(.end(failure))
    }
}

/// The results for one name. It is also the timer that limits how long IPv4 waits for IPv6.
private final class Query: TimerNode {
    enum Answer {
        case pending
        case found([SocketAddress])
        case told
        case failed(ResolverFailure)
    }

    let name: String
    private unowned let resolver: Resolver
    var waiters: [NameLookup] = []
    var answers: (six: Answer, four: Answer) = (.pending, .pending)
    var hasWaited = false
    private(set) var hasFound = false

    init(_ name: String, _ resolver: Resolver) {
        self.name = name
        self.resolver = resolver
    }

    override func timerFired(at now: MonotonicTime) { resolver.waitedLongEnough(self) }

    func note(_ answer: Answer, _ family: Int32) {
        if family == AF_INET6 { answers.six = answer } else { answers.four = answer }
        resolver.noteAnswer(self)
    }

    /// Addresses that have not been reported, IPv6 first.
    func takeKnown() -> [SocketAddress] {
        var known: [SocketAddress] = []
        if case .found(let addresses) = answers.six { (known, answers.six) = (addresses, .told) }
        if case .found(let addresses) = answers.four { (known, answers.four) = (known + addresses, .told) }
        if !known.isEmpty { hasFound = true }
        return known
    }

    var isOver: Bool {
        switch (answers.six, answers.four) {
        case (.pending, _), (_, .pending): false
        case (.found, _), (_, .found): false
        case (.told, .told), (.told, .failed), (.failed, .told), (.failed, .failed): true
        }
    }

    /// Why there is no address: IPv4's failure, as more names have IPv4 addresses.
    var failure: ResolverFailure? {
        if case .failed(let failure) = answers.four { return failure }
        if case .failed(let failure) = answers.six { return failure }
        return nil
    }
}

/// A c-ares request for a name's addresses of one family.
private final class FamilyRequest {
    private let query: Query
    private let family: Int32

    init(_ query: Query, _ family: Int32) {
        self.query = query
        self.family = family
    }

    func answered(_ status: Int32, _ result: UnsafeMutablePointer<ares_addrinfo>?) {
        guard status != ARES_EDESTRUCTION else { return }
        guard status == ARES_SUCCESS, let result = unsafe result else { return query.note(.failed(ResolverFailure(status)), family) }
        // SAFETY: the list belongs to this callback until it is freed, and its nodes hold addresses
        // of the length that their families define.
        defer { unsafe ares_freeaddrinfo(result) }
        var addresses: [SocketAddress] = []
        var next = unsafe result.pointee.nodes
        while let node = unsafe next {
            if let raw = unsafe node.pointee.ai_addr, let address = unsafe SocketAddress(raw), !addresses.contains(address) {
                addresses.append(address)
            }
            unsafe next = unsafe node.pointee.ai_next
        }
        query.note(addresses.isEmpty ? .failed(ResolverFailure(ARES_ENODATA)) : .found(addresses), family)
    }
}
