import ApusPlatform
import ApusTransport
import TestSupport
import Testing

@Suite("Transports that speak TLS")
struct TLSTransportTests {
    /// A server's and a client's transport over two connected sockets, their handshake done.
    struct Secured {
        let server: Transport
        let client: Transport
        let received = ReceiveBuffer(capacity: 64 * 1024)

        /// - Parameter buffers: the server's.
        init(sendBufferBytes: Int32? = nil, buffers: TLSBuffers = TLSBuffers(receiveBytes: 64 * 1024)) throws {
            let certificate = try TestCertificate()
            let pair = try SocketPair(sendBufferBytes: sendBufferBytes)
            server = Transport(pair.takeNear())
            client = Transport(pair.takeFar())
            let identity = TLSIdentity(certificateChain: certificate.chain, privateKey: certificate.key)
            let context = try TLSContext(ServerTLS(identity), ticketKeys: TicketKeys())
            server.start(TLSSession(server: context, buffers: buffers))
            var options = ClientTLS()
            options.verification = .none
            client.start(
                TLSSession(client: try TLSContext(options), host: "test", port: 443, buffers: TLSBuffers(receiveBytes: 64 * 1024)))
            var isDone = (client: false, server: false)
            for _ in 0..<10 where !(isDone.client && isDone.server) {
                if !isDone.client, case .done = try client.handshake() { isDone.client = true }
                if !isDone.server, case .done = try server.handshake() { isDone.server = true }
            }
            try #require(isDone.client && isDone.server)
        }

        /// Everything that the client can open now.
        func arrived() throws -> [UInt8] {
            var bytes: [UInt8] = []
            while case .done(let count) = try received.receive(from: client), count > 0 {
                let start = ReceiveBuffer.headroom
                bytes += received.bytes.extracting(start..<start + count).withUnsafeBytes { Array($0) }
            }
            return bytes
        }

        /// Everything that the server sends until it has sent all.
        func drain() throws -> [UInt8] {
            var bytes = try arrived()
            while try server.flush() == .blocked { bytes += try arrived() }
            return try bytes + arrived()
        }
    }

    /// The ways to send bytes; the order is theirs.
    static let ways: [@Sendable (Transport, [UInt8]) throws -> Void] = [
        { try $0.write(TransportTests.output($1)) },
        { transport, bytes in
            let half = bytes.count / 2
            let head = TransportTests.output(Array(bytes[..<half]))
            try TransportTests.span(Array(bytes[half...])) { try transport.write(head, $0) }
        },
        { try $0.write(chunk($1)) },
        { transport, bytes in TransportTests.span(bytes) { transport.enqueue(copying: $0) } },
        { $0.enqueue(TransportTests.output($1)) },
        { $0.enqueue(chunk($1)) },
        { $0.enqueue(SharedFile(try temporaryFile($1)), offset: 0, count: $1.count) },
    ]

    static func chunk(_ bytes: [UInt8]) -> ByteChunk {
        let chunk = ByteChunk(capacity: bytes.count)
        TransportTests.span(bytes) { chunk.append($0) }
        return chunk
    }

    @Test("whatever way bytes are sent, they are sealed", arguments: ways.indices, [1, 1000, 300_000])
    func sealed(way: Int, count: Int) throws {
        for buffer in [nil, 4608] as [Int32?] {
            let secured = try Secured(sendBufferBytes: buffer)
            try Self.ways[way](secured.server, pattern(count))
            #expect(try secured.drain() == pattern(count))
            #expect(secured.server.bufferedBytes == 0)
        }
    }

    @Test("one way behind the other, in order, with a kernel that takes little")
    func order() throws {
        let secured = try Secured(sendBufferBytes: 4608)
        var sent = 0
        for way in Self.ways + Self.ways.reversed() {
            try way(secured.server, pattern(10_000, from: sent))
            sent += 10_000
        }
        #expect(try secured.drain() == pattern(sent))
    }

    @Test("a file that has shrunk ends its own connection and no other")
    func shrunkFile() throws {
        let buffers = TLSBuffers(receiveBytes: 64 * 1024)
        let (one, other) = (try Secured(buffers: buffers), try Secured(buffers: buffers))
        one.server.enqueue(SharedFile(try temporaryFile(pattern(100_000))), offset: 0, count: 200_000)
        #expect(throws: SystemError.self) { while try one.server.flush() == .blocked { _ = try one.arrived() } }
        other.server.enqueue(TransportTests.output(pattern(1000)))
        #expect(try other.drain() == pattern(1000))
    }

    @Test("a name that cannot be verified is refused before anything is sent", arguments: ["", "a\0b", "."])
    func noName(name: String) throws {
        let pair = try SocketPair()
        let transport = Transport(pair.takeNear())
        let context = try TLSContext(ClientTLS())
        transport.start(TLSSession(client: context, host: name, port: 443, buffers: TLSBuffers(receiveBytes: 64 * 1024)))
        #expect(throws: TLSError.protocolError("invalid host name \"\(name)\"")) { try transport.handshake() }
        #expect(pair.received().isEmpty)
    }
}
