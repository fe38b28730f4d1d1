import COpenSSL

/// The TLS 1.3 record layer of a server connection after the handshake (RFC 8446 §5), in place of
/// OpenSSL's, which holds 14 KB per connection and runs some 12,000 instructions for a small echo.
/// Keys and ciphers remain OpenSSL's.
///
/// After the handshake a client may send only application data, alerts and key updates:
/// post-handshake client authentication is not offered.
@safe final class TLSRecords {
    /// Record types (RFC 8446 §5.1).
    enum ContentType: UInt8 {
        case alert = 21
        case handshake = 22
        case applicationData = 23
    }

    /// The alerts that are sent (RFC 8446 §6).
    enum Alert: UInt8, Error {
        case closeNotify = 0
        case unexpectedMessage = 10
        case badRecordMAC = 20
        case recordOverflow = 22
        case illegalParameter = 47
        case decodeError = 50
    }

    /// How the peer's record stream ended.
    enum End: Equatable {
        /// By close_notify: nothing was truncated.
        case closed
        /// By a fatal alert; OpenSSL's description.
        case refused(String)
        /// By a protocol violation; an alert is sent.
        case broken
    }

    private let sealing: TrafficKey
    private let opening: TrafficKey
    private let recordsPerKey: UInt64
    /// An incomplete record.
    private(set) var partial: [UInt8] = []
    /// An incomplete handshake message.
    private var message: [UInt8] = []
    /// Consecutive records without application data.
    private var recordsWithoutData = 0
    /// Whether the peer requested a KeyUpdate.
    private var owesKeyUpdate = false

    /// Most bytes of a record's content (RFC 8446 §5.1).
    static let maxContentBytes = 1 << 14
    /// Most bytes of a record's ciphertext, with type and padding (RFC 8446 §5.2).
    private static let maxSealedBytes = maxContentBytes + 256
    /// Most consecutive records without data, which only cost work; the limit of OpenSSL and
    /// BoringSSL.
    private static let maxRecordsWithoutData = 32
    /// Below the AES-GCM limit of 2^24.5 full-size records per key (RFC 8446 §5.5).
    static let defaultRecordsPerKey: UInt64 = 1 << 24
    /// A KeyUpdate message (RFC 8446 §4.6.3) without its one octet of content.
    private static let keyUpdate: [UInt8] = [24, 0, 0, 1]

    /// - Parameters:
    ///   - sent: records already encrypted with our first key.
    ///   - recordsPerKey: number of records after which the key is replaced.
    init(
        _ suite: CipherSuite, ours: [UInt8], sent: UInt64, theirs: [UInt8], recordsPerKey: UInt64 = TLSRecords.defaultRecordsPerKey
    ) {
        self.recordsPerKey = recordsPerKey
        sealing = TrafficKey(.sealing, suite, secret: ours, sequence: sent)
        opening = TrafficKey(.opening, suite, secret: theirs, sequence: 0)
    }

    // MARK: Sending

    /// Encrypts any number of bytes into `buffers`.
    func seal(_ bytes: UnsafeRawBufferPointer, as type: ContentType = .applicationData, into buffers: TLSBuffers) {
        var rest = unsafe bytes[...]
        repeat {
            if sealing.sequence >= recordsPerKey { sealKeyUpdate(into: buffers) }
            let content = unsafe UnsafeRawBufferPointer(rebasing: rest.prefix(Self.maxContentBytes))
            unsafe sealing.seal(content, as: type, into: buffers.extendOutput(by: content.count + TrafficKey.overheadBytes))
            unsafe rest = rest.dropFirst(content.count)
        } while unsafe !rest.isEmpty
    }

    func seal(_ alert: Alert, into buffers: TLSBuffers) {
        let (warning, fatal): (UInt8, UInt8) = (1, 2)
        unsafe [alert == .closeNotify ? warning : fatal, alert.rawValue].withUnsafeBytes { unsafe seal($0, as: .alert, into: buffers) }
    }

    /// Encrypts a KeyUpdate (update_not_requested); later records use the next key.
    private func sealKeyUpdate(into buffers: TLSBuffers) {
        unsafe (Self.keyUpdate + [0]).withUnsafeBytes {
            unsafe sealing.seal($0, as: .handshake, into: buffers.extendOutput(by: $0.count + TrafficKey.overheadBytes))
        }
        sealing.update()
    }

    // MARK: Receiving

    /// Decrypts received bytes, preceded by `partial`, and keeps an incomplete record. TLS's own
    /// responses are written to `buffers`.
    ///
    /// - Parameter output: must have room for as many bytes as `input`.
    /// - Returns: the number of decrypted bytes of application data, and what ended the stream
    ///   behind them.
    func open(
        _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, answeringInto buffers: TLSBuffers
    ) -> (count: Int, end: End?) {
        var (position, count) = (0, 0)
        var end: End?
        do throws(Alert) {
            while end == nil, let size = try unsafe Self.sizeOfRecord(in: input, at: position) {
                let record = unsafe UnsafeRawBufferPointer(rebasing: input[position..<position + size])
                end = try unsafe open(record, into: output, &count)
                position += size
            }
        } catch {
            end = .broken
            seal(error, into: buffers)
        }
        partial = unsafe end == nil && position < input.count ? [UInt8](input[position...]) : []
        // One response suffices for any number of requests (RFC 8446 §4.6.3).
        if owesKeyUpdate {
            owesKeyUpdate = false
            if end == nil || end == .closed { sealKeyUpdate(into: buffers) }
        }
        return (count, end)
    }

    /// The size of a record with its header; nil if the header is incomplete or the record has not
    /// arrived.
    private static func sizeOfRecord(in input: UnsafeRawBufferPointer, at position: Int) throws(Alert) -> Int? {
        guard input.count - position >= TrafficKey.headerBytes else { return nil }
        // After the handshake every record is encrypted; the header's version is ignored (RFC 8446
        // §5.1).
        guard unsafe input[position] == ContentType.applicationData.rawValue else { throw .unexpectedMessage }
        let sealed = unsafe Int(input[position + 3]) << 8 | Int(input[position + 4])
        guard sealed <= maxSealedBytes else { throw .recordOverflow }
        let size = TrafficKey.headerBytes + sealed
        return input.count - position < size ? nil : size
    }

    /// Decrypts one record behind the `count` bytes decrypted before, and adds its application data
    /// to `count`.
    private func open(
        _ record: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, _ count: inout Int
    ) throws(Alert) -> End? {
        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: output[count...])
        guard unsafe opening.open(record, into: rest) else { throw .badRecordMAC }
        // The plaintext ends with its type and zero padding (RFC 8446 §5.4).
        var last = record.count - TrafficKey.headerBytes - TrafficKey.tagBytes - 1
        let opened = unsafe UnsafeRawBufferPointer(rebasing: rest[...last])
        while last >= 0, unsafe opened[last] == 0 { last -= 1 }
        guard last >= 0 else { throw .unexpectedMessage }
        guard last <= Self.maxContentBytes else { throw .recordOverflow }
        guard let type = unsafe ContentType(rawValue: opened[last]), type == .handshake || message.isEmpty else { throw .unexpectedMessage }
        if type == .applicationData, last > 0 {
            recordsWithoutData = 0
            count += last
            return nil
        }
        recordsWithoutData += 1
        guard recordsWithoutData <= Self.maxRecordsWithoutData else { throw .unexpectedMessage }
        let content = unsafe UnsafeRawBufferPointer(rebasing: opened[..<last])
        switch type {
        case .applicationData: return nil
        case .alert: return try unsafe heed(alert: content)
        case .handshake:
            try unsafe heed(handshake: content)
            return nil
        }
    }

    private func heed(alert: UnsafeRawBufferPointer) throws(Alert) -> End? {
        // An alert is neither fragmented nor combined with another (RFC 8446 §5.1).
        guard unsafe !alert.isEmpty else { throw .unexpectedMessage }
        guard alert.count == 2 else { throw .decodeError }
        let userCanceled: UInt8 = 90
        switch unsafe alert[1] {
        case Alert.closeNotify.rawValue: return .closed
        // close_notify follows (RFC 8446 §6.1).
        case userCanceled: return nil
        case let code: return unsafe .refused("alert " + String(cString: SSL_alert_desc_string_long(Int32(code))))
        }
    }

    /// Processes a KeyUpdate; other handshake messages are violations.
    private func heed(handshake: UnsafeRawBufferPointer) throws(Alert) {
        guard unsafe !handshake.isEmpty else { throw .unexpectedMessage }
        unsafe message.append(contentsOf: handshake)
        let size = Self.keyUpdate.count + 1
        // A KeyUpdate of wrong length is a decode_error (RFC 8446 §6.2); other messages are
        // unexpected_message.
        if message.count >= Self.keyUpdate.count, message[0] == Self.keyUpdate[0], message[1..<4] != Self.keyUpdate[1..<4] {
            throw .decodeError
        }
        // No message may follow a KeyUpdate in its record (RFC 8446 §5.1).
        guard message.count <= size, message.starts(with: Self.keyUpdate.prefix(message.count)) else { throw .unexpectedMessage }
        guard message.count == size else { return }
        switch message[size - 1] {
        case 0: break
        case 1: owesKeyUpdate = true
        default: throw .illegalParameter
        }
        message = []
        opening.update()
    }
}
