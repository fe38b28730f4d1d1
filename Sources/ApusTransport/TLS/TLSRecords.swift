import COpenSSL

/// The record layer of TLS 1.3 for a server's connection whose handshake is done (RFC 8446 §5): what OpenSSL's would do from there, which keeps
/// 14 KB for each connection and spends some 12,000 instructions on a small echo. Keys and ciphers are OpenSSL's.
///
/// A client that has shaken hands may send application data, alerts and key updates, and nothing else: it is asked for no certificate later.
@safe final class TLSRecords {
    /// RFC 8446 §5.1.
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

    /// How the other side's stream of records ended.
    enum End: Equatable {
        /// close_notify: nothing was cut off.
        case closed
        /// A fatal alert, in OpenSSL's words.
        case refused(String)
        /// It is no stream of records; the other side is told so.
        case broken
    }

    private let sealing: TrafficKey
    private let opening: TrafficKey
    private let recordsPerKey: UInt64
    /// The beginning of a record whose rest has not come.
    private(set) var partial: [UInt8] = []
    /// The beginning of a handshake message whose rest has not come.
    private var message: [UInt8] = []
    /// Records in a row that had no application data.
    private var recordsWithoutData = 0
    /// The other side wants our next key, too.
    private var owesKeyUpdate = false

    /// Of a record's content, in bytes (RFC 8446 §5.1).
    static let maxContentBytes = 1 << 14
    /// Of what is sealed in it, with type and padding (RFC 8446 §5.2).
    private static let maxSealedBytes = maxContentBytes + 256
    /// Records that cost work and bring nothing are for nothing else: as many in a row as OpenSSL and BoringSSL bear.
    private static let maxRecordsWithoutData = 32
    /// AES-GCM is good for 2^24.5 records of full size under one key (RFC 8446 §5.5).
    static let defaultRecordsPerKey: UInt64 = 1 << 24
    /// A KeyUpdate message (RFC 8446 §4.6.3) up to its one octet of content.
    private static let keyUpdate: [UInt8] = [24, 0, 0, 1]

    /// - Parameters:
    ///   - sent: records that were sealed with our first key already.
    ///   - recordsPerKey: after how many records the key is replaced.
    init(
        _ suite: CipherSuite, ours: [UInt8], sent: UInt64, theirs: [UInt8], recordsPerKey: UInt64 = TLSRecords.defaultRecordsPerKey
    ) {
        self.recordsPerKey = recordsPerKey
        sealing = TrafficKey(.sealing, suite, secret: ours, sequence: sent)
        opening = TrafficKey(.opening, suite, secret: theirs, sequence: 0)
    }

    // MARK: Sending

    /// Seals bytes of any number into `buffers`.
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

    /// Says that what follows is sealed with the next key; wants nothing of the kind.
    private func sealKeyUpdate(into buffers: TLSBuffers) {
        unsafe (Self.keyUpdate + [0]).withUnsafeBytes {
            unsafe sealing.seal($0, as: .handshake, into: buffers.extendOutput(by: $0.count + TrafficKey.overheadBytes))
        }
        sealing.update()
    }

    // MARK: Receiving

    /// Opens what was received, behind what `partial` held, and keeps what is no whole record yet. Answers of TLS itself go into `buffers`.
    ///
    /// - Parameter output: has room for as many bytes as `input`.
    /// - Returns: how many bytes of application data were opened, and what ended the stream behind them.
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
        // However often it was asked for, one will do (RFC 8446 §4.6.3).
        if owesKeyUpdate {
            owesKeyUpdate = false
            if end == nil || end == .closed { sealKeyUpdate(into: buffers) }
        }
        return (count, end)
    }

    /// Of the whole record, header and all; nil if it has not come.
    private static func sizeOfRecord(in input: UnsafeRawBufferPointer, at position: Int) throws(Alert) -> Int? {
        guard input.count - position >= TrafficKey.headerBytes else { return nil }
        // Nothing but sealed records comes now; the version in a header means nothing (RFC 8446 §5.1).
        guard unsafe input[position] == ContentType.applicationData.rawValue else { throw .unexpectedMessage }
        let sealed = unsafe Int(input[position + 3]) << 8 | Int(input[position + 4])
        guard sealed <= maxSealedBytes else { throw .recordOverflow }
        let size = TrafficKey.headerBytes + sealed
        return input.count - position < size ? nil : size
    }

    /// Opens one record behind the `count` bytes that were opened before, and counts its application data among them.
    private func open(
        _ record: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, _ count: inout Int
    ) throws(Alert) -> End? {
        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: output[count...])
        guard unsafe opening.open(record, into: rest) else { throw .badRecordMAC }
        // What is sealed ends with its type and padding of zeros.
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
        // Never in parts, and never two in one record (RFC 8446 §5.1).
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

    /// What is not a KeyUpdate is not expected here.
    private func heed(handshake: UnsafeRawBufferPointer) throws(Alert) {
        guard unsafe !handshake.isEmpty else { throw .unexpectedMessage }
        unsafe message.append(contentsOf: handshake)
        let size = Self.keyUpdate.count + 1
        // A KeyUpdate of another length than one (RFC 8446 §6.2); what is no KeyUpdate at all is not expected.
        if message.count >= Self.keyUpdate.count, message[0] == Self.keyUpdate[0], message[1..<4] != Self.keyUpdate[1..<4] {
            throw .decodeError
        }
        // A key's last record holds nothing behind the message (RFC 8446 §5.1).
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
