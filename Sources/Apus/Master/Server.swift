import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport
public import Logging

/// A server's description: what to serve, where, and within which limits. `run()` serves it in
/// several supervised processes, `Worker` in this one.
public struct Server {
    /// How many worker processes `run()` forks: 1 to 1024.
    public enum Workers: Sendable, Hashable {
        /// One per CPU that this process may use.
        case auto
        case count(Int)
    }

    public var workers = Workers.auto
    public var limits = Limits()
    /// The origins that may open WebSockets.
    public var origins = OriginPolicy.sameOrigin
    /// By default the handler of `LoggingSystem.bootstrap`, else `StandardErrorLogHandler`.
    public var logger = Server.defaultLogger
    /// WebSocket extensions to negotiate, such as `PerMessageDeflate()`. Off by default:
    /// compression costs memory and time, and leaks secrets that are compressed with
    /// attacker-chosen text (CRIME).
    public var extensions: [any WebSocketExtension] = []
    /// Called for each extension that a client offers; false declines it (libwebsockets'
    /// `LWS_CALLBACK_CONFIRM_EXTENSION_OKAY`).
    public var allowsExtension: ((any WebSocketExtension, HTTPRequest) -> Bool)?
    /// Responds to a handshake with the client's whole list of subprotocols instead of the chosen
    /// one, as libwebsockets 1.6 did and its clients require. Violates RFC 6455 §4.2.2.
    public var echoesSubprotocolList = false
    /// Whether an address is refused for a minute if it was being served when three workers crashed
    /// within a minute. Behind a proxy all clients share one address. Such addresses and routes are
    /// logged in any case.
    public var quarantine = false
    /// The TLS options of client connections, as in `ClientOptions.tls`. Their files are read when
    /// the server starts, because a sandboxed worker cannot open them.
    public var clientTLS: [ClientTLS] = []
    /// The directory of the files that handlers respond with by `Response.file`; opened when the
    /// server starts.
    public var fileDirectory: String?
    /// The restrictions of the workers.
    public var sandbox = SandboxOptions()
    /// The file for the master's process number. A second server with the same file does not start.
    public var pidFile: String?
    /// The file of `logger`, if it writes to a `LogFile`: workers send their lines to the master.
    public var logFile: LogFile?
    /// How often the master checks the files of certificates and keys for changes. New handshakes
    /// use the new certificates, connections stay open. Nil: never; then a reload is needed.
    public var certificateCheckInterval: Duration? = .seconds(10)
    /// Called in the master on SIGHUP; returns the description of the next generation of workers,
    /// which replaces the present one once all are ready. An error that it throws is logged and
    /// changes nothing. Nil: the same description, its directories opened again. Pid file, port
    /// file and log stay as they are; `LogFile.prepareMove` moves the log.
    public var reload: (() throws -> Server)?
    /// The file for one line `ADDRESS:PORT` per listener, with the actual ports, written once all
    /// workers accept.
    public var portFile: String?
    /// Called in the master once all workers accept, with the addresses, including the actual
    /// ports, and the number of workers.
    public var onReady: (([SocketAddress], Int) -> Void)?
    /// Called once in the master, before it forks workers of this description; each gets a copy of
    /// what it sets up. The handle sends to all workers, also from processes that this function
    /// forks; the master's signals are blocked in them until they unblock them.
    ///
    /// A `Task` does not run in the master, and Dispatch must not be used there. Do
    /// not rely on a thread: workers are forked while it runs, and a lock that it holds at that
    /// moment stays locked in them.
    public var onStart: ((ServerRemote) -> Void)?
    /// Called in each worker, also in a `Worker` of your own, before it accepts (libwebsockets'
    /// `LWS_CALLBACK_PROTOCOL_INIT`).
    public var onWorkerStart: ((Worker) -> Void)?
    /// Called in each worker, also in a `Worker` of your own, after its connections have ended,
    /// unless it was killed (`LWS_CALLBACK_PROTOCOL_DESTROY`). Worker states end after it.
    public var onWorkerStop: ((Worker) -> Void)?
    /// Adds the place in the configuration file to an error.
    package var located: ((ConfigurationError) -> any Error)?

    private(set) var addresses: [(address: ListenAddress, tls: ServerTLS?)] = []
    private var routes = Routes()
    /// By number.
    private(set) var protocolNames: [String] = []
    private var directories: [(prefix: String, directory: String, options: FileOptions)] = []
    /// Invalid routes, with the reasons.
    private var routeFaults: [String] = []
    var workerStates: [WorkerStateRecipe] = []

    /// The proxies in front of the server: see `HTTPRequest.client`. Nil: there are none.
    public var trustedProxies: TrustedProxies?

    public init() {}

    /// The TLS of sockets that a service manager has passed, if `listen(on:)` was not called.
    public var passedTLS: ServerTLS?

    /// Whether a service manager has passed listening sockets: then `listen(on:)` is not required.
    public static var isSocketActivated: Bool { Activation.isPassed }

    /// Adds an address to listen on.
    ///
    /// - Parameter tls: nil: plain text. Certificates and keys are read when the server starts,
    ///   before it forks.
    public mutating func listen(on address: ListenAddress, tls: ServerTLS? = nil) { addresses.append((address, tls)) }

    /// Offers a WebSocket subprotocol at a path.
    ///
    /// A client gets the first subprotocol in its list that the path offers, without a list the
    /// first of the path. A list without an offered subprotocol is answered with 400.
    ///
    /// - Parameter makeHandler: called for each opening handshake; throws `Rejection` to refuse it.
    @discardableResult
    public mutating func webSocket(
        _ name: String, at path: String, makeHandler: @escaping (HTTPRequest) throws -> any WebSocketHandler
    ) -> WebSocketProtocol {
        let offered = WebSocketProtocol(name: name, path: path, id: .init(index: protocolNames.count), makeHandler: makeHandler)
        protocolNames.append("\(path) \(name)")
        if protocolNames.count > InterestTable.maxProtocols {
            note("expected at most \(InterestTable.maxProtocols) protocols, got \(protocolNames.count)", of: "webSocket \(name)", at: path)
        } else if let fault = routes.add(offered) {
            note(fault, of: "webSocket \(name)", at: path)
        }
        return offered
    }

    /// Handles requests with a method at a path, with the response that a function returns.
    ///
    /// A path may have parameters, `/items/:id`, each for one segment, and end in `/*`, which
    /// matches the rest; see `HTTPRequest.parameters`. A literal segment is tried before a
    /// parameter, and that before `*`. A GET route also serves HEAD, and every route OPTIONS; other
    /// methods are answered with 405. An invalid or conflicting path is a `ConfigurationError` of
    /// `run()`.
    ///
    /// - Parameters:
    ///   - maxBodyBytes: the most bytes of a request's body, more are answered with 413; nil:
    ///     `Limits.maxRequestBodyBytes`.
    ///   - respond: called when the request is complete. A `Rejection` that it throws is answered
    ///     with its status, any other error with 500 and logged.
    public mutating func route(
        _ method: HTTPMethod, _ path: String, maxBodyBytes: Int? = nil, _ respond: @escaping (HTTPRequest) throws -> Response
    ) {
        add(method, path, maxBodyBytes: maxBodyBytes, .response(respond))
    }

    /// Handles requests with a method at a path whose bodies are received in pieces, such as
    /// uploads.
    ///
    /// - Parameter makeHandler: called for each request once its head is complete; throws
    ///   `Rejection` to refuse it. A client that waits for `100 Continue` gets it after this call.
    public mutating func route(
        _ method: HTTPMethod, _ path: String, body: StreamedBody, _ makeHandler: @escaping (HTTPRequest) throws -> any HTTPHandler
    ) {
        add(method, path, maxBodyBytes: body.maxBytes, .handler(makeHandler))
    }

    /// Handles GET and HEAD; see `route`.
    public mutating func get(_ path: String, _ respond: @escaping (HTTPRequest) throws -> Response) { route(.get, path, respond) }

    /// Handles POST; see `route`.
    public mutating func post(_ path: String, maxBodyBytes: Int? = nil, _ respond: @escaping (HTTPRequest) throws -> Response) {
        route(.post, path, maxBodyBytes: maxBodyBytes, respond)
    }

    /// Handles POST with a body in pieces; see `route`.
    public mutating func post(_ path: String, body: StreamedBody, _ makeHandler: @escaping (HTTPRequest) throws -> any HTTPHandler) {
        route(.post, path, body: body, makeHandler)
    }

    /// Handles PUT; see `route`.
    public mutating func put(_ path: String, maxBodyBytes: Int? = nil, _ respond: @escaping (HTTPRequest) throws -> Response) {
        route(.put, path, maxBodyBytes: maxBodyBytes, respond)
    }

    /// Handles PUT with a body in pieces; see `route`.
    public mutating func put(_ path: String, body: StreamedBody, _ makeHandler: @escaping (HTTPRequest) throws -> any HTTPHandler) {
        route(.put, path, body: body, makeHandler)
    }

    /// Handles PATCH; see `route`.
    public mutating func patch(_ path: String, maxBodyBytes: Int? = nil, _ respond: @escaping (HTTPRequest) throws -> Response) {
        route(.patch, path, maxBodyBytes: maxBodyBytes, respond)
    }

    /// Handles DELETE; see `route`.
    public mutating func delete(_ path: String, _ respond: @escaping (HTTPRequest) throws -> Response) { route(.delete, path, respond) }

    /// Handles requests with a method at a path, with a response at once or later.
    ///
    /// - Parameter handler: called when the request is complete; responds at once or within
    ///   `Limits.answerTimeout`. For errors that it throws see `route`.
    public mutating func http(_ method: HTTPMethod, at path: String, handler: @escaping (HTTPExchange) throws -> Void) {
        add(method, path, maxBodyBytes: nil, .exchange(handler))
    }

    private mutating func add(_ method: HTTPMethod, _ path: String, maxBodyBytes: Int?, _ action: Route.Action) {
        if let fault = routes.add(method, path, maxBodyBytes: maxBodyBytes, action) { note(fault, of: "http \(method)", at: path) }
    }

    /// Handles the requests that no route and no file matches, instead of a page with 404.
    public mutating func fallback(_ respond: @escaping (HTTPRequest) throws -> Response) {
        if let fault = routes.setFallback(respond) { note(fault, of: "fallback", at: "*") }
    }

    /// Calls a function for each request and each opening handshake once its head is complete,
    /// before its body is read: filters run in the order in which they were added (libwebsockets'
    /// `LWS_CALLBACK_FILTER_HTTP_CONNECTION`).
    ///
    /// - Parameter filter: returns nil to go on, or the response; throws `Rejection` to refuse.
    public mutating func filter(_ filter: @escaping (HTTPRequest) throws -> Response?) { routes.filters.append(filter) }

    /// Calls a function for each response before its head is sent, also for files and error pages,
    /// but not for requests that cannot be parsed: to add fields, for example. Functions run in the
    /// order in which they were added.
    public mutating func amend(_ amendment: @escaping (HTTPRequest, inout Response) -> Void) { routes.amendments.append(amendment) }

    /// Adds a filter and an amendment that belong together, such as `CrossOriginPolicy`,
    /// `SecurityHeaders`, `BasicAuthentication` and `ClientNetworks`.
    public mutating func use(_ middleware: some Middleware) {
        if let fault = middleware.fault { routeFaults.append("\(type(of: middleware)): \(fault)") }
        filter(middleware.filter)
        amend(middleware.amend)
    }

    /// Serves the files of a directory below a path, with `index.html` for directories.
    ///
    /// - Parameters:
    ///   - dotFiles: whether files and directories whose names begin with a dot are served.
    ///   - cacheControl: the value of `Cache-Control`, such as `max-age=3600`; nil: no field.
    ///   - isPrecompressed: whether `page.html.br`, `.zst` or `.gz` is sent instead of `page.html`
    ///     to a client that prefers it.
    public mutating func files(
        at prefix: String, in directory: String, dotFiles: DotFiles = .refused, cacheControl: String? = nil,
        isPrecompressed: Bool = false
    ) {
        if let fault = Routes.objection(to: prefix.hasPrefix("/") ? prefix : "/" + prefix) { note(fault, of: "files", at: prefix) }
        if let cacheControl, let fault = (["Cache-Control": cacheControl] as HTTPFields).literalFault {
            note(fault, of: "files", at: prefix)
        }
        let options = FileOptions(dotFiles: dotFiles, cacheControl: cacheControl, isPrecompressed: isPrecompressed)
        directories.append((prefix, directory, options))
    }

    /// Requests for files and directories whose names begin with a dot, such as `.git/config` and
    /// `.env`.
    public enum DotFiles: Sendable, Hashable {
        /// Not found, except below `/.well-known/` (RFC 8615) of a mount at `/`.
        case refused
        /// Served as other files.
        case served
    }

    private mutating func note(_ fault: String, of route: String, at path: String) {
        routeFaults.append("\(route) at \(path.debugDescription): \(fault)")
    }

    /// Forks the workers and supervises them: crashed workers are restarted, hanging ones replaced.
    /// Returns after SIGTERM, SIGINT or SIGQUIT when all workers have ended, or when a new program
    /// (SIGUSR2) has taken over.
    ///
    /// Signals are nginx's: HUP replaces the workers (see `reload`), USR1 reopens the log, USR2
    /// starts the program again with the listeners, TTIN and TTOU add and retire a worker, WINCH
    /// drains the workers. Sockets from a service manager (LISTEN_FDS) are used for their
    /// addresses; all of them if `listen(on:)` was not called.
    ///
    /// Call it from a process with one thread that has not used Task, Dispatch or a run loop. A
    /// `Task` that the master's functions start (`onStart`, `onReady`, `reload`) does not run,
    /// which is logged.
    ///
    /// - Throws: `ConfigurationError`; then no worker runs.
    public func run() throws(ConfigurationError) {
        try MasterProcess(self).run()
    }

    /// Runs the server and exits: with status 0, or with status 78 (`EX_CONFIG`) and a line on
    /// standard error for each configuration error, or for the error that stopped the server.
    public func runAndExit() -> Never {
        let program = CommandLine.arguments.first.map { $0.split(separator: "/").last ?? "" } ?? ""
        var errors: [any Error] = faults().map(\.error)
        if errors.isEmpty {
            do {
                try run()
                Process.end(0)
            } catch {
                errors = [error]
            }
        }
        for error in errors { StandardStreams.note("\(program): \(error)\n") }
        Process.end(WorkerControl.doNotRestart)
    }

    /// The default handler of swift-log blocks while standard error is full.
    private static var defaultLogger: Logger {
        let logger = Logger(label: "apus")
        return logger.handler is StreamLogHandler ? Logger(label: "apus", factory: StandardErrorLogHandler.init) : logger
    }

    /// Checks addresses, directories, certificates, limits, the sandbox and files, without
    /// listening or writing.
    ///
    /// - Throws: `ConfigurationError` for the first error.
    public func validate() throws(ConfigurationError) {
        if let first = faults().first { throw first.error }
    }

    /// All errors that `validate` finds.
    package func faults() -> [ServerFault] { ServerCheck(server: self).faults() }

    /// Invalid origins.
    var originFaults: [ServerFault] {
        guard case .list(let entries) = origins else { return [] }
        return entries.enumerated().compactMap { index, entry in
            OriginPolicy.problem(with: entry).map { ServerFault(error: .origin(entry, $0), index: index) }
        }
    }

    /// Sets owner, group and mode of the Unix sockets' files.
    ///
    /// - Throws: `ConfigurationError`.
    func setSocketAccess() throws(ConfigurationError) {
        for case (.unix(let path, let access), _) in addresses where access != SocketAccess() {
            try access.apply(to: path, for: .unix(path: path, access: access))
        }
    }

    static let maxWorkers = 1024

    /// The initial number of workers.
    ///
    /// - Throws: `ConfigurationError.workers` if it is out of range.
    var checkedWorkers: Int {
        get throws(ConfigurationError) {
            switch workers {
            case .auto: return min(Process.usableProcessors(), Self.maxWorkers)
            case .count(let count):
                guard (1...Self.maxWorkers).contains(count) else {
                    throw .workers("expected 1 to \(Self.maxWorkers) workers, got \(count)")
                }
                return count
            }
        }
    }

    var configuredRoutes: Routes {
        get throws(ConfigurationError) {
            guard routeFaults.isEmpty else { throw .routes(routeFaults.joined(separator: "; ")) }
            var routes = routes
            for (prefix, directory, options) in directories {
                routes.add(try FileMount(prefix: prefix, directory: directory, options: options))
            }
            if let fileDirectory {
                routes.fileDirectory = try FileMount(prefix: "/", directory: fileDirectory, options: FileOptions(dotFiles: .served))
            }
            routes.proxies = try trustedProxies?.checked
            return routes
        }
    }
}
