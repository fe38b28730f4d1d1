import Apus
import Logging

/// The configuration of `apus serve`, from its command line and its configuration file.
struct Configuration {
    var listen: [ListenAddress] = []
    var workers = Server.Workers.auto
    var root: String?
    /// Whether the demo is served; nil: if there is no root.
    var demo: Bool?
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
    var locations = SettingLocations()
    /// The errors of the file so far; `makeServer` throws them.
    var errors: [SettingError] = []
    /// The keys with an error, whose value is not the intended one.
    var invalidKeys: Set<String> = []

    /// The address to listen on if none is configured.
    static let defaultAddress = ListenAddress.tcp("127.0.0.1", port: 8080)

    /// Evaluated once: a running server has taken the sockets.
    private static let isSocketActivated = Server.isSocketActivated

    /// Creates the server's description. Opens its directories, so that errors about them are
    /// located.
    ///
    /// - Throws: `SettingErrors` with all errors.
    func makeServer() throws(SettingErrors) -> Server {
        var errors = errors
        var server = Server()
        server.workers = workers
        if let tls { server.certificateCheckInterval = tls.checkInterval }
        var serverTLS: ServerTLS?
        do throws(SettingError) { serverTLS = try tls?.options(locations) } catch { errors.append(error) }
        if Self.isSocketActivated { server.passedTLS = serverTLS }
        // Sockets from a service manager replace the default address.
        for address in listen.isEmpty && !Self.isSocketActivated ? [Self.defaultAddress] : listen {
            server.listen(on: address, tls: serverTLS)
        }
        server.sandbox = sandbox
        server.sandbox.mode = sandboxMode.option
        if allowOrigin.contains("*") { server.origins = .any } else if !allowOrigin.isEmpty { server.origins = .list(allowOrigin) }
        server.echoesSubprotocolList = echoSubprotocolList
        server.quarantine = quarantine
        server.pidFile = pidFile
        server.portFile = portFile
        if servesDemo { Demo.configure(&server, hasPage: root == nil) }
        if let root { server.files(at: "/", in: root) }
        if !servesDemo, root == nil {
            errors.append(SettingError(location: locations["demo"], reason: "demo: expected a root without the demo, got none"))
        }
        server.limits = limits
        server.located = { [self] in located($0) }
        if let log {
            do throws(ConfigurationError) { try LogFile.check(log) } catch { errors.append(located(error)) }
        }
        errors += server.faults().filter { !isConsequence($0) }.map(located)
        guard errors.isEmpty else { throw SettingErrors(errors) }
        return server
    }

    var servesDemo: Bool { demo ?? (root == nil) }

    /// Sets the server's log: a file, or standard error.
    func setLog(_ log: LogFile?, of server: inout Server) {
        server.logger = Logger(label: "apus")
        server.logger.logLevel = logLevel
        server.logFile = log
    }

    /// Whether a fault may be only a consequence of a key with an error.
    private func isConsequence(_ fault: ServerFault) -> Bool {
        switch (fault.error, fault.conflict) {
        case (.limit(let name, _), .limit(let other)?): !invalidKeys.isDisjoint(with: ["limits.\(name)", "limits.\(other)"])
        case (.sandbox, _): !invalidKeys.isDisjoint(with: ["sandbox", "sandbox.mode", "user", "group"])
        default: false
        }
    }

    // MARK: Locations

    /// The fault, located at the setting that causes it.
    private func located(_ fault: ServerFault) -> SettingError {
        switch (fault.error, fault.conflict) {
        case (.limit(let name, _), .limit(let other)?):
            let locations = [name, other].map { self.locations["limits.\($0)"] }
            let note =
                switch (locations[0], locations[1]) {
                case (_?, .line(let line, _)?): "line \(line) sets \(other)"
                case (nil, _?): "\(name) has its default"
                case (_, nil), (_?, .option?): "\(other) has its default"
                }
            return SettingError(location: locations[0] ?? locations[1], reason: "\(fault.error) (\(note))")
        case (_, .address(let first)?):
            guard case .line(let line, _) = locations["listen", first] else { break }
            return SettingError(location: locations["listen", fault.index], reason: "\(fault.error): first on line \(line)")
        case (_, .limit?), (_, nil): break
        }
        return located(fault.error, index: fault.index)
    }

    /// The error, located at the setting that causes it.
    ///
    /// - Parameter index: The index of the invalid item, if the setting is a list.
    func located(_ error: ConfigurationError, index: Int? = nil) -> SettingError {
        let item = tlsItem(of: error)
        let key: String? =
            switch error {
            case .directory: "root"
            case .file(let path, _): path == pidFile ? "pid-file" : path == portFile ? "port-file" : "log"
            case .listen, .invalidAddress, .nothingToListenOn: "listen"
            case .tls: item?.key ?? "tls"
            case .certificateCheckInterval: "tls"
            case .limit(let name, _): "limits.\(name)"
            case .origin: "allow-origin"
            case .sandbox(let reason): sandboxKey(of: reason)
            case .routes, .extensions, .system, .workers, .clientTLS: nil
            }
        var reason = "\(error)"
        if case .tls = error, reason.hasSuffix(TLSIdentity.missingPassphrase) {
            reason += ": set passphrase: FILE or --tls-key-passphrase FILE"
        }
        return SettingError(location: key.flatMap { locations[$0, item?.index ?? index] }, reason: reason)
    }

    private func tlsItem(of error: ConfigurationError) -> (key: String, index: Int)? {
        if case .tls(_, let reason) = error { tls?.item(of: reason) } else { nil }
    }

    /// The key of an error about the sandbox.
    private func sandboxKey(of reason: String) -> String? {
        if reason.hasPrefix("allow ") {
            let permission = sandbox.allows.first { permission in
                switch permission {
                case .reading(let path): reason.hasPrefix("allow reading: ") && reason.contains("\"\(path)\"")
                case .writing(let path): reason.hasPrefix("allow writing: ") && reason.contains("\"\(path)\"")
                case .threads, .connecting: false
                }
            }
            return permission.map { "sandbox.allow \($0)" }
        }
        return ["chroot", "group", "user", "sandbox"].first { locations[$0] != nil && reason.contains($0 == "sandbox" ? "" : $0) }
    }
}
