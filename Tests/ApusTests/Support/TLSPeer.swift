import Apus

/// A client over TLS whose records leave when a test calls `flush`.
final class TLSPeer {
    private let client: Client
    private let tls: TLSLayer
    private var unsent: [UInt8] = []

    init(_ stage: TestServer) throws {
        client = try stage.client()
        tls = try TLSLayer()
    }

    /// Does the handshake, but does not send its own last flight.
    func shakeHands() throws {
        var received: [UInt8] = []
        while !tls.handshake(receiving: received) {
            flush()
            received = try client.takeAny()
        }
    }

    /// Seals bytes, which leave with the next `flush`.
    func seal(_ bytes: [UInt8]) throws { try tls.seal(bytes) }

    /// Requests that the server updates its key, and answers that it did.
    func sealKeyUpdate() throws { try tls.sealKeyUpdate() }

    func sealEnd() { tls.sealEnd() }

    /// - Parameter behind: bytes that follow what was sealed, as they are.
    func flush(_ behind: [UInt8] = []) { client.send(tls.takeOutput() + behind) }

    /// Sends as much of what was sealed as the kernel takes.
    ///
    /// - Returns: Whether it took any.
    func flushWithoutWaiting() -> Bool {
        unsent += tls.takeOutput()
        let count = client.sendNow(unsent[...])
        unsent.removeFirst(count)
        return count > 0
    }

    /// Everything up to the server's end, as it was sealed, record by record.
    func recordsToEnd() throws -> [ArraySlice<UInt8>] {
        var rest = try client.end()[...]
        var records: [ArraySlice<UInt8>] = []
        while rest.count >= 5 {
            let size = 5 + (Int(rest[rest.startIndex + 3]) << 8 | Int(rest[rest.startIndex + 4]))
            records.append(rest.prefix(size))
            rest = rest.dropFirst(size)
        }
        return records
    }

    /// Everything up to the server's end.
    func receiveToEnd() throws -> [UInt8] { tls.open(try client.end()) }

    func reset() { client.reset() }
}
