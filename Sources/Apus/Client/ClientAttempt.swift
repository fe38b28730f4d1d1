import ApusPlatform
import ApusTransport

/// One attempt at one address: resolves the name, connects to one of the addresses and starts an
/// `OpeningSession`, which handles proxy, TLS and request.
final class ClientAttempt {
    private enum State {
        case idle
        /// Lookup and connect overlap: the first addresses are tried while the lookup continues.
        case reaching(Connector, NameLookup?, DeadlineTimer)
        case opening(Connection)
        case over
    }

    let address: ClientAddress
    let proxy: Proxy?
    let options: ClientOptions
    let dialogue: any ClientDialogue
    private unowned let worker: Worker
    private let settings: ConnectorSettings
    private let failed: (ConnectError) -> Void
    private var state = State.idle

    /// - Parameter failed: called at most once, never from inside `start` or `cancel`, and not
    ///   after the dialogue has accepted a response.
    init(
        _ worker: Worker, to address: ClientAddress, through proxy: Proxy?, options: ClientOptions, dialogue: any ClientDialogue,
        failed: @escaping (ConnectError) -> Void
    ) throws(ConnectError) {
        self.worker = worker
        self.address = address
        self.proxy = proxy
        self.options = options
        self.dialogue = dialogue
        self.failed = failed
        settings = try options.connectorSettings()
    }

    func start() {
        let connector = Connector(worker.loop, settings) { [unowned self] outcome in reached(outcome) }
        let host = proxy?.host ?? address.host
        let port = proxy?.port ?? address.port
        if let numeric = proxy.map({ SocketAddress(numericHost: $0.host, port: port) }) ?? address.numericAddress {
            state = .reaching(connector, nil, deadline(.connect, options.timeouts.connect))
            connector.add([numeric])
            connector.complete()
            return
        }
        let lookup = worker.clientRuntime.resolver.resolve(host) { [unowned self] event in resolved(event, host, port) }
        state = .reaching(connector, lookup, deadline(.name, options.timeouts.name))
    }

    private func deadline(_ stage: ConnectError.Stage, _ duration: Duration) -> DeadlineTimer {
        worker.schedule(after: duration) { [unowned self] in fail(.timeout(stage)) }
    }

    private func resolved(_ event: Resolver.Event, _ host: String, _ port: UInt16) {
        guard case .reaching(let connector, let lookup, let timer) = state else { return }
        switch event {
        case .addresses(let addresses):
            timer.cancel()
            state = .reaching(connector, lookup, deadline(.connect, options.timeouts.connect))
            connector.add(addresses.map { $0.withPort(port) })
        case .end(let failure?): fail(.name(host, failure.description + (proxy == nil ? "" : " (it is the proxy's name)")))
        case .end(nil): connector.complete()
        }
    }

    private func reached(_ outcome: consuming Connector.Outcome) {
        switch consume outcome {
        case .failed(let failures):
            let remark = proxy == nil ? "" : " (it is the proxy's address)"
            fail(.connect(failures.map { ($0.address, $0.error.reason + remark) }))
        case .connected(let socket, let address):
            stopReaching()
            let connection = Connection(socket, worker: worker)
            worker.add(connection)
            state = .opening(connection)
            do {
                let session = OpeningSession(connection, self)
                try connection.start(session)
                session.begin()
            } catch {
                fail(.connect([(address, error.reason)]))
            }
        }
    }

    private func stopReaching() {
        guard case .reaching(let connector, let lookup, let timer) = state else { return }
        connector.cancel()
        lookup?.cancel()
        timer.cancel()
    }

    /// The TLS context, shared with other attempts so that sessions are resumed.
    func tlsContext() throws(ConnectError) -> TLSContext { try worker.clientRuntime.tlsContext(for: options.tls) }

    /// The dialogue has accepted the response.
    func succeeded() { state = .over }

    func fail(_ error: ConnectError) {
        guard close() else { return }
        failed(error)
    }

    func cancel() { close() }

    /// Stops the attempt.
    ///
    /// - Returns: whether it was still running.
    @discardableResult
    private func close() -> Bool {
        switch state {
        case .over: return false
        case .idle: break
        case .reaching: stopReaching()
        case .opening(let connection):
            state = .over
            connection.close()
        }
        state = .over
        return true
    }
}
