import Apus
import ApusCodec
import ApusPlatform
import Glibc
import Testing

/// A listener on 127.0.0.1 that says to the library's clients what a test wants.
final class RawServer {
    private let socket: OwnedDescriptor
    private let address: SocketAddress
    private unowned let stage: TestServer

    init(_ stage: TestServer) throws {
        self.stage = stage
        let any = try #require(SocketAddress(numericHost: "127.0.0.1", port: 0))
        socket = try Socket.stream(for: any)
        try Socket.bind(socket.rawValue, to: any)
        try Socket.listen(socket.rawValue, backlog: 64)
        address = try Socket.localAddress(of: socket.rawValue)
    }

    var port: UInt16 { address.port ?? 0 }
    var url: String { "ws://\(address)/" }
    var httpURL: String { "http://\(address)/" }

    /// Waits for a connection.
    func accept() throws -> Client { try stage.accept(from: socket.rawValue) }

    /// Whether nobody has connected.
    var isIdle: Bool {
        if case .done(let (descriptor, _))? = try? Socket.accept(socket.rawValue) {
            close(descriptor)
            return false
        }
        return true
    }
}

extension Client {
    /// A request's head, as text, without the empty line.
    func requestHead() throws -> String {
        var head = ""
        while !head.hasSuffix("\r\n\r\n") { head += String(decoding: try take(1), as: UTF8.self) }
        // CRLF is one character.
        return String(head.dropLast(2))
    }

    /// Answers an opening handshake as RFC 6455 says.
    func acceptWebSocket(_ head: String, fields: String = "") throws {
        let line = try #require(head.split(separator: "\r\n").first { $0.hasPrefix("Sec-WebSocket-Key: ") })
        let accept = String(decoding: Handshake.acceptKey(for: Array(line.dropFirst(19).utf8)), as: UTF8.self)
        send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + "Sec-WebSocket-Accept: \(accept)\r\n\(fields)\r\n"
        )
    }

    /// A frame of a server's.
    static func serverFrame(_ opcode: Opcode, _ payload: [UInt8] = []) -> [UInt8] {
        var bytes: [UInt8] = []
        FrameEncoder.append(opcode, payload.span.bytes, isFinal: true, maskingKey: nil, to: &bytes)
        return bytes
    }
}

/// What a client asked for came to.
final class Attempt {
    let script = RecordingHandler()
    private(set) var errors: [ConnectError] = []
    private(set) var heads: [HTTPResponseHead] = []
    private(set) var connection: ClientConnection?
    /// Thrown to refuse an answer.
    var refusal: (any Error)?
    private unowned let stage: TestServer

    init(
        _ stage: TestServer, _ address: String, subprotocols: [String] = [], headers: HTTPFields = HTTPFields(), origin: String? = nil,
        _ configure: (inout ClientOptions) -> Void = { _ in }
    ) {
        self.stage = stage
        var options = ClientOptions()
        configure(&options)
        connection = stage.worker.connect(to: address, subprotocols: subprotocols, headers: headers, origin: origin, options: options) {
            [unowned self] head in
            heads.append(head)
            if let refusal { throw refusal }
            return script
        } failed: { [unowned self] error in
            errors.append(error)
        }
        #expect(errors.isEmpty && script.events.isEmpty, "nothing is told from inside connect")
    }

    /// Waits for the error that ends it; it must be the only event.
    func failure() throws -> ConnectError {
        try stage.until("an error") { !errors.isEmpty }
        try stage.settle()
        #expect(errors.count == 1 && script.count("opened") == 0 && stage.worker.connectionCount == 0)
        #expect(connection?.isOver == true)
        return errors[0]
    }

    func opened() throws -> WebSocket {
        try stage.until("the opening") { script.count("opened") > 0 || !errors.isEmpty }
        #expect(errors.isEmpty, "\(errors)")
        return try #require(script.socket)
    }
}
