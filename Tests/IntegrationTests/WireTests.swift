import TestSupport
import Testing

extension Integration {
    /// Rows of the reliability table that need a socket.
    @Suite("On the wire")
    struct Wire {
        private let server: ApusServer

        init() throws { server = try ApusServer() }

        // MARK: Handshake

        struct Handshake: Sendable, CustomTestStringConvertible {
            let name: String
            let request: String
            let status: Int
            var testDescription: String { name }

            /// A correct handshake with lines replaced (empty: removed) or added.
            init(_ name: String, _ changes: [String: String] = [:], add: String..., line: String = "GET / HTTP/1.1", status: Int) {
                self.name = name
                self.status = status
                let fields = [
                    ("Host", "127.0.0.1:8080"), ("Upgrade", "websocket"), ("Connection", "Upgrade"),
                    ("Sec-WebSocket-Key", RawClient.key), ("Sec-WebSocket-Version", "13"),
                ]
                let kept = fields.compactMap { field in
                    let value = changes[field.0] ?? field.1
                    return value.isEmpty ? nil : "\(field.0): \(value)"
                }
                request = ([line] + kept + add).joined(separator: "\r\n") + "\r\n\r\n"
            }
        }

        static let handshakes = [
            Handshake("as in the RFC", status: 101),
            Handshake("version 12", ["Sec-WebSocket-Version": "12"], status: 426),
            Handshake("no key", ["Sec-WebSocket-Key": ""], status: 400),
            Handshake("two keys", add: "Sec-WebSocket-Key: \(RawClient.key)", status: 400),
            Handshake("a key of 15 bytes", ["Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"], status: 400),
            Handshake("a key that is no base 64", ["Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZ!=="], status: 400),
            Handshake("HTTP/1.0, which has no Upgrade", line: "GET / HTTP/1.0", status: 200),
            Handshake("no Host", ["Host": ""], status: 400),
            Handshake("two Hosts", add: "Host: other", status: 400),
            Handshake("POST", line: "POST / HTTP/1.1", status: 405),
            Handshake("Connection lists more", ["Connection": "keep-alive, UPGRADE"], status: 101),
            Handshake("empty extensions", add: "Sec-WebSocket-Extensions:", status: 101),
            Handshake("an extension nobody has", add: "Sec-WebSocket-Extensions: x-unheard-of; a=1", status: 101),
            Handshake("another origin", add: "Origin: http://example.test", status: 403),
            Handshake("the same origin", add: "Origin: http://127.0.0.1:8080", status: 101),
            Handshake("the same host, another port", add: "Origin: http://127.0.0.1:8081", status: 403),
            Handshake("origin null", add: "Origin: null", status: 403),
            Handshake("a path without WebSockets", line: "GET /nothing HTTP/1.1", status: 404),
            Handshake("a head of 20 KiB", add: "X: " + String(repeating: "x", count: 20_000), status: 431),
            Handshake("101 fields", add: (0..<101).map { "X\($0): 1" }.joined(separator: "\r\n"), status: 431),
            Handshake("a target of 9 KiB", line: "GET /" + String(repeating: "x", count: 9_000) + " HTTP/1.1", status: 414),
        ]

        @Test("an opening handshake gets its status", arguments: handshakes)
        func handshake(_ handshake: Handshake) throws {
            let client = try server.connect()
            try client.send(handshake.request)
            let response = try client.response(hasBody: false)
            #expect(response.status == handshake.status)
            switch response.status {
            case 101:
                #expect(response["sec-websocket-accept"] == RawClient.accept)
                #expect(response["sec-websocket-extensions"] == nil)
            case 426: #expect(response["sec-websocket-version"] == "13")
            case 405: #expect(response["allow"]?.contains("GET") == true)
            default: break
            }
        }

        @Test("frames in the segment of the handshake are served")
        func sameSegment() throws {
            let client = try server.connect()
            try client.send(Array(RawClient.handshake().utf8) + RawFrame.text("early").masked + RawFrame.text("bird").masked)
            #expect(try client.response(hasBody: false).status == 101)
            #expect(try client.frame() == .text("early"))
            #expect(try client.frame() == .text("bird"))
        }

        @Test("a handshake that comes byte by byte is one")
        func byteByByte() throws {
            let client = try server.connect()
            for byte in RawClient.handshake().utf8 { try client.send([byte]) }
            #expect(try client.response(hasBody: false).status == 101)
            for byte in RawFrame.text("slow").masked { try client.send([byte]) }
            #expect(try client.frame() == .text("slow"))
        }

        @Test("a TLS hello on the plain port is turned away within a second")
        func tlsHello() throws {
            let client = try server.connect(timeout: .seconds(1))
            try client.send(
                [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03] + [UInt8](repeating: 0x5a, count: 506))
            let answer = String(decoding: try client.receiveToEnd(), as: UTF8.self)
            #expect(answer.isEmpty || answer.hasPrefix("HTTP/1.1 400 "))
        }

        // MARK: Frames

        struct Violation: Sendable, CustomTestStringConvertible {
            let testDescription: String
            let bytes: [UInt8]
            let code: Int
            init(_ name: String, _ bytes: [UInt8], _ code: Int) {
                testDescription = name
                self.bytes = bytes
                self.code = code
            }

            init(_ name: String, _ frames: RawFrame..., code: Int) { self.init(name, frames.flatMap(\.masked), code) }
        }

        private static let key: [UInt8] = [1, 2, 3, 4]

        static let violations: [Violation] =
            [
                Violation("unmasked", [0x81, 0x05] + Array("Hello".utf8), 1002),
                Violation("length with the top bit", [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0] + key, 1002),
                Violation("126 for 5 bytes", [0x82, 0xfe, 0, 5] + key + [0, 0, 0, 0, 0], 1002),
                Violation("127 for 5 bytes", [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5] + key + [0, 0, 0, 0, 0], 1002),
                Violation("2^62 bytes", [0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0] + key, 1009),
                Violation("one byte over the limit", [0x82, 0xff, 0, 0, 0, 0, 0x04, 0, 0, 1] + key, 1009),
                Violation("a ping of 126 bytes", RawFrame(opcode: 9, payload: [UInt8](repeating: 0, count: 126)), code: 1002),
                Violation("a ping in fragments", RawFrame(opcode: 9, isFinal: false), code: 1002),
                Violation("continuation first", RawFrame(opcode: 0, payload: [1]), code: 1002),
                Violation("text inside fragments", RawFrame(opcode: 1, isFinal: false, payload: [0x61]), .text("b"), code: 1002),
                Violation(
                    "overlong UTF-8 in the first fragment", RawFrame(opcode: 1, isFinal: false, payload: [0xc0, 0xaf]), code: 1007
                ),
                Violation("a surrogate", RawFrame(opcode: 1, isFinal: false, payload: [0xed, 0xa0, 0x80]), code: 1007),
                Violation("above U+10FFFF", RawFrame(opcode: 1, isFinal: false, payload: [0xf4, 0x90, 0x80, 0x80]), code: 1007),
                Violation("UTF-8 cut at the end", RawFrame(opcode: 1, payload: [0x61, 0xe2, 0x82]), code: 1007),
                Violation("a close of one byte", RawFrame(opcode: 8, payload: [3]), code: 1002),
                Violation("a reason that is no UTF-8", RawFrame(opcode: 8, payload: [3, 0xe8, 0xff]), code: 1007),
            ] + (1...3).map { Violation("RSV\($0)", [0x81 | UInt8(0x80 >> $0), 0x80] + key, 1002) }
            + ([3, 4, 5, 6, 7, 11, 12, 13, 14, 15] as [UInt8]).map { Violation("opcode \($0)", RawFrame(opcode: $0), code: 1002) }
            + [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535].map { Violation("close \($0)", .close($0), code: 1002) }

        @Test("what is no frame stream gets its close code, then the end", arguments: violations)
        func violation(_ violation: Violation) throws {
            let client = try server.connect()
            try client.upgrade()
            try client.send(violation.bytes)
            let frame = try client.frame()
            #expect(frame.opcode == 8)
            #expect(frame.closeCode == violation.code)
            client.timeout = .seconds(1)
            #expect(try client.receiveToEnd() == [])
        }

        @Test("data and pings after a close get nothing but the one close")
        func afterClose() throws {
            let client = try server.connect()
            try client.upgrade()
            try client.send(RawFrame.close(1000).masked + RawFrame.text("late").masked + RawFrame(opcode: 9).masked)
            #expect(try client.frame() == .close(1000))
            client.timeout = .seconds(1)
            #expect(try client.receiveToEnd() == [])
        }

        @Test("pings are answered with what they carry", arguments: [0, 1, 124, 125])
        func ping(size: Int) throws {
            let client = try server.connect()
            try client.upgrade()
            let payload = [UInt8](repeating: 0xa5, count: size)
            try client.send(RawFrame(opcode: 9, payload: payload))
            #expect(try client.frame() == RawFrame(opcode: 10, payload: payload))
        }

        @Test("65,536 fragments of 64 bytes are one legal message")
        func manyFragments() throws {
            let client = try server.connect(timeout: .seconds(20))
            try client.upgrade()
            let piece = [UInt8](repeating: 7, count: 64)
            var bytes = RawFrame(opcode: 2, isFinal: false, payload: piece).masked
            for _ in 0..<65_534 { bytes += RawFrame(opcode: 0, isFinal: false, payload: piece).masked }
            try client.send(bytes + RawFrame(opcode: 0, payload: piece).masked)
            let frame = try client.frame()
            #expect(frame.opcode == 2 && frame.payload.count == 65_536 * 64)
            #expect(frame.payload.allSatisfy { $0 == 7 })
        }
    }
}
