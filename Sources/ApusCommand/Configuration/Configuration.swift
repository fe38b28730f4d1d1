import Apus
import Logging

/// What `apus serve` is told by its command line and its configuration file, checked.
struct Configuration {
    /// Where a setting was made, for what turns out to be wrong with it later.
    enum Place: CustomStringConvertible {
        case option(String)
        case line(Int, of: String)

        var description: String {
            switch self {
            case .option(let name): "--\(name)"
            case .line(let number, let file): "\(file):\(number)"
            }
        }
    }

    var listen: [ListenAddress] = []
    var workers = Server.Workers.auto
    var root: String?
    var allowOrigin: [String] = []
    var tls: TLS?
    var sandbox = SandboxOptions()
    var sandboxMode = SandboxMode.enforced
    var logLevel = Logger.Level.info
    var log: String?
    var pidFile: String?
    var portFile: String?
    var echoSubprotocolList = false
    var quarantine = false
    var limits = Demo.limits
    /// By key; options and keys have the same names.
    var places: [String: Place] = [:]

    /// Where the server listens if nothing says otherwise.
    static let defaultAddress = ListenAddress.tcp("127.0.0.1", port: 8080)

    /// Asked once: a server that runs has taken the sockets.
    private static let isSocketActivated = Server.isSocketActivated

    /// The description of the server. Its directories are opened, so that what is wrong with them is told here, with the place.
    func makeServer(logFile: LogFile?) throws -> Server {
        var server = Server()
        server.logger = Logger(label: "apus")
        server.logger.logLevel = logLevel
        server.logFile = logFile
        server.workers = workers
        // What a service manager has opened takes the place of the default.
        if let tls { server.certificateCheckInterval = tls.checkInterval }
        let tls = try tls?.options(places)
        if Self.isSocketActivated { server.passedTLS = tls }
        for address in listen.isEmpty && !Self.isSocketActivated ? [Self.defaultAddress] : listen { server.listen(on: address, tls: tls) }
        server.sandbox = sandbox
        server.sandbox.mode = sandboxMode.option
        if allowOrigin.contains("*") { server.origins = .any } else if !allowOrigin.isEmpty { server.origins = .list(allowOrigin) }
        server.echoesSubprotocolList = echoSubprotocolList
        server.quarantine = quarantine
        server.pidFile = pidFile
        server.portFile = portFile
        Demo.configure(&server, root: root)
        server.limits = limits
        server.located = located
        do {
            if let log { try LogFile.check(log) }
            try server.validate()
        } catch {
            throw located(error)
        }
        return server
    }

    /// The error with the place of the setting it comes from.
    func located(_ error: ConfigurationError) -> any Error {
        var error = error
        let key: String? =
            switch error {
            case .directory: "root"
            case .file(let path, _): path == pidFile ? "pid-file" : path == portFile ? "port-file" : "log"
            case .listen, .invalidAddress, .nothingToListenOn: "listen"
            case .tls(_, let reason): tls?.key(of: reason) ?? "tls"
            case .limit(let name, _): "limits.\(name)"
            case .origin: "allow-origin"
            case .sandbox(let reason): ["chroot", "group", "user"].first { places[$0] != nil && reason.contains($0) }
            case .routes, .extensions, .system, .workers, .clientTLS: nil
            }
        if case .tls(let address, let reason) = error, reason.hasSuffix(TLSIdentity.missingPassphrase) {
            error = .tls(address, "\(reason): passphrase: FILE, or --tls-key-passphrase FILE, names the file with it")
        }
        guard let key, let place = places[key] else { return error }
        return SettingError(place: place, reason: "\(error)")
    }
}

/// A setting that is wrong, and where it was made.
struct SettingError: Error, CustomStringConvertible {
    var place: Configuration.Place?
    let reason: String

    var description: String {
        switch place {
        case .line: "\(place.map { "\($0): " } ?? "")\(reason)"
        case .option(let name): "\(reason) (--\(name))"
        case nil: reason
        }
    }
}
