import ApusCodec
import FuzzTargets
import TestSupport

/// A client's codec against a server's over a pipe that splits, delays and, in some runs, cuts; never reorders. All of it follows from the
/// seed: what is said, when, who closes, with which code, who breaks the protocol and how.
struct Simulation {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Index 0 is the client.
    private var endpoints: [Endpoint]
    /// Bytes on their way from each endpoint to the other.
    private var pipes: [[UInt8]] = [[], []]
    private var isCut = false
    private var random: SeededGenerator
    private var speakers: [Speaker]
    /// When the pipe is cut, in bytes carried; nil in most runs.
    private var bytesUntilCut: Int?

    /// What one endpoint is going to do.
    private struct Speaker {
        var plan: [PlannedMessage] = []
        var message = 0
        var fragment = 0
        /// Messages that left whole.
        var sent: [PlannedMessage] = []
        /// What its close frame will say; nil says nothing.
        var code: CloseCode?
        /// Breaks the protocol instead of closing: the bytes, and the code that the other side must close with.
        var offence: (bytes: [UInt8], expected: CloseCode)?
        var hasOffended = false
        var hasClosed = false
        /// It closes only when the other side does.
        var waits = false
    }

    init(seed: UInt64, deflate: DeflateConfigurations) {
        var random = SeededGenerator(seed: seed)
        var chains: [ExtensionChain?] = [nil, nil]
        if Bool.random(using: &random) {
            let choices = (UInt8.random(in: 0...255, using: &random), UInt8.random(in: 0...255, using: &random))
            let threshold = Bool.random(using: &random) ? 64 : 0
            let agreed = deflate.agree(client: choices.0, server: choices.1, threshold: threshold)
            chains = [agreed.client, agreed.server]
        }
        endpoints = [
            Endpoint(role: .client, chain: chains[0], seed: random.next()), Endpoint(role: .server, chain: chains[1], seed: random.next()),
        ]
        speakers = [Speaker(), Speaker()]
        for index in speakers.indices { speakers[index] = Self.speaker(index == 0 ? .client : .server, &random) }
        // Somebody must end it.
        if speakers[0].waits { speakers[1].waits = false }
        if Int.random(in: 0..<4, using: &random) == 0 { bytesUntilCut = Int.random(in: 0...20_000, using: &random) }
        self.random = random
    }

    // MARK: Plans

    private static let codes: [CloseCode?] = [
        nil, .normal, .goingAway, .policyViolation, CloseCode(rawValue: 3000), CloseCode(rawValue: 4999),
    ]

    private static func speaker(_ role: Role, _ random: inout SeededGenerator) -> Speaker {
        var speaker = Speaker()
        for _ in 0..<Int.random(in: 0...12, using: &random) { speaker.plan.append(message(&random)) }
        speaker.code = codes[Int.random(in: 0..<codes.count, using: &random)]
        speaker.waits = Bool.random(using: &random)
        if Int.random(in: 0..<6, using: &random) == 0 {
            speaker.offence = offence(role, &random)
            speaker.waits = false
        }
        return speaker
    }

    private static func message(_ random: inout SeededGenerator) -> PlannedMessage {
        let edges = [0, 1, 125, 126, 127, 65_535, 65_536]
        var size = Int.random(in: 0..<4, using: &random) == 0 ? edges[Int.random(in: 0..<edges.count, using: &random)] : 0
        if size == 0 { size = Int.random(in: 0...2000, using: &random) }
        let isText = Bool.random(using: &random)
        var bytes: [UInt8] = []
        let syllables = ["a", "hello ", "ü", "€", "🐦", "\0", "{\"a\":1}"].map { Array($0.utf8) }
        while bytes.count < size {
            if isText {
                bytes += syllables[Int.random(in: 0..<syllables.count, using: &random)]
            } else if bytes.count & 0x400 == 0 {
                bytes.append(UInt8.random(in: 0...255, using: &random))
            } else {
                bytes += [UInt8](repeating: 7, count: min(900, size - bytes.count))
            }
        }
        var fragments: [Range<Int>] = []
        var start = 0
        for _ in 0..<(Bool.random(using: &random) ? 0 : Int.random(in: 1...5, using: &random)) {
            let end = Int.random(in: start...bytes.count, using: &random)
            fragments.append(start..<end)
            start = end
        }
        fragments.append(start..<bytes.count)
        return PlannedMessage(kind: isText ? .text : .binary, bytes: bytes, fragments: fragments)
    }

    private static func offence(_ role: Role, _ random: inout SeededGenerator) -> (bytes: [UInt8], expected: CloseCode) {
        let mask: UInt8 = role == .client ? 0x80 : 0
        let key: [UInt8] = role == .client ? [0, 0, 0, 0] : []
        return switch Int.random(in: 0..<7, using: &random) {
        case 0: ([0x83, mask] + key, .protocolError)  // a reserved opcode
        case 1: ([0x81, mask | 1] + key + [0xFF], .invalidPayload)
        case 2: ([0x82, mask | 127, 0, 0, 0, 0, 1, 0, 0, 0] + key, .messageTooBig)
        case 3: ([0x82, mask ^ 0x80] + key, .protocolError)  // masked as the other side should
        case 4: ([0x88, mask | 2] + key + [0x03, 0xED], .protocolError)  // close with 1005
        case 5: ([0x80, mask] + key, .protocolError)  // a continuation of nothing
        default: ([0x89, mask | 126, 0, 126] + key, .protocolError)  // a long ping
        }
    }

    // MARK: Running

    mutating func run() throws(Failure) {
        var ticks = 0
        while !endpoints.allSatisfy(\.hasFinished) {
            ticks += 1
            guard ticks < 200_000 else { throw Failure(description: "it does not end: \(endpoints.map(\.state))") }
            for index in 0..<2 {
                speak(index)
                carry(from: index)
            }
        }
        try check()
    }

    private mutating func speak(_ index: Int) {
        guard endpoints[index].state == .open, !speakers[index].hasOffended, Int.random(in: 0..<3, using: &random) == 0 else { return }
        if Int.random(in: 0..<8, using: &random) == 0 {
            endpoints[index].ping((0..<Int.random(in: 0...125, using: &random)).map { UInt8($0) })
        }
        guard speakers[index].message < speakers[index].plan.count else { return conclude(index) }
        let message = speakers[index].plan[speakers[index].message]
        endpoints[index].send(message, fragment: speakers[index].fragment)
        speakers[index].fragment += 1
        if speakers[index].fragment == message.fragments.count {
            speakers[index].sent.append(message)
            speakers[index].message += 1
            speakers[index].fragment = 0
        }
    }

    /// All is said: close, offend or wait for the other to close.
    private mutating func conclude(_ index: Int) {
        if let offence = speakers[index].offence {
            speakers[index].hasOffended = true
            endpoints[index].misbehave(offence.bytes)
        } else if !speakers[index].waits {
            speakers[index].hasClosed = true
            endpoints[index].close(speakers[index].code, reason: speakers[index].code == nil ? "" : "done")
        }
    }

    /// Takes what the endpoint wrote, and delivers some of what is on its way.
    private mutating func carry(from index: Int) {
        let other = 1 - index
        pipes[index] += endpoints[index].output
        endpoints[index].output = []
        guard !isCut else { return }
        // Delayed, or split anywhere.
        if Int.random(in: 0..<3, using: &random) != 0, !pipes[index].isEmpty {
            let most = Bool.random(using: &random) ? 16 : 70_000
            var count = min(pipes[index].count, Int.random(in: 1...most, using: &random))
            if let left = bytesUntilCut {
                count = min(count, left)
                bytesUntilCut = left - count
            }
            let bytes = Array(pipes[index].prefix(count))
            pipes[index].removeFirst(count)
            if !bytes.isEmpty { endpoints[other].receive(bytes) }
        }
        if bytesUntilCut == 0 {
            isCut = true
            for index in 0..<2 { endpoints[index].lost() }
        } else if endpoints[index].hasFinished, pipes[index].isEmpty, endpoints[index].output.isEmpty {
            // It closes the transport behind its last byte.
            endpoints[other].lost()
        }
    }

    // MARK: What must hold

    private func check() throws(Failure) {
        for index in 0..<2 {
            let (me, peer) = (endpoints[index], speakers[1 - index])
            guard me.state == .closed else { throw Failure(description: "\(me.role) ends \(me.state)") }
            var received: [PlannedMessage] = []
            var codes: [CloseCode] = []
            for event in me.events {
                switch event {
                case .message(let kind, let bytes): received.append(PlannedMessage(kind: kind, bytes: bytes, fragments: []))
                case .ended(let code): codes.append(code)
                case .pong: break
                }
            }
            guard codes.count == 1, me.events.last == .ended(codes[0]) else {
                throw Failure(description: "\(me.role) ends \(codes.count) times, or hears more after it")
            }
            let isPrefix =
                received.count <= peer.sent.count
                && zip(received, peer.sent).allSatisfy { $0.kind == $1.kind && $0.bytes == $1.bytes }
            guard isPrefix else { throw Failure(description: "\(me.role) received other messages than were sent") }
            try checkEnd(index, codes[0], received.count)
        }
    }

    /// Codes, and that nothing is missing when the peer closed first.
    private func checkEnd(_ index: Int, _ code: CloseCode, _ received: Int) throws(Failure) {
        let (me, peer) = (speakers[index], speakers[1 - index])
        var expected: Set<CloseCode> = isCut ? [.abnormal] : []
        // The peer's own word, or what it answers us with.
        if peer.hasClosed { expected.insert(peer.code ?? .noStatus) }
        if me.hasClosed, !peer.hasOffended { expected.insert(me.code ?? .noStatus) }
        // Whoever sees an offence names it; the offender is told so.
        if let offence = peer.offence, peer.hasOffended { expected.insert(offence.expected) }
        if let offence = me.offence, me.hasOffended { expected.insert(offence.expected) }
        if me.hasOffended || peer.hasOffended {
            // Both offended, or one after the other's close: the transport may end without a close frame.
            if me.hasOffended && peer.hasOffended || me.hasClosed || peer.hasClosed { expected.insert(.abnormal) }
        }
        guard expected.contains(code) else {
            throw Failure(description: "\(endpoints[index].role) is told \(code.rawValue), expected \(expected.map(\.rawValue))")
        }
        if !isCut, !me.hasClosed, !me.hasOffended, received != peer.sent.count {
            throw Failure(description: "\(endpoints[index].role) received \(received) of \(peer.sent.count) messages")
        }
    }
}
