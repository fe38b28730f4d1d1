import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
import ApusTransport
public import Logging

/// What to serve, where, and within which limits. `run()` does it in several supervised processes; `Context` in this one.
public struct Server {
    /// How many worker processes `run()` forks: 1 to 1024.
    public enum Workers: Sendable, Hashable {
        /// One per CPU that this process may use.
        case auto
        case count(Int)
    }

    public var workers = Workers.auto
    public var limits = Limits()
    /// Whose pages may open WebSockets.
    public var origins = OriginPolicy.sameOrigin
    /// By default the handler that `LoggingSystem.bootstrap` has set, or else `StandardErrorLogHandler`.
    public var logger = Server.defaultLogger
    /// WebSocket extensions to agree on with clients that offer them, such as `PerMessageDeflate()`. None by default: compression costs memory
    /// and time, and text that an attacker chooses beside a secret leaks the secret's repetitions.
    public var extensions: [any WebSocketExtension] = []
    /// The application's veto, for each extension a client offers (libwebsockets' `LWS_CALLBACK_CONFIRM_EXTENSION_OKAY`).
    public var allowsExtension: ((any WebSocketExtension, HTTPRequest) -> Bool)?
    /// Answers a handshake with the client's whole list of subprotocols instead of the chosen one, as libwebsockets 1.6 did and its
    /// clients insist on. Against RFC 6455 §4.2.2; off by default.
    public var echoesSubprotocolList = false
    /// Whether a peer's address that was being served when three workers died within a minute is turned away for a minute. Behind a proxy all
    /// clients have one address. The log names such an address, and such a route, in any case.
    public var quarantine = false
    /// The TLS of handlers that are clients, as in their `ClientOptions.tls`: certificates, keys and roots in files are read when the server starts,
    /// before it forks. A sandboxed worker could not open them.
    public var clientTLS: [ClientTLS] = []
    /// What workers give up before they serve.
    public var sandbox = SandboxOptions()
    /// Where the master writes its process number while it runs. A second server with the same file does not start.
    public var pidFile: String?
    /// Where `logger` writes, if that is a file: workers hand their lines to the master, which alone writes.
    public var logFile: LogFile?
    /// How often the master looks whether the files of certificates and keys have changed. New ones are given to the workers, if they can be used:
    /// handshakes from then on show them, and connections stay. Nil: never; then they want a reload.
    public var certificateCheckInterval: Duration? = .seconds(10)
    /// Called in the master on SIGHUP: describes the next generation of workers, which replaces the present one when all of it is ready. An
    /// error it throws is logged and changes nothing. Nil: the same description again, its directories opened anew. The pid and port file and
    /// the log stay those of the first description; `LogFile.prepareMove` moves the log with a reload.
    public var reload: (() throws -> Server)?
    /// Where the master writes one line `ADDRESS:PORT` per listener, ports filled in, as soon as all workers accept.
    public var portFile: String?
    /// Called in the master when every worker accepts for the first time, with the addresses, ports filled in, and the number of workers.
    public var whenReady: (([SocketAddress], Int) -> Void)?
    /// Called once in the master, before it forks workers of this description: what it makes, each of them gets a copy of. The handle reaches all
    /// workers from the master, and from processes that this function forks.
    public var whenStarting: ((ServerRemote) -> Void)?
    /// Called in each worker, and by a `Context` of your own, before it accepts (libwebsockets' `LWS_CALLBACK_PROTOCOL_INIT`).
    public var whenWorkerStarts: ((Context) -> Void)?
    /// Called in each worker, and by a `Context` of your own, when its connections have ended, unless it was killed
    /// (`LWS_CALLBACK_PROTOCOL_DESTROY`). Worker states end after it.
    public var whenWorkerStops: ((Context) -> Void)?
    /// Adds to an error where what it is about was set.
    package var located: ((ConfigurationError) -> any Error)?

    private(set) var addresses: [(address: ListenAddress, tls: ServerTLS?)] = []
    private var routes = Routes()
    /// In the order of their numbers.
    private(set) var protocolNames: [String] = []
    private var directories: [(prefix: String, directory: String, dotFiles: DotFiles)] = []
    /// Routes that cannot be served, and why.
    private var routeFaults: [String] = []
    var workerStates: [WorkerStateRecipe] = []

    public init() {}

    /// The TLS of sockets that a service manager has passed, when there is no `listen(on:)`.
    public var passedTLS: ServerTLS?

    /// Whether a service manager has passed listening sockets to this process: then a server may do without `listen(on:)`.
    public static var isSocketActivated: Bool { Activation.isPassed }

    /// Listens on an address, or on several when called again.
    ///
    /// - Parameter tls: speak TLS there. Certificates and keys are read when the server starts, before it forks.
    public mutating func listen(on address: ListenAddress, tls: ServerTLS? = nil) { addresses.append((address, tls)) }

    /// Offers a WebSocket protocol at a path.
    ///
    /// Clients that name the subprotocol get it; clients that name none get the first one of the path; clients that name only others are
    /// answered 400.
    ///
    /// - Parameter makeHandler: called once for each opening handshake; throws `Rejection` to refuse it.
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

    /// Answers requests with a method at a path. A handler of GET answers HEAD as well.
    ///
    /// - Parameter handler: Answers the exchange, at once or within `Limits.answerTimeout`. What it throws is the answer: the status of a
    ///   `Rejection`, 500 and an error in the log for anything else.
    public mutating func http(_ method: HTTPMethod, at path: String, handler: @escaping (HTTPExchange) throws -> Void) {
        if let fault = routes.add(method, path, handler) { note(fault, of: "http \(method)", at: path) }
    }

    /// Serves the files of a directory beneath a path, and `index.html` for the directories in it.
    ///
    /// - Parameter dotFiles: Whether files and directories whose names begin with a dot are served.
    public mutating func files(at prefix: String, in directory: String, dotFiles: DotFiles = .refused) {
        if let fault = Routes.objection(to: prefix.hasPrefix("/") ? prefix : "/" + prefix) { note(fault, of: "files", at: prefix) }
        directories.append((prefix, directory, dotFiles))
    }

    /// What becomes of requests for files and directories whose names begin with a dot, such as `.git/config` and `.env`.
    public enum DotFiles: Sendable, Hashable {
        /// They are answered as if there were none; those below `/.well-known/` (RFC 8615) of a mount at `/` are served.
        case refused
        /// They are served like others.
        case served
    }

    private mutating func note(_ fault: String, of route: String, at path: String) {
        routeFaults.append("\(route) at \(path.debugDescription): \(fault)")
    }

    /// Forks the workers and supervises them: what dies is restarted, what hangs is replaced. Returns after SIGTERM, SIGINT or SIGQUIT when
    /// all workers are gone, or when a new program that SIGUSR2 has started has taken over.
    ///
    /// Signals have nginx's meanings: HUP replaces the workers (see `reload`), USR1 reopens the log, USR2 starts the program anew with the
    /// listeners, TTIN and TTOU add and retire a worker, WINCH drains the workers. Sockets that a service manager passes (LISTEN_FDS) are used
    /// for their addresses; all of them if `listen(on:)` was not called.
    ///
    /// Call it from a process that has one thread and has used no Task and no Dispatch queue.
    ///
    /// - Throws: `ConfigurationError`; nothing is left running.
    public func run() throws(ConfigurationError) {
        try MasterProcess(self).run()
    }

    /// Runs the server and ends the process: with status 0, or with status 78 (`EX_CONFIG`) and a line on standard error for each mistake of the
    /// configuration, or for the error that keeps the server from running.
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
        Process.end(Worker.doNotRestart)
    }

    /// swift-log's own default handler waits for whoever reads standard error.
    private static var defaultLogger: Logger {
        let logger = Logger(label: "apus")
        return logger.handler is StreamLogHandler ? Logger(label: "apus", factory: StandardErrorLogHandler.init) : logger
    }

    /// Checks what can be checked without listening and without writing: addresses, directories, certificates, limits, the sandbox, places of
    /// files.
    ///
    /// - Throws: `ConfigurationError`.
    public func validate() throws(ConfigurationError) {
        if let first = faults().first { throw first.error }
    }

    /// All that `validate` refuses.
    package func faults() -> [ServerFault] {
        var faults: [ServerFault] = []
        func check(at index: Int? = nil, _ body: () throws(ConfigurationError) -> Void) {
            do { try body() } catch { faults.append(ServerFault(error: error, index: index)) }
        }
        check { () throws(ConfigurationError) in _ = try checkedWorkers }
        if let conflict = ExtensionNegotiation.conflict(in: extensions) { faults.append(ServerFault(error: .extensions(conflict))) }
        faults += originFaults
        check { () throws(ConfigurationError) in _ = try configuredRoutes }
        check { () throws(ConfigurationError) in _ = try ListenerTLS(self, ticketKeys: TicketKeys()) }
        faults += limits.contradictions.map { ServerFault(error: $0.error, conflict: $0.other.map { .limit($0) }) }
        var taken: [SocketAddress: Int] = [:]
        for (index, (address, _)) in addresses.enumerated() {
            check(at: index) { () throws(ConfigurationError) in
                let place = try address.socketAddress
                if case .unix(_, let access) = address { try access.check(for: address) }
                // Port 0 is another one each time.
                guard place.port != 0 else { return }
                if let first = taken[place] {
                    faults.append(ServerFault(error: .listen("\(address) is given twice"), index: index, conflict: .address(first)))
                } else {
                    taken[place] = index
                }
            }
        }
        faults += sandbox.faults.map { ServerFault(error: $0) }
        for file in [pidFile, portFile] {
            guard let file else { continue }
            do { try FileSystem.checkDirectory(of: file) } catch { faults.append(ServerFault(error: .file(file, error.reason))) }
        }
        return faults
    }

    /// Origins that no page has.
    var originFaults: [ServerFault] {
        guard case .list(let entries) = origins else { return [] }
        return entries.enumerated().compactMap { index, entry in
            OriginPolicy.objection(to: entry).map { ServerFault(error: .origin(entry, $0), index: index) }
        }
    }

    /// Gives the files of its Unix sockets the owner and the permissions that are asked for.
    func setSocketAccess() throws(ConfigurationError) {
        for case (.unix(let path, let access), _) in addresses where access != SocketAccess() {
            try access.apply(to: path, for: .unix(path: path, access: access))
        }
    }

    /// The most workers that a server can have.
    static let maxWorkers = 1024

    /// How many workers to begin with.
    var checkedWorkers: Int {
        get throws(ConfigurationError) {
            switch workers {
            case .auto: return min(Process.usableProcessors(), Self.maxWorkers)
            case .count(let count):
                guard (1...Self.maxWorkers).contains(count) else {
                    throw .workers("there are 1 to \(Self.maxWorkers) workers, not \(count)")
                }
                return count
            }
        }
    }

    var configuredRoutes: Routes {
        get throws(ConfigurationError) {
            guard routeFaults.isEmpty else { throw .routes(routeFaults.joined(separator: "; ")) }
            var routes = routes
            for (prefix, directory, dotFiles) in directories {
                routes.add(try FileMount(prefix: prefix, directory: directory, dotFiles: dotFiles))
            }
            return routes
        }
    }
}
