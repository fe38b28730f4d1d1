import Apus
import ApusCodec
import Testing

@Suite("permessage-deflate on a connection")
struct DeflateConnectionTests {
    private static func stage(_ script: RecordingHandler = .echo(), limit: Int = 1 << 20, _ configuration: PerMessageDeflate = .always())
        throws
        -> TestServer
    {
        try TestServer(limits: { $0.maxMessageBytes = limit }) {
            $0.webSocket("chat", at: "/") { _ in script }
            $0.extensions = [configuration]
        }
    }

    private static func deflate(_ message: [UInt8]) throws -> [UInt8] {
        let offered = [PerMessageDeflate.always()]
        let chain = try #require(
            try ExtensionNegotiation.agree(to: "permessage-deflate; server_no_context_takeover", with: offered))
        var output: [UInt8] = []
        let piece = ExtensionPiece(kind: .binary, reservedBits: [], startsMessage: true, endsMessage: true)
        _ = chain.send(message.rawSpan, piece, into: &output)
        return output
    }

    @Test("a message comes and goes, whole, in frames of one octet, and with control frames between them")
    func messages() throws {
        let stage = try Self.stage()
        let client = try stage.client()
        _ = try client.open(offering: "permessage-deflate")
        let answer = MarkedFrame(opcode: 1, reservedBits: .rsv1, payload: helloDeflated)
        client.send(Client.marked(.text, helloDeflated, .rsv1))
        #expect(try client.markedFrame() == answer)
        for octet in Client.marked(.text, helloDeflated, .rsv1) {
            client.send([octet])
            try stage.turn()
        }
        #expect(try client.markedFrame() == answer)
        client.send(Client.marked(.text, [0xF2], .rsv1, isFinal: false) + Client.frame(.ping, "x"))
        for octet in helloDeflated.dropFirst() {
            client.send(Client.frame(.continuation, [], isFinal: false) + Client.frame(.continuation, [octet], isFinal: false))
        }
        client.send(Client.frame(.continuation))
        #expect(try client.markedFrame() == MarkedFrame(opcode: 10, payload: [0x78]))
        #expect(try client.markedFrame() == answer)
        // Not compressed, which each message may be.
        client.send(.text, "Hello")
        #expect(try client.markedFrame() == answer)
    }

    static let violations: [(name: String, bytes: [UInt8], code: Int)] = [
        ("RSV1 on a continuation", Client.marked(.text, [0xF2], .rsv1, isFinal: false) + Client.marked(.continuation, [0x48], .rsv1), 1002),
        ("RSV1 on a ping", Client.marked(.ping, [], .rsv1), 1002), ("RSV1 on a close", Client.marked(.close, [], .rsv1), 1002),
        ("RSV2, which nobody owns", Client.marked(.text, helloDeflated, .rsv2), 1002),
        ("RSV1 and RSV3", Client.marked(.text, helloDeflated, [.rsv1, .rsv3]), 1002),
        ("garbage", Client.marked(.binary, [UInt8](repeating: 0xFF, count: 20), .rsv1), 1007),
        ("no octet at all", Client.marked(.binary, [], .rsv1), 1007),
        ("cut", Client.marked(.text, Array(helloDeflated[..<4]), .rsv1), 1007),
        // A stored block of FF, which no UTF-8 has; and in a fragment that is not the last.
        ("bad UTF-8 inside", Client.marked(.text, [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0x00], .rsv1), 1007),
        ("bad UTF-8 at once", Client.marked(.text, [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF], .rsv1, isFinal: false), 1007),
        ("UTF-8 cut at the end", Client.marked(.text, [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xE2, 0x00], .rsv1), 1007),
    ]

    @Test("what a peer must not send", arguments: violations)
    func refuses(name: String, bytes: [UInt8], code: Int) throws {
        for delivery in [Delivery.messages, .fragments] {
            let script = RecordingHandler(delivery: delivery)
            let stage = try Self.stage(script)
            let client = try stage.client()
            _ = try client.open(offering: "permessage-deflate")
            client.send(bytes)
            #expect(try client.closeCode() == code)
            #expect(script.count("text ") == 0)
            try stage.until("closed") {
                script.endings == ["closed \(code)"] || script.endings.count == 1 && script.endings[0].hasPrefix("closed \(code) ")
            }
        }
    }

    @Test("the limit is the message's, compressed or not, whole or in fragments", arguments: [Delivery.messages, .fragments])
    func limit(delivery: Delivery) throws {
        let limit = 10_000
        func outcome(_ frames: [UInt8]) throws -> (code: Int?, bytes: Int) {
            let script = RecordingHandler(delivery: delivery)
            var bytes = 0
            script.whenReceived = { socket, copy in
                switch copy {
                case .binary(let message): bytes += message.count
                case .text(let text): bytes += text.utf8.count
                }
            }
            let stage = try Self.stage(script, limit: limit)
            let client = try stage.client()
            _ = try client.open(offering: "permessage-deflate")
            client.send(frames + Client.close(1000))
            return (try client.closeCode(), bytes)
        }
        let fits = [UInt8](repeating: 0x61, count: limit)
        let over = fits + [0x61]
        for message in [fits, over] {
            let code = message.count == limit ? 1000 : 1009
            let deflated = try Self.deflate(message)
            let halves = [Array(deflated[..<10]), Array(deflated[10...])]
            for frames in [
                Client.frame(.binary, message), Client.marked(.binary, deflated, .rsv1),
                Client.frame(.binary, Array(message[..<5000]), isFinal: false) + Client.frame(.continuation, Array(message[5000...])),
                Client.marked(.binary, halves[0], .rsv1, isFinal: false) + Client.frame(.continuation, halves[1]),
            ] {
                let (closed, bytes) = try outcome(frames)
                #expect(closed == code)
                #expect(bytes <= limit)
                if code == 1000 { #expect(bytes == limit) }
            }
            // The next message starts from nothing.
            let twice = Client.marked(.binary, deflated, .rsv1) + Client.frame(.binary, message)
            #expect(try outcome(twice).code == code)
        }
    }

    @Test("a limit of Int.max is none")
    func noLimit() throws {
        let stage = try Self.stage(limit: .max)
        let client = try stage.client()
        _ = try client.open(offering: "permessage-deflate")
        client.send(Client.marked(.text, helloDeflated, .rsv1) + Client.frame(.text, "Hello"))
        for _ in 0..<2 { #expect(try client.markedFrame().payload == helloDeflated) }
    }

    @Test("our client and our server in every combination of context takeover and windows", arguments: [15, 9], [15, 9])
    func bothOurs(serverBits: Int, clientBits: Int) throws {
        for takeover in 0..<16 {
            func configured(_ bits: Int) -> PerMessageDeflate {
                .always {
                    $0.serverContextTakeover = takeover >> bits & 1 == 1 ? .allowed : .never
                    $0.clientContextTakeover = takeover >> (bits + 1) & 1 == 1 ? .allowed : .never
                    $0.serverMaxWindowBits = serverBits
                    $0.clientMaxWindowBits = clientBits
                }
            }
            let stage = try Self.stage(.echo(), configured(0))
            let script = RecordingHandler()
            let texts = (0..<20).map { String(repeating: "message \($0 / 2) ", count: $0 * 30) }
            script.whenOpened = { socket in for text in texts { socket.send(text: text) } }
            script.whenReceived = { socket, _ in if script.middle.count == texts.count { socket.close() } }
            stage.connect(script, extensions: [configured(2)])
            try stage.until("the end") { !script.endings.isEmpty }
            #expect(script.events == ["opened"] + texts.map { "text \($0)" } + ["closed 1000"])
        }
    }

    static let answers: [[ExtensionParameters.Parameter]] = [
        [.init("server_max_window_bits", "7")], [.init("server_max_window_bits", "16")], [.init("server_max_window_bits")],
        [.init("client_max_window_bits", "7")], [.init("client_max_window_bits", "16")], [.init("client_max_window_bits")],
        [.init("server_max_window_bits", "015")], [.init("server_no_context_takeover", "1")], [.init("x")], [],
    ]

    @Test("answers that our client cannot accept fail the connection with a typed error", arguments: answers)
    func badAnswers(parameters: [ExtensionParameters.Parameter]) throws {
        let stage = try TestServer {
            $0.webSocket("chat", at: "/") { _ in RecordingHandler() }
            $0.extensions = [Answering("permessage-deflate", parameters)]
        }
        var reason: String?
        let script = RecordingHandler()
        stage.connect(script, extensions: [PerMessageDeflate()]) { reason = $0.extensionsReason }
        try stage.until("the failure") { reason != nil }
        #expect(try #require(reason) != "")
        #expect(script.events == [])
        try stage.until("no connection is left") { stage.worker.connectionCount == 0 }
    }

    @Test("several fields count as one, empty ones as none, malformed ones are answered 400")
    func fields() throws {
        let stage = try Self.stage()
        let client = try stage.client()
        client.send(Client.handshake(fields: Client.offer("x-unknown") + Client.offer("permessage-deflate; server_max_window_bits=10")))
        let answer = try #require(try client.response()["sec-websocket-extensions"])
        #expect(answer.contains("server_max_window_bits=10"))
        #expect(try stage.client().open(offering: "") == nil)
        for offers in ["permessage-deflate;", "permessage-deflate; a=", "\"permessage-deflate\"", "a b"] {
            let client = try stage.client()
            client.send(Client.handshake(fields: Client.offer(offers)))
            #expect(try client.response().status == 400)
        }
    }
}
