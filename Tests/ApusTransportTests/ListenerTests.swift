import ApusPlatform
import ApusTransport
import Glibc
import Testing
import TestSupport

@Suite("The listener")
struct ListenerTests {
    /// A listener on a port of the kernel's choice with a loop of its own, and those who connect to it.
    final class Stage {
        let loop: EventLoop
        let socket: OwnedDescriptor
        let address: SocketAddress
        private(set) var listener: Listener?
        private(set) var accepted: [Int32] = []
        private(set) var peers: [SocketAddress] = []
        private(set) var refusals: [SystemError] = []
        private var clients: [Int32] = []
        /// Called behind each accept.
        var whenAccepted: () -> Void = {}

        init(isShared: Bool = false, start: Bool = true) throws {
            loop = try EventLoop()
            let any = try #require(SocketAddress(numericHost: "127.0.0.1", port: 0))
            socket = try Socket.stream(for: any)
            try Socket.bind(socket.rawValue, to: any)
            try Socket.listen(socket.rawValue, backlog: 512)
            address = try Socket.localAddress(of: socket.rawValue)
            listener = Listener(
                descriptor: socket.rawValue, isShared: isShared, loop: loop,
                accepted: { [unowned self] descriptor, peer in
                    let owner = descriptor
                    accepted.append(owner.release())
                    peers.append(peer)
                    whenAccepted()
                }, refused: { [unowned self] error in refusals.append(error) })
            if start { try listener?.start() }
        }

        deinit {
            listener?.stop()
            for descriptor in accepted + clients { close(descriptor) }
        }

        func connect(_ count: Int = 1) throws {
            for _ in 0..<count {
                let client = try Socket.stream(for: address)
                _ = try Socket.connect(client.rawValue, to: address)
                clients.append(client.release())
            }
        }

        var clientAddresses: Set<SocketAddress> { Set(clients.compactMap { try? Socket.localAddress(of: $0) }) }

        /// Turns the loop until the condition holds, at most two seconds.
        func turn(until condition: () -> Bool) throws {
            let deadline = MonotonicTime.now() + .seconds(2)
            while !condition(), MonotonicTime.now() < deadline { try loop.turn(timeout: .milliseconds(20)) }
            #expect(condition())
        }

        /// Turns it without waiting: what is ready is served.
        func turnOnce() throws { try loop.turn(timeout: .milliseconds(20)) }
    }

    @Test("connections come non-blocking, close-on-exec and with their addresses", arguments: [false, true])
    func accepts(isShared: Bool) throws {
        let stage = try Stage(isShared: isShared)
        try stage.connect(3)
        try stage.turn { stage.accepted.count == 3 }
        for descriptor in stage.accepted {
            #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
            #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
        }
        #expect(Set(stage.peers) == stage.clientAddresses)
        #expect(stage.refusals.isEmpty)
    }

    @Test("one turn takes a bounded number, the next one the rest")
    func batches() throws {
        let stage = try Stage()
        try stage.connect(100)
        try stage.turnOnce()
        #expect(stage.accepted.count == 64)
        try stage.turn { stage.accepted.count == 100 }
    }

    @Test("while it is held, what comes waits in the queue")
    func hold() throws {
        let stage = try Stage()
        stage.listener?.hold()
        try stage.connect(2)
        try stage.turnOnce()
        #expect(stage.accepted.isEmpty)
        stage.listener?.hold()
        stage.listener?.resume()
        stage.listener?.resume()
        try stage.turn { stage.accepted.count == 2 }
    }

    @Test("a hold from inside an accept takes effect at once")
    func holdInside() throws {
        let stage = try Stage()
        stage.whenAccepted = { [unowned stage] in if stage.accepted.count == 2 { stage.listener?.hold() } }
        try stage.connect(5)
        try stage.turnOnce()
        try stage.turnOnce()
        #expect(stage.accepted.count == 2)
        stage.listener?.resume()
        try stage.turn { stage.accepted.count == 5 }
    }

    @Test("resuming what does not rest changes nothing")
    func resumeWithoutHold() throws {
        let stage = try Stage(start: false)
        stage.listener?.resume()
        stage.listener?.hold()
        try stage.connect()
        try stage.turnOnce()
        #expect(stage.accepted.isEmpty)
        try stage.listener?.start()
        stage.listener?.resume()
        try stage.turn { stage.accepted.count == 1 }
    }

    @Test("a stopped one accepts no more, also from inside an accept, and is not resumed")
    func stop() throws {
        let stage = try Stage()
        stage.whenAccepted = { [unowned stage] in stage.listener?.stop() }
        try stage.connect(3)
        try stage.turnOnce()
        stage.listener?.stop()
        stage.listener?.hold()
        stage.listener?.resume()
        try stage.turnOnce()
        #expect(stage.accepted.count == 1)
    }

    @Test("a connect that was given up before it was accepted does no harm")
    func abandoned() throws {
        let stage = try Stage()
        for _ in 0..<3 {
            let client = try Socket.stream(for: stage.address)
            var linger = linger(l_onoff: 1, l_linger: 0)
            _ = try Socket.connect(client.rawValue, to: stage.address)
            setsockopt(client.rawValue, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        }
        try stage.connect()
        try stage.turn { !stage.clientAddresses.isDisjoint(with: stage.peers) }
    }

    @Test("out of descriptors: one is turned away, then it rests without spinning, then it goes on")
    func exhausted() throws {
        let report = try ListenerFixture.run()
        #expect(report["accepted before"] == 3)
        #expect(report["refused before"] == 1, "told once for a rest")
        #expect(report["turned away before"] == 1, "its client learns of it")
        #expect(report["error"] == Int(EMFILE))
        #expect(try #require(report["turns while resting"]) <= 4, "no spinning")
        #expect(report["accepted after one closed"] == 4, "resumed at once")
        #expect(report["accepted by itself"] == 5, "and by itself when its rest is over")
    }
}

/// The program beside this one that runs out of descriptors.
enum ListenerFixture {
    static func run() throws -> [String: Int] {
        let program = try ChildProcess([Places.besideTests("ListenerFixture")])
        try #require(try program.wait(within: .seconds(30)) == .exited(0), "\(program.standardError)")
        var report: [String: Int] = [:]
        for line in program.standardOutput.split(separator: "\n") {
            let parts = line.split(separator: ":")
            if parts.count == 2 { report[String(parts[0])] = Int(parts[1].drop { $0 == " " }) }
        }
        return report
    }
}
