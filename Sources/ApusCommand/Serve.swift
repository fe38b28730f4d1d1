import Apus
import ArgumentParser
import Logging

/// `apus serve`: the demo, or a directory's files, from supervised workers.
struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve the demo, or the files of a directory, from supervised worker processes.",
        discussion: """
            Without options it serves the demo on 127.0.0.1:8080: a page that shows which worker answered, and at / the WebSocket protocols \
            echo (the default), dumb-increment-protocol, lws-mirror-protocol and fraggle-protocol.
            SIGTERM and SIGINT stop it, SIGQUIT lets it drain first.
            """)

    @Option(
        name: .long,
        help: ArgumentHelp("Where to listen: HOST:PORT, [IPV6]:PORT or unix:/PATH; repeatable. Port 0 chooses one.", valueName: "address"))
    var listen: [String] = []

    @Option(name: .long, help: ArgumentHelp("Worker processes: a number, or auto for one per CPU.", valueName: "n"))
    var workers = "auto"

    @Option(name: .long, help: ArgumentHelp("Serve the files of this directory instead of the demo's page.", valueName: "dir"))
    var root: String?

    @Option(name: .long, help: "The least that is logged: trace, debug, info, notice, warning, error or critical.")
    var logLevel = "info"

    @Option(name: .long, help: ArgumentHelp("Write the master's process number here.", valueName: "file"))
    var pidFile: String?

    @Option(name: .long, help: ArgumentHelp("Write one line ADDRESS:PORT per listener here once all workers accept.", valueName: "file"))
    var portFile: String?

    @Option(
        name: .long,
        help: ArgumentHelp("Whose pages may open WebSockets besides those served here: an origin, repeatable, or *.", valueName: "origin"))
    var allowOrigin: [String] = []

    @OptionGroup var tls: ServeTLS

    @OptionGroup var sandbox: ServeSandbox

    @Flag(name: .long, help: "Answer a handshake with the client's whole list of subprotocols: libwebsockets 1.6 clients insist on it.")
    var echoSubprotocolList = false

    func run() throws {
        guard let level = Logger.Level(rawValue: logLevel) else {
            throw ValidationError("--log-level \(logLevel): it wants trace, debug, info, notice, warning, error or critical")
        }
        LoggingSystem.bootstrap { label in
            var handler = StandardErrorLogHandler(label: label)
            handler.logLevel = level
            return handler
        }
        var server = Server()
        server.logger = Logger(label: "apus")
        server.workers = try workerCount()
        let tls = try tls.options
        for text in listen.isEmpty ? ["127.0.0.1:8080"] : listen {
            do {
                server.listen(on: try ListenAddress(parsing: text), tls: tls)
            } catch {
                throw ValidationError("--listen \(text): \(error)")
            }
        }
        if allowOrigin.contains("*") { server.origins = .any } else if !allowOrigin.isEmpty { server.origins = .list(allowOrigin) }
        server.echoesSubprotocolList = echoSubprotocolList
        server.sandbox = sandbox.options
        if sandbox.sandboxSelftest { return try sandbox.test(server) }
        server.pidFile = pidFile
        server.portFile = portFile
        Demo.configure(&server, root: root)
        server.whenReady = { [logger = server.logger] addresses, workers in
            let places = addresses.map { $0.port == nil ? "\($0)" : "\(tls == nil ? "http" : "https")://\($0)" }.joined(separator: ", ")
            logger.notice("listening on \(places) with \(workers) \(workers == 1 ? "worker" : "workers")")
        }
        do {
            try server.run()
        } catch .directory(let path, let reason) {
            throw ConfigurationError.directory(path, "\(reason) (--root)")
        } catch .file(let path, let reason) {
            throw ConfigurationError.file(path, "\(reason) (\(path == pidFile ? "--pid-file" : "--port-file"))")
        } catch .listen(let reason) {
            throw ConfigurationError.listen("\(reason) (--listen)")
        }
    }

    private func workerCount() throws -> Server.Workers {
        if workers == "auto" { return .auto }
        guard let count = Int(workers), (1...1024).contains(count) else {
            throw ValidationError("--workers \(workers): it wants auto or a number from 1 to 1024")
        }
        return .count(count)
    }
}
