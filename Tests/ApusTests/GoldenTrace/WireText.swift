import ApusCodec

/// Writes the bytes of one direction of a connection as lines: HTTP heads as they stand, bodies and
/// frames as one line each.
///
/// It does not use the codec under test. Bytes are collected until an element is complete, so that
/// the lines do not depend on how the kernel cut the stream.
struct WireText {
    enum Mode {
        case http
        case frames
        /// Bytes that are not parsed.
        case raw
    }

    /// What the bytes are. A head with 101 changes it to `frames`.
    var mode = Mode.http
    private var pending: [UInt8] = []
    /// The content that the last head announced and that has not been seen.
    private var body = Body.none

    private enum Body {
        case none
        case counted(Int)
        case chunked
    }

    /// Lines for all elements that are complete now.
    mutating func append(_ bytes: [UInt8]) -> [String] {
        pending += bytes
        var lines: [String] = []
        while !pending.isEmpty, let element = next() { lines += element }
        return lines
    }

    /// Lines for what has come and is not complete, as it is; nothing is pending after it.
    mutating func rest() -> [String] {
        defer { pending = [] }
        if pending.isEmpty { return [] }
        return ["bytes \(PayloadText.of(pending))"]
    }

    private mutating func take(_ count: Int) -> [UInt8] {
        defer { pending.removeFirst(count) }
        return Array(pending[..<count])
    }

    private mutating func next() -> [String]? {
        switch mode {
        case .raw: return [PayloadText.of(take(pending.count))]
        case .frames: return nextFrame().map { [$0] }
        case .http: break
        }
        // The answer to HEAD announces content that does not come.
        if pending.starts(with: "HTTP/1.1 ".utf8) { body = .none }
        switch body {
        case .none: return nextHead()
        case .counted(let count):
            guard pending.count >= count else { return nil }
            body = .none
            return ["body \(count) \(PayloadText.of(take(count)))"]
        case .chunked:
            guard let count = chunksCount else { return nil }
            body = .none
            return ["chunks \(PayloadText.of(take(count)))"]
        }
    }

    // MARK: HTTP

    /// Bytes up to the end of the trailer section; nil if that has not come.
    private var chunksCount: Int? {
        let last = pending.starts(with: "0\r\n".utf8) ? 0 : Self.find("\r\n0\r\n", in: pending[...]).map { $0 + 2 }
        guard let last, let end = Self.find("\r\n\r\n", in: pending[last...]) else { return nil }
        return last + end + 4
    }

    private mutating func nextHead() -> [String]? {
        guard let end = Self.find("\r\n\r\n", in: pending[...]) else { return nil }
        let head = String(decoding: take(end + 4), as: UTF8.self)
        var lines: [String] = []
        var rest = head.utf8.dropLast(2)
        while !rest.isEmpty {
            let line = String(decoding: rest.prefix { $0 != UInt8(ascii: "\r") }, as: UTF8.self)
            rest = rest.dropFirst(line.utf8.count + 2)
            noteBody(line)
            lines.append(Self.normalized(line))
        }
        lines.append("")
        let status = head.hasPrefix("HTTP/1.1 ") ? head.dropFirst(9).prefix(3) : ""
        if status == "101" { mode = .frames }
        if status.hasPrefix("1") || status == "204" || status == "304" { body = .none }
        return lines
    }

    private mutating func noteBody(_ line: String) {
        let line = line.lowercased()
        if line.hasPrefix("content-length: "), let count = Int(line.dropFirst(16)), count > 0 { body = .counted(count) }
        if line == "transfer-encoding: chunked" { body = .chunked }
    }

    /// The key of RFC 6455 §1.3 and its answer, which raw peers use.
    private static let sampleKeys = ["dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]

    /// Replaces values that differ from run to run, if they have the right form.
    private static func normalized(_ line: String) -> String {
        guard let colon = line.firstRange(of: ": ") else { return line }
        let (name, value) = (line[..<colon.lowerBound], String(line[colon.upperBound...]))
        switch name.lowercased() {
        case "date": return HTTPDate.parse(value) == nil ? line : "\(name): <date>"
        case "etag": return value.hasPrefix("\"") && value.hasSuffix("\"") ? "\(name): <etag>" : line
        case "sec-websocket-key": return sampleKeys.contains(value) || value.utf8.count != 24 ? line : "\(name): <key>"
        case "sec-websocket-accept": return sampleKeys.contains(value) || value.utf8.count != 28 ? line : "\(name): <accept>"
        default: return line
        }
    }

    /// Where `text` begins, counted from the start of `bytes`.
    private static func find(_ text: String, in bytes: ArraySlice<UInt8>) -> Int? {
        let pattern = Array(text.utf8)
        return bytes.indices.first { bytes[$0...].starts(with: pattern) }.map { $0 - bytes.startIndex }
    }

    // MARK: Frames

    private static let names: [UInt8: String] = [0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"]

    /// `client-frame fin text 5 "Hello"`: a masked frame, its payload unmasked; `server-frame` is
    /// one without a mask.
    private mutating func nextFrame() -> String? {
        guard pending.count >= 2 else { return nil }
        let (first, second) = (pending[0], pending[1])
        let lengthBytes = second & 0x7F == 126 ? 2 : second & 0x7F == 127 ? 8 : 0
        let isMasked = second & 0x80 != 0
        let headerBytes = 2 + lengthBytes + (isMasked ? 4 : 0)
        guard pending.count >= headerBytes else { return nil }
        let announced = lengthBytes == 0 ? UInt64(second & 0x7F) : pending[2..<2 + lengthBytes].reduce(0) { $0 << 8 | UInt64($1) }
        guard announced <= UInt64(pending.count - headerBytes) else { return nil }
        let header = take(headerBytes)
        var payload = take(Int(announced))
        if isMasked { for index in payload.indices { payload[index] ^= header[headerBytes - 4 + index % 4] } }
        var words = [isMasked ? "client-frame" : "server-frame"]
        if first & 0x80 != 0 { words.append("fin") }
        for (bit, name) in [(0x40 as UInt8, "rsv1"), (0x20, "rsv2"), (0x10, "rsv3")] where first & bit != 0 { words.append(name) }
        let opcode = first & 0x0F
        words.append(Self.names[opcode] ?? "opcode-\(opcode)")
        words.append("\(payload.count)")
        let shortest = payload.count < 126 ? 0 : payload.count <= 0xFFFF ? 2 : 8
        if lengthBytes != shortest { words.append("length-in-\(lengthBytes)-bytes") }
        if opcode == 8, payload.count >= 2 {
            words.append("\(Int(payload[0]) << 8 | Int(payload[1]))")
            payload.removeFirst(2)
        }
        if !payload.isEmpty { words.append(PayloadText.of(payload)) }
        return words.joined(separator: " ")
    }
}

/// Frames as a raw peer sends them, made without the codec under test.
enum RawFrame {
    static let key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]

    /// A masked frame.
    ///
    /// - Parameter bits: RSV1 to RSV3: 0x40, 0x20, 0x10.
    static func client(_ opcode: UInt8, _ payload: [UInt8] = [], fin: Bool = true, bits: UInt8 = 0) -> [UInt8] {
        header(opcode, payload.count, fin, bits, mask: 0x80) + key + payload.enumerated().map { $0.element ^ key[$0.offset % 4] }
    }

    static func client(_ opcode: UInt8, _ text: String, fin: Bool = true, bits: UInt8 = 0) -> [UInt8] {
        client(opcode, Array(text.utf8), fin: fin, bits: bits)
    }

    /// A frame without a mask.
    static func server(_ opcode: UInt8, _ payload: [UInt8] = [], fin: Bool = true, bits: UInt8 = 0) -> [UInt8] {
        header(opcode, payload.count, fin, bits, mask: 0) + payload
    }

    static func server(_ opcode: UInt8, _ text: String, fin: Bool = true, bits: UInt8 = 0) -> [UInt8] {
        server(opcode, Array(text.utf8), fin: fin, bits: bits)
    }

    /// The payload of a close frame.
    static func closePayload(_ code: UInt16, _ reason: String = "") -> [UInt8] {
        [UInt8(code >> 8), UInt8(code & 0xFF)] + Array(reason.utf8)
    }

    static func close(_ code: UInt16, _ reason: String = "") -> [UInt8] { client(8, closePayload(code, reason)) }

    private static func header(_ opcode: UInt8, _ count: Int, _ fin: Bool, _ bits: UInt8, mask: UInt8) -> [UInt8] {
        let first = (fin ? 0x80 : 0) | bits | opcode
        if count < 126 { return [first, mask | UInt8(count)] }
        let bytes = (0..<8).map { UInt8(truncatingIfNeeded: count >> (56 - 8 * $0)) }
        return count <= 0xFFFF ? [first, mask | 126] + bytes[6...] : [first, mask | 127] + bytes
    }
}
