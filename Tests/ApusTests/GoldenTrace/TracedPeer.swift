import Apus
import ApusCodec
import ApusPlatform
import Testing

/// The raw side of a connection with the engine. What it sends is traced at once, what it receives
/// is traced by `flush`.
final class TracedPeer {
    let label: String
    /// Whether it stops reading: the engine's output waits in the kernel, then in the engine.
    var isReadingPaused = false
    /// Frames of the engine that have been read.
    private(set) var framesReceived = 0
    private let client: Client
    private let trace: Trace
    private unowned let server: TracedServer
    private let tls: TLSLayer?
    private var fromEngine = WireText()
    private var toEngine = WireText()
    private var lines: [String] = []
    private var hasNotedEnd = false
    private var isOpen = true

    init(_ client: Client, label: String, trace: Trace, server: TracedServer, tls: TLSLayer? = nil) {
        self.client = client
        self.label = label
        self.trace = trace
        self.server = server
        self.tls = tls
    }

    // MARK: To the engine

    /// Sends bytes and traces what they are.
    func send(_ bytes: [UInt8]) {
        // The engine has accepted a WebSocket.
        if fromEngine.mode == .frames { toEngine.mode = .frames }
        note(.toEngine, toEngine.append(bytes) + toEngine.rest())
        write(bytes)
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    /// Sends requests, of which the last is a handshake, and frames behind it, all in one segment.
    func send(_ text: String, andFrames frames: [UInt8]) {
        note(.toEngine, toEngine.append(Array(text.utf8)))
        toEngine.mode = .frames
        note(.toEngine, toEngine.append(frames) + toEngine.rest())
        write(Array(text.utf8) + frames)
    }

    /// Sends part of an element, traced in hexadecimal.
    func sendPart(_ bytes: [UInt8]) {
        trace.add(.toEngine, label, "part [\(bytes.map(PayloadText.hex).joined(separator: " "))]")
        write(bytes)
    }

    /// Sends bytes one by one; the engine serves each before the next is sent.
    func sendByteByByte(_ bytes: [UInt8]) throws {
        trace.add(.toEngine, label, "byte by byte:")
        if fromEngine.mode == .frames { toEngine.mode = .frames }
        note(.toEngine, toEngine.append(bytes) + toEngine.rest())
        for byte in bytes {
            write([byte])
            for _ in 0..<3 { try server.stage.worker.service(timeout: .zero) }
        }
    }

    private func write(_ bytes: [UInt8]) {
        guard let tls else { return client.send(bytes) }
        #expect(throws: Never.self) { try tls.seal(bytes) }
        client.send(tls.takeOutput())
    }

    /// The opening handshake of RFC 6455 §1.3.
    func sendHandshake(_ path: String = "/", fields: String = "") { send(Client.handshake(path, fields: fields)) }

    /// Opens a WebSocket. If the handshake is the usual one, it takes one line of the trace.
    func open(_ path: String = "/") throws {
        let start = trace.lines.count
        sendHandshake(path)
        try server.settle()
        let request = "GET \(path) HTTP/1.1|Host: a|\(Self.upgrade)|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Version: 13|"
        shorten(from: start, (.toEngine, request), (.callback, "opened"), (.fromEngine, Self.answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")))
    }

    /// As the server: receives a WebSocket's request for `/path?query` and accepts it, traced in
    /// the same way.
    func acceptOpening() throws {
        let start = trace.lines.count
        try receiveRequest()
        try acceptWebSocket()
        try server.settle()
        let request =
            "GET /path?query HTTP/1.1|Host: localhost|\(Self.upgrade)|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: <key>|"
        shorten(
            from: start, (.fromEngine, request), (.toEngine, Self.answer("<accept>")), (.callback, "makeHandler 101 Switching Protocols"),
            (.callback, "opened"))
    }

    private static let upgrade = "Upgrade: websocket|Connection: Upgrade"

    private static func answer(_ key: String) -> String {
        "HTTP/1.1 101 Switching Protocols|\(upgrade)|Sec-WebSocket-Accept: \(key)|"
    }

    /// - Parameter expected: the lines of each kind, with a bar between them.
    private func shorten(from start: Int, _ expected: (kind: Trace.Kind, lines: String)...) {
        let usual = Trace()
        for (kind, lines) in expected {
            for line in lines.split(separator: "|", omittingEmptySubsequences: false) { usual.add(kind, label, String(line)) }
        }
        trace.shorten(from: start, usual.lines, to: "\(label)= opened by the usual handshake")
    }

    func shutdownWrite() {
        if let tls {
            trace.add(.toEngine, label, "close_notify")
            tls.sealEnd()
            client.send(tls.takeOutput())
        } else {
            trace.add(.toEngine, label, "FIN")
            client.shutdownWrite()
        }
    }

    /// Closes the socket; no effect if that has been done.
    func close() {
        guard isOpen else { return }
        isOpen = false
        trace.add(.toEngine, label, "close")
        client.close()
    }

    func reset() {
        isOpen = false
        trace.add(.toEngine, label, "RST")
        client.reset()
    }

    // MARK: From the engine

    /// Whether the engine has accepted a WebSocket.
    var isUpgraded: Bool { fromEngine.mode == .frames }

    /// Whether the engine has sent anything that is not traced yet.
    var hasReceived: Bool { !lines.isEmpty }

    /// Whether the engine has ended the connection.
    var hasEnded: Bool { client.isEnded }

    /// Reads what has come, without tracing it; gives whether there was any.
    func collect() -> Bool {
        guard isOpen, !isReadingPaused, !hasNotedEnd else { return false }
        let wasEnded = client.isEnded
        client.poll()
        guard var bytes = try? client.take(client.received.count) else { return false }
        if let tls { bytes = tls.open(bytes) }
        let elements = fromEngine.append(bytes)
        lines += elements
        framesReceived += elements.count { $0.hasPrefix("server-frame ") || $0.hasPrefix("client-frame ") }
        return !bytes.isEmpty || client.isEnded != wasEnded
    }

    /// Traces what was read since the last call.
    func flush() {
        note(.fromEngine, lines)
        lines = []
        guard client.isEnded, !hasNotedEnd else { return }
        hasNotedEnd = true
        note(.fromEngine, fromEngine.rest())
        if let alert = tls?.ending { trace.add(.fromEngine, label, alert) }
        trace.add(.fromEngine, label, client.isReset ? "RST" : "FIN")
    }

    /// The head of the engine's request with the handshake's key, which is not in the trace.
    private(set) var requestHead = ""

    /// As the server: waits for the engine's request, and traces it.
    func receiveRequest(bodyCount: Int = 0) throws {
        let head = try client.requestHead()
        requestHead = head
        lines += fromEngine.append(Array("\(head)\r\n\r\n".utf8) + (try client.take(bodyCount)))
        try server.settle()
    }

    /// As the server: answers the opening handshake.
    func acceptWebSocket(fields: String = "", andFrames frames: [UInt8] = []) throws {
        let line = try #require(requestHead.split(separator: "\r\n").first { $0.hasPrefix("Sec-WebSocket-Key: ") })
        let accept = String(decoding: Handshake.acceptKey(for: Array(line.dropFirst(19).utf8)), as: UTF8.self)
        fromEngine.mode = .frames
        send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \(accept)\r\n"
                + "\(fields)\r\n", andFrames: frames)
    }

    private func note(_ kind: Trace.Kind, _ lines: [String]) {
        for line in lines { trace.add(kind, label, line) }
    }

    // MARK: TLS

    /// Does the TLS handshake, whose bytes are not traced.
    func secure() throws {
        let tls = try #require(tls)
        try server.stage.until("the TLS handshake") {
            client.poll()
            let isDone = tls.handshake(receiving: try client.take(client.received.count))
            client.send(tls.takeOutput())
            return isDone
        }
        trace.add(.call, label, "\(tls.version) handshake done")
    }
}
