import Testing

@testable import ApusTransport

@Suite("RFC 8446 §5 records behind the handshake")
struct TLSRecordsTests {
    /// A server's records, and a client that seals whatever it likes.
    struct Pair {
        static let suites: [UInt16] = [0x1301, 0x1302, 0x1303]
        let records: TLSRecords
        let client: TrafficKey
        let server: TrafficKey
        let buffers = TLSBuffers(receiveBytes: 64 * 1024)

        init(suite number: UInt16 = 0x1301, recordsPerKey: UInt64 = TLSRecords.defaultRecordsPerKey) throws {
            let suite = try #require(CipherSuite.numbered(number))
            let ours = pattern(suite.secretBytes), theirs = pattern(suite.secretBytes, from: 1000)
            records = TLSRecords(suite, ours: ours, sent: 3, theirs: theirs, recordsPerKey: recordsPerKey)
            client = TrafficKey(.sealing, suite, secret: theirs, sequence: 0)
            server = TrafficKey(.opening, suite, secret: ours, sequence: 3)
        }

        /// What the client seals.
        func sealed(_ content: [UInt8], _ type: TLSRecords.ContentType = .applicationData) -> [UInt8] {
            var record = [UInt8](repeating: 0, count: content.count + TrafficKey.overheadBytes)
            content.withUnsafeBytes { content in
                record.withUnsafeMutableBytes { client.seal(content, as: type, into: $0) }
            }
            return record
        }

        /// What the server's records make of it.
        func open(_ bytes: [UInt8]) -> (data: [UInt8], end: TLSRecords.End?) {
            let input = records.partial + bytes
            var output = [UInt8](repeating: 0, count: input.count + 1)
            let (count, end) = input.withUnsafeBytes { input in
                output.withUnsafeMutableBytes { records.open(input, into: $0, answeringInto: buffers) }
            }
            return (Array(output.prefix(count)), end)
        }

        func seal(_ bytes: [UInt8]) { bytes.withUnsafeBytes { records.seal($0, into: buffers) } }

        /// What the client is sent: content and type of each record, with keys updated as they say.
        func sent() throws -> [[UInt8]] {
            defer { buffers.dropOutput() }
            var output = [UInt8](buffers.output)
            var contents: [[UInt8]] = []
            while !output.isEmpty {
                let size = TrafficKey.headerBytes + (Int(output[3]) << 8 | Int(output[4]))
                let record = Array(output.prefix(size))
                #expect(Array(record[..<3]) == [23, 3, 3])
                var opened = [UInt8](repeating: 0, count: size)
                let isGenuine = record.withUnsafeBytes { record in
                    opened.withUnsafeMutableBytes { server.open(record, into: $0) }
                }
                try #require(isGenuine)
                contents.append(Array(opened.prefix(size - TrafficKey.headerBytes - TrafficKey.tagBytes)))
                if contents.last == [24, 0, 0, 1, 0, 22] { server.update() }
                output.removeFirst(size)
            }
            return contents
        }
    }

    /// The record and the secret of RFC 8448 §3, "send application data".
    @Test("the client's application data of RFC 8448")
    func trace() throws {
        func bytes(_ digits: String) -> [UInt8] {
            let digits = digits.filter { !$0.isWhitespace }
            return stride(from: 0, to: digits.count, by: 2).compactMap {
                let start = digits.index(digits.startIndex, offsetBy: $0)
                return UInt8(digits[start..<digits.index(start, offsetBy: 2)], radix: 16)
            }
        }
        let secret = bytes("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
        let record = bytes(
            """
            1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3d
            eae63aeebb21694915e4
            """)
        let suite = try #require(CipherSuite.numbered(0x1301))
        let records = TLSRecords(suite, ours: pattern(32), sent: 0, theirs: secret)
        var output = [UInt8](repeating: 0, count: record.count)
        let (count, end) = record.withUnsafeBytes { record in
            output.withUnsafeMutableBytes {
                records.open(record, into: $0, answeringInto: TLSBuffers(receiveBytes: 64 * 1024))
            }
        }
        #expect(end == nil)
        #expect(Array(output.prefix(count)) == Array(0...49))
        // And sealed again by its own key, octet for octet.
        let key = TrafficKey(.sealing, suite, secret: secret, sequence: 0)
        var sealed = [UInt8](repeating: 0, count: record.count)
        Array(UInt8(0)...49).withUnsafeBytes { content in
            sealed.withUnsafeMutableBytes { key.seal(content, as: .applicationData, into: $0) }
        }
        #expect(sealed == record)
    }

    @Test("data both ways with each suite, in records of any size", arguments: Pair.suites)
    func data(suite: UInt16) throws {
        let pair = try Pair(suite: suite)
        for count in [0, 1, 125, 16_383, 16_384] {
            let (data, end) = pair.open(pair.sealed(pattern(count)))
            #expect(data == pattern(count) && end == nil)
        }
        for count in [1, 16_384, 16_385, 100_000] {
            pair.seal(pattern(count))
            let contents = try pair.sent()
            #expect(contents.allSatisfy { $0.last == 23 && $0.count <= 16_385 })
            #expect(contents.flatMap { $0.dropLast() } == pattern(count))
            #expect(contents.count == (count + 16_383) / 16_384)
        }
    }

    @Test("records that come in pieces, and several at once")
    func pieces() throws {
        let pair = try Pair()
        let stream = (0..<20).flatMap { pair.sealed(pattern(100 * $0, from: $0)) }
        let wanted = (0..<20).flatMap { pattern(100 * $0, from: $0) }
        for size in [1, 4, 5, 6, 977, stream.count] {
            let other = try Pair()
            var got: [UInt8] = []
            for start in stride(from: 0, to: stream.count, by: size) {
                let (data, end) = other.open(Array(stream[start..<min(start + size, stream.count)]))
                #expect(end == nil)
                got += data
            }
            #expect(got == wanted, "in pieces of \(size)")
            #expect(other.records.partial.isEmpty)
        }
    }

    @Test("padding is taken off")
    func padding() throws {
        let pair = try Pair()
        // The type in the midst of what is sealed, zeros behind it; the record's own type octet is zero as well: 0 is no content type.
        let padded = [UInt8]("padded".utf8) + [23] + [UInt8](repeating: 0, count: 300)
        #expect(pair.open(pair.sealedRaw(padded)).data == Array("padded".utf8))
        let all = pair.open(pair.sealedRaw([UInt8](repeating: 0, count: 300)))
        #expect(all.end == .broken)
        #expect(try pair.sent() == [[2, 10, 21]])
    }

    /// What ends the stream, and the alert that is sent.
    static let hostile: [(name: String, bytes: @Sendable (Pair) -> [UInt8], alert: UInt8)] = [
        (
            "a record that was changed",
            {
                var record = $0.sealed([1, 2, 3]); record[6] ^= 1; return record
            }, 20
        ),
        (
            "a tag that was changed",
            {
                var record = $0.sealed([1, 2, 3]); record[record.count - 1] ^= 1; return record
            }, 20
        ),
        (
            "a header that was changed",
            {
                var record = $0.sealed([1, 2, 3]); record[2] = 1; return record
            }, 20
        ),
        (
            "the same record again",
            {
                let record = $0.sealed([1, 2, 3]); return record + record
            }, 20
        ),
        (
            "the second record first",
            {
                _ = $0.sealed([1]); return $0.sealed([2])
            }, 20
        ),
        ("too short for a tag", { _ in [23, 3, 3, 0, 16] + [UInt8](repeating: 7, count: 16) }, 20),
        ("nothing at all", { _ in [23, 3, 3, 0, 0] }, 20),
        ("too long, in its header alone", { _ in [23, 3, 3, 0x41, 1] }, 22),
        ("content too long", { $0.sealedRaw(pattern(16_385) + [23]) }, 22),
        ("an alert that is not sealed", { _ in [21, 3, 3, 0, 2, 1, 0] }, 10),
        ("a handshake that is not sealed", { _ in [22, 3, 3, 0, 4, 1, 0, 0, 0] }, 10),
        ("a change of cipher", { _ in [20, 3, 3, 0, 1, 1] }, 10),
        ("plain HTTP", { _ in Array("GET / HTTP/1.1\r\n\r\n".utf8) }, 10),
        ("a type that there is not", { $0.sealedRaw([1, 2, 3, 99]) }, 10),
        ("an alert of one octet", { $0.sealed([1], .alert) }, 50),
        ("two alerts in one record", { $0.sealed([1, 90, 1, 0], .alert) }, 50),
        ("an empty alert", { $0.sealed([], .alert) }, 10),
        ("an empty alert with padding", { $0.sealedRaw([21, 0, 0, 0]) }, 10),
        ("an empty handshake message", { $0.sealed([], .handshake) }, 10),
        ("a ClientHello", { $0.sealed([1, 0, 0, 2, 3, 3], .handshake) }, 10),
        ("a certificate nobody asked for", { $0.sealed([11] + pattern(5000), .handshake) }, 10),
        ("a key update of two octets", { $0.sealed([24, 0, 0, 2, 0, 0], .handshake) }, 50),
        ("a key update of no octet", { $0.sealed([24, 0, 0, 0], .handshake) }, 50),
        ("a key update that asks for something else", { $0.sealed([24, 0, 0, 1, 2], .handshake) }, 47),
        ("a key update with more behind it", { $0.sealed([24, 0, 0, 1, 0, 24], .handshake) }, 10),
        ("data in the midst of a handshake message", { $0.sealed([24, 0], .handshake) + $0.sealed([1]) }, 10),
        ("33 records with nothing in them", { pair in (0..<33).flatMap { _ in pair.sealed([]) } }, 10),
        ("33 key updates in a row", { pair in (0..<33).flatMap { _ in pair.keyUpdate(0) } }, 10),
    ]

    @Test("what no client may send ends it with the alert for that, and what was good before it counts", arguments: hostile.indices)
    func refused(index: Int) throws {
        let (name, bytes, alert) = Self.hostile[index]
        let pair = try Pair()
        let good = pair.sealed(Array("good".utf8))
        let (data, end) = pair.open(good + bytes(pair) + pair.sealed(Array("behind".utf8)))
        #expect(data.starts(with: Array("good".utf8)), "\(name)")
        #expect(end == .broken, "\(name)")
        #expect(try pair.sent() == [[2, alert, 21]], "\(name)")
        #expect(pair.records.partial.isEmpty)
    }

    @Test("32 records with nothing in them are borne, and data begins the count anew")
    func empties() throws {
        let pair = try Pair()
        for _ in 0..<3 {
            #expect(pair.open((0..<32).flatMap { _ in pair.sealed([]) }).end == nil)
            #expect(pair.open(pair.sealed([5])).data == [5])
        }
    }

    @Test("close_notify ends it, and nothing behind it counts")
    func close() throws {
        let pair = try Pair()
        let (data, end) = pair.open(pair.sealed([1]) + pair.sealed([1, 90], .alert) + pair.sealed([1, 0], .alert) + pair.sealed([2]))
        #expect(data == [1] && end == .closed)
        pair.records.seal(.closeNotify, into: pair.buffers)
        #expect(try pair.sent() == [[1, 0, 21]])
    }

    @Test("a key update that was asked for before close_notify is given before more is said")
    func updateAndClose() throws {
        let pair = try Pair()
        #expect(pair.open(pair.keyUpdate(1) + pair.sealed([1, 0], .alert)).end == .closed)
        pair.seal([6])
        #expect(try pair.sent() == [[24, 0, 0, 1, 0, 22], [6, 23]])
    }

    @Test("another alert is told in words")
    func alert() throws {
        let pair = try Pair()
        #expect(pair.open(pair.sealed([2, 48], .alert)).end == .refused("alert unknown CA"))
        #expect(try pair.sent() == [])
    }

    @Test("the client's keys are replaced, ours when it asks: once, however often it does", arguments: Pair.suites)
    func keyUpdates(suite: UInt16) throws {
        let pair = try Pair(suite: suite)
        #expect(pair.open(pair.keyUpdate(0) + pair.sealed([1])).data == [1])
        #expect(try pair.sent() == [])
        #expect(pair.open(pair.keyUpdate(1) + pair.keyUpdate(1) + pair.sealed([2])).data == [2])
        pair.seal([3])
        #expect(try pair.sent() == [[24, 0, 0, 1, 0, 22], [3, 23]])
        // In two records.
        let parts = pair.sealed([24, 0, 0], .handshake) + pair.sealed([1, 1], .handshake)
        pair.client.update()
        #expect(pair.open(parts).end == nil)
        #expect(pair.open(pair.sealed([4])).data == [4])
        pair.seal([5])
        #expect(try pair.sent() == [[24, 0, 0, 1, 0, 22], [5, 23]])
    }

    @Test("a key seals so many records and no more")
    func limit() throws {
        let pair = try Pair(recordsPerKey: 5)
        for byte in UInt8(0)..<12 { pair.seal([byte]) }
        let contents = try pair.sent()
        #expect(contents.filter { $0.last == 23 }.map { $0[0] } == Array(0..<12))
        // Three had been sealed before.
        let updates = contents.indices.filter { contents[$0].last == 22 }
        #expect(updates == [2, 8])
    }

    @Test("lines of OpenSSL's key log")
    func secrets() {
        var secrets = TrafficSecrets()
        func note(_ line: String) { Array(line.utf8).withUnsafeBytes { secrets.note($0) } }
        note("CLIENT_HANDSHAKE_TRAFFIC_SECRET 00 11")
        note("EXPORTER_SECRET 00 11")
        #expect(secrets.client == [] && secrets.server == [])
        note("CLIENT_TRAFFIC_SECRET_0 00ff 0aB1")
        note("SERVER_TRAFFIC_SECRET_0 00ff 1020")
        #expect(secrets.client == [0x0a, 0xb1] && secrets.server == [0x10, 0x20])
        note("SERVER_TRAFFIC_SECRET_0 00ff 1z20")
        #expect(secrets.server == [])
        secrets.forget()
        #expect(secrets.client == [])
    }
}

extension TLSRecordsTests.Pair {
    /// What the client seals of an inner plaintext that it made itself: content, type and padding.
    func sealedRaw(_ inner: [UInt8]) -> [UInt8] {
        var record = [UInt8](repeating: 0, count: inner.count - 1 + TrafficKey.overheadBytes)
        inner.withUnsafeBytes { inner in
            record.withUnsafeMutableBytes { record in
                client.seal(
                    UnsafeRawBufferPointer(rebasing: inner.dropLast()), typeOctet: inner[inner.count - 1], into: record)
            }
        }
        return record
    }

    func keyUpdate(_ request: UInt8) -> [UInt8] {
        let record = sealed([24, 0, 0, 1, request], .handshake)
        client.update()
        return record
    }
}
