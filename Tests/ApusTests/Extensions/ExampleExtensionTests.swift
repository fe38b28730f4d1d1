import Apus
import ApusCodec
import ExampleExtension
import Testing

@Suite("An extension written outside the library")
struct ExampleExtensionTests {
    private static func stage(_ extensions: [any WebSocketExtension]) throws -> TestServer {
        try TestServer {
            $0.webSocket("chat", at: "/") { _ in RecordingHandler.echo() }
            $0.extensions = extensions
            // A veto for one connection, by whatever the request says.
            $0.allowsExtension = { known, request in !request.query.contains { $0.value == known.name } }
        }
    }

    @Test("it changes what comes and what goes, in whole messages and in pieces, and marks it with its bit")
    func alone() throws {
        let stage = try Self.stage([XORExtension()])
        let client = try stage.client()
        #expect(try client.open(offering: "x-xor; key=1") == "x-xor; key=1")
        let hello = Array("Hello".utf8)
        let masked = hello.map { $0 ^ 1 }
        client.send(Client.marked(.text, masked, .rsv2))
        #expect(try client.markedFrame() == MarkedFrame(opcode: 1, reservedBits: .rsv2, payload: masked))
        client.send(Client.marked(.text, Array(masked[..<2]), .rsv2, isFinal: false) + Client.frame(.continuation, Array(masked[2...])))
        #expect(try client.markedFrame() == MarkedFrame(opcode: 1, reservedBits: .rsv2, payload: masked))
        // Without the bit it is as it is; control frames never pass.
        client.send(Client.frame(.text, hello) + Client.frame(.ping, hello))
        #expect(try client.markedFrame() == MarkedFrame(opcode: 1, reservedBits: .rsv2, payload: masked))
        #expect(try client.markedFrame() == MarkedFrame(opcode: 10, payload: hello))
    }

    @Test("the server's answer orders it among others: what stands first is applied first")
    func order() throws {
        let stage = try Self.stage([PerMessageDeflate.always(), XORExtension()])
        let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        let hello = Array("Hello".utf8)

        let first = try stage.client()
        #expect(try first.open(offering: "permessage-deflate, x-xor; key=42") == "\(agreed), x-xor; key=42")
        let outside = helloDeflated.map { $0 ^ 42 }
        first.send(Client.marked(.text, outside, [.rsv1, .rsv2]))
        #expect(try first.markedFrame() == MarkedFrame(opcode: 1, reservedBits: [.rsv1, .rsv2], payload: outside))

        let second = try stage.client()
        #expect(try second.open(offering: "x-xor; key=42, permessage-deflate") == "x-xor; key=42, \(agreed)")
        let deflater = try #require(try ExtensionNegotiation.agree(to: agreed, with: [PerMessageDeflate.always()]))
        var inside: [UInt8] = []
        let piece = ExtensionPiece(kind: .text, reservedBits: [], startsMessage: true, endsMessage: true)
        let changed = hello.map { $0 ^ 42 }
        _ = deflater.send(changed.rawSpan, piece, into: &inside)
        #expect(inside != outside)
        second.send(Client.marked(.text, inside, [.rsv1, .rsv2]))
        #expect(try second.markedFrame() == MarkedFrame(opcode: 1, reservedBits: [.rsv1, .rsv2], payload: inside))
        // One of the two bits: only that extension's work is undone.
        first.send(Client.marked(.text, hello.map { $0 ^ 42 }, .rsv2) + Client.marked(.text, helloDeflated, .rsv1))
        for _ in 0..<2 { #expect(try first.markedFrame().payload == outside) }
    }

    @Test("our client and our server speak it together with permessage-deflate", arguments: [0, 1, 126, 65_536, 300_000])
    func bothOurs(size: Int) throws {
        let server = XORExtension()
        let stage = try Self.stage([PerMessageDeflate.always(), server])
        let script = RecordingHandler()
        let message = [UInt8](repeating: 7, count: size / 2) + (0..<size - size / 2).map { UInt8(truncatingIfNeeded: $0 &* $0) }
        script.whenOpened = { socket in
            socket.send(binary: message)
            socket.sendFragment(binary: Array(message[..<(size / 3)]), isLast: false)
            socket.sendFragment(binary: Array(message[(size / 3)...]), isLast: true)
        }
        var echoes: [[UInt8]] = []
        script.whenReceived = { socket, copy in
            if case .binary(let bytes) = copy { echoes.append(bytes) }
            if echoes.count == 2 { socket.close() }
        }
        stage.connect(script, extensions: [XORExtension(key: 99), PerMessageDeflate.always()])
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(echoes == [message, message])
        #expect(script.endings == ["closed 1000"])
        #expect(server.sends == 2)
    }

    @Test("the application vetoes it for one connection, and the other for another")
    func veto() throws {
        let stage = try Self.stage([PerMessageDeflate.always(), XORExtension()])
        let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        for (path, answer) in [
            ("/", "x-xor; key=1, \(agreed)"), ("/?without=x-xor", agreed), ("/?without=permessage-deflate", "x-xor; key=1"),
        ] {
            #expect(try stage.client().open(path, offering: "x-xor; key=1, permessage-deflate") == answer)
        }
        let client = try stage.client()
        let none = try client.open("/?without=x-xor", offering: "x-xor; key=1")
        #expect(none == nil)
        client.send(Client.frame(.text, "plain"))
        #expect(try client.frame() == .text("plain"))
        client.send(Client.marked(.text, [], .rsv2))
        #expect(try client.closeCode() == 1002, "the bit of an extension that was not agreed on")
    }

    @Test("two that own the same bit, or have the same name, are refused before anything is served or sent")
    func conflicts() throws {
        for name in ["x-xor", "x-xor-2"] {
            let extensions = [XORExtension(), XORExtension(name: name)]
            #expect(throws: ConfigurationError.self) { _ = try TestServer(listen: false) { $0.extensions = extensions } }
            let stage = try TestServer(RecordingHandler())
            var reasons: [String] = []
            stage.connect(RecordingHandler(), extensions: extensions) { reasons.append($0.extensionsReason) }
            #expect(reasons.isEmpty, "never from inside connect")
            try stage.until("the reason") { !reasons.isEmpty }
            #expect(try #require(reasons.first).contains("x-xor"))
            #expect(stage.worker.connectionCount == 0)
        }
    }

    @Test("what it throws closes the connection")
    func throwing() throws {
        let stage = try TestServer(limits: { $0.maxMessageBytes = 100 }) {
            $0.webSocket("chat", at: "/") { _ in RecordingHandler.echo() }
            $0.extensions = [XORExtension()]
        }
        let client = try stage.client()
        _ = try client.open(offering: "x-xor; key=1")
        client.send(Client.marked(.binary, [UInt8](repeating: 0, count: 100), .rsv2))
        #expect(try client.markedFrame().payload.count == 100)
        client.send(Client.marked(.binary, [UInt8](repeating: 0, count: 101), .rsv2))
        #expect(try client.closeCode() == 1009)
    }

    @Test("a client whose key the server changes fails with a typed error")
    func badAnswer() throws {
        let stage = try TestServer {
            $0.webSocket("chat", at: "/") { _ in RecordingHandler() }
            $0.extensions = [Answering("x-xor", [.init("key", "2")])]
        }
        var reason: String?
        stage.connect(RecordingHandler(), extensions: [XORExtension(key: 1)]) { reason = $0.extensionsReason }
        try stage.until("the failure") { reason != nil }
        #expect(try #require(reason).contains("key=2"))
    }
}

/// A server's extension that answers whatever it is told to, to any offer of its name.
final class Answering: WebSocketExtension {
    let name: String
    let reservedBits = ReservedBits.rsv1
    private let answer: ExtensionParameters

    init(_ name: String, _ parameters: [ExtensionParameters.Parameter]) {
        self.name = name
        answer = ExtensionParameters(name, parameters)
    }

    func offers() -> [ExtensionParameters] { [] }
    func accept(_ offer: ExtensionParameters) -> ExtensionAgreement? { ExtensionAgreement(answer: answer, session: Session()) }
    func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession { Session() }

    private final class Session: ExtensionSession {
        func receive(
            _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
        ) throws(ExtensionError) -> ExtensionOutcome { .unchanged }
        func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome { .unchanged }
    }
}
