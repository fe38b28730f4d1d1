import ApusPlatform
import COpenSSL

/// One connection's TLS: decrypts and encrypts in its worker's buffers. `OpenSSLSession` does the
/// handshake; after a TLS 1.3 server handshake, `TLSRecords` replaces it.
@safe package final class TLSSession {
    private var protection: Protection
    private let context: TLSContext
    private let buffers: TLSBuffers
    /// Encrypted bytes that the kernel has not taken.
    private var sealed = WriteQueue()
    /// The queue's size: a plain property, because an access to the queue would be checked.
    private(set) var sealedBytes = 0
    private var state = State.new

    /// The record layer in use.
    private enum Protection {
        /// OpenSSL: for the handshake, TLS 1.2, clients, and contexts configured by the
        /// application.
        case openSSL(OpenSSLSession)
        case records(TLSRecords, TLSInformation)
    }

    private enum State {
        /// Nothing has been received or sent.
        case new
        case handshaking
        case secure
        /// The peer has ended its output, by close_notify or by closing the connection.
        case ended
        /// A fatal alert was sent or received: nothing may follow (RFC 8446 §6.2).
        case broken
        /// OpenSSL reported a fatal error: its session must not be used again.
        case failed
    }

    /// The result of a handshake step.
    package enum Progress {
        case done
        case waiting
        /// The first octets are not TLS; get them by `takeInput`.
        case notTLS
    }

    /// Creates a server's session.
    package init(server context: TLSContext, buffers: TLSBuffers) {
        self.context = context
        self.buffers = buffers
        let openSSL = OpenSSLSession(context, buffers)
        protection = .openSSL(openSSL)
        openSSL.setOwner(self)
    }

    /// Creates a client's session.
    ///
    /// - Parameters:
    ///   - host: the server's name or numeric address, which its certificate must cover.
    ///   - port: with the host, the key of the session to resume.
    ///   - received: bytes that the server sent already, behind a proxy's response to CONNECT.
    package init(client context: TLSContext, host: String, port: UInt16, received: [UInt8] = [], buffers: TLSBuffers) {
        self.context = context
        self.buffers = buffers
        early = received
        let openSSL = OpenSSLSession(context, buffers)
        protection = .openSSL(openSSL)
        openSSL.setOwner(self)
        // A trailing dot is not part of the name (RFC 6066 §3).
        let name = host.hasSuffix(".") ? String(host.dropLast()) : host
        resumptionKey = "\(name):\(port)"
        if openSSL.expect(name) { openSSL.resume(resumptionKey, of: context) } else { objection = "invalid host name \"\(host)\"" }
    }

    /// The key of this client's stored sessions.
    private(set) var resumptionKey = ""
    /// Received bytes: from before or behind the handshake, or not TLS.
    private var early: [UInt8] = []
    /// Why the server's name cannot be verified; the handshake then fails without sending.
    private var objection: String?

    /// The traffic secrets logged during a TLS 1.3 handshake.
    private var secrets = TrafficSecrets()

    deinit {
        if case .records(let records, _) = protection { buffers.pool?.note(-records.partial.count) }
        secrets.forget()
    }

    /// Whether close_notify was sent.
    private var hasSentEnd = false

    /// Whether the peer has ended its output.
    package var inputHasEnded: Bool {
        switch state {
        case .ended, .broken: true
        case .new, .handshaking, .secure, .failed: false
        }
    }

    /// Whether the input ended without close_notify, so that an attacker may have truncated it.
    package private(set) var inputWasCut = false

    /// OpenSSL's description of the peer's fatal alert. A TLS 1.3 server may reject a client's
    /// certificate after the client's handshake is done (RFC 8446 §4.4.2.4).
    package private(set) var refusal: String?

    // MARK: Handshake

    /// Receives and continues the handshake. Bytes behind it are kept for `openEarly`.
    package func handshake(on socket: Int32) throws(TLSError) -> Progress {
        guard case .openSSL(let openSSL) = protection else { return .done }
        if let objection { throw .protocolError(objection) }
        // The buffers and OpenSSL's error queue are shared: clear both.
        defer {
            buffers.dropInput()
            buffers.dropOutput()
            ERR_clear_error()
        }
        let isFirst = if case .new = state { true } else { false }
        if !isFirst || context.role == .server {
            guard try receiveHandshake(on: socket) else { return .waiting }
            if isFirst, unsafe buffers.input[0] != Self.handshakeRecord {
                early = unsafe [UInt8](buffers.input)
                return .notTLS
            }
        } else if !early.isEmpty {
            buffers.put(early)
            early = []
        }
        state = .handshaking
        let step = openSSL.handshake()
        switch step {
        case .done: takeOver(from: openSSL)
        case .waiting: break
        case .failed(let reason, let objection):
            state = .failed
            // Sends the alert; a failure to send it does not matter.
            try? sendSealed(to: socket)
            if context.role == .client, let objection { throw .untrusted(objection) }
            throw .protocolError(reason)
        }
        let isSilent = unsafe buffers.output.isEmpty
        do { try sendSealed(to: socket) } catch {
            state = .failed
            throw .system(error)
        }
        guard case .done = step else { return .waiting }
        state = .secure
        early = unsafe [UInt8](buffers.input)
        // A client with Nagle's algorithm holds its request until its Finished is acknowledged,
        // which the kernel would delay by 40 ms, as this side sends nothing.
        if isSilent, early.isEmpty, context.role == .server { try? Socket.set(.acknowledgeNow, on: socket) }
        return .done
    }

    /// Replaces OpenSSL's record layer after a TLS 1.3 handshake, if the traffic secrets are known.
    private func takeOver(from openSSL: OpenSSLSession) {
        defer { secrets.forget() }
        guard context.role == .server, let suite = openSSL.suiteForRecords, secrets.client.count == suite.secretBytes,
            secrets.server.count == suite.secretBytes, let sent = unsafe Self.sealedRecords(in: buffers.output)
        else { return openSSL.readAhead() }
        protection = .records(TLSRecords(suite, ours: secrets.server, sent: sent, theirs: secrets.client), openSSL.information)
    }

    /// The number of records in `output` if all are encrypted with application traffic keys: a
    /// server's session tickets, sent in response to the client's Finished. Nil for other records.
    private static func sealedRecords(in output: UnsafeRawBufferPointer) -> UInt64? {
        var (position, count) = (0, UInt64(0))
        while output.count - position >= TrafficKey.headerBytes {
            guard unsafe output[position] == TLSRecords.ContentType.applicationData.rawValue else { return nil }
            unsafe position += TrafficKey.headerBytes + (Int(output[position + 3]) << 8 | Int(output[position + 4]))
            count += 1
        }
        return position == output.count ? count : nil
    }

    /// Parses a line of OpenSSL's key log.
    func note(_ line: UnsafeRawBufferPointer) { unsafe secrets.note(line) }

    /// - Returns: whether handshake bytes were received.
    private func receiveHandshake(on socket: Int32) throws(TLSError) -> Bool {
        do {
            switch try buffers.receive(from: socket) {
            case .done(0): break
            case .done: return true
            case .wouldBlock: return false
            }
        } catch {
            state = .failed
            throw .system(error)
        }
        state = .failed
        throw .closed
    }

    /// The record type `handshake` (RFC 8446 §5.1).
    private static let handshakeRecord: UInt8 = 22

    /// Returns the received bytes, which are not TLS, and removes them.
    package func takeInput() -> [UInt8] {
        defer { early = [] }
        return early
    }

    /// The result of the handshake.
    package func information() -> TLSInformation {
        switch protection {
        case .openSSL(let openSSL): openSSL.information
        case .records(_, let information): information
        }
    }

    // MARK: Receiving

    /// - Returns: `.done(0)` at the end of input; `.wouldBlock` if no record is complete.
    func receive(from socket: Int32, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        switch state {
        case .secure: break
        case .new, .handshaking, .ended, .broken, .failed: return .done(0)
        }
        let partial = if case .records(let records, _) = protection { records.partial } else { [UInt8]() }
        switch try buffers.receive(from: socket, behind: partial) {
        case .done(0):
            state = .ended
            inputWasCut = true
            return .done(0)
        case .done: return try unsafe open(into: buffer, on: socket)
        case .wouldBlock: return .wouldBlock
        }
    }

    /// Decrypts bytes received right behind the handshake.
    func openEarly(into buffer: UnsafeMutableRawBufferPointer, on socket: Int32) throws(SystemError) -> IOResult<Int> {
        buffers.put(early)
        early = []
        return try unsafe open(into: buffer, on: socket)
    }

    /// Decrypts all received bytes. They fit: a receive is smaller than `buffer`.
    private func open(into buffer: UnsafeMutableRawBufferPointer, on socket: Int32) throws(SystemError) -> IOResult<Int> {
        defer { buffers.dropInput() }
        let (count, end) =
            switch protection {
            case .openSSL(let openSSL): unsafe openSSL.open(into: buffer)
            case .records(let records, _): unsafe open(with: records, into: buffer)
            }
        switch end {
        case nil: break
        case .closed: state = .ended
        case .refused, .broken:
            if case .refused(let words) = end { refusal = words }
            try? sendSealed(to: socket)
            state = count > 0 ? .broken : .failed
            inputWasCut = true
            if count == 0 { throw brokenProtocol("SSL_read") }
            return .done(count)
        }
        // TLS's own responses, such as to a KeyUpdate.
        try sendSealed(to: socket)
        return count > 0 || inputHasEnded ? .done(count) : .wouldBlock
    }

    private func open(with records: TLSRecords, into buffer: UnsafeMutableRawBufferPointer) -> (count: Int, end: TLSRecords.End?) {
        let held = records.partial.count
        defer { if held != records.partial.count { buffers.pool?.note(records.partial.count - held) } }
        return unsafe records.open(buffers.input, into: buffer, answeringInto: buffers)
    }

    // MARK: Sending

    /// Encrypts at most `TLSBuffers.sealedAtOnce` bytes and sends them.
    func write(_ bytes: UnsafeRawBufferPointer, to socket: Int32) throws(SystemError) {
        switch state {
        case .secure, .ended: break
        case .new, .handshaking, .broken, .failed: throw brokenProtocol("SSL_write")
        }
        switch protection {
        case .records(let records, _): unsafe records.seal(bytes, into: buffers)
        case .openSSL(let openSSL):
            guard unsafe openSSL.seal(bytes) else {
                state = .failed
                buffers.dropOutput()
                throw brokenProtocol("SSL_write")
            }
        }
        try sendSealed(to: socket)
    }

    /// Encrypts and sends queued output until the kernel takes no more.
    func flush(_ queue: inout WriteQueue, to socket: Int32) throws(SystemError) -> WriteQueue.Outcome {
        while true {
            if sealedBytes > 0 {
                defer { sealedBytes = sealed.byteCount }
                if try sealed.write(to: socket) == .blocked { return .blocked }
            }
            if queue.isEmpty { return .empty }
            defer { buffers.plain.removeAll() }
            try queue.move(to: buffers.plain)
            try unsafe write(buffers.plain.bytes, to: socket)
        }
    }

    /// Sends encrypted bytes; what the kernel does not take is queued.
    private func sendSealed(to socket: Int32) throws(SystemError) {
        let output = unsafe buffers.output
        guard unsafe !output.isEmpty else { return }
        defer { buffers.dropOutput() }
        var sent = 0
        if sealedBytes == 0, case .done(let count) = try unsafe Socket.send(socket, output) { sent = count }
        guard sent < output.count else { return }
        unsafe sealed.append(copying: UnsafeRawBufferPointer(rebasing: output[sent...]), into: buffers.pool)
        sealedBytes = sealed.byteCount
    }

    /// Sends close_notify.
    func sendEnd(to socket: Int32) {
        switch state {
        case .secure, .ended: break
        case .new, .handshaking, .broken, .failed: return
        }
        guard !hasSentEnd else { return }
        hasSentEnd = true
        switch protection {
        case .records(let records, _): records.seal(.closeNotify, into: buffers)
        case .openSSL(let openSSL): openSSL.sealCloseNotify()
        }
        try? sendSealed(to: socket)
    }

    func dropOutput() {
        sealed.removeAll()
        sealedBytes = 0
    }

    private func brokenProtocol(_ call: StaticString) -> SystemError { SystemError(code: SystemError.brokenProtocol, call: call) }
}
