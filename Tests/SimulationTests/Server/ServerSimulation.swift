import Apus
import ApusPlatform
import FuzzTargets
import TestSupport
import Glibc
import Logging

/// A whole server and its clients, each with a loop of its own, on one thread: seeded in all they do, in what the network does between
/// them, and in the order of everything. Time is simulated, so deadlines of minutes pass in no time.
final class ServerSimulation {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let clock = SimulatedClock()
    /// What happened at the handlers, in order: equal seeds must give equal traces.
    private(set) var trace: [String] = []
    private var random: SeededGenerator
    private let seed: UInt64
    private let directory: String
    private var server: (worker: Worker, poller: SimulatedPoller)
    private var clients: [(worker: Worker, poller: SimulatedPoller)] = []
    private let relay: Relay
    private let drains: Bool
    private let cuts: Bool
    /// Conversations of clients, each of which must end exactly once.
    private var conversations: [Conversation] = []
    /// WebSockets that handlers of the server were told to be open.
    fileprivate var openAtServer = 0

    private static let mostSteps = 200_000

    init(seed: UInt64) throws {
        self.seed = seed
        var random = SeededGenerator(seed: seed)
        var template = Array("/tmp/apus-simulation-XXXXXX\0".utf8.map { CChar(bitPattern: $0) })
        guard mkdtemp(&template) != nil else { throw Failure(description: "mkdtemp: errno \(errno)") }
        directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        cuts = UInt8.random(in: 0..<3, using: &random) == 0
        drains = UInt8.random(in: 0..<4, using: &random) == 0
        let poller = SimulatedPoller(clock, seed: random.next())
        let handlers = HandlerSource()
        var description = Server()
        description.listen(on: .unix(path: "\(directory)/server"))
        description.logger = .silent
        description.origins = .any
        description.webSocket("echo", at: "/echo") { _ in EchoHandler(handlers) }
        description.webSocket("news", at: "/news") { _ in NewsHandler(handlers) }
        description.http(.post, at: "/length") { exchange in
            let count = exchange.request.body.count
            exchange.worker.schedule(after: .milliseconds(Int64(count % 300))) { exchange.respond(text: "\(count)") }
        }
        server = (try Worker(description, poller: poller, random: SeededGenerator(seed: random.next())), poller)
        relay = try Relay(
            at: "\(directory)/relay", to: .unix(path: "\(directory)/server"), seed: random.next(), cutsSome: cuts)
        for _ in 0..<Int.random(in: 1...2, using: &random) {
            let poller = SimulatedPoller(clock, seed: random.next())
            var description = Server()
            description.logger = .silent
            clients.append((try Worker(description, poller: poller, random: SeededGenerator(seed: random.next())), poller))
        }
        self.random = random
        handlers.simulation = self
    }

    deinit {
        for name in ["server", "relay"] { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }

    func note(_ event: String) { trace.append("\(clock.now.milliseconds - 1_000_000) \(event)") }

    // MARK: Running

    func run() throws {
        for (index, client) in clients.enumerated() {
            for number in 0..<Int.random(in: 1...3, using: &random) {
                let conversation = Conversation(
                    "\(index).\(number)", seed: random.next(), simulation: self, isDisturbed: cuts || drains)
                conversations.append(conversation)
                conversation.start(in: client.worker, at: "\(directory)/relay")
            }
        }
        try turn { conversations.allSatisfy(\.isOver) }
        for conversation in conversations { if let fault = conversation.fault { throw Failure(description: fault) } }
        server.worker.drain()
        for client in clients { client.worker.stop() }
        try turn { server.worker.connectionCount == 0 && clients.allSatisfy { $0.worker.connectionCount == 0 } }
        guard openAtServer == 0 else { throw Failure(description: "\(openAtServer) WebSockets of the server were not told their end") }
        for worker in [server.worker] + clients.map(\.worker) where worker.heldBytes != 0 {
            throw Failure(description: "\(worker.heldBytes) bytes are held for no connection")
        }
    }

    private func turn(until isDone: () -> Bool) throws {
        var steps = 0
        var quietSteps = 0
        let drainStep = drains ? Int.random(in: 0..<400, using: &random) : .max
        while !isDone() {
            steps += 1
            guard steps < Self.mostSteps else { throw Failure(description: "no end after \(steps) steps: \(trace.suffix(5))") }
            if steps == drainStep { server.worker.drain() }
            var actors = [server] + clients
            actors.shuffle(using: &random)
            // While nothing happens, every loop is turned, so that each has said when its next timer is due.
            for actor in actors where quietSteps > 0 || UInt8.random(in: 0..<8, using: &random) > 0 { try actor.worker.service() }
            let isBusy = try relay.step()
            if isBusy || actors.contains(where: { $0.poller.hasReady }) {
                quietSteps = 0
                if UInt8.random(in: 0..<32, using: &random) == 0 { pass(UInt64.random(in: 1...20, using: &random)) }
            } else {
                quietSteps += 1
                guard quietSteps > 2 else { continue }
                quietSteps = 0
                try passToNextDeadline(of: actors.map(\.poller))
            }
        }
    }

    private func pass(_ milliseconds: UInt64) { clock.now = MonotonicTime(milliseconds: clock.now.milliseconds + milliseconds) }

    /// Nothing can happen before the next timer.
    private func passToNextDeadline(of pollers: [SimulatedPoller]) throws {
        guard let next = pollers.compactMap(\.deadline).min() else {
            throw Failure(description: "everything waits for ever: \(trace.suffix(5))")
        }
        clock.now = max(clock.now, next)
    }
}

/// What handlers of the server know of their simulation, which is made after them.
private final class HandlerSource {
    weak var simulation: ServerSimulation?
    private var count = 0

    func opened() -> Int {
        count += 1
        simulation?.openAtServer += 1
        simulation?.note("server opens \(count)")
        return count
    }

    func closed(_ number: Int, _ code: CloseCode) {
        simulation?.openAtServer -= 1
        simulation?.note("server closes \(number) \(code)")
    }
}

/// Sends back what it receives, in one frame or in fragments, and sometimes stops reading for a while.
private final class EchoHandler: WebSocketHandler {
    private let source: HandlerSource
    private var number = 0
    private var count = 0

    init(_ source: HandlerSource) { self.source = source }

    func opened(_ socket: WebSocket) { number = source.opened() }

    func received(_ message: Message, on socket: WebSocket) {
        count += 1
        if count % 5 == 0 {
            let half = message.payload.byteCount / 2
            socket.sendFragment(message.payload.extracting(..<half), as: message.kind, isLast: false)
            socket.sendFragment(message.payload.extracting(half...), as: message.kind, isLast: true)
        } else {
            socket.send(message)
        }
        if count % 7 == 0 {
            socket.pauseReceiving()
            socket.worker.schedule(after: .milliseconds(Int64(count * 3))) { socket.resumeReceiving() }
        }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) { source.closed(number, code) }
}

/// Publishes what it receives to all connections of its kind.
private final class NewsHandler: WebSocketHandler {
    private let source: HandlerSource
    private var number = 0

    init(_ source: HandlerSource) { self.source = source }

    func opened(_ socket: WebSocket) {
        number = source.opened()
        socket.subscribe(to: "news")
    }

    func received(_ message: Message, on socket: WebSocket) { socket.worker.publish(message, to: "news") }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) { source.closed(number, code) }
}
