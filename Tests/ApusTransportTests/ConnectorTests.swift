import ApusPlatform
import ApusTransport
import Glibc
import Testing

@Suite("RFC 8305: the race of connects")
struct ConnectorTests {
    /// A listener of one family; with a full queue, connects to it hang.
    final class Place {
        let socket: OwnedDescriptor
        let address: SocketAddress
        private var fillers: [Int32] = []

        init(_ host: String = "127.0.0.1", hangs: Bool = false) throws {
            let any = try #require(SocketAddress(numericHost: host, port: 0))
            socket = try Socket.stream(for: any)
            try Socket.bind(socket.rawValue, to: any)
            try Socket.listen(socket.rawValue, backlog: hangs ? 0 : 16)
            address = try Socket.localAddress(of: socket.rawValue)
            guard hangs else { return }
            // A queue of length 0 holds one connection; what the kernel answers no more hangs.
            for _ in 0..<2 {
                let filler = try Socket.stream(for: address)
                _ = try Socket.connect(filler.rawValue, to: address)
                fillers.append(filler.release())
            }
        }

        deinit { for filler in fillers { close(filler) } }

        /// An address at which nobody listens.
        static func refusing(_ host: String = "127.0.0.1") throws -> SocketAddress { try Place(host).address }
    }

    final class Race {
        let loop: EventLoop
        private(set) var connector: Connector?
        private(set) var winner: SocketAddress?
        private(set) var failures: [Connector.Failure]?
        private(set) var tellings = 0
        private var won: Int32 = -1
        let start = MonotonicTime.now()

        init(_ settings: ConnectorSettings = ConnectorSettings()) throws {
            loop = try EventLoop()
            connector = Connector(loop, settings) { [unowned self] outcome in
                tellings += 1
                switch consume outcome {
                case .connected(let socket, let address):
                    winner = address
                    won = socket.release()
                case .failed(let failures): self.failures = failures
                }
            }
        }

        deinit { if won >= 0 { close(won) } }

        var milliseconds: UInt64 { MonotonicTime.now().millisecondsSince(start) }

        func run(_ addresses: [SocketAddress]) throws {
            connector?.add(addresses)
            connector?.complete()
            #expect(tellings == 0, "never from inside a call")
            try turn { tellings > 0 }
        }

        func turn(until condition: () -> Bool) throws {
            let deadline = MonotonicTime.now() + .seconds(5)
            while !condition(), MonotonicTime.now() < deadline { try loop.turn(timeout: .milliseconds(20)) }
            #expect(condition())
        }

        func forget() { connector = nil }

        /// The peer and options of the connection that won.
        func option(_ level: Int32, _ name: Int32) -> Int32 {
            var value: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(won, level, name, &value, &length)
            return value
        }

        var localAddress: SocketAddress? { try? Socket.localAddress(of: won) }
    }

    @Test("the first to answer wins")
    func first() throws {
        let place = try Place()
        let race = try Race()
        try race.run([place.address])
        #expect(race.winner == place.address && race.tellings == 1)
    }

    @Test("IPv6 is tried first, whatever the order")
    func prefersSix() throws {
        let (four, six) = (try Place(), try Place("::1"))
        let race = try Race()
        try race.run([four.address, six.address])
        #expect(race.winner == six.address)
    }

    @Test("a refusal starts the next attempt at once")
    func refusal() throws {
        let place = try Place()
        var settings = ConnectorSettings()
        settings.attemptDelay = .seconds(60)
        let race = try Race(settings)
        try race.run([try Place.refusing("::1"), place.address])
        #expect(race.winner == place.address)
        #expect(race.milliseconds < 4000)
    }

    @Test("an attempt that hangs does not hold up the others for longer than the delay")
    func hanging() throws {
        let (six, four) = (try Place("::1", hangs: true), try Place())
        let race = try Race()
        try race.run([six.address, four.address])
        #expect(race.winner == four.address)
        #expect(race.milliseconds >= 250, "\(race.milliseconds) ms")
    }

    @Test("addresses that become known later join the race, and the last failure ends it")
    func late() throws {
        let race = try Race()
        let refusing = try Place.refusing()
        race.connector?.add([refusing])
        for _ in 0..<3 { try race.loop.turn(timeout: .milliseconds(5)) }
        #expect(race.tellings == 0, "more may come")
        let other = try Place.refusing("::1")
        try race.run([other])
        #expect(race.failures?.map(\.address) == [refusing, other])
        #expect(race.failures?.allSatisfy { $0.error.code == ECONNREFUSED } == true)
    }

    @Test("without an address it fails")
    func none() throws {
        let race = try Race()
        try race.run([])
        #expect(race.failures?.isEmpty == true)
    }

    @Test("after cancel nothing is told, and no socket is left")
    func cancelled() throws {
        let place = try Place("::1", hangs: true)
        // Its own address tells the socket from those that other tests open and close meanwhile.
        let own = try Place.refusing("::1")
        var settings = ConnectorSettings()
        settings.bindAddress = own
        let race = try Race(settings)
        race.connector?.add([place.address])
        try race.turn { Self.hasSocket(at: own) }
        race.connector?.cancel()
        #expect(!Self.hasSocket(at: own))
        try race.loop.turn(timeout: .milliseconds(5))
        #expect(race.tellings == 0)
    }

    /// Whether a descriptor of this process is a socket bound to `address`.
    static func hasSocket(at address: SocketAddress) -> Bool {
        (0..<4096).contains { (try? Socket.localAddress(of: $0)) == address }
    }

    @Test("a local socket whose queue is full is tried again until it has room")
    func localQueue() throws {
        let path = "/tmp/apus-connector-\(getpid())"
        defer { unlink(path) }
        let address = SocketAddress.unix(path: path)
        let socket = try Socket.stream(for: address)
        try Socket.bind(socket.rawValue, to: address)
        try Socket.listen(socket.rawValue, backlog: 0)
        let filler = try Socket.stream(for: address)
        _ = try Socket.connect(filler.rawValue, to: address)
        let race = try Race()
        race.connector?.add([address])
        race.connector?.complete()
        for _ in 0..<4 { try race.loop.turn(timeout: .milliseconds(10)) }
        #expect(race.tellings == 0)
        guard case .done(let (accepted, _)) = try Socket.accept(socket.rawValue) else { throw SystemError(code: EIO, call: "accept4") }
        defer { close(accepted) }
        try race.turn { race.tellings == 1 }
        #expect(race.winner == address)
    }

    @Test("keep-alive, Nagle, bind address and interface are set")
    func settings() throws {
        let place = try Place()
        var settings = ConnectorSettings()
        settings.keepAlive = (33, 7, 3)
        settings.bindAddress = SocketAddress(numericHost: "127.0.0.77", port: 0)
        settings.interface = "lo"
        let race = try Race(settings)
        try race.run([place.address])
        try #require(race.winner == place.address, "\(String(describing: race.failures))")
        #expect(race.option(SOL_SOCKET, SO_KEEPALIVE) == 1)
        #expect(race.option(Int32(IPPROTO_TCP), TCP_KEEPIDLE) == 33)
        #expect(race.option(Int32(IPPROTO_TCP), TCP_KEEPINTVL) == 7)
        #expect(race.option(Int32(IPPROTO_TCP), TCP_KEEPCNT) == 3)
        #expect(race.option(Int32(IPPROTO_TCP), TCP_NODELAY) == 1)
        #expect(race.localAddress?.host == "127.0.0.77")
    }

    @Test("a bind address of the other family, or no interface of that name, fails with the reason", arguments: [true, false])
    func wrongSettings(address: Bool) throws {
        let place = try Place()
        var settings = ConnectorSettings()
        if address { settings.bindAddress = SocketAddress(numericHost: "::1", port: 0) } else { settings.interface = "nowhere7" }
        let race = try Race(settings)
        try race.run([place.address])
        #expect(race.failures?.count == 1)
    }
}
