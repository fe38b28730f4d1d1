import ApusCodec
import ApusPlatform
import ApusTransport

/// What a context needs to be a client: nothing of it exists before the first connect, and no descriptor of it while nothing is resolved.
final class ClientSide {
    let resolver: Resolver
    var proxy = ProxyChoice.environment
    /// All that has been asked for and has not come to its end.
    private var tasks: [ObjectIdentifier: ClientTask] = [:]

    /// A TLS context and what it was made from.
    typealias Prepared = (key: ClientTLS.SharingKey, context: TLSContext)

    /// - Parameter prepared: those that `Server.clientTLS` names.
    init(_ loop: EventLoop, _ prepared: [Prepared]) {
        resolver = Resolver(loop)
        self.prepared = prepared
    }

    private let prepared: [Prepared]
    /// The oldest first.
    private var tlsContexts: [Prepared] = []

    /// Certificates, keys and roots are read once; a few configurations are kept.
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
            throw .tls(error.description)
        }
        if let key {
            if tlsContexts.count == Self.maxTLSContexts { tlsContexts.removeFirst() }
            tlsContexts.append((key, made))
        }
        return made
    }

    func keep(_ task: ClientTask) { tasks[ObjectIdentifier(task)] = task }
    func release(_ task: ClientTask) { tasks[ObjectIdentifier(task)] = nil }

    /// The context stops or drains: nothing new is opened.
    func end() { for task in Array(tasks.values) { task.contextEnds() } }
}

extension Context {
    /// The proxy of clients whose options name none. By default what the environment says.
    public var proxy: ProxyChoice {
        get { clientSide.proxy }
        set { clientSide.proxy = newValue }
    }

    /// Sets the proxy of clients from text, `[USER:PASSWORD@]HOST:PORT` or a URL (libwebsockets' `lws_set_proxy`).
    ///
    /// - Throws: `ConnectError.address`; nothing is changed.
    public func setProxy(_ text: String) throws(ConnectError) { proxy = .through(try Proxy(parsing: text)) }
}

/// What a client wants of a connection once it is made: it writes the request and takes the answer.
protocol ClientDialogue: AnyObject {
    /// What to send when the way to the server is open.
    var requestBytes: [UInt8] { get }

    /// Takes the head of the final answer, and gives the connection its next phase.
    func take(_ head: HTTPResponseHead, on connection: Connection) throws(ConnectError)
}

/// Something a client asked for: attempts, redirections and pauses, up to the one terminal event.
final class ClientTask {
    private enum State {
        /// In the next turn `attempt` begins, or `failure` is told.
        case waiting(ConnectError?)
        case attempting(ClientAttempt)
        /// The dialogue has its answer.
        case answered
        case over
    }

    private weak var context: Context?
    private let options: ClientOptions
    /// Where the first attempt leads; nil if that cannot be told, which is the failure.
    private let origin: Result<ClientAddress, ConnectError>
    private var backoff: Backoff?
    private var redirects = 0
    private var state = State.waiting(nil)
    private let timer = Timer()
    /// Makes the dialogue of an attempt at an address, and is told whether that has another origin than the first. Nil when all is over:
    /// what it refers to refers to this task.
    private var makeDialogue: MakeDialogue?
    private var failed: ((ConnectError) -> Void)?

    typealias MakeDialogue = (_ address: ClientAddress, _ isElsewhere: Bool) throws(ConnectError) -> any ClientDialogue

    init(
        _ context: Context, to origin: Result<ClientAddress, ConnectError>, options: ClientOptions,
        makeDialogue: @escaping MakeDialogue, failed: @escaping (ConnectError) -> Void
    ) {
        self.context = context
        self.origin = origin
        self.options = options
        self.makeDialogue = makeDialogue
        self.failed = failed
        backoff = options.reconnect.map(Backoff.init)
        timer.task = self
    }

    /// Begins, in this turn; whatever comes of it is told in a later one.
    func start() {
        guard let context else { return }
        context.clientSide.keep(self)
        if context.isDraining { return fail(.contextEnding) }
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
        guard let context, let makeDialogue else { return }
        do {
            let isElsewhere: Bool
            if case .success(let origin) = origin { isElsewhere = !origin.hasSameOrigin(as: address) } else { isElsewhere = false }
            let dialogue = try makeDialogue(address, isElsewhere)
            var options = options
            // Who this is, is for the server that was named, not for whom it leads to.
            if isElsewhere { options.tls.identity = nil }
            let attempt = try ClientAttempt(
                context, to: address, through: try (options.proxy ?? context.proxy).proxy(to: address), options: options, dialogue: dialogue
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
        if Backoff.isWorthwhile(error), let context {
            let retryAfter = Backoff.retryAfter(error.response, now: WallClock.seconds())
            if pause(after: .failed(retryAfter: retryAfter), error, context) { return }
        } else if case .closed = error, context?.isDraining == true {
            error = .contextEnding
        }
        finish(error)
    }

    /// Where an answer leads.
    private func follow(_ head: HTTPResponseHead, from address: ClientAddress) throws(ConnectError) -> ClientAddress {
        redirects += 1
        guard redirects <= options.maxRedirects else {
            throw .redirect("more than \(options.maxRedirects) redirections, the limit", head)
        }
        guard let location = head.fields["location"] else { throw .redirect("it does not say where to", head) }
        let next: ClientAddress
        do {
            next = try address.resolving(location)
        } catch {
            throw .redirect("\(error)", head)
        }
        guard next.scheme.isSecure || !address.scheme.isSecure else { throw .redirect("from TLS to plain is not followed", head) }
        return next
    }

    // MARK: Again

    /// Waits and tries again, if the policy says so.
    private func pause(after cause: Backoff.Cause, _ error: ConnectError?, _ context: Context) -> Bool {
        guard var backoff, !context.isDraining else { return false }
        let pause = backoff.pause(after: cause, random: .random(in: 0...1))
        self.backoff = backoff
        guard let pause else { return false }
        state = .waiting(nil)
        context.loop.schedule(timer, after: pause)
        options.whenRetrying?(error, pause)
        return true
    }

    /// The dialogue has its answer. What it opened may end and be opened again.
    func succeeded() {
        state = .answered
        if backoff == nil { over() }
    }

    /// What was open has ended. Gives whether it will be opened again.
    ///
    /// - Parameter code: the peer's; nil if it was this side's doing.
    @discardableResult
    func ended(_ code: CloseCode?, wasOpenFor time: Duration) -> Bool {
        guard case .answered = state else { return false }
        if let code, Backoff.isWorthwhile(code), let context, pause(after: .closed(code, wasOpenFor: time), nil, context) { return true }
        over()
        return false
    }

    // MARK: The end

    /// Whether it has come to its end.
    var isOver: Bool {
        if case .over = state { true } else { false }
    }

    func cancel() { stop(.cancelled) }
    func contextEnds() { stop(.contextEnding) }

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

    /// Tells a failure in the next turn, so that whoever caused it has returned.
    private func fail(_ error: ConnectError) {
        guard let context else { return }
        state = .waiting(error)
        context.loop.schedule(timer, at: context.loop.now)
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
        guard let context else { return }
        context.loop.cancel(timer)
        context.clientSide.release(self)
    }

    private func timerFired() {
        switch state {
        case .waiting(nil): begin()
        case .waiting(let error?): finish(error)
        case .attempting, .answered, .over: break
        }
    }

    private final class Timer: TimerNode {
        weak var task: ClientTask?
        override func timerFired(at now: MonotonicTime) { task?.timerFired() }
    }
}

extension ConnectError {
    /// The head of an answer that leads elsewhere.
    fileprivate var redirectHead: HTTPResponseHead? {
        switch self {
        case .handshake(.status, let head), .redirect(_, let head): head.status.leadsElsewhere ? head : nil
        case .address, .request, .name, .connect, .proxy, .tls, .certificate, .closed, .timeout, .malformedAnswer, .handshake, .extensions,
            .refused,
            .body, .cancelled, .contextEnding:
            nil
        }
    }
}

extension HTTPStatus {
    /// 301, 302, 303, 307 and 308: `Location` says where the same thing is to be had.
    var leadsElsewhere: Bool {
        switch code {
        case 301, 302, 303, 307, 308: true
        default: false
        }
    }
}
