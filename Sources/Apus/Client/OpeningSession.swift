import ApusCodec
import ApusPlatform
import ApusTransport

/// The phase of a client's connection before the answer to its request: the tunnel of a proxy, the request, the answer's head.
final class OpeningSession {
    private enum Stage {
        case socks(SOCKSHandshake)
        case tunnel(HTTPResponseDecoder)
        case tls
        case answer(HTTPResponseDecoder)
        case over
    }

    private unowned let connection: Connection
    private let attempt: ClientAttempt
    private var stage = Stage.over
    private var interimAnswers = 0

    /// Interim answers (1xx) before the final one.
    private static let maxInterimAnswers = 16

    init(_ connection: Connection, _ attempt: ClientAttempt) {
        self.connection = connection
        self.attempt = attempt
    }

    private var context: Context { connection.context }
    private var timeouts: ClientOptions.Timeouts { attempt.options.timeouts }

    /// The socket is connected.
    func begin() {
        do throws(ConnectError) {
            guard let proxy = attempt.proxy else { return try secure([]) }
            context.loop.schedule(connection, after: timeouts.proxy)
            switch proxy.kind {
            case .http:
                stage = .tunnel(HTTPResponseDecoder(limits: context.limits.head))
                connection.write(try tunnelRequest(proxy))
            case .socks5:
                let handshake = try socksHandshake(proxy)
                stage = .socks(handshake)
                connection.write(handshake.greeting)
            }
        } catch {
            fail(error)
        }
    }

    /// The deadline of the current stage has passed.
    func deadlinePassed() {
        // A large request has time as long as the server takes something of it.
        if case .answer = stage, connection.hasBufferedOutput, connection.outputHasProgressed() {
            return context.loop.schedule(connection, after: timeouts.body)
        }
        fail(.timeout(currentStage))
    }

    /// The peer has gone, or the kernel gave the socket up.
    func connectionLost() {
        if let refusal = connection.transport.refusal { return fail(.tls(refusal)) }
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
        attempt.fail(error)
    }

    /// The dialogue has taken the answer: the connection is about to enter its next phase.
    func succeeded() { attempt.succeeded() }

    // MARK: Bytes

    /// Reads from the context's receive buffer. What is behind the proxy's answer belongs to the next stage.
    func process(_ position: inout Int, until end: Int) {
        do throws(ConnectError) {
            while position < end {
                let before = position
                switch stage {
                case .socks(var handshake): try readSOCKS(&handshake, &position, until: end)
                case .tunnel(var decoder): try readTunnel(&decoder, &position, until: end)
                case .answer(var decoder): try readAnswer(&decoder, &position, until: end)
                case .tls, .over: return
                }
                if position == before { return }
            }
        } catch {
            position = end
            fail(error)
        }
    }

    // MARK: Proxy

    /// CONNECT to the server (RFC 9110 §9.3.6).
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

    private func readTunnel(_ decoder: inout HTTPResponseDecoder, _ position: inout Int, until end: Int) throws(ConnectError) {
        guard let head = try readHead(&decoder, &position, until: end) else {
            stage = .tunnel(decoder)
            return
        }
        if head.status.isInformational, head.status != .switchingProtocols {
            stage = .tunnel(decoder)
            return try noteInterim()
        }
        guard head.status.isSuccessful else {
            let hasCredentials = attempt.proxy?.credentials != nil
            let objection = hasCredentials ? ": it does not take the user and password it was given" : ", which wants a user and a password"
            let wanted = head.status.code == 407 ? objection : ""
            throw .proxy("it answered \(head.status)\(wanted)", head)
        }
        try secure(takeRest(&position, until: end))
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

    private func readSOCKS(_ handshake: inout SOCKSHandshake, _ position: inout Int, until end: Int) throws(ConnectError) {
        let buffer = context.receiveBuffer
        var consumed = 0
        do {
            let step = try handshake.receive(buffer.bytes.extracting(position..<end).octets, consumed: &consumed)
            position += consumed
            stage = .socks(handshake)
            switch step {
            case .wait: return
            case .send(let bytes): connection.write(bytes)
            case .open: break
            }
            guard case .open = step else { return }
        } catch {
            throw .proxy("\(error)", nil)
        }
        try secure(takeRest(&position, until: end))
    }

    // MARK: Request and answer

    /// The way to the server is open: the next stage.
    ///
    /// - Parameter received: what came through the tunnel already.
    private func secure(_ received: [UInt8]) throws(ConnectError) {
        guard attempt.address.scheme.isSecure else { return ask() }
        let tls = try attempt.tlsContext()
        stage = .tls
        let session = TLSSession(
            client: tls, host: attempt.options.tls.serverName ?? attempt.address.host, port: attempt.address.port, received: received,
            buffers: context.tlsBuffers)
        connection.secure(with: session, for: .opening(self), within: timeouts.tls)
    }

    /// The TLS handshake is done.
    func secured() { ask() }

    /// The TLS handshake failed.
    func notSecured(_ error: TLSError) {
        switch error {
        case .untrusted(let reason): fail(.certificate(reason))
        case .protocolError(let reason): fail(.tls(reason))
        case .closed: fail(.closed(.tls))
        case .system(let error): fail(.tls(error.description))
        }
    }

    /// What is left of the receive buffer, for TLS; for plain it is read in the next stage.
    private func takeRest(_ position: inout Int, until end: Int) -> [UInt8] {
        guard attempt.address.scheme.isSecure else { return [] }
        defer { position = end }
        let buffer = context.receiveBuffer
        return buffer.bytes.extracting(position..<end).copied
    }

    private func ask() {
        context.loop.schedule(connection, after: timeouts.answer)
        stage = .answer(HTTPResponseDecoder(limits: context.limits.head))
        connection.write(attempt.dialogue.requestBytes)
    }

    private func readAnswer(_ decoder: inout HTTPResponseDecoder, _ position: inout Int, until end: Int) throws(ConnectError) {
        guard let head = try readHead(&decoder, &position, until: end) else {
            stage = .answer(decoder)
            return
        }
        // RFC 9110 §15.2: interim answers are skipped; 101 is the end of HTTP.
        if head.status.isInformational, head.status != .switchingProtocols {
            stage = .answer(decoder)
            return try noteInterim()
        }
        stage = .over
        try attempt.dialogue.take(head, on: connection)
    }

    private func noteInterim() throws(ConnectError) {
        interimAnswers += 1
        guard interimAnswers <= Self.maxInterimAnswers else {
            throw .malformedAnswer("more than \(Self.maxInterimAnswers) interim answers")
        }
    }

    private func readHead(
        _ decoder: inout HTTPResponseDecoder, _ position: inout Int, until end: Int
    ) throws(ConnectError) -> HTTPResponseHead? {
        let buffer = context.receiveBuffer
        var consumed = 0
        do {
            let head = try decoder.decode(buffer.bytes.extracting(position..<end).octets, consumed: &consumed)
            position += consumed
            return head
        } catch {
            if case .tunnel = stage { throw .proxy("its answer is not HTTP: \(error)", nil) }
            throw .malformedAnswer(error.description)
        }
    }
}
