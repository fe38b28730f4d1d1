import ApusPlatform
import COpenSSL

/// One connection's TLS: opens what it received and seals what it sends, in its worker's buffers. OpenSSL shakes hands; where that has made a
/// TLS 1.3 connection of a server's, `TLSRecords` goes on without it.
@safe package final class TLSSession {
    private var protection: Protection
    private let context: TLSContext
    private let buffers: TLSBuffers
    /// What was sealed and the kernel has not taken.
    private var sealed = WriteQueue()
    /// Its bytes: looked at with each write, where an access to the queue would have to be checked.
    private(set) var sealedBytes = 0
    private var state = State.new

    /// What seals and opens.
    @safe private enum Protection {
        /// The one owner of an `SSL *`: for the handshake, for TLS 1.2, for clients, who are sent tickets later on, and where an application has
        /// configured its `SSL_CTX`, whose hooks may wait for records.
        case openSSL(OpaquePointer)
        case records(TLSRecords, TLSInformation)
    }

    private enum State {
        /// Nothing has been received or sent.
        case new
        case handshaking
        case secure
        /// The other side will send no more: it said so, or ended the connection.
        case ended
        /// One side ended it with a fatal alert: nothing may follow, in either direction (RFC 8446 §6.2). What was good before it counts.
        case broken
        /// OpenSSL gave it up: nothing more may be asked of it.
        case failed
    }

    /// What an attempt to go on with the handshake gave.
    package enum Progress {
        case done
        case waiting
        /// The first octets are those of another protocol; they are still there to be taken with `takeInput`.
        case notTLS
    }

    /// A server's session.
    package init(server context: TLSContext, buffers: TLSBuffers) {
        self.context = context
        self.buffers = buffers
        let ssl = unsafe Self.openSSL(context, buffers)
        protection = unsafe .openSSL(ssl)
        unsafe SSL_set_accept_state(ssl)
        // What comes right behind the handshake stays in the buffers: OpenSSL may be done then.
        unsafe SSL_set_read_ahead(ssl, 0)
        unsafe apus_ssl_set_app_data(ssl, Unmanaged.passUnretained(self).toOpaque())
    }

    private static func openSSL(_ context: TLSContext, _ buffers: TLSBuffers) -> OpaquePointer {
        guard let ssl = unsafe SSL_new(context.pointer) else { preconditionFailure("OpenSSL has no memory for a session") }
        unsafe buffers.attach(to: ssl)
        return unsafe ssl
    }

    /// SAFETY: a session sets itself, and OpenSSL calls only while it is at work for it.
    static func of(_ ssl: OpaquePointer?) -> TLSSession? {
        unsafe apus_ssl_app_data(ssl).map { unsafe Unmanaged<TLSSession>.fromOpaque($0).takeUnretainedValue() }
    }

    /// A client's session.
    ///
    /// - Parameters:
    ///   - host: the server's name, or its numeric address: what its certificate must hold for.
    ///   - port: with the host, what an earlier session is kept under to be resumed.
    ///   - received: what the server sent already: what came through a tunnel right behind its beginning.
    package init(client context: TLSContext, host: String, port: UInt16, received: [UInt8] = [], buffers: TLSBuffers) {
        self.context = context
        self.buffers = buffers
        early = received
        let ssl = unsafe Self.openSSL(context, buffers)
        protection = unsafe .openSSL(ssl)
        unsafe SSL_set_connect_state(ssl)
        unsafe apus_ssl_set_app_data(ssl, Unmanaged.passUnretained(self).toOpaque())
        // The dot of the root is no part of the name (RFC 6066 §3).
        let name = host.hasSuffix(".") ? String(host.dropLast()) : host
        resumptionKey = "\(name):\(port)"
        if unsafe expect(name, ssl) { unsafe context.resume(ssl, resumptionKey) } else { objection = "\"\(host)\" is no host's name" }
    }

    /// Says whose certificate is acceptable. OpenSSL would take an empty name for anybody's.
    private func expect(_ name: String, _ ssl: OpaquePointer) -> Bool {
        guard !name.isEmpty, !name.utf8.contains(0) else { return false }
        defer { ERR_clear_error() }
        let parameters = unsafe SSL_get0_param(ssl)
        unsafe X509_VERIFY_PARAM_set_hostflags(
            parameters, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
        // A numeric address is looked for among the certificate's addresses, and is no name to ask for (RFC 6066 §3).
        if unsafe X509_VERIFY_PARAM_set1_ip_asc(parameters, name) == 1 { return true }
        return unsafe X509_VERIFY_PARAM_set1_host(parameters, name, name.utf8.count) == 1 && apus_ssl_set_server_name(ssl, name) == 1
    }

    /// What this client's sessions are kept under.
    private(set) var resumptionKey = ""
    /// What was received and has not been opened: before the handshake began, right behind it, or of another protocol.
    private var early: [UInt8] = []
    /// Why the server's name cannot be verified; then nothing is sent.
    private var objection: String?

    /// What a TLS 1.3 handshake has told so far of the keys to come.
    private var secrets = TrafficSecrets()

    deinit {
        if case .records(let records, _) = protection { buffers.pool?.note(-records.partial.count) }
        if case .openSSL(let ssl) = protection { unsafe SSL_free(ssl) }
        secrets.forget()
    }

    /// That nothing more comes was said.
    private var hasSentEnd = false

    /// The other side will send no more.
    package var inputHasEnded: Bool {
        switch state {
        case .ended, .broken: true
        case .new, .handshaking, .secure, .failed: false
        }
    }

    /// The input ended without a word of the other side's (close_notify): somebody in between may have cut it.
    package private(set) var inputWasCut = false

    /// The alert with which the other side ended it, in OpenSSL's words: under TLS 1.3 a server refuses a client's certificate when the client's
    /// handshake is done already (RFC 8446 §4.4.2.4).
    package private(set) var refusal: String?

    // MARK: Handshake

    /// Receives what has come and goes on with the handshake as far as that allows. What came behind it waits for `open`.
    package func handshake(on socket: Int32) throws(TLSError) -> Progress {
        guard case .openSSL(let ssl) = protection else { return .done }
        if let objection { throw .protocolError(objection) }
        // The buffers are the next session's, whatever happens here; and so is OpenSSL's list of errors.
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
        ERR_clear_error()
        let result = unsafe SSL_do_handshake(ssl)
        guard unsafe result == 1 || SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ else {
            return try unsafe failHandshake(of: ssl, on: socket)
        }
        if result == 1 { unsafe takeOver(from: ssl) }
        let isSilent = unsafe buffers.output.isEmpty
        do { try sendSealed(to: socket) } catch {
            state = .failed
            throw .system(error)
        }
        guard result == 1 else { return .waiting }
        state = .secure
        early = unsafe [UInt8](buffers.input)
        // A client with Nagle's algorithm holds its request back until the end of the handshake is acknowledged, and nothing of ours does that:
        // the kernel would wait 40 ms for something.
        if isSilent, early.isEmpty, context.role == .server { try? Socket.set(.acknowledgeNow, on: socket) }
        return .done
    }

    /// The handshake is done: goes on without OpenSSL's session, if that has told the secrets of a TLS 1.3 connection.
    private func takeOver(from ssl: OpaquePointer) {
        defer { secrets.forget() }
        let number = unsafe UInt16(truncatingIfNeeded: SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(ssl)))
        // Few clients want small records (RFC 6066 §4), 1 to 4 being their sizes; for them OpenSSL keeps the promise.
        let wantsSmallRecords = unsafe (1...4).contains(SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl)))
        guard context.role == .server, !wantsSmallRecords,
            let suite = CipherSuite.numbered(number), secrets.client.count == suite.secretBytes,
            secrets.server.count == suite.secretBytes, unsafe SSL_has_pending(ssl) == 0,
            let sent = unsafe Self.sealedRecords(in: buffers.output)
        else {
            // Many records with one read of the BIO.
            unsafe SSL_set_read_ahead(ssl, 1)
            return
        }
        protection = unsafe .records(TLSRecords(suite, ours: secrets.server, sent: sent, theirs: secrets.client), information())
        unsafe SSL_free(ssl)
    }

    /// How many records are in `output`, all of them sealed with the keys of application data: what a server says in answer to the client's
    /// Finished is its tickets. Nil if it is something else.
    private static func sealedRecords(in output: UnsafeRawBufferPointer) -> UInt64? {
        var (position, count) = (0, UInt64(0))
        while output.count - position >= TrafficKey.headerBytes {
            guard unsafe output[position] == TLSRecords.ContentType.applicationData.rawValue else { return nil }
            unsafe position += TrafficKey.headerBytes + (Int(output[position + 3]) << 8 | Int(output[position + 4]))
            count += 1
        }
        return position == output.count ? count : nil
    }

    /// Takes a line of OpenSSL's key log.
    func note(_ line: UnsafeRawBufferPointer) { unsafe secrets.note(line) }

    /// Whether anything has come.
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

    /// The type of a record that begins a handshake (RFC 8446 §5.1).
    private static let handshakeRecord: UInt8 = 22

    private func failHandshake(of ssl: OpaquePointer, on socket: Int32) throws(TLSError) -> Progress {
        state = .failed
        let verdict = unsafe SSL_get_verify_result(ssl)
        let reason = OpenSSL.takeError()
        // The alert tells the other side; whether it arrives is all the same to us.
        try? sendSealed(to: socket)
        if context.role == .client, let objection = OpenSSL.objection(verdict) { throw .untrusted(objection) }
        throw .protocolError(reason)
    }

    /// Takes what was received for another protocol.
    package func takeInput() -> [UInt8] {
        defer { early = [] }
        return early
    }

    /// What the handshake agreed on.
    package func information() -> TLSInformation {
        switch protection {
        case .openSSL(let ssl): unsafe Self.information(of: ssl)
        case .records(_, let information): information
        }
    }

    private static func information(of ssl: OpaquePointer) -> TLSInformation {
        defer { ERR_clear_error() }
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &name, &length)
        // SAFETY: OpenSSL's texts live as long as the session, and are copied.
        let agreed = unsafe length > 0 ? String(decoding: UnsafeBufferPointer(start: name, count: Int(length)), as: UTF8.self) : nil
        let certificate = unsafe SSL_get0_peer_certificate(ssl)
        let isTrusted = unsafe SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE
        let objection = unsafe isTrusted ? OpenSSL.objection(SSL_get_verify_result(ssl)) : "it was not verified"
        return unsafe TLSInformation(
            version: String(cString: SSL_get_version(ssl)), cipher: String(cString: apus_ssl_cipher(ssl)), applicationProtocol: agreed,
            serverName: SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name).map { unsafe String(cString: $0) },
            isResumed: SSL_session_reused(ssl) == 1,
            peerCertificate: certificate.map { unsafe OpenSSL.description(of: $0, objection: objection) })
    }

    // MARK: Receiving

    /// Receives once and opens all of it. `.done(0)` is the end; nothing complete is "would block".
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

    /// Opens what came right behind the handshake.
    func openEarly(into buffer: UnsafeMutableRawBufferPointer, on socket: Int32) throws(SystemError) -> IOResult<Int> {
        buffers.put(early)
        early = []
        return try unsafe open(into: buffer, on: socket)
    }

    /// Opens all that was received. It fits: less is received than `buffer` has room for.
    private func open(into buffer: UnsafeMutableRawBufferPointer, on socket: Int32) throws(SystemError) -> IOResult<Int> {
        defer { buffers.dropInput() }
        let (count, end) =
            switch protection {
            case .openSSL(let ssl): unsafe open(with: ssl, into: buffer)
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
        // Answers of TLS itself, such as to a key update.
        try sendSealed(to: socket)
        return count > 0 || inputHasEnded ? .done(count) : .wouldBlock
    }

    private func open(with records: TLSRecords, into buffer: UnsafeMutableRawBufferPointer) -> (count: Int, end: TLSRecords.End?) {
        let held = records.partial.count
        defer { if held != records.partial.count { buffers.pool?.note(records.partial.count - held) } }
        return unsafe records.open(buffers.input, into: buffer, answeringInto: buffers)
    }

    private func open(with ssl: OpaquePointer, into buffer: UnsafeMutableRawBufferPointer) -> (count: Int, end: TLSRecords.End?) {
        var count = 0
        while true {
            let result = unsafe SSL_read(ssl, buffer.baseAddress.map { unsafe $0 + count }, Int32(buffer.count - count))
            if result > 0 {
                count += Int(result)
                // Asking in vain costs a tenth of a small message.
                if unsafe !buffers.hasInput && SSL_has_pending(ssl) == 0 { return (count, nil) }
                continue
            }
            switch unsafe SSL_get_error(ssl, result) {
            case SSL_ERROR_WANT_READ: return (count, nil)
            case SSL_ERROR_ZERO_RETURN: return (count, .closed)
            default:
                let words = OpenSSL.takeError()
                return (count, words.contains("alert") ? .refused(words) : .broken)
            }
        }
    }

    // MARK: Sending

    /// Seals at most `TLSBuffers.sealedAtOnce` bytes and sends them.
    func write(_ bytes: UnsafeRawBufferPointer, to socket: Int32) throws(SystemError) {
        switch state {
        case .secure, .ended: break
        case .new, .handshaking, .broken, .failed: throw brokenProtocol("SSL_write")
        }
        switch protection {
        case .records(let records, _): unsafe records.seal(bytes, into: buffers)
        case .openSSL(let ssl):
            guard unsafe SSL_write(ssl, bytes.baseAddress, Int32(bytes.count)) == bytes.count else {
                state = .failed
                ERR_clear_error()
                buffers.dropOutput()
                throw brokenProtocol("SSL_write")
            }
        }
        try sendSealed(to: socket)
    }

    /// Seals and sends what is queued until the kernel takes no more.
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

    /// Sends what was sealed; what the kernel does not take is kept.
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

    /// Tells the other side that nothing more comes (close_notify).
    func sendEnd(to socket: Int32) {
        switch state {
        case .secure, .ended: break
        case .new, .handshaking, .broken, .failed: return
        }
        guard !hasSentEnd else { return }
        hasSentEnd = true
        switch protection {
        case .records(let records, _): records.seal(.closeNotify, into: buffers)
        case .openSSL(let ssl): if unsafe SSL_shutdown(ssl) < 0 { ERR_clear_error() }
        }
        try? sendSealed(to: socket)
    }

    func dropOutput() {
        sealed.removeAll()
        sealedBytes = 0
    }

    private func brokenProtocol(_ call: StaticString) -> SystemError { SystemError(code: SystemError.brokenProtocol, call: call) }
}
