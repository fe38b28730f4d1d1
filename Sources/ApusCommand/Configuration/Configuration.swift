import Apus
import Logging

/// What `apus serve` is told by its command line and its configuration file, checked.
struct Configuration {
    var listen: [ListenAddress] = []
    var workers = Server.Workers.auto
    var root: String?
    /// Whether the demo is served; nil: where there is no root.
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
    var places = SettingPlaces()
    /// What is wrong with the file so far; `makeServer` throws it.
    var mistakes: [SettingError] = []
    /// The keys that have a mistake, and so another value than was meant.
    var mistakenKeys: Set<String> = []

    /// Where the server listens if nothing says otherwise.
    static let defaultAddress = ListenAddress.tcp("127.0.0.1", port: 8080)

    /// Asked once: a server that runs has taken the sockets.
    private static let isSocketActivated = Server.isSocketActivated

    /// The description of the server. Its directories are opened, so that an error about them has its place.
    ///
    /// - Throws: `SettingErrors` with all mistakes.
    func makeServer() throws(SettingErrors) -> Server {
        var mistakes = mistakes
        var server = Server()
        server.workers = workers
        if let tls { server.certificateCheckInterval = tls.checkInterval }
        var serverTLS: ServerTLS?
        do throws(SettingError) { serverTLS = try tls?.options(places) } catch { mistakes.append(error) }
        if Self.isSocketActivated { server.passedTLS = serverTLS }
        // What a service manager has opened takes the place of the default.
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
            mistakes.append(SettingError(place: places["demo"], reason: "demo: expected a root, as the demo is off, got none"))
        }
        server.limits = limits
        server.located = { [self] in located($0) }
        if let log {
            do throws(ConfigurationError) { try LogFile.check(log) } catch { mistakes.append(located(error)) }
        }
        mistakes += server.faults().filter { !isConsequence($0) }.map(located)
        guard mistakes.isEmpty else { throw SettingErrors(mistakes) }
        return server
    }

    var servesDemo: Bool { demo ?? (root == nil) }

    /// Makes the server log to a file, or to standard error.
    func setLog(_ log: LogFile?, of server: inout Server) {
        server.logger = Logger(label: "apus")
        server.logger.logLevel = logLevel
        server.logFile = log
    }

    /// Whether a fault may only be there because a mistaken key left another value than was meant.
    private func isConsequence(_ fault: ServerFault) -> Bool {
        switch (fault.error, fault.conflict) {
        case (.limit(let name, _), .limit(let other)?): !mistakenKeys.isDisjoint(with: ["limits.\(name)", "limits.\(other)"])
        case (.sandbox, _): !mistakenKeys.isDisjoint(with: ["sandbox", "sandbox.mode", "user", "group"])
        default: false
        }
    }

    // MARK: Places

    /// The fault with the place of the setting it comes from.
    private func located(_ fault: ServerFault) -> SettingError {
        switch (fault.error, fault.conflict) {
        case (.limit(let name, _), .limit(let other)?):
            let places = [name, other].map { self.places["limits.\($0)"] }
            let note =
                switch (places[0], places[1]) {
                case (_?, .line(let line, _)?): "line \(line) sets \(other)"
                case (nil, _?): "\(name) has its default"
                case (_, nil), (_?, .option?): "\(other) has its default"
                }
            return SettingError(place: places[0] ?? places[1], reason: "\(fault.error) (\(note))")
        case (_, .address(let first)?):
            guard case .line(let line, _) = places["listen", first] else { break }
            return SettingError(place: places["listen", fault.index], reason: "\(fault.error): first on line \(line)")
        case (_, .limit?), (_, nil): break
        }
        return located(fault.error, index: fault.index)
    }

    /// The error with the place of the setting it comes from.
    ///
    /// - Parameter index: Of the item that it is about, if the setting is a list.
    func located(_ error: ConfigurationError, index: Int? = nil) -> SettingError {
        let item = tlsItem(of: error)
        let key: String? =
            switch error {
            case .directory: "root"
            case .file(let path, _): path == pidFile ? "pid-file" : path == portFile ? "port-file" : "log"
            case .listen, .invalidAddress, .nothingToListenOn: "listen"
            case .tls: item?.key ?? "tls"
            case .limit(let name, _): "limits.\(name)"
            case .origin: "allow-origin"
            case .sandbox(let reason): sandboxKey(of: reason)
            case .routes, .extensions, .system, .workers, .clientTLS: nil
            }
        var reason = "\(error)"
        if case .tls = error, reason.hasSuffix(TLSIdentity.missingPassphrase) {
            reason += ": passphrase: FILE, or --tls-key-passphrase FILE, names the file with it"
        }
        return SettingError(place: key.flatMap { places[$0, item?.index ?? index] }, reason: reason)
    }

    private func tlsItem(of error: ConfigurationError) -> (key: String, index: Int)? {
        if case .tls(_, let reason) = error { tls?.item(of: reason) } else { nil }
    }

    /// The key that an error about the sandbox comes from.
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
        return ["chroot", "group", "user", "sandbox"].first { places[$0] != nil && reason.contains($0 == "sandbox" ? "" : $0) }
    }
}
