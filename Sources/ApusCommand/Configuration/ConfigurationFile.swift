import Apus
import ApusPlatform
import Logging

/// Reads a configuration file: YAML with the keys of `settings`. Every error has the file, the
/// line, the expected and the actual value; reading continues after it.
struct ConfigurationFile {
    private let path: String
    private var configuration: Configuration

    /// Applies the settings of the file at `path`, and adds its errors to the configuration.
    ///
    /// - Throws: `SettingErrors` if the file cannot be read or is not YAML.
    static func apply(_ path: String, to configuration: inout Configuration) throws(SettingErrors) {
        var file = ConfigurationFile(path: path, configuration: configuration)
        try file.read()
        configuration = file.configuration
    }

    private init(path: String, configuration: Configuration) {
        self.path = path
        self.configuration = configuration
    }

    private typealias Setter = @Sendable (inout ConfigurationFile, YAMLNode) throws(SettingError) -> Void

    private static let settings: [String: Setter] = [
        "listen": { file, node throws(SettingError) in
            for (text, node) in try file.texts(node, "listen", expected: "an address or a list of addresses") {
                file.attempt("listen") { file throws(SettingError) in
                    do throws(ConfigurationError) {
                        file.configuration.listen.append(try ListenAddress(parsing: text))
                    } catch {
                        throw file.error(node, "listen: \(error)")
                    }
                    file.configuration.locations.add(file.location(node), toItemsOf: "listen")
                }
            }
        },
        "workers": { file, node throws(SettingError) in
            let expected = "auto or a number from 1 to 1024"
            guard let workers = Server.Workers(parsing: try file.text(node, "workers", expected: expected)) else {
                throw file.unexpected(node, "workers", expected)
            }
            file.configuration.workers = workers
        },
        "root": { file, node throws(SettingError) in
            file.configuration.root = try file.optionalText(node, "root", expected: "a directory")
        },
        "allow-origin": { file, node throws(SettingError) in
            for (text, node) in try file.texts(node, "allow-origin", expected: "an origin, a list of origins, or \"*\"") {
                file.configuration.allowOrigin.append(text)
                file.configuration.locations.add(file.location(node), toItemsOf: "allow-origin")
            }
        },
        "tls": { file, node throws(SettingError) in try file.readTLS(node) },
        "sandbox": { file, node throws(SettingError) in try file.readSandbox(node) },
        "allow-connect": { file, node throws(SettingError) in
            if try file.choice(node, "allow-connect", [true, false], { "\($0)" }) {
                file.configuration.sandbox.allows.insert(.connecting)
            } else {
                file.configuration.sandbox.allows.remove(.connecting)
            }
        },
        "user": { file, node throws(SettingError) in
            file.configuration.sandbox.user = try file.optionalText(node, "user", expected: "a name or number")
        },
        "group": { file, node throws(SettingError) in
            file.configuration.sandbox.group = try file.optionalText(node, "group", expected: "a name or number")
        },
        "chroot": { file, node throws(SettingError) in
            file.configuration.sandbox.root = try file.optionalText(node, "chroot", expected: "a directory")
        },
        "log": { file, node throws(SettingError) in file.configuration.log = try file.optionalText(node, "log", expected: "a file") },
        "log-level": { file, node throws(SettingError) in
            file.configuration.logLevel = try file.choice(node, "log-level", Logger.Level.allCases) { $0.rawValue }
        },
        "pid-file": { file, node throws(SettingError) in
            file.configuration.pidFile = try file.optionalText(node, "pid-file", expected: "a file")
        },
        "port-file": { file, node throws(SettingError) in
            file.configuration.portFile = try file.optionalText(node, "port-file", expected: "a file")
        },
        "echo-subprotocol-list": { file, node throws(SettingError) in
            file.configuration.echoSubprotocolList = try file.choice(node, "echo-subprotocol-list", [true, false]) { "\($0)" }
        },
        "demo": { file, node throws(SettingError) in
            let isServed: Bool = try file.choice(node, "demo", [true, false]) { "\($0)" }
            file.configuration.demo = isServed
        },
        "quarantine": { file, node throws(SettingError) in
            file.configuration.quarantine = try file.choice(node, "quarantine", [true, false]) { $0 ? "on" : "off" }
        },
        "limits": { file, node throws(SettingError) in try file.readLimits(node) },
    ]

    // MARK: Reading

    private mutating func read() throws(SettingErrors) {
        let document = YAMLReader.read(try contents())
        configuration.errors += document.errors.map { SettingError(location: .line($0.mark.line, of: path), reason: "\($0)") }
        guard let root = document.root else { throw SettingErrors(configuration.errors) }
        if root.isNull { return }
        attempt("") { file throws(SettingError) in
            for entry in try file.entries(root, "the file") {
                file.configuration.locations[entry.key] = file.location(of: entry)
                file.attempt(entry.key) { file throws(SettingError) in
                    guard let set = Self.settings[entry.key] else { throw file.unknown(entry, in: "", known: Self.settings.keys.sorted()) }
                    try set(&file, entry.value)
                }
            }
        }
    }

    private func contents() throws(SettingErrors) -> [UInt8] {
        let reason: String
        do throws(SystemError) {
            if let bytes = try FileSystem.contents(of: path, maxBytes: YAMLReader.maxBytes + 1) { return bytes }
            reason = "expected a regular file"
        } catch {
            reason = error.reason
        }
        let text = "cannot read the configuration file \(Quotation.of(path)): \(reason)"
        throw SettingErrors([SettingError(location: .option("config"), reason: text)])
    }

    /// Runs `body` and records its error as one in the setting `key`.
    private mutating func attempt(_ key: String, _ body: (inout ConfigurationFile) throws(SettingError) -> Void) {
        do throws(SettingError) {
            try body(&self)
        } catch {
            configuration.errors.append(error)
            configuration.invalidKeys.insert(key)
        }
    }

    private mutating func readTLS(_ node: YAMLNode) throws(SettingError) {
        var tls = Configuration.TLS()
        for entry in try entries(node, "tls") {
            let (name, value) = ("tls.\(entry.key)", entry.value)
            configuration.locations[name] = location(of: entry)
            attempt(name) { file throws(SettingError) in
                switch entry.key {
                case "certificate": tls.certificates = try file.files(value, name)
                case "key": tls.keys = try file.files(value, name)
                case "passphrase": tls.passphrase = try file.optionalText(value, name, expected: "a file")
                case "ocsp": tls.ocsp = try file.optionalText(value, name, expected: "a file")
                case "allow-plain": tls.allowsPlain = try file.choice(value, name, [true, false]) { "\($0)" }
                case "ca": tls.authorities = try file.optionalText(value, name, expected: "a file")
                case "check-interval":
                    let expected = Configuration.TLS.checkIntervalForm
                    guard let interval = Configuration.TLS.checkInterval(try file.text(value, name, expected: expected)) else {
                        throw file.unexpected(value, name, expected)
                    }
                    tls.checkInterval = interval
                case "client-certificate":
                    tls.clientCertificate = try file.choice(value, name, Configuration.TLS.ClientCertificate.allCases) { $0.rawValue }
                default: throw file.unknown(entry, in: "tls.", known: Configuration.TLS.knownKeys)
                }
            }
        }
        // Checks that depend on an invalid key are skipped.
        guard configuration.invalidKeys.isDisjoint(with: ["tls.certificate", "tls.key"]) else { return }
        for (name, value) in [("certificate", tls.certificates), ("key", tls.keys)] where value.isEmpty {
            throw error(node, "tls.\(name): expected a file, got none")
        }
        guard tls.certificates.count == tls.keys.count else {
            throw error(
                node, "tls.key: expected a key for each certificate, got \(tls.certificates.count) certificates and \(tls.keys.count) keys")
        }
        configuration.tls = tls
        guard configuration.invalidKeys.isDisjoint(with: ["tls.client-certificate", "tls.ca"]) else { return }
        if tls.clientCertificate != .off, tls.authorities == nil {
            throw error(node, "tls.ca: expected the certificate authorities' file with client-certificate, got none")
        }
    }

    /// A file or a list of files.
    private mutating func files(_ node: YAMLNode, _ name: String) throws(SettingError) -> [String] {
        let files = try texts(node, name, expected: "a file or a list of files")
        for (_, node) in files { configuration.locations.add(location(node), toItemsOf: name) }
        return files.map(\.0)
    }

    /// A mode, or a mapping with `mode` and `allow`.
    private mutating func readSandbox(_ node: YAMLNode) throws(SettingError) {
        guard case .mapping(let entries) = node.value else {
            configuration.sandboxMode = try choice(node, "sandbox", SandboxMode.allCases) { $0.rawValue }
            return
        }
        for entry in entries {
            attempt("sandbox.\(entry.key)") { file throws(SettingError) in
                switch entry.key {
                case "mode":
                    file.configuration.sandboxMode = try file.choice(entry.value, "sandbox.mode", SandboxMode.allCases) { $0.rawValue }
                case "allow":
                    for node in entry.value.items {
                        file.attempt("sandbox.allow") { file throws(SettingError) in try file.readPermission(node) }
                    }
                default: throw file.unknown(entry, in: "sandbox.", known: ["allow", "mode"])
                }
            }
        }
    }

    private mutating func readPermission(_ node: YAMLNode) throws(SettingError) {
        var text = node.text
        // In YAML, `reading: /PATH` is a mapping.
        if case .mapping(let entries) = node.value, entries.count == 1, let path = entries[0].value.text {
            text = "\(entries[0].key):\(path)"
        }
        guard let permission = text.flatMap({ SandboxOptions.Permission(parsing: $0) }) else {
            let got = text.map(Quotation.of) ?? node.shown
            throw error(node, "sandbox.allow: expected \(SandboxOptions.permissionForms), got \(got)")
        }
        configuration.sandbox.allows.insert(permission)
        configuration.locations["sandbox.allow \(permission)"] = location(node)
    }

    private mutating func readLimits(_ node: YAMLNode) throws(SettingError) {
        for entry in try entries(node, "limits") {
            let name = "limits.\(entry.key)"
            configuration.locations[name] = location(of: entry)
            attempt(name) { file throws(SettingError) in
                guard let setting = LimitSettings.all.first(where: { $0.name == entry.key }) else {
                    throw file.unknown(entry, in: "limits.", known: LimitSettings.all.map(\.name))
                }
                let expected = LimitSettings.form(of: setting.kind)
                let text = try file.text(entry.value, name, expected: expected)
                guard LimitSettings.set(setting.kind, to: text, in: &file.configuration.limits) else {
                    throw file.unexpected(entry.value, name, expected)
                }
            }
        }
    }

    // MARK: Nodes

    private func entries(_ node: YAMLNode, _ name: String) throws(SettingError) -> [YAMLNode.Entry] {
        guard case .mapping(let entries) = node.value else { throw unexpected(node, name, "keys with values, KEY: VALUE") }
        return entries
    }

    private func text(_ node: YAMLNode, _ name: String, expected: String) throws(SettingError) -> String {
        guard let text = node.text, !text.isEmpty else { throw unexpected(node, name, expected) }
        return text
    }

    /// A text; nil for YAML's null, which stands for no value (YAML 1.2.2 §10.2.1.1).
    private func optionalText(_ node: YAMLNode, _ name: String, expected: String) throws(SettingError) -> String? {
        node.isNull ? nil : try text(node, name, expected: expected)
    }

    /// One text or a list of texts; each other item is an error.
    private mutating func texts(_ node: YAMLNode, _ name: String, expected: String) throws(SettingError) -> [(String, YAMLNode)] {
        var texts: [(String, YAMLNode)] = []
        for node in node.items {
            attempt(name) { file throws(SettingError) in texts.append((try file.text(node, name, expected: expected), node)) }
        }
        return texts
    }

    private func choice<Value>(
        _ node: YAMLNode, _ name: String, _ values: [Value], _ word: (Value) -> String
    ) throws(SettingError) -> Value {
        let words = values.map(word)
        let expected = "\(words.dropLast().joined(separator: ", ")) or \(words.last ?? "")"
        let text = try text(node, name, expected: expected)
        guard let index = words.firstIndex(of: text) else { throw unexpected(node, name, expected) }
        return values[index]
    }

    // MARK: Errors

    private func location(_ node: YAMLNode) -> SettingLocation { .line(node.mark.line, of: path) }

    private func location(of entry: YAMLNode.Entry) -> SettingLocation { .line(entry.mark.line, of: path) }

    private func error(_ node: YAMLNode, _ reason: String) -> SettingError { SettingError(location: location(node), reason: reason) }

    private func unexpected(_ node: YAMLNode, _ name: String, _ expected: String) -> SettingError {
        error(node, "\(name): expected \(expected), got \(node.shown)")
    }

    /// The error for an unknown key. The most similar known key becomes invalid, too.
    private mutating func unknown(_ entry: YAMLNode.Entry, in prefix: String, known: [String]) -> SettingError {
        var reason = "unknown key \(Quotation.of(prefix + entry.key)): expected one of \(known.joined(separator: ", "))"
        if let suggestion = Spelling.suggestion(for: entry.key, among: known) {
            configuration.invalidKeys.insert(prefix + suggestion)
            reason += "; did you mean \"\(prefix)\(suggestion)\"?"
        }
        return SettingError(location: location(of: entry), reason: reason)
    }
}

extension YAMLNode {
    /// The items of a list; any other node is a list of one.
    fileprivate var items: [YAMLNode] {
        if case .sequence(let nodes) = value { nodes } else { [self] }
    }
}

extension Server.Workers {
    /// `auto` or a number from 1 to 1024.
    init?(parsing text: String) {
        if text == "auto" {
            self = .auto
        } else {
            guard let count = Int(text), (1...1024).contains(count) else { return nil }
            self = .count(count)
        }
    }
}
