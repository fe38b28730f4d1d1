import Apus
import ArgumentParser
import Logging

/// The options of `apus serve` and `apus check`. An option overrides the file's key of the same
/// name.
struct ServeOptions: ParsableArguments {
    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp("A configuration file (YAML); HUP reads it again. Options override it.", valueName: "file"))
    var config: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "An address to listen on: HOST:PORT, [IPV6]:PORT or unix:/PATH; repeatable. Port 0: any free port.", valueName: "address"))
    var listen: [String] = []

    @Option(name: .long, help: ArgumentHelp("Worker processes: a number, or auto for one per CPU (default).", valueName: "n"))
    var workers: String?

    @Option(name: .long, help: ArgumentHelp("Serve the files of this directory instead of the demo's page.", valueName: "dir"))
    var root: String?

    @Option(name: .long, help: "The minimum level to log: trace, debug, info (default), notice, warning, error or critical.")
    var logLevel: String?

    @Option(name: .long, help: ArgumentHelp("Log to this file instead of standard error; USR1 reopens it.", valueName: "file"))
    var log: String?

    @Option(name: .long, help: ArgumentHelp("Write the master's process ID to this file.", valueName: "file"))
    var pidFile: String?

    @Option(
        name: .long, help: ArgumentHelp("Write one line ADDRESS:PORT per listener to this file once all workers accept.", valueName: "file")
    )
    var portFile: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "An origin whose pages may open WebSockets besides those served here, repeatable: https://HOST, HOST for http too, or *.",
            valueName: "origin"))
    var allowOrigin: [String] = []

    @OptionGroup var tls: ServeTLS

    @OptionGroup var sandbox: ServeSandbox

    @Flag(name: .long, help: "Answer a handshake with the client's whole list of subprotocols, as libwebsockets 1.6 clients require.")
    var echoSubprotocolList = false

    @Flag(name: .long, help: "Serve the demo's WebSockets with --root; without --root they are always served.")
    var demo = false

    @Flag(name: .long, help: "Refuse an address for a minute if it was being served when three workers died within a minute.")
    var quarantine = false

    /// The configuration of the file and the options, with the errors of the file.
    func configuration() throws -> Configuration {
        var configuration = Configuration()
        if let config { try ConfigurationFile.apply(config, to: &configuration) }
        do {
            try apply(to: &configuration)
        } catch {
            throw configuration.errors.isEmpty ? error : SettingErrors(configuration.errors)
        }
        return configuration
    }

    /// Applies the options on top of the file's settings.
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
            configuration.locations["listen"] = .option("listen")
        }
        if let tls = try tls.settings {
            configuration.tls = tls
            configuration.locations["tls"] = .option("tls-certificate")
            for name in ["certificate", "key", "ocsp", "ca"] { configuration.locations["tls.\(name)"] = .option("tls-\(name)") }
            configuration.locations["tls.passphrase"] = .option("tls-key-passphrase")
        }
        sandbox.apply(to: &configuration)
        if !allowOrigin.isEmpty {
            configuration.allowOrigin = allowOrigin
            configuration.locations["allow-origin"] = .option("allow-origin")
        }
        if echoSubprotocolList { configuration.echoSubprotocolList = true }
        if demo { configuration.demo = true }
        if quarantine { configuration.quarantine = true }
        for (name, value, path) in [
            ("root", root, \Configuration.root), ("log", log, \.log), ("pid-file", pidFile, \.pidFile), ("port-file", portFile, \.portFile),
        ] {
            guard let value else { continue }
            configuration[keyPath: path] = value
            configuration.locations[name] = .option(name)
        }
    }
}
