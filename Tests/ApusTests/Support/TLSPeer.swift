import Apus
import COpenSSL
import Testing

/// A client of OpenSSL's own, whose records leave when a test says so.
final class TLSPeer {
    private let client: Client
    private let context: OpaquePointer
    private let ssl: OpaquePointer
    private let input: OpaquePointer
    private let output: OpaquePointer

    init(_ stage: Stage) throws {
        client = try stage.client()
        context = try #require(SSL_CTX_new(TLS_client_method()))
        ssl = try #require(SSL_new(context))
        input = try #require(BIO_new(BIO_s_mem()))
        output = try #require(BIO_new(BIO_s_mem()))
        SSL_set_bio(ssl, input, output)
        SSL_set_connect_state(ssl)
    }

    deinit {
        SSL_free(ssl)
        SSL_CTX_free(context)
    }

    /// Shakes hands, but keeps its own last flight.
    func shakeHands() throws {
        while SSL_do_handshake(ssl) != 1 {
            flush()
            feed(try client.takeAny())
        }
    }

    /// Seals bytes, which leave with the next `flush`.
    func seal(_ bytes: [UInt8]) throws { try #require(SSL_write(ssl, bytes, Int32(bytes.count)) == bytes.count) }

    /// Asks the server to update its key, and to say so.
    func sealKeyUpdate() throws {
        try #require(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1)
    }

    func sealEnd() { SSL_shutdown(ssl) }

    private func takeSealed() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: apus_bio_pending(output))
        let count = BIO_read(output, &bytes, Int32(bytes.count))
        return Array(bytes.prefix(Int(max(0, count))))
    }

    /// - Parameter behind: bytes that follow what was sealed, as they are.
    func flush(_ behind: [UInt8] = []) { client.send(takeSealed() + behind) }

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

    /// What the kernel takes of what was sealed; gives whether it took any.
    func flushWithoutWaiting() -> Bool {
        unsent += takeSealed()
        let count = client.sendNow(unsent[...])
        unsent.removeFirst(count)
        return count > 0
    }

    private var unsent: [UInt8] = []

    private func feed(_ bytes: [UInt8]) { BIO_write(input, bytes, Int32(bytes.count)) }

    /// Everything up to the server's end.
    func receiveToEnd() throws -> [UInt8] {
        feed(try client.end())
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        var count = 0
        while count < bytes.count {
            let got = bytes.withUnsafeMutableBytes { SSL_read(ssl, $0.baseAddress.map { $0 + count }, Int32($0.count - count)) }
            guard got > 0 else { break }
            count += Int(got)
        }
        return Array(bytes[..<count])
    }

    func reset() { client.reset() }
}
