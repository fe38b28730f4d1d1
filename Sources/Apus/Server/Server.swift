import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor
public import Logging

/// What to serve, where, and within which limits. `run()` does it in several supervised processes; `Context` in this one.
public struct Server {
    /// How many worker processes `run()` forks.
    public enum Workers: Sendable, Hashable {
        /// One per CPU that this process may use.
        case auto
        case count(Int)
    }

    public var workers = Workers.auto
    public var limits = Limits()
    /// Whose pages may open WebSockets.
    public var origins = OriginPolicy.sameOrigin
    public var logger = Logger(label: "apus")
    /// WebSocket extensions to agree on with clients that offer them, such as `PerMessageDeflate()`. None by default: compression costs memory
    /// and time, and text that an attacker chooses beside a secret leaks the secret's repetitions.
    public var extensions: [any WebSocketExtension] = []
    /// The application's veto, for each extension a client offers (libwebsockets' `LWS_CALLBACK_CONFIRM_EXTENSION_OKAY`).
    public var allowsExtension: ((any WebSocketExtension, HTTPRequest) -> Bool)?
    /// Answers a handshake with the client's whole list of subprotocols instead of the chosen one, as libwebsockets 1.6 did and its
    /// clients insist on. Against RFC 6455 §4.2.2; off by default.
    public var echoesSubprotocolList = false
    /// What workers give up before they serve.
    public var sandbox = SandboxOptions()
    /// Where the master writes its process number while it runs.
    public var pidFile: String?
    /// Where the master writes one line `ADDRESS:PORT` per listener, ports filled in, as soon as all workers accept.
    public var portFile: String?
    /// Called in the master when every worker accepts for the first time, with the addresses, ports filled in, and the number of workers.
    public var whenReady: (([SocketAddress], Int) -> Void)?
    /// Called once in the master, before it forks: what it makes, every worker gets a copy of. The handle reaches all workers from the master, and
    /// from processes that this function forks.
    public var whenStarting: ((ServerRemote) -> Void)?
    /// Called in each worker before it accepts (libwebsockets' `LWS_CALLBACK_PROTOCOL_INIT`).
    public var whenWorkerStarts: ((Context) -> Void)?
    /// Called in each worker when its connections have ended, unless it was killed (`LWS_CALLBACK_PROTOCOL_DESTROY`).
    public var whenWorkerStops: ((Context) -> Void)?

    private(set) var addresses: [(address: ListenAddress, tls: ServerTLS?)] = []
    private var routes = Routes()
    private var protocolCount = 0
    private var directories: [(prefix: String, directory: String)] = []
    var workerStates: [WorkerStateRecipe] = []

    public init() {}

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
        precondition(HTTPMethod(rawValue: name).isToken, "a subprotocol's name is a token (RFC 6455 §4.1): \"\(name)\"")
        let offered = WebSocketProtocol(name: name, path: path, id: .init(index: protocolCount), makeHandler: makeHandler)
        protocolCount += 1
        precondition(protocolCount <= InterestTable.maxProtocols, "a server has at most \(InterestTable.maxProtocols) protocols")
        precondition(routes.webSockets[path]?.contains { $0.name == name } != true, "\"\(name)\" is offered at \(path) already")
        routes.webSockets[path, default: []].append(offered)
        return offered
    }

    /// Answers requests with a method at a path. A handler of GET answers HEAD as well.
    public mutating func http(_ method: HTTPMethod, at path: String, handler: @escaping (HTTPExchange) -> Void) {
        routes.add(method, path, handler)
    }

    /// Serves the files of a directory beneath a path, and `index.html` for the directories in it.
    public mutating func files(at prefix: String, in directory: String) { directories.append((prefix, directory)) }

    /// Forks the workers and supervises them: what dies is restarted, what hangs is replaced. Returns after SIGTERM, SIGINT or SIGQUIT when
    /// all workers are gone.
    ///
    /// Call it from a process that has one thread and has used no Task and no Dispatch queue.
    ///
    /// - Throws: `ConfigurationError`; nothing is left running.
    public func run() throws(ConfigurationError) {
        guard !addresses.isEmpty else { throw .nothingToListenOn }
        let application = try Application(self)
        let count: Int =
            switch workers {
            case .auto: Process.usableProcessors()
            case .count(let count): max(1, count)
            }
        for file in [pidFile, portFile] {
            guard let file else { continue }
            do { try FileSystem.checkReplaceable(file) } catch { throw .file(file, error.reason) }
        }
        let listeners = try application.listeners(slots: count)
        let remote = try application.makeBus(slots: count)
        try application.prepareSandbox()
        whenStarting?(remote)
        write("\(Process.id)\n", to: pidFile)
        do {
            var configuration = SupervisorConfiguration(workers: count)
            configuration.heartbeatTimeout = limits.heartbeatTimeout
            configuration.drainTimeout = limits.drainTimeout
            let supervisor = try Supervisor(configuration: configuration, listeners: listeners, logger: logger) { worker in
                application.serve(as: worker)
            }
            supervisor.whenEnded = { slot, generation in application.workerEnded(slot: slot, generation: generation) }
            supervisor.whenAllReady = { addresses in
                write(addresses.map { "\($0)\n" }.joined(), to: portFile)
                whenReady?(addresses, count)
            }
            defer { for file in [pidFile, portFile] { if let file { FileSystem.remove(file) } } }
            try supervisor.run()
        } catch {
            throw .workers("\(error)")
        }
    }

    private func write(_ text: String, to file: String?) {
        guard let file else { return }
        do {
            try FileSystem.replace(file, with: text)
        } catch {
            logger.error("cannot write \(file): \(error)")
        }
    }

    var configuredRoutes: Routes {
        get throws(ConfigurationError) {
            var routes = routes
            for (prefix, directory) in directories { routes.add(try FileMount(prefix: prefix, directory: directory)) }
            return routes
        }
    }
}
