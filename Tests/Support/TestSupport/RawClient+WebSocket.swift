/// A frame as a raw client reads it.
public struct RawFrame: Equatable, Sendable {
    public var opcode: UInt8
    public var isFinal = true
    /// RSV1: the message is compressed.
    public var isCompressed = false
    public var payload: [UInt8] = []

    public var text: String { String(decoding: payload, as: UTF8.self) }
    /// Of a close frame.
    public var closeCode: Int? { payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : nil }

    public init(opcode: UInt8, isFinal: Bool = true, isCompressed: Bool = false, payload: [UInt8] = []) {
        self.opcode = opcode
        self.isFinal = isFinal
        self.isCompressed = isCompressed
        self.payload = payload
    }

    public static func text(_ text: String) -> RawFrame { RawFrame(opcode: 1, payload: Array(text.utf8)) }
    public static func close(_ code: Int) -> RawFrame { RawFrame(opcode: 8, payload: [UInt8(code >> 8), UInt8(code & 0xff)]) }

    /// The frame's bytes as a client sends them, masked with a fixed key.
    public var masked: [UInt8] {
        let key: [UInt8] = [0x37, 0xfa, 0x21, 0x3d]
        var bytes = [(isFinal ? 0x80 : 0) | (isCompressed ? 0x40 : 0) | opcode]
        switch payload.count {
        case ..<126: bytes.append(0x80 | UInt8(payload.count))
        case ..<65536: bytes += [0x80 | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xff)]
        default: bytes += [0x80 | 127] + (0..<8).map { UInt8(truncatingIfNeeded: payload.count >> (56 - 8 * $0)) }
        }
        bytes += key
        for (index, byte) in payload.enumerated() { bytes.append(byte ^ key[index & 3]) }
        return bytes
    }
}

extension RawClient {
    /// The example key of RFC 6455 §1.3, and its answer.
    public static let key = "dGhlIHNhbXBsZSBub25jZQ=="
    public static let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    public static func handshake(path: String = "/", _ fields: [String] = []) -> String {
        ([
            "GET \(path) HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: \(key)",
            "Sec-WebSocket-Version: 13",
        ] + fields).joined(separator: "\r\n") + "\r\n\r\n"
    }

    /// Opens a WebSocket; throws if the server does not.
    @discardableResult
    public func upgrade(path: String = "/", _ fields: String...) throws -> RawResponse {
        try send(Self.handshake(path: path, fields))
        let answer = try response(hasBody: false)
        guard answer.status == 101, answer["sec-websocket-accept"] == Self.accept else {
            throw TestFailure("no WebSocket: \(answer)")
        }
        return answer
    }

    public func send(_ frame: RawFrame) throws { try send(frame.masked) }

    public func frame() throws -> RawFrame {
        let head = try receive(2)
        guard head[1] & 0x80 == 0 else { throw TestFailure("the server masks its frames") }
        var count = Int(head[1] & 0x7f)
        if count == 126 { count = try receive(2).reduce(0) { $0 << 8 | Int($1) } }
        if count == 127 { count = try receive(8).reduce(0) { $0 << 8 | Int($1) } }
        return RawFrame(
            opcode: head[0] & 0x0f, isFinal: head[0] & 0x80 != 0, isCompressed: head[0] & 0x40 != 0, payload: try receive(count))
    }
}
