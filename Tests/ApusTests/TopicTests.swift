import Apus
import Glibc
import Synchronization
import Testing

@Suite("Publications, signals and requests in one worker")
struct TopicTests {
    /// A server whose connections are known in the order they opened.
    final class Room {
        let script = RecordingHandler()
        let stage: TestServer
        private(set) var clients: [Client] = []
        private(set) var sockets: [WebSocket] = []

        init(_ count: Int, limits: (inout Limits) -> Void = { _ in }, receiveBufferBytes: Int32? = nil) throws {
            stage = try TestServer(script, limits: limits)
            for _ in 0..<count {
                clients.append(try stage.webSocket(receiveBufferBytes: receiveBufferBytes))
                sockets.append(try #require(script.socket))
            }
        }

        var worker: Worker { stage.worker }

        func publish(_ text: String, to topic: String, excluding: WebSocket? = nil) {
            worker.publish(Array(text.utf8), as: .text, to: topic, excluding: excluding)
        }

        /// What each client has got until now.
        func received(of range: Range<Int>? = nil, pings: Bool = false) throws -> [[String]] {
            let range = range ?? 0..<clients.count
            for socket in sockets[range] { socket.send(text: "end") }
            return try clients[range].map { client in
                var texts: [String] = []
                while true {
                    let frame = try client.frame()
                    let text = frame.opcode == 9 && pings ? "ping" : String(decoding: frame.payload, as: UTF8.self)
                    if text == "end" { return texts }
                    texts.append(text)
                }
            }
        }
    }

    @Test(
        "what a subscription matches",
        arguments: [
            ("a/b", "a/b", true), ("a/b", "a", false), ("a/b", "a/b/c", false), ("a/b", "a/B", false), ("", "", true), ("", "a", false),
            ("a/#", "a", true), ("a/#", "a/b", true), ("a/#", "a/b/c", true), ("a/#", "a/", true), ("a/#", "ab", false), ("a/#", "", false),
            ("a/#", "b/a", false), ("#", "", true), ("#", "a", true), ("#", "a/b", true), ("#", "/", true), ("a#", "a#", true),
            ("a#", "ab", false), ("a/#/b", "a/x/b", false), ("a/b/#", "a/b/c/d", true), ("a/b/#", "a", false),
        ])
    func matching(subscription: String, topic: String, isMatch: Bool) throws {
        let room = try Room(1)
        #expect(room.sockets[0].subscribe(to: subscription))
        room.publish("x", to: topic)
        #expect(try room.received() == [isMatch ? ["x"] : []])
    }

    @Test("who subscribed by several names gets a publication once, in order, and no more when the last is taken back")
    func several() throws {
        let room = try Room(2)
        for topic in ["a/b", "a/b", "a/#", "#", "c"] { #expect(room.sockets[0].subscribe(to: topic)) }
        room.sockets[1].subscribe(to: "#")
        for index in 0..<3 { room.publish("\(index)", to: "a/b") }
        #expect(try room.received() == [["0", "1", "2"], ["0", "1", "2"]])
        for topic in ["a/b", "#", "never"] { room.sockets[0].unsubscribe(from: topic) }
        room.publish("still", to: "a/b")
        room.sockets[0].unsubscribe(from: "a/#")
        room.publish("no more", to: "a/b")
        room.publish("c", to: "c")
        #expect(try room.received() == [["still", "c"], ["still", "no more", "c"]])
    }

    @Test("whoever leaves, in whatever order, the others stay", arguments: 0..<5)
    func leaving(round: Int) throws {
        let room = try Room(6)
        var staying = Array(0..<6)
        for socket in room.sockets { for topic in ["x", "t", "t/#", "y"] { socket.subscribe(to: topic) } }
        while !staying.isEmpty {
            let leaver = staying.remove(at: (round * 7 + staying.count * 5) % staying.count)
            for topic in ["t", "t/#"] { room.sockets[leaver].unsubscribe(from: topic) }
            room.publish("\(staying)", to: "t")
            #expect(try room.received() == (0..<6).map { staying.contains($0) ? ["\(staying)"] : [] })
        }
        room.publish("x", to: "x")
        #expect(try room.received() == Array(repeating: ["x"], count: 6))
    }

    @Test("a connection that has ended is nobody's subscriber")
    func ended() throws {
        let room = try Room(3)
        for socket in room.sockets { socket.subscribe(to: "t") }
        room.clients[0].reset()
        try room.stage.until("the end") { !room.sockets[0].isOpen }
        #expect(!room.sockets[0].subscribe(to: "u"))
        room.publish("x", to: "t")
        for client in room.clients.dropFirst() { #expect(try client.frame() == .text("x")) }
    }

    @Test("the excluded connection gets nothing, and a socket's publication is not for itself")
    func excluding() throws {
        let room = try Room(3)
        for socket in room.sockets { for topic in ["t", "#"] { socket.subscribe(to: topic) } }
        room.publish("one", to: "t", excluding: room.sockets[1])
        room.sockets[2].publish(Array("two".utf8), as: .text, to: "t")
        #expect(try room.received() == [["one", "two"], ["two"], ["one"]])
    }

    @Test("a connection has so many subscriptions and no more; topics have a largest length")
    func limit() throws {
        let room = try Room(1, limits: { $0.maxSubscriptions = 2 })
        let socket = room.sockets[0]
        #expect(socket.subscribe(to: "a") && socket.subscribe(to: "b/#") && !socket.subscribe(to: "c"))
        socket.unsubscribe(from: "a")
        let long = String(repeating: "x", count: 65_535)
        #expect(!socket.subscribe(to: long + "x"))
        #expect(socket.subscribe(to: long))
        room.publish("long", to: long)
        room.publish("too long", to: "b/" + long)
        #expect(try room.received() == [["long"]])
    }

    @Test("names are bytes: two spellings of one character are two topics, and a name's pieces are no patterns of others")
    func bytes() throws {
        let room = try Room(3)
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        #expect(composed == decomposed)
        room.sockets[0].subscribe(to: composed)
        room.sockets[1].subscribe(to: decomposed)
        room.sockets[2].subscribe(to: composed + "/#")
        room.publish("composed", to: composed)
        room.publish("decomposed", to: decomposed)
        room.publish("beneath", to: decomposed + "/x")
        room.publish("beneath the other", to: composed + "/x")
        #expect(try room.received() == [["composed"], ["decomposed"], ["composed", "beneath the other"]])
        room.sockets[0].unsubscribe(from: decomposed)
        room.publish("still", to: composed)
        #expect(try room.received() == [["still"], [], ["still"]])
    }

    @Test("a name of 32,767 slashes costs its length: 100 publications with patterns about, each to what it matches")
    func slashes() throws {
        let room = try Room(2)
        for pattern in ["/#", "a/#", "//////////#"] { room.sockets[0].subscribe(to: pattern) }
        let name = String(repeating: "/", count: 32_767)
        room.sockets[1].subscribe(to: name + "/#")
        let started = ContinuousClock.now
        for _ in 0..<100 { room.publish("x", to: name) }
        let time = ContinuousClock.now - started
        #expect(try room.received() == [Array(repeating: "x", count: 100), Array(repeating: "x", count: 100)])
        // Some 1 ms each. Were each prefix compared or hashed from its beginning, each would take half a second.
        #expect(time < .seconds(10), "\(time)")
    }

    // MARK: Order within a turn

    @Test("what is published and what is sent reach a subscriber in the order it was said, by whatever topics")
    func order() throws {
        let room = try Room(2)
        let (one, two) = (room.sockets[0], room.sockets[1])
        for topic in ["a", "b", "#"] { one.subscribe(to: topic) }
        two.subscribe(to: "b")
        for round in 0..<3 {
            room.publish("a\(round)", to: "a")
            room.publish("A\(round)", to: "a")
            room.publish("b\(round)", to: "b")
            if round == 1 { one.send(text: "sent") }
            room.publish("c\(round)", to: "c")
            if round == 2 { two.ping() }
            room.publish("a'\(round)", to: "a")
        }
        #expect(
            try room.received(pings: true) == [
                ["a0", "A0", "b0", "c0", "a'0", "a1", "A1", "b1", "sent", "c1", "a'1", "a2", "A2", "b2", "c2", "a'2"],
                ["b0", "b1", "b2", "ping"],
            ])
    }

    @Test("who subscribes gets nothing that was published before, who takes back or closes everything")
    func membership() throws {
        let room = try Room(3)
        room.sockets[0].subscribe(to: "t")
        room.sockets[2].subscribe(to: "t")
        room.publish("1", to: "t")
        room.sockets[1].subscribe(to: "t")
        room.publish("2", to: "t")
        room.sockets[0].unsubscribe(from: "t")
        room.publish("3", to: "t")
        room.sockets[2].close()
        room.publish("4", to: "t")
        let frames = try room.clients[2].framesToClose()
        #expect(frames.dropLast().map { String(decoding: $0.payload, as: UTF8.self) } == ["1", "2", "3"])
        #expect(try room.received(of: 0..<2) == [["1", "2"], ["2", "3", "4"]])
    }

    @Test("publications of one turn to one topic leave in one piece, and many megabytes of them in order")
    func together() throws {
        let room = try Room(2, limits: { $0.maxBufferedBytes = 64 << 20 })
        for socket in room.sockets { socket.subscribe(to: "t") }
        let filler = String(repeating: "x", count: 3000)
        for index in 0..<3000 { room.publish("\(index) \(filler)", to: "t") }
        for texts in try room.received() { #expect(texts.map { $0.prefix { $0 != " " } } == (0..<3000).map { "\($0)" }) }
        // Chosen so that one frame, two and all have lengths of 7, 16 and 64 bits.
        let sizes = [0, 125, 126, 65_535, 65_536, 200_000, 1]
        for size in sizes { room.worker.publish([UInt8](repeating: 7, count: size), as: .binary, to: "t") }
        try room.stage.settle()
        for client in room.clients {
            for size in sizes { #expect(try client.frame() == ServerFrame(opcode: 2, payload: [UInt8](repeating: 7, count: size))) }
        }
    }

    @Test("senders that leave themselves out, several in a turn: each misses its own and nothing else")
    func excludingSeveral() throws {
        let room = try Room(4)
        for socket in room.sockets { socket.subscribe(to: "t") }
        for index in 0..<100 { room.publish("\(index)", to: "t", excluding: index % 5 == 4 ? nil : room.sockets[index % 3]) }
        let received = try room.received()
        for member in 0..<4 {
            let expected = (0..<100).filter { $0 % 5 == 4 || $0 % 3 != member }
            #expect(received[member] == expected.map { "\($0)" })
        }
    }

    // MARK: Those that are slow

    @Test("a subscriber that does not read is closed with 1013, the others get everything")
    func slowClosed() throws {
        let room = try Room(2, limits: { $0.maxBufferedBytes = 1000 }, receiveBufferBytes: 4096)
        for socket in room.sockets { socket.subscribe(to: "t") }
        let sent = try WebSocketFlowTests.block(room.sockets[0], room.stage, piece: 65_536)
        room.publish("x", to: "t")
        try room.stage.settle()
        #expect(!room.sockets[0].isOpen)
        #expect(try room.clients[1].frame() == .text("x"))
        let frames = try room.clients[0].framesToClose()
        #expect(frames.count == sent + 1 && frames.last?.closeCode == 1013)
    }

    @Test("or it misses what it cannot take, is told, and gets what comes later")
    func slowSkipped() throws {
        let room = try Room(
            2,
            limits: {
                $0.maxBufferedBytes = 1000
                $0.slowSubscribers = .skip
            }, receiveBufferBytes: 4096)
        for socket in room.sockets { for topic in ["t", "#"] { socket.subscribe(to: topic) } }
        let sent = try WebSocketFlowTests.block(room.sockets[0], room.stage, piece: 65_536)
        // What a handler publishes when it misses something neither doubles nor loses the one that is under way.
        room.script.whenMissed = { [unowned room] socket in
            room.script.whenMissed = { _ in }
            room.publish("from missed", to: "t", excluding: socket)
        }
        room.publish("x", to: "t")
        room.publish("y", to: "t")
        try room.stage.settle()
        #expect(room.script.events.filter { $0.hasPrefix("missed") } == ["missed 1", "missed 1"])
        for _ in 0..<sent { #expect(try room.clients[0].frame().payload.count == 65_536) }
        try room.stage.until("nothing waits") { !room.sockets[0].hasBufferedOutput }
        room.publish("later", to: "t")
        let received = try room.received()
        #expect(received[0] == ["later"])
        #expect(received[1].sorted() == ["from missed", "later", "x", "y"])
    }

    @Test("what is published while a message goes out in fragments follows it, in order")
    func deferred() throws {
        let room = try Room(1)
        let socket = room.sockets[0]
        socket.subscribe(to: "t")
        socket.sendFragment(binary: [1], isLast: false)
        for index in 0..<1024 { room.publish("\(index)", to: "t") }
        try room.stage.settle()
        #expect(try room.clients[0].frame() == ServerFrame(opcode: 2, isFinal: false, payload: [1]))
        #expect(room.clients[0].isSilent)
        socket.sendFragment(binary: [2], isLast: true)
        #expect(try room.clients[0].frame() == ServerFrame(opcode: 0, isFinal: true, payload: [2]))
        #expect(try room.received() == [(0..<1024).map { "\($0)" }])
        socket.sendFragment(binary: [1], isLast: false)
        for index in 0..<1025 { room.publish("\(index)", to: "t") }
        try room.stage.settle()
        #expect(!socket.isOpen, "more than may wait")
    }

    @Test("more than may wait for the end of the fragments is missed, where that is the policy")
    func deferredSkipped() throws {
        let room = try Room(1, limits: { $0.slowSubscribers = .skip })
        let socket = room.sockets[0]
        socket.subscribe(to: "t")
        socket.sendFragment(binary: [1], isLast: false)
        for index in 0..<1030 { room.publish("\(index)", to: "t") }
        try room.stage.settle()
        #expect(room.script.count("missed 1") == 6 && socket.isOpen)
        socket.sendFragment(binary: [2], isLast: true)
        for _ in 0..<2 { _ = try room.clients[0].frame() }
        #expect(try room.received() == [(0..<1024).map { "\($0)" }])
    }

    // MARK: All connections of a protocol

    @Test("a signal reaches each connection of the protocol at once; writable comes once for any number of requests")
    func all() throws {
        let (chat, other) = (RecordingHandler(), RecordingHandler())
        let stage = try TestServer { server in
            server.webSocket("chat", at: "/") { _ in chat }
            server.webSocket("other", at: "/other") { _ in other }
        }
        let clients = try [stage.webSocket(), stage.webSocket(), stage.webSocket("/other")]
        let offered = try #require(chat.socket).webSocketProtocol
        stage.worker.signal(all: offered, 7, payload: [1, 2])
        #expect(chat.count("signal 7 [1, 2]") == 2, "before it returns")
        for _ in 0..<1000 { stage.worker.requestWritable(all: offered) }
        #expect(chat.count("writable") == 0)
        try stage.settle()
        #expect(chat.count("writable") == 2)
        stage.worker.requestWritable(all: offered, scope: .worker)
        try stage.settle()
        #expect(chat.count("writable") == 4)
        #expect(other.middle == [])

        chat.whenReceived = { socket, _ in socket.pauseReceiving() }
        for client in clients { client.send(Client.frame(.text, "1") + Client.frame(.text, "2") + Client.frame(.text, "3")) }
        try stage.until("the first of each") { chat.count("text 1") == 2 && other.count("text 3") == 1 }
        for round in 2...3 {
            try stage.settle()
            #expect(chat.count("text \(round)") == 0, "each waits")
            stage.worker.resumeReceiving(all: offered)
            try stage.until("the next of each") { chat.count("text \(round)") == 2 }
        }
    }

    @Test("other threads publish, signal and request: in the order of each, requests coalesced, the last never lost")
    func remote() throws {
        let room = try Room(2)
        room.sockets[0].subscribe(to: "t")
        let remote = room.worker.remote
        let id = room.sockets[0].webSocketProtocol.id
        let helpers = Helpers()
        helpers.start(2) { thread in
            for index in 0..<5000 {
                remote.publish(Array("\(thread) \(index)".utf8), as: .text, to: "t")
                remote.signal(all: id, UInt32(thread), payload: [UInt8(index & 0xFF)])
                remote.requestWritable(all: id)
            }
        }
        try room.stage.until("both threads' last") { helpers.endedCount == 2 && room.script.count("signal") == 20_000 }
        let texts = try room.received()
        for thread in 0..<2 { #expect(texts[0].filter { $0.hasPrefix("\(thread) ") } == (0..<5000).map { "\(thread) \($0)" }) }
        #expect(texts[0].count == 10_000 && texts[1] == [])
        #expect(room.script.count("writable") >= 2)

        // Nobody serves meanwhile: a request that repeats the last takes no room.
        let before = room.script.count("writable")
        helpers.start(1) { _ in for _ in 0..<200_000 { remote.requestWritable(all: id) } }
        while helpers.endedCount < 3 { sched_yield() }
        try room.stage.settle()
        #expect(room.script.count("writable") == before + 2)
        room.sockets[0].pauseReceiving()
        room.clients[0].send(.text, "waits")
        helpers.start(1) { _ in remote.resumeReceiving(all: id) }
        try room.stage.until("resumed") { room.script.count("text waits") == 1 }
    }

    @Test("a worker that does not serve keeps only so much for itself")
    func remoteLimit() throws {
        let room = try Room(1)
        let (remote, id) = (room.worker.remote, room.sockets[0].webSocketProtocol.id)
        for _ in 0..<65_536 { #expect(remote.signal(all: id, 1)) }
        #expect(!remote.signal(all: id, 1))
        try room.stage.settle()
        #expect(room.script.count("signal") == 65_536)
        #expect(remote.publish([UInt8](repeating: 0, count: 64 << 20), as: .binary, to: ""))
        #expect(!remote.publish([0], as: .binary, to: ""))
    }
}

/// POSIX threads, and how many have ended: the test runner's own few are busy with tests.
private final class Helpers: Sendable {
    private let ended = Atomic(0)

    private final class Work: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    var endedCount: Int { ended.load(ordering: .acquiring) }

    func start(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        for number in 0..<count {
            let work = Work { [self] in
                body(number)
                ended.wrappingAdd(1, ordering: .acquiringAndReleasing)
            }
            var thread = pthread_t()
            let result = pthread_create(
                &thread, nil,
                { argument in
                    if let argument { Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body() }
                    return nil
                }, Unmanaged.passRetained(work).toOpaque())
            precondition(result == 0, "pthread_create: \(result)")
            pthread_detach(thread)
        }
    }
}
