import Apus
import ArgumentParser
import Logging

/// The options that `apus serve` and `apus check` have in common. An option goes before the file's key of the same name.
struct ServeOptions: ParsableArguments {
    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp("A configuration file (YAML); HUP reads it anew. Options go before it.", valueName: "file"))
    var config: String?

    @Option(
        name: .long,
        help: ArgumentHelp("Where to listen: HOST:PORT, [IPV6]:PORT or unix:/PATH; repeatable. Port 0 chooses one.", valueName: "address"))
    var listen: [String] = []

    @Option(name: .long, help: ArgumentHelp("Worker processes: a number, or auto for one per CPU (default).", valueName: "n"))
    var workers: String?

    @Option(name: .long, help: ArgumentHelp("Serve the files of this directory instead of the demo's page.", valueName: "dir"))
    var root: String?

    @Option(name: .long, help: "The least that is logged: trace, debug, info (default), notice, warning, error or critical.")
    var logLevel: String?

    @Option(name: .long, help: ArgumentHelp("Log to this file instead of standard error; USR1 opens it anew.", valueName: "file"))
    var log: String?

    @Option(name: .long, help: ArgumentHelp("Write the master's process number here.", valueName: "file"))
    var pidFile: String?

    @Option(name: .long, help: ArgumentHelp("Write one line ADDRESS:PORT per listener here once all workers accept.", valueName: "file"))
    var portFile: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Whose pages may open WebSockets besides those served here, repeatable: https://HOST, HOST for http too, or *.",
            valueName: "origin"))
    var allowOrigin: [String] = []

    @OptionGroup var tls: ServeTLS

    @OptionGroup var sandbox: ServeSandbox

    @Flag(name: .long, help: "Answer a handshake with the client's whole list of subprotocols: libwebsockets 1.6 clients insist on it.")
    var echoSubprotocolList = false

    @Flag(name: .long, help: "Serve the demo's WebSockets beside --root; without --root they are served anyhow.")
    var demo = false

    @Flag(name: .long, help: "Turn away for a minute an address that was being served when three workers died within a minute.")
    var quarantine = false

    /// What the file and the options say together. The configuration holds the mistakes of the file.
    func configuration() throws -> Configuration {
        var configuration = Configuration()
        if let config { try ConfigurationFile.apply(config, to: &configuration) }
        do {
            try apply(to: &configuration)
        } catch {
            throw configuration.mistakes.isEmpty ? error : SettingErrors(configuration.mistakes)
        }
        return configuration
    }

    /// Puts the options over what the file says.
    private func apply(to configuration: inout Configuration) throws {
        if let logLevel {
            guard let level = Logger.Level(rawValue: logLevel) else {
                throw ValidationError(
                    "--log-level: expected trace, debug, info, notice, warning, error or critical, got \(Quotation.of(logLevel))")
            }
            configuration.logLevel = level
        }
        if let workers {
            guard let count = Server.Workers(parsing: workers) else {
                throw ValidationError("--workers: expected auto or a number from 1 to 1024, got \(Quotation.of(workers))")
            }
            configuration.workers = count
        }
        if !listen.isEmpty {
            configuration.listen = try listen.map { text in
                do { return try ListenAddress(parsing: text) } catch { throw ValidationError("--listen \(text): \(error)") }
            }
            configuration.places["listen"] = .option("listen")
        }
        if let tls = try tls.settings {
            configuration.tls = tls
            configuration.places["tls"] = .option("tls-certificate")
            for name in ["certificate", "key", "ocsp", "ca"] { configuration.places["tls.\(name)"] = .option("tls-\(name)") }
            configuration.places["tls.passphrase"] = .option("tls-key-passphrase")
        }
        sandbox.apply(to: &configuration)
        if !allowOrigin.isEmpty {
            configuration.allowOrigin = allowOrigin
            configuration.places["allow-origin"] = .option("allow-origin")
        }
        if echoSubprotocolList { configuration.echoSubprotocolList = true }
        if demo { configuration.demo = true }
        if quarantine { configuration.quarantine = true }
        for (name, value, path) in [
            ("root", root, \Configuration.root), ("log", log, \.log), ("pid-file", pidFile, \.pidFile), ("port-file", portFile, \.portFile),
        ] {
            guard let value else { continue }
            configuration[keyPath: path] = value
            configuration.places[name] = .option(name)
        }
    }
}
