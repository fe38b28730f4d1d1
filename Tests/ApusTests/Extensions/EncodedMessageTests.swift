import Apus
import ApusCodec
import ExampleExtension
import Testing

@Suite("A message for many connections")
struct EncodedMessageTests {
    static let payload = Array(String(repeating: "All of you, hear this. ", count: 50).utf8)

    /// One member of the audience: a raw client, and what undoes the server's extensions.
    final class Member {
        let client: Client
        let chain: ExtensionChain?

        init(_ client: Client, offering offers: String, agreeing extensions: [any WebSocketExtension]) throws {
            self.client = client
            guard !offers.isEmpty else {
                client.send(Client.handshake())
                try #require(try client.response().status == 101)
                chain = nil
                return
            }
            let answer = try client.open(offering: offers)
            chain = try answer.flatMap { try ExtensionNegotiation.agree(to: $0, with: extensions) }
        }

        /// The next frame as it is on the wire, and the message it carries.
        func next() throws -> (wire: MarkedFrame, message: [UInt8]) {
            let frame = try client.markedFrame()
            guard let chain, !frame.reservedBits.isEmpty else { return (frame, frame.payload) }
            let piece = ExtensionPiece(kind: .text, reservedBits: frame.reservedBits, startsMessage: true, endsMessage: true)
            var output: [UInt8] = []
            let outcome = try chain.receive(frame.payload.rawSpan, piece, into: &output, maxBytes: 1 << 20)
            return (frame, outcome == .unchanged ? frame.payload : output)
        }
    }

    private struct Hall {
        let stage: TestServer
        let counter = XORExtension()
        /// In the order they came.
        let sockets: () -> [WebSocket]

        init(takeover: PerMessageDeflate.Configuration.ContextTakeover = .never) throws {
            final class Sockets { var all: [WebSocket] = [] }
            let opened = Sockets()
            let counter = counter
            stage = try TestServer {
                $0.webSocket("chat", at: "/") { _ in
                    let script = RecordingHandler()
                    script.whenOpened = { opened.all.append($0) }
                    return script
                }
                $0.extensions = [PerMessageDeflate.always { $0.serverContextTakeover = takeover }, counter]
            }
            sockets = { opened.all }
        }

        func member(_ offers: String, key: UInt8 = 42) throws -> Member {
            var configuration = PerMessageDeflate.Configuration()
            configuration.serverContextTakeover = .allowed
            return try Member(
                stage.client(), offering: offers, agreeing: [PerMessageDeflate(configuration), XORExtension(key: key)])
        }
    }

    @Test("plain and compressing receivers get the same message, framed once for each set of parameters")
    func everyone() throws {
        let hall = try Hall()
        let offers = [
            "", "permessage-deflate", "permessage-deflate; server_max_window_bits=9", "x-xor; key=42", "permessage-deflate, x-xor; key=42",
            "x-xor; key=42, permessage-deflate",
        ]
        let members = try offers.flatMap { offer in try (0..<3).map { _ in try hall.member(offer) } }
        #expect(hall.sockets().count == members.count)
        let message = EncodedMessage(Self.payload, as: .text)
        for socket in hall.sockets() { #expect(socket.send(message) != .closed) }
        var wires: [[MarkedFrame]] = []
        for (index, member) in members.enumerated() {
            let (wire, received) = try member.next()
            #expect(received == Self.payload, "\(offers[index / 3])")
            #expect(wire.opcode == 1 && wire.isFinal)
            if index % 3 == 0 { wires.append([]) }
            wires[index / 3].append(wire)
        }
        for same in wires { #expect(same.allSatisfy { $0 == same[0] }) }
        #expect(Set(wires.map { $0[0].reservedBits.rawValue }) == [0, 0x40, 0x20, 0x60])
        #expect(wires[1][0].payload.count < 200 && wires[2][0].payload.count < 400 && wires[3][0].payload.count == Self.payload.count)
        #expect(wires[4] != wires[5], "the order of two extensions is part of their parameters")
        // Nine receivers with it, in three sets of parameters.
        #expect(hall.counter.sends == 3)
        for socket in hall.sockets() { socket.send(message) }
        #expect(hall.counter.sends == 3, "nor is it made again")
    }

    @Test(
        "its place among other sends is kept", arguments: ["", "permessage-deflate", "x-xor; key=42", "permessage-deflate, x-xor; key=42"],
        [true, false])
    func order(offer: String, takesOver: Bool) throws {
        let hall = try Hall(takeover: takesOver ? .allowed : .never)
        let member = try hall.member(offer)
        let socket = try #require(hall.sockets().first)
        let message = EncodedMessage(Self.payload, as: .text)
        for round in 0..<3 {
            socket.send(text: "before \(round)")
            socket.send(message)
            socket.send(text: "after \(round)")
            socket.send(message)
        }
        for round in 0..<3 {
            #expect(try member.next().message == Array("before \(round)".utf8))
            #expect(try member.next().message == Self.payload)
            #expect(try member.next().message == Array("after \(round)".utf8))
            #expect(try member.next().message == Self.payload)
        }
    }

    @Test("a receiver with a worker of its own gets bytes of its own, which its window explains")
    func takeover() throws {
        let hall = try Hall(takeover: .allowed)
        let members = try (0..<2).map { _ in try hall.member("permessage-deflate") }
        let asking = try hall.member("permessage-deflate; server_no_context_takeover")
        hall.sockets()[0].send(Self.payload, as: .text)
        let message = EncodedMessage(Self.payload, as: .text)
        for socket in hall.sockets() { socket.send(message) }
        #expect(try members[0].next().message == Self.payload)
        let second = try members[0].next()
        let first = try members[1].next()
        #expect(second.message == Self.payload && first.message == Self.payload)
        #expect(second.wire.payload.count < first.wire.payload.count, "the second refers to the first")
        #expect(try asking.next().message == Self.payload)
    }

    @Test("inside a handler it stays in order with what is corked")
    func corked() throws {
        let script = RecordingHandler()
        let message = EncodedMessage(Self.payload, as: .text)
        script.whenReceived = { socket, _ in
            for _ in 0..<2 {
                socket.send(text: "corked")
                socket.send(message)
            }
            socket.ping()
        }
        let stage = try TestServer(script)
        let client = try stage.webSocket()
        client.send(.text, "go")
        for _ in 0..<2 {
            #expect(try client.frame() == .text("corked"))
            #expect(try client.frame().payload == Self.payload)
        }
        #expect(try client.frame() == .ping())
    }

    @Test("a client sends its own frame, masked, and a closed socket none")
    func otherSenders() throws {
        let stage = try TestServer(.echo())
        let script = RecordingHandler()
        let message = EncodedMessage(Array("masked".utf8), as: .text)
        script.whenOpened = { $0.send(message) }
        script.whenReceived = { socket, _ in socket.close() }
        stage.connect(script, extensions: [])
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.events == ["opened", "text masked", "closed 1000"])
        #expect(script.socket?.send(message) == .closed)
    }
}
