import Apus
import Testing

/// Sends what it is lent, uncopied: to its own client, or to all.
private final class Passing: WebSocketHandler {
    var sockets: [WebSocket] = []
    var isPausing = false
    var isForAll = false

    func opened(_ socket: WebSocket) { sockets.append(socket) }

    func received(_ message: borrowing Message, on socket: WebSocket) {
        if isPausing { socket.pauseReceiving() }
        for receiver in isForAll ? sockets : [socket] { receiver.send(message.payload, as: message.kind) }
    }
}

@Suite("Messages that come in many pieces")
struct LargeMessageTests {
    private static func stage(_ handler: Passing) throws -> TestServer {
        try TestServer { $0.webSocket("chat", at: "/") { _ in handler } }
    }

    /// Sends in pieces of this size, each of which the server has served before the next.
    static func send(_ bytes: [UInt8], in piece: Int, on client: Client, _ stage: TestServer) throws {
        for start in stride(from: 0, to: bytes.count, by: piece) {
            client.send(Array(bytes[start..<min(start + piece, bytes.count)]))
            try stage.turn()
        }
    }

    @Test(
        "a large frame is the same however it arrives, and so is what follows it",
        arguments: [1000, 32_767, 65_536, 131_072, 300_000], [60_000, 131_058, 400_000, 1 << 20])
    func pieces(piece: Int, size: Int) throws {
        let stage = try Self.stage(Passing())
        let client = try stage.webSocket()
        let payload = WebSocketFlowTests.big(size)
        for _ in 0..<2 {
            try Self.send(Client.frame(.binary, payload) + Client.frame(.text, "behind"), in: piece, on: client, stage)
            #expect(try client.frame() == .binary(payload))
            #expect(try client.frame() == .text("behind"))
        }
    }

    @Test("frames of all sizes make one message, with pings between them")
    func fragments() throws {
        let stage = try Self.stage(Passing())
        let client = try stage.webSocket()
        let text = Array(String(repeating: "Tschüß 🐦 ", count: 20_000).utf8)
        var bytes: [UInt8] = []
        var start = 0
        for size in [0, 1, 100, 70_001, 0, 65_536, 3, 99_999, text.count] {
            let end = min(start + size, text.count)
            bytes += Client.frame(bytes.isEmpty ? .text : .continuation, Array(text[start..<end]), isFinal: false)
            bytes += Client.frame(.ping, "p")
            start = end
        }
        try Self.send(bytes + Client.frame(.continuation, []), in: 50_000, on: client, stage)
        for _ in 0..<9 { #expect(try client.frame() == .pong("p")) }
        #expect(try client.frame() == ServerFrame(opcode: 1, payload: text))
    }

    @Test("a large text is refused at its first bad octet, wherever that is", arguments: [10, 200_000, 250_000, 399_999])
    func badText(place: Int) throws {
        let stage = try Self.stage(Passing())
        let client = try stage.webSocket()
        var text = [UInt8](repeating: 0x61, count: 400_000)
        text[place] = 0xFF
        let frame = Client.frame(.text, text)
        try Self.send(Array(frame[...(frame.count - text.count + place)]), in: 100_000, on: client, stage)
        #expect(try client.frame().payload.prefix(2) == [0x03, 0xEF])
    }

    @Test("a reader that pauses with each large message gets the next one when it goes on")
    func pausing() throws {
        let handler = Passing()
        handler.isPausing = true
        let stage = try Self.stage(handler)
        let client = try stage.webSocket()
        let payload = WebSocketFlowTests.big(500_000)
        let frame = Client.frame(.binary, payload)
        client.sendWithoutWaiting(frame + frame + frame)
        for _ in 0..<3 {
            try stage.until("the answer") {
                client.sendWithoutWaiting([])
                client.poll()
                return client.received.count == payload.count + 10
            }
            #expect(try client.frame() == .binary(payload))
            handler.sockets[0].resumeReceiving()
        }
    }

    @Test("one large message is shared by all that it is sent to, while they do not read")
    func shared() throws {
        let handler = Passing()
        let stage = try Self.stage(handler)
        let clients = try (0..<20).map { _ in try stage.webSocket(receiveBufferBytes: 4096) }
        handler.isForAll = true
        let payload = WebSocketFlowTests.big(1 << 20)
        clients[0].send(Client.frame(.binary, payload))
        for client in clients { #expect(try client.frame() == .binary(payload)) }
    }
}
