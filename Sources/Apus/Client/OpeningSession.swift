import ApusCodec
import ApusPlatform
import ApusTransport

/// The phase of a client's connection up to the response: proxy tunnel, TLS, request, head of the
/// response.
final class OpeningSession: Session {
    private enum Stage {
        case socks(SOCKSHandshake)
        case tunnel(HTTPResponseDecoder)
        case tls
        case answer(HTTPResponseDecoder)
        case over
    }

    private unowned let stream: ByteStream
    private let attempt: ClientAttempt
    private var stage = Stage.over
    private var interimAnswers = 0
    /// When the current stage times out.
    private(set) var deadline: MonotonicTime?

    /// Interim responses (1xx) before the final one.
    private static let maxInterimAnswers = 16

    init(_ stream: ByteStream, _ attempt: ClientAttempt) {
        self.stream = stream
        self.attempt = attempt
    }

    private var worker: Worker { stream.worker }
    private var timeouts: ClientOptions.Timeouts { attempt.options.timeouts }

    /// Starts the first stage on the connected socket.
    func begin() {
        do throws(ConnectError) {
            guard let proxy = attempt.proxy else { return try secure([]) }
            expect(within: timeouts.proxy)
            switch proxy.kind {
            case .http:
                stage = .tunnel(HTTPResponseDecoder(limits: worker.requestLimits.head))
                stream.write(try tunnelRequest(proxy))
            case .socks5:
                let handshake = try socksHandshake(proxy)
                stage = .socks(handshake)
                stream.write(handshake.greeting)
            }
        } catch {
            fail(error)
        }
    }

    private func expect(within time: Duration) {
        deadline = stream.time(after: time)
        stream.deadlineChanged()
    }

    func deadlineReached(at now: MonotonicTime) -> Next {
        // A large request is not timed out while the server reads it.
        if case .answer = stage, stream.hasBufferedOutput, stream.outputHasProgressed() {
            expect(within: timeouts.body)
        } else {
            fail(.timeout(currentStage))
        }
        return .more
    }

    func ended(_ end: StreamEnd) {
        if let refusal = end.refusal { return fail(.tls(refusal)) }
        fail(.closed(currentStage))
    }

    private var currentStage: ConnectError.Stage {
        switch stage {
        case .socks, .tunnel: .proxy
        case .tls: .tls
        case .answer, .over: .answer
        }
    }

    private func fail(_ error: ConnectError) {
        stage = .over
        deadline = nil
        attempt.fail(error)
    }

    /// The dialogue has accepted the response; it changes the connection's phase next.
    func succeeded() { attempt.succeeded() }

    // MARK: Bytes

    func received(_ bytes: ReceiveBuffer, _ position: inout Int, until end: Int) -> Next {
        do throws(ConnectError) {
            while position < end {
                let before = position
                switch stage {
                case .socks(var handshake): try readSOCKS(&handshake, bytes, &position, until: end)
                case .tunnel(var decoder): try readTunnel(&decoder, bytes, &position, until: end)
                case .answer(var decoder): try readAnswer(&decoder, bytes, &position, until: end)
                case .tls, .over: return .more
                }
                if position == before { return .more }
            }
        } catch {
            position = end
            fail(error)
        }
        return .more
    }

    // MARK: Proxy

    /// The CONNECT request for the server (RFC 9110 §9.3.6).
    private func tunnelRequest(_ proxy: Proxy) throws(ConnectError) -> [UInt8] {
        let destination = "\(attempt.address.bracketedHost):\(attempt.address.port)"
        var fields = HTTPFields()
        if let credentials = proxy.credentials { fields.appendChecked("Proxy-Authorization", credentials.fieldValue) }
        var bytes: [UInt8] = []
        do {
            try HTTPEncoder.appendRequestHead(method: .connect, target: destination, host: destination, fields: fields, to: &bytes)
        } catch {
            throw .request("\(error)")
        }
        return bytes
    }

    private func readTunnel(_ decoder: inout HTTPResponseDecoder, _ bytes: ReceiveBuffer, _ position: inout Int, until end: Int)
        throws(ConnectError)
    {
        guard let head = try readHead(&decoder, bytes, &position, until: end) else {
            stage = .tunnel(decoder)
            return
        }
        if head.status.isInformational, head.status != .switchingProtocols {
            stage = .tunnel(decoder)
            return try noteInterim()
        }
        guard head.status.isSuccessful else {
            let hasCredentials = attempt.proxy?.credentials != nil
            let objection = hasCredentials ? ": user and password were refused" : ": a user and a password are required"
            let wanted = head.status.code == 407 ? objection : ""
            throw .proxy("expected a 2xx status, got \(head.status)\(wanted)", head)
        }
        try secure(takeRest(bytes, &position, until: end))
    }

    private func socksHandshake(_ proxy: Proxy) throws(ConnectError) -> SOCKSHandshake {
        let address = attempt.address
        let destination: SOCKSHandshake.Destination = address.numericAddress?.networkBytes.map { .address($0) } ?? .name(address.host)
        do {
            return try SOCKSHandshake(to: destination, port: address.port, credentials: proxy.credentials)
        } catch {
            throw .proxy("\(error)", nil)
        }
    }

    private func readSOCKS(_ handshake: inout SOCKSHandshake, _ bytes: ReceiveBuffer, _ position: inout Int, until end: Int)
        throws(ConnectError)
    {
        var consumed = 0
        do {
            let step = try handshake.receive(bytes.bytes.extracting(position..<end).octets, consumed: &consumed)
            position += consumed
            stage = .socks(handshake)
            switch step {
            case .wait: return
            case .send(let bytes): stream.write(bytes)
            case .open: break
            }
            guard case .open = step else { return }
        } catch {
            throw .proxy("\(error)", nil)
        }
        try secure(takeRest(bytes, &position, until: end))
    }

    // MARK: Request and response

    /// Continues with TLS or the request: the connection reaches the server.
    ///
    /// - Parameter received: bytes already received through the tunnel.
    private func secure(_ received: [UInt8]) throws(ConnectError) {
        guard attempt.address.scheme.isSecure else { return ask() }
        let tls = try attempt.tlsContext()
        stage = .tls
        let session = TLSSession(
            client: tls, host: attempt.options.tls.serverName ?? attempt.address.host, port: attempt.address.port, received: received,
            buffers: worker.tlsBuffers)
        stream.startTLS(session, within: timeouts.tls)
    }

    func secured() { ask() }

    func handshakeFailed(_ error: TLSError?) {
        guard let error else { return fail(.timeout(.tls)) }
        switch error {
        case .untrusted(let reason): fail(.certificate(reason))
        case .protocolError(let reason): fail(.tls(reason))
        case .closed: fail(.closed(.tls))
        case .system(let error): fail(.tls(error.description))
        }
    }

    /// The rest of the receive buffer, for TLS; empty for plain text, which is read in the next
    /// stage.
    private func takeRest(_ bytes: ReceiveBuffer, _ position: inout Int, until end: Int) -> [UInt8] {
        guard attempt.address.scheme.isSecure else { return [] }
        defer { position = end }
        return bytes.bytes.extracting(position..<end).copied
    }

    private func ask() {
        expect(within: timeouts.answer)
        stage = .answer(HTTPResponseDecoder(limits: worker.requestLimits.head))
        stream.write(attempt.dialogue.requestBytes)
    }

    private func readAnswer(_ decoder: inout HTTPResponseDecoder, _ bytes: ReceiveBuffer, _ position: inout Int, until end: Int)
        throws(ConnectError)
    {
        guard let head = try readHead(&decoder, bytes, &position, until: end) else {
            stage = .answer(decoder)
            return
        }
        // RFC 9110 §15.2: interim responses are skipped. 101 ends HTTP on the connection.
        if head.status.isInformational, head.status != .switchingProtocols {
            stage = .answer(decoder)
            return try noteInterim()
        }
        stage = .over
        try attempt.dialogue.take(head, self, on: stream)
    }

    private func noteInterim() throws(ConnectError) {
        interimAnswers += 1
        guard interimAnswers <= Self.maxInterimAnswers else {
            throw .malformedAnswer("more than \(Self.maxInterimAnswers) interim answers")
        }
    }

    private func readHead(
        _ decoder: inout HTTPResponseDecoder, _ bytes: ReceiveBuffer, _ position: inout Int, until end: Int
    ) throws(ConnectError) -> HTTPResponseHead? {
        var consumed = 0
        do {
            let head = try decoder.decode(bytes.bytes.extracting(position..<end).octets, consumed: &consumed)
            position += consumed
            return head
        } catch {
            if case .tunnel = stage { throw .proxy("the response is not HTTP: \(error)", nil) }
            throw .malformedAnswer(error.description)
        }
    }
}
