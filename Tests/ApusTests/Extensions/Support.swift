import Apus
import ApusCodec
import Testing

/// A frame of the server's with its reserved bits.
struct MarkedFrame: Equatable {
    var opcode: UInt8
    var reservedBits: ReservedBits = []
    var isFinal = true
    var payload: [UInt8]

    /// The code of a close frame.
    var closeCode: Int? { opcode == 8 && payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : nil }
}

extension Client {
    func markedFrame() throws -> MarkedFrame {
        let start = try take(2)
        let extended = start[1] == 126 ? 2 : start[1] == 127 ? 8 : 0
        let length = extended == 0 ? Int(start[1]) : try take(extended).reduce(0) { $0 << 8 | Int($1) }
        return MarkedFrame(
            opcode: start[0] & 0x0F, reservedBits: ReservedBits(rawValue: start[0] & 0x70), isFinal: start[0] & 0x80 != 0,
            payload: try take(length))
    }

    /// The code that the server closes with; what it sends before is dropped.
    func closeCode() throws -> Int? {
        while true {
            let frame = try markedFrame()
            if frame.opcode == 8 { return frame.closeCode }
        }
    }

    static func marked(_ opcode: Opcode, _ payload: [UInt8], _ bits: ReservedBits, isFinal: Bool = true) -> [UInt8] {
        var bytes = frame(opcode, payload, isFinal: isFinal)
        bytes[0] |= bits.rawValue
        return bytes
    }

    static func offer(_ extensions: String) -> String { "Sec-WebSocket-Extensions: \(extensions)\r\n" }

    /// Opens a WebSocket with these offers and gives the server's answer.
    func open(_ path: String = "/", offering extensions: String) throws -> String? {
        send(Self.handshake(path, fields: Self.offer(extensions)))
        let response = try response()
        try #require(response.status == 101)
        return response["sec-websocket-extensions"]
    }
}

extension PerMessageDeflate {
    /// Compresses whatever it is given.
    static func always(_ change: (inout Configuration) -> Void = { _ in }) -> PerMessageDeflate {
        var configuration = Configuration()
        configuration.threshold = 0
        change(&configuration)
        return PerMessageDeflate(configuration)
    }
}

/// "Hello" in RFC 7692 §7.2.3.1.
let helloDeflated: [UInt8] = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]

extension TestServer {
    /// Connects to this stage's own server with the library's client; `outcome` gets what came of it.
    func connect(
        _ script: RecordingHandler, extensions: [any WebSocketExtension],
        failed: @escaping (ConnectError) -> Void = { Issue.record("\($0)") }
    ) {
        var options = ClientOptions()
        options.extensions = extensions
        worker.connect(to: "ws://\(worker.addresses[0])/", options: options, makeHandler: { _ in script }, failed: failed)
    }
}

extension ConnectError {
    /// Why the extensions failed; empty, and an issue, if something else did.
    var extensionsReason: String {
        if case .extensions(let reason, _) = self { return reason }
        Issue.record("\(self)")
        return ""
    }
}
