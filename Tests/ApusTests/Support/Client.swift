import Apus
import ApusCodec
import ApusPlatform
import Glibc
import Testing

/// A raw client socket that says exactly what a test wants it to say, and reads answers with code of its own.
final class Client {
    let descriptor: Int32
    /// What came and has not been taken.
    private(set) var received: [UInt8] = []
    /// The server sends no more.
    private(set) var isEnded = false
    /// The connection was reset.
    private(set) var isReset = false
    private unowned let stage: TestServer
    private var isOpen = true

    init(to address: SocketAddress, receiveBufferBytes: Int32?, stage: TestServer) throws {
        self.stage = stage
        let socket = try Socket.stream(for: address)
        if var receiveBufferBytes {
            setsockopt(socket.rawValue, SOL_SOCKET, SO_RCVBUF, &receiveBufferBytes, socklen_t(MemoryLayout<Int32>.size))
        }
        if address.port != nil { try Socket.set(.noDelay, on: socket.rawValue) }
        _ = try Socket.connect(socket.rawValue, to: address)
        descriptor = socket.release()
    }

    /// The server's end of a connection, for servers that say what a test wants.
    init(accepted descriptor: Int32, stage: TestServer) {
        self.descriptor = descriptor
        self.stage = stage
    }

    deinit { close() }

    // MARK: Bytes

    /// Sends all of it, serving meanwhile when the kernel takes no more. What cannot be sent because the server has gone is dropped.
    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        let deadline = ContinuousClock.now + TestServer.patience
        while !rest.isEmpty, ContinuousClock.now < deadline {
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                try? stage.turn()
            } else {
                return
            }
        }
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    /// Sends what the kernel takes now, and gives how much that is.
    func sendNow(_ bytes: ArraySlice<UInt8>) -> Int {
        max(0, bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) })
    }

    private var unsent: [UInt8] = []

    /// Sends what the kernel takes now, and the rest with the next call.
    func sendWithoutWaiting(_ bytes: [UInt8]) {
        if unsent.count < bytes.count { unsent += bytes }
        let count = unsent.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if count > 0 { unsent.removeFirst(count) }
    }

    /// Takes what has arrived.
    func poll() {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while isOpen, !isEnded {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count > 0 {
                received += buffer[..<count]
            } else if count == 0 {
                isEnded = true
            } else {
                if errno == ECONNRESET { (isEnded, isReset) = (true, true) }
                return
            }
        }
    }

    /// Waits until so many bytes are there, and takes them.
    func take(_ count: Int) throws -> [UInt8] {
        try stage.until("\(count) bytes") {
            poll()
            if isEnded, received.count < count {
                throw TimedOut(description: "the server ended after \(received.count) of \(count) bytes")
            }
            return received.count >= count
        }
        defer { received.removeFirst(count) }
        return Array(received[..<count])
    }

    /// Waits until something is there, and takes it all.
    func takeAny() throws -> [UInt8] {
        try stage.until("bytes") {
            poll()
            return !received.isEmpty || isEnded
        }
        defer { received = [] }
        return received
    }

    /// Reads once, at most so many bytes; none when nothing is there.
    func takeSome(_ count: Int) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: count)
        let got = recv(descriptor, &buffer, count, 0)
        if got == 0 { isEnded = true }
        return Array(buffer[..<max(got, 0)])
    }

    /// Lets the server serve for a moment.
    func turn() throws { try stage.turn() }

    /// Waits until the server has ended the connection; gives what came before.
    @discardableResult
    func end(within limit: Duration = TestServer.patience) throws -> [UInt8] {
        try stage.until("the end", within: limit) {
            poll()
            return isEnded
        }
        defer { received = [] }
        return received
    }

    /// Whether the server has said or ended anything by now.
    var isSilent: Bool {
        poll()
        return received.isEmpty && !isEnded
    }

    // MARK: Ending

    func close() {
        if isOpen { Glibc.close(descriptor) }
        isOpen = false
    }

    func shutdownWrite() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Ends the connection with a reset.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        close()
    }
}

// MARK: - HTTP

/// A response, taken apart by the test's own code.
struct Response {
    let status: Int
    let fields: [(name: String, value: String)]
    let body: [UInt8]

    /// The value of a field by its name in lower case; several joined.
    subscript(name: String) -> String? {
        let values = fields.filter { $0.name == name }.map(\.value)
        return values.isEmpty ? nil : values.joined(separator: ", ")
    }

    var text: String { String(decoding: body, as: UTF8.self) }
}

extension Client {
    /// Sends a request and waits for its response.
    func request(_ line: String, _ fields: String = "", body: String = "") throws -> Response {
        send("\(line) HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\(body)")
        return try response(hasBody: !line.hasPrefix("HEAD "))
    }

    /// The next response.
    func response(hasBody: Bool = true) throws -> Response {
        let end = Array("\r\n\r\n".utf8)
        var headCount: Int?
        try stageUntil("a response") { bytes in
            headCount = bytes.indices.first { bytes[$0...].starts(with: end) }.map { $0 + 4 }
            return headCount != nil
        }
        let head = String(decoding: try take(try #require(headCount)), as: UTF8.self)
        let lines = head.split(separator: "\r\n")
        let status = try #require(Int(lines[0].split(separator: " ")[1]))
        #expect(lines[0].hasPrefix("HTTP/1.1 "))
        let fields = try lines.dropFirst().map { line in
            let colon = try #require(line.firstIndex(of: ":"))
            return (name: line[..<colon].lowercased(), value: String(line[line.index(colon, offsetBy: 2)...]))
        }
        let length = fields.first { $0.name == "content-length" }.flatMap { Int($0.value) } ?? 0
        let isBodiless = !hasBody || status < 200 || status == 204 || status == 304
        return Response(status: status, fields: fields, body: try take(isBodiless ? 0 : length))
    }

    private func stageUntil(_ what: String, _ condition: ([UInt8]) -> Bool) throws {
        var count = 0
        while true {
            poll()
            if condition(received) { return }
            if isEnded { throw TimedOut(description: "\(what): the server ended after \(received.count) bytes") }
            count = received.count
            _ = try take(count + 1, keeping: true)
        }
    }

    private func take(_ count: Int, keeping: Bool) throws -> [UInt8] {
        let bytes = try take(count)
        if keeping { putBack(bytes) }
        return bytes
    }

    private func putBack(_ bytes: [UInt8]) { received.insert(contentsOf: bytes, at: 0) }
}

// MARK: - WebSocket

/// A frame of the server's.
struct ServerFrame: Equatable {
    var opcode: UInt8
    var isFinal = true
    var payload: [UInt8]

    static func text(_ text: String) -> ServerFrame { ServerFrame(opcode: 1, payload: Array(text.utf8)) }
    static func binary(_ bytes: [UInt8]) -> ServerFrame { ServerFrame(opcode: 2, payload: bytes) }
    static func ping(_ bytes: [UInt8] = []) -> ServerFrame { ServerFrame(opcode: 9, payload: bytes) }
    static func pong(_ text: String) -> ServerFrame { ServerFrame(opcode: 10, payload: Array(text.utf8)) }
    /// A close frame with a code and, where the test cares, a reason.
    static func close(_ code: UInt16?, _ reason: String = "") -> ServerFrame {
        ServerFrame(opcode: 8, payload: code.map { [UInt8($0 >> 8), UInt8($0 & 0xFF)] + Array(reason.utf8) } ?? [])
    }

    /// The code of a close frame; nil if it is none or has none.
    var closeCode: Int? { opcode == 8 && payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : nil }
}

extension Client {
    /// The opening handshake of RFC 6455 §1.3.
    static func handshake(_ path: String = "/", fields: String = "") -> String {
        "GET \(path) HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\(fields)\r\n"
    }

    /// A masked frame.
    static func frame(_ opcode: Opcode, _ payload: [UInt8] = [], isFinal: Bool = true) -> [UInt8] {
        var bytes: [UInt8] = []
        FrameEncoder.append(opcode, payload.span.bytes, isFinal: isFinal, maskingKey: 0x3D21_FA37, to: &bytes)
        return bytes
    }

    static func frame(_ opcode: Opcode, _ text: String, isFinal: Bool = true) -> [UInt8] {
        frame(opcode, Array(text.utf8), isFinal: isFinal)
    }

    static func close(_ code: UInt16, _ reason: String = "") -> [UInt8] { frame(.close, ServerFrame.close(code, reason).payload) }

    func send(_ opcode: Opcode, _ text: String = "") { send(Self.frame(opcode, text)) }

    /// The server's next frame.
    func frame() throws -> ServerFrame {
        let start = try take(2)
        try #require(start[1] & 0x80 == 0, "a server does not mask")
        try #require(start[0] & 0x70 == 0)
        let extended = start[1] == 126 ? 2 : start[1] == 127 ? 8 : 0
        let length = extended == 0 ? Int(start[1]) : try take(extended).reduce(0) { $0 << 8 | Int($1) }
        return ServerFrame(opcode: start[0] & 0x0F, isFinal: start[0] & 0x80 != 0, payload: try take(length))
    }

    /// Frames up to and with a close frame; the server ends the connection behind it.
    func framesToClose() throws -> [ServerFrame] {
        var frames: [ServerFrame] = []
        repeat { frames.append(try frame()) } while frames.last?.opcode != 8
        return frames
    }
}
