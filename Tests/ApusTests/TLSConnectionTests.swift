import Apus
import TestSupport
import Testing

@Suite("Connections over TLS whose peers have ways of their own")
struct TLSConnectionTests {
    static func stage(on address: ListenAddress = .tcp("127.0.0.1", port: 0), _ configure: (inout Server) -> Void = { _ in }) throws
        -> TestServer
    {
        let certificate = try TestCertificate()
        let identity = TLSIdentity(certificateChain: certificate.chain, privateKey: certificate.key)
        return try TestServer(listen: false) {
            $0.listen(on: address, tls: ServerTLS(identity))
            $0.http(.get, at: "/now") { $0.respond(text: "now") }
            $0.http(.get, at: "/later") { exchange in
                exchange.worker.schedule(after: .milliseconds(20)) { exchange.respond(text: "later") }
            }
            configure(&$0)
        }
    }

    static func request(_ path: String, close: Bool = false) -> [UInt8] {
        Array("GET \(path) HTTP/1.1\r\nHost: localhost\r\n\(close ? "Connection: close\r\n" : "")\r\n".utf8)
    }

    static func bodies(_ bytes: [UInt8]) -> [String] {
        String(decoding: bytes, as: UTF8.self).split(separator: "HTTP/1.1 ").map { String($0.split(separator: "\r\n\r\n").last ?? "") }
    }

    @Test("a burst behind the end of the handshake, then a reset: the next one is served", arguments: [0, 1, 5])
    func reset(records: Int) throws {
        let stage = try Self.stage()
        for _ in 0..<3 {
            let hostile = try TLSPeer(stage)
            try hostile.shakeHands()
            for _ in 0..<records { try hostile.seal([UInt8](repeating: UInt8(ascii: "x"), count: 16_000)) }
            hostile.flush()
            hostile.reset()
            try stage.settle()
            let peer = try TLSPeer(stage)
            try peer.shakeHands()
            try peer.seal(Self.request("/now", close: true))
            peer.flush()
            #expect(try Self.bodies(peer.receiveToEnd()) == ["now"])
        }
    }

    @Test("nothing is said behind a fatal alert, though a good request came before what deserves it")
    func fatal() throws {
        let stage = try Self.stage()
        let peer = try TLSPeer(stage)
        try peer.shakeHands()
        try peer.seal(Self.request("/now"))
        peer.flush([23, 3, 3, 0, 32] + [UInt8](repeating: 7, count: 32))
        // An alert of two octets, its type, a tag: the only one, and the last; a ticket is larger.
        let sizes = try peer.recordsToEnd().map { $0.count - 5 }
        #expect(sizes.last == 19 && sizes.filter { $0 == 19 }.count == 1, "\(sizes)")
    }

    @Test("requests and close_notify in one flight are all answered, late ones too")
    func halfClose() throws {
        let stage = try Self.stage()
        for paths in [["/now"], ["/later"], ["/now", "/now"], ["/later", "/now", "/later"]] {
            let peer = try TLSPeer(stage)
            try peer.shakeHands()
            for path in paths { try peer.seal(Self.request(path)) }
            peer.sealEnd()
            peer.flush()
            #expect(try Self.bodies(peer.receiveToEnd()) == paths.map { String($0.dropFirst()) })
        }
    }

    @Test("a WebSocket whose handler pauses gets what came with close_notify")
    func pausing() throws {
        let script = RecordingHandler()
        script.whenReceived = { socket, _ in
            socket.pauseReceiving()
            socket.worker.schedule(after: .milliseconds(5)) { socket.resumeReceiving() }
        }
        let stage = try Self.stage { $0.webSocket("chat", at: "/chat") { _ in script } }
        let peer = try TLSPeer(stage)
        try peer.shakeHands()
        try peer.seal(Array(Client.handshake("/chat").utf8))
        for letter in ["a", "b", "c"] { try peer.seal([0x81, 0x81, 0, 0, 0, 0] + Array(letter.utf8)) }
        try peer.seal([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])
        peer.sealEnd()
        peer.flush()
        try stage.until("the end") { !script.endings.isEmpty }
        #expect(script.middle == ["text a", "text b", "text c"] && script.endings == ["closed 1000"])
    }

    @Test("who asks for key updates and does not read is not listened to")
    func keyUpdates() throws {
        // The kernel holds less for local sockets.
        let place = try TemporaryDirectory()
        let script = RecordingHandler()
        let stage = try Self.stage(on: .unix(path: place.path + "/socket")) { $0.webSocket("chat", at: "/chat") { _ in script } }
        let peer = try TLSPeer(stage)
        try peer.shakeHands()
        try peer.seal(Array(Client.handshake("/chat").utf8))
        peer.flush()
        // What comes in one arrival is answered by one update, so each comes alone. More than 32 in a row would end it: pongs stand between.
        var (stalls, updates) = (0, 0)
        while stalls < 20, updates < 20_000 {
            if stalls == 0 {
                if updates % 25 == 0 { try peer.seal([0x8A, 0x80, 0, 0, 0, 0]) }
                try peer.sealKeyUpdate()
                updates += 1
            }
            stalls = peer.flushWithoutWaiting() ? 0 : stalls + 1
            try stage.turn()
        }
        print("key updates: \(updates) were taken")
        #expect(stalls == 20, "\(updates) key updates were taken")
        #expect(script.endings.isEmpty)
    }
}
