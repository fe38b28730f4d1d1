import ApusCodec
import ApusPlatform
import ApusTransport

/// A worker's client state. It is created at the first connect, and has descriptors only while a
/// name is being resolved.
final class ClientRuntime {
    let resolver: Resolver
    var proxy = ProxyChoice.environment
    /// Tasks that have not ended.
    private var tasks: [ObjectIdentifier: ClientTask] = [:]

    /// A TLS context and the options that it was made from.
    typealias Prepared = (key: ClientTLS.SharingKey, context: TLSContext)

    /// - Parameter prepared: the contexts of `Server.clientTLS`.
    init(_ loop: EventLoop, _ prepared: [Prepared]) {
        resolver = Resolver(loop)
        self.prepared = prepared
    }

    private let prepared: [Prepared]
    /// The oldest first.
    private var tlsContexts: [Prepared] = []

    /// Certificates, keys and roots are read once per configuration; the oldest context is evicted.
    private static let maxTLSContexts = 16

    func tlsContext(for options: ClientTLS) throws(ConnectError) -> TLSContext {
        let key = options.sharingKey
        if let key, let kept = prepared.first(where: { $0.key == key }) ?? tlsContexts.first(where: { $0.key == key }) {
            return kept.context
        }
        let made: TLSContext
        do {
            made = try TLSContext(options)
        } catch {
            throw .tls(error.description + (error.isUnreadable ? ConnectError.unreadableFiles : ""))
        }
        if let key {
            if tlsContexts.count == Self.maxTLSContexts { tlsContexts.removeFirst() }
            tlsContexts.append((key, made))
        }
        return made
    }

    func keep(_ task: ClientTask) { tasks[ObjectIdentifier(task)] = task }
    func release(_ task: ClientTask) { tasks[ObjectIdentifier(task)] = nil }

    /// Ends all tasks: the worker stops or drains.
    func end() { for task in Array(tasks.values) { task.contextEnds() } }
}

/// The application protocol of a client's connection: its request, and how the response is used.
protocol ClientDialogue: AnyObject {
    /// The bytes to send once the server is reached.
    var requestBytes: [UInt8] { get }

    /// Accepts the head of the final response and puts the connection into its next phase.
    ///
    /// - Throws: `ConnectError`; the attempt then fails.
    func take(_ head: HTTPResponseHead, _ opening: OpeningSession, on stream: ByteStream) throws(ConnectError)
}

/// One connect or request: attempts, redirects and pauses, up to the one terminal event.
final class ClientTask {
    private enum State {
        /// The timer starts an attempt, or reports the failure.
        case waiting(ConnectError?)
        case attempting(ClientAttempt)
        /// The dialogue has accepted a response.
        case answered
        case over
    }

    private weak var worker: Worker?
    private let options: ClientOptions
    /// The address of the first attempt, or why it is invalid.
    private let origin: Result<ClientAddress, ConnectError>
    private var backoff: Backoff?
    private var redirects = 0
    private var state = State.waiting(nil)
    private let timer = ClosureTimer()
    /// Makes the dialogue of an attempt. Nil once the task has ended, which breaks the reference
    /// cycle.
    private var makeDialogue: MakeDialogue?
    private var failed: ((ConnectError) -> Void)?

    typealias MakeDialogue = (_ address: ClientAddress, _ isCrossOrigin: Bool) throws(ConnectError) -> any ClientDialogue

    init(
        _ worker: Worker, to origin: Result<ClientAddress, ConnectError>, options: ClientOptions,
        makeDialogue: @escaping MakeDialogue, failed: @escaping (ConnectError) -> Void
    ) {
        self.worker = worker
        self.origin = origin
        self.options = options
        self.makeDialogue = makeDialogue
        self.failed = failed
        backoff = options.reconnect.map(Backoff.init)
        timer.body = { [weak self] _, _ in self?.timerFired() }
    }

    /// Starts the first attempt; its outcome is reported in a later turn of the loop.
    func start() {
        guard let worker else { return }
        worker.clientRuntime.keep(self)
        if worker.isDraining { return fail(.workerEnding) }
        begin()
    }

    private func begin() {
        redirects = 0
        switch origin {
        case .success(let address): attempt(address)
        case .failure(let error): fail(error)
        }
    }

    private func attempt(_ address: ClientAddress) {
        guard let worker, let makeDialogue else { return }
        do {
            let isCrossOrigin: Bool
            if case .success(let origin) = origin { isCrossOrigin = !origin.hasSameOrigin(as: address) } else { isCrossOrigin = false }
            let dialogue = try makeDialogue(address, isCrossOrigin)
            var options = options
            // Never present the client certificate to another origin.
            if isCrossOrigin { options.tls.identity = nil }
            let attempt = try ClientAttempt(
                worker, to: address, through: try (options.proxy ?? worker.proxy).proxy(to: address), options: options, dialogue: dialogue
            ) { [unowned self] error in attemptFailed(error) }
            state = .attempting(attempt)
            attempt.start()
        } catch {
            fail(error)
        }
    }

    private func attemptFailed(_ error: ConnectError) {
        guard case .attempting(let attempt) = state else { return }
        var error = error
        if options.maxRedirects > 0, let head = error.redirectHead {
            do throws(ConnectError) {
                return self.attempt(try follow(head, from: attempt.address))
            } catch {
                return finish(error)
            }
        }
        if Backoff.isWorthwhile(error), let worker {
            let retryAfter = Backoff.retryAfter(error.response, now: WallClock.seconds())
            if pause(after: .failed(retryAfter: retryAfter), error, worker) { return }
        } else if case .closed = error, worker?.isDraining == true {
            error = .workerEnding
        }
        finish(error)
    }

    /// The address of the next attempt after a redirect.
    ///
    /// - Throws: `ConnectError.redirect` if it is not followed.
    private func follow(_ head: HTTPResponseHead, from address: ClientAddress) throws(ConnectError) -> ClientAddress {
        redirects += 1
        guard redirects <= options.maxRedirects else {
            throw .redirect("more redirects than the limit of \(options.maxRedirects)", head)
        }
        guard let location = head.fields["location"] else { throw .redirect("expected a Location field, got none", head) }
        let next: ClientAddress
        do {
            next = try address.resolving(location)
        } catch {
            throw .redirect("\(error)", head)
        }
        guard next.scheme.isSecure || !address.scheme.isSecure else { throw .redirect("not followed from TLS to plain text", head) }
        return next
    }

    // MARK: Reconnect

    /// Schedules another attempt if the policy allows one.
    ///
    /// - Returns: whether it does.
    private func pause(after cause: Backoff.Cause, _ error: ConnectError?, _ worker: Worker) -> Bool {
        guard var backoff, !worker.isDraining else { return false }
        let pause = backoff.pause(after: cause, random: .random(in: 0...1))
        self.backoff = backoff
        guard let pause else { return false }
        state = .waiting(nil)
        worker.loop.schedule(timer, after: pause)
        options.onRetry?(error, pause)
        return true
    }

    /// The dialogue has accepted a response. With a reconnect policy the task continues until the
    /// connection ends.
    func succeeded() {
        state = .answered
        if backoff == nil { over() }
    }

    /// An open connection has ended.
    ///
    /// - Parameter code: the peer's close code; nil if this side closed the connection.
    /// - Returns: whether it will be opened again.
    @discardableResult
    func ended(_ code: CloseCode?, wasOpenFor time: Duration) -> Bool {
        guard case .answered = state else { return false }
        if let code, Backoff.isWorthwhile(code), let worker, pause(after: .closed(code, wasOpenFor: time), nil, worker) { return true }
        over()
        return false
    }

    // MARK: The end

    var isOver: Bool {
        if case .over = state { true } else { false }
    }

    func cancel() { stop(.cancelled) }
    func contextEnds() { stop(.workerEnding) }

    private func stop(_ error: ConnectError) {
        switch state {
        case .waiting(nil): fail(error)
        case .attempting(let attempt):
            attempt.cancel()
            fail(error)
        case .answered: over()
        case .waiting, .over: break
        }
    }

    /// Reports a failure in the next turn, after the caller has returned.
    private func fail(_ error: ConnectError) {
        guard let worker else { return }
        state = .waiting(error)
        worker.loop.schedule(timer, at: worker.loop.now)
    }

    private func finish(_ error: ConnectError) {
        let failed = failed
        over()
        failed?(error)
    }

    private func over() {
        state = .over
        makeDialogue = nil
        failed = nil
        guard let worker else { return }
        worker.loop.cancel(timer)
        worker.clientRuntime.release(self)
    }

    private func timerFired() {
        switch state {
        case .waiting(nil): begin()
        case .waiting(let error?): finish(error)
        case .attempting, .answered, .over: break
        }
    }
}

extension ConnectError {
    /// The head of a redirect that was not followed.
    fileprivate var redirectHead: HTTPResponseHead? {
        switch self {
        case .handshake(.status, let head), .redirect(_, let head): head.status.leadsElsewhere ? head : nil
        case .address, .request, .name, .connect, .proxy, .tls, .certificate, .closed, .timeout, .malformedAnswer, .handshake, .extensions,
            .refused,
            .body, .cancelled, .workerEnding:
            nil
        }
    }
}

extension HTTPStatus {
    /// 301, 302, 303, 307 and 308: redirects to `Location`.
    var leadsElsewhere: Bool {
        switch code {
        case 301, 302, 303, 307, 308: true
        default: false
        }
    }
}
