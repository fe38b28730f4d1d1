import Apus
import Foundation
import Logging
import Yams

/// Reads a configuration file: YAML, with the keys of `settings` and no others. Every mistake is one error that names the file, the line,
/// what is wrong and what would be right.
struct ConfigurationFile {
    private let path: String
    private var configuration: Configuration

    /// Larger files are a mistake. Bytes.
    private static let maxBytes = 1 << 20

    /// Sets what the file at `path` says.
    static func apply(_ path: String, to configuration: inout Configuration) throws {
        var file = ConfigurationFile(path: path, configuration: configuration)
        try file.read()
        configuration = file.configuration
    }

    private init(path: String, configuration: Configuration) {
        self.path = path
        self.configuration = configuration
    }

    private static let settings: [String: @Sendable (inout ConfigurationFile, Node) throws -> Void] = [
        "listen": { file, node in
            file.configuration.listen = try file.texts(node, "listen", wants: "an address or a list of addresses").map { text, node in
                do { return try ListenAddress(parsing: text) } catch { throw file.error(node, "listen: \(error)") }
            }
        },
        "workers": { file, node in
            let text = try file.text(node, "workers", wants: "auto or a number from 1 to 1024")
            guard let workers = Server.Workers(parsing: text) else {
                throw file.error(node, "workers: \"\(text)\": it wants auto or a number from 1 to 1024")
            }
            file.configuration.workers = workers
        },
        "root": { file, node in file.configuration.root = try file.optionalText(node, "root", wants: "a directory") },
        "allow-origin": { file, node in
            file.configuration.allowOrigin = try file.texts(node, "allow-origin", wants: "an origin, a list of origins, or \"*\"").map(\.0)
        },
        "tls": { file, node in try file.readTLS(node) },
        "sandbox": { file, node in try file.readSandbox(node) },
        "allow-connect": { file, node in
            if try file.choice(node, "allow-connect", [true, false], { "\($0)" }) {
                file.configuration.sandbox.allows.insert(.connecting)
            } else {
                file.configuration.sandbox.allows.remove(.connecting)
            }
        },
        "user": { file, node in file.configuration.sandbox.user = try file.optionalText(node, "user", wants: "a name or number") },
        "group": { file, node in file.configuration.sandbox.group = try file.optionalText(node, "group", wants: "a name or number") },
        "chroot": { file, node in file.configuration.sandbox.root = try file.optionalText(node, "chroot", wants: "a directory") },
        "log": { file, node in file.configuration.log = try file.optionalText(node, "log", wants: "a file") },
        "log-level": { file, node in
            file.configuration.logLevel = try file.choice(node, "log-level", Logger.Level.allCases) { $0.rawValue }
        },
        "pid-file": { file, node in file.configuration.pidFile = try file.optionalText(node, "pid-file", wants: "a file") },
        "port-file": { file, node in file.configuration.portFile = try file.optionalText(node, "port-file", wants: "a file") },
        "echo-subprotocol-list": { file, node in
            file.configuration.echoSubprotocolList = try file.choice(node, "echo-subprotocol-list", [true, false]) { "\($0)" }
        },
        "quarantine": { file, node in
            file.configuration.quarantine = try file.choice(node, "quarantine", [true, false]) { $0 ? "on" : "off" }
        },
        "limits": { file, node in try file.readLimits(node) },
    ]

    // MARK: Reading

    private mutating func read() throws {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw SettingError(place: .option("config"), reason: "cannot read the configuration file \"\(path)\": \(reason())")
        }
        guard data.count <= Self.maxBytes else { throw error(1, "the file has more than \(Self.maxBytes) bytes") }
        guard let text = String(data: data, encoding: .utf8) else { throw error(1, "the file is not UTF-8") }
        let root: Node?
        do {
            try refuseAnchors(text)
            root = try Yams.compose(yaml: text)
        } catch let fault as YamlError {
            throw self.error(fault)
        }
        guard let root, root != Node("") else { return }
        for (key, value) in try entries(root, "the file") {
            guard let name = key.scalar?.string, let set = Self.settings[name] else {
                throw unknown(key, in: "", known: Self.settings.keys.sorted())
            }
            configuration.places[name] = .line(line(of: key), of: path)
            try set(&self, value)
        }
    }

    /// Anchors and aliases are refused: a file of a kilobyte can stand for more than fits into memory with them.
    private func refuseAnchors(_ text: String) throws {
        guard text.contains("&") else { return }
        // Anchors are of no harm as long as nothing refers to them: aliases are made plain text. The parser keeps the anchors.
        let parser = try Parser(yaml: text.replacing("*", with: "x"))
        guard let root = try parser.singleRoot(), let node = anchored(root) else { return }
        throw error(node, "an anchor (&): the file may hold neither anchors nor aliases; write it out")
    }

    /// The first node with an anchor.
    private func anchored(_ node: Node) -> Node? {
        if node.anchor != nil { return node }
        if let mapping = node.mapping { return mapping.lazy.flatMap { [$0.key, $0.value] }.compactMap(anchored).first }
        return node.sequence?.lazy.compactMap(anchored).first
    }

    /// Why a file cannot be read, in the system's words.
    private func reason() -> String {
        do {
            _ = try Data(contentsOf: URL(fileURLWithPath: path))
            return "it has just changed"
        } catch CocoaError.fileReadNoSuchFile {
            return "No such file or directory"
        } catch CocoaError.fileReadNoPermission {
            return "Permission denied"
        } catch {
            return "it is no readable file"
        }
    }

    private mutating func readTLS(_ node: Node) throws {
        var tls = Configuration.TLS()
        for (key, value) in try entries(node, "tls") {
            if let name = key.scalar?.string { configuration.places["tls.\(name)"] = .line(line(of: key), of: path) }
            switch key.scalar?.string {
            case "certificate": tls.certificates = try texts(value, "tls.certificate", wants: "a file or a list of files").map(\.0)
            case "key": tls.keys = try texts(value, "tls.key", wants: "a file or a list of files").map(\.0)
            case "passphrase": tls.passphrase = try optionalText(value, "tls.passphrase", wants: "a file")
            case "ocsp": tls.ocsp = try optionalText(value, "tls.ocsp", wants: "a file")
            case "allow-plain": tls.allowsPlain = try choice(value, "tls.allow-plain", [true, false]) { "\($0)" }
            case "ca": tls.authorities = try optionalText(value, "tls.ca", wants: "a file")
            case "check-interval":
                let text = try text(value, "tls.check-interval", wants: "a time")
                guard let interval = Configuration.TLS.checkInterval(text) else {
                    throw error(value, "tls.check-interval wants \(Configuration.TLS.checkIntervalForm); not \"\(text)\"")
                }
                tls.checkInterval = interval
            case "client-certificate":
                tls.clientCertificate = try choice(value, "tls.client-certificate", Configuration.TLS.ClientCertificate.allCases) {
                    $0.rawValue
                }
            case nil, .some:
                throw unknown(
                    key, in: "tls.",
                    known: ["allow-plain", "ca", "certificate", "check-interval", "client-certificate", "key", "ocsp", "passphrase"])
            }
        }
        for (name, value) in [("certificate", tls.certificates), ("key", tls.keys)] where value.isEmpty {
            throw error(node, "tls: it wants \(name), a file")
        }
        guard tls.certificates.count == tls.keys.count else {
            throw error(node, "tls: \(tls.certificates.count) certificates and \(tls.keys.count) keys: each wants the other")
        }
        if tls.clientCertificate != .off, tls.authorities == nil {
            throw error(node, "tls: client-certificate wants ca, the file of who signs them")
        }
        configuration.tls = tls
    }

    /// A mode, or `mode` and `allow`.
    private mutating func readSandbox(_ node: Node) throws {
        guard node.mapping != nil else {
            configuration.sandboxMode = try choice(node, "sandbox", SandboxMode.allCases) { $0.rawValue }
            return
        }
        for (key, value) in try entries(node, "sandbox") {
            switch key.scalar?.string {
            case "mode": configuration.sandboxMode = try choice(value, "sandbox.mode", SandboxMode.allCases) { $0.rawValue }
            case "allow":
                for node in value.sequence.map({ Array($0) }) ?? [value] {
                    // `reading: /PATH` is a key with a value to YAML.
                    let pair = node.mapping.flatMap { $0.count == 1 ? $0.first : nil }
                    let text = pair.flatMap { pair in
                        pair.key.scalar.flatMap { key in pair.value.scalar.map { "\(key.string):\($0.string)" } }
                    }
                    let words = text ?? node.scalar?.string ?? ""
                    guard let permission = SandboxOptions.Permission(parsing: words) else {
                        throw error(node, "sandbox.allow: expected \(SandboxOptions.permissionForms), got \"\(words)\"")
                    }
                    configuration.sandbox.allows.insert(permission)
                }
            case nil, .some: throw unknown(key, in: "sandbox.", known: ["allow", "mode"])
            }
        }
    }

    private mutating func readLimits(_ node: Node) throws {
        for (key, value) in try entries(node, "limits") {
            guard let name = key.scalar?.string, let setting = LimitSettings.all.first(where: { $0.name == name }) else {
                throw unknown(key, in: "limits.", known: LimitSettings.all.map(\.name))
            }
            configuration.places["limits.\(name)"] = .line(line(of: key), of: path)
            let text = try text(value, "limits.\(name)", wants: "a value")
            if let wanted = LimitSettings.set(setting.kind, to: text, in: &configuration.limits) {
                throw error(value, "limits.\(name): \"\(text)\": it wants \(wanted)")
            }
        }
    }

    // MARK: Nodes

    private func entries(_ node: Node, _ name: String) throws -> [(Node, Node)] {
        guard let mapping = node.mapping else { throw error(node, "\(name): it wants keys with values, KEY: VALUE") }
        return mapping.map { ($0.key, $0.value) }
    }

    private func text(_ node: Node, _ name: String, wants wanted: String) throws -> String {
        guard let text = node.scalar?.string, !text.isEmpty else { throw error(node, "\(name): it wants \(wanted)") }
        return text
    }

    /// A text; nil for YAML's null, which says that there is none (YAML 1.2.2 §10.2.1.1).
    private func optionalText(_ node: Node, _ name: String, wants wanted: String) throws -> String? {
        if let scalar = node.scalar, scalar.style == .plain, ["", "~", "null", "Null", "NULL"].contains(scalar.string) { return nil }
        return try text(node, name, wants: wanted)
    }

    /// One text, or a list of them.
    private func texts(_ node: Node, _ name: String, wants wanted: String) throws -> [(String, Node)] {
        let nodes = node.sequence.map { Array($0) } ?? [node]
        return try nodes.map { (try text($0, name, wants: wanted), $0) }
    }

    private func choice<Value>(_ node: Node, _ name: String, _ values: [Value], _ word: (Value) -> String) throws -> Value {
        let words = values.map(word)
        let wanted = "\(words.dropLast().joined(separator: ", ")) or \(words.last ?? "")"
        let text = try text(node, name, wants: wanted)
        guard let place = words.firstIndex(of: text) else { throw error(node, "\(name): \"\(text)\": it wants \(wanted)") }
        return values[place]
    }

    // MARK: Mistakes

    private func line(of node: Node) -> Int { node.mark?.line ?? 1 }

    private func error(_ node: Node, _ reason: String) -> SettingError { error(line(of: node), reason) }

    private func error(_ line: Int, _ reason: String) -> SettingError { SettingError(place: .line(line, of: path), reason: reason) }

    private func unknown(_ key: Node, in prefix: String, known: [String]) -> SettingError {
        let name = key.scalar?.string ?? "a key that is no text"
        let likely = Likeness.nearest(to: name, among: known).map { "; did you mean \"\(prefix)\($0)\"?" } ?? ""
        return error(key, "unknown key \"\(prefix)\(name)\"\(likely); there are \(known.joined(separator: ", "))")
    }

    private static func beginsWithTab(_ line: Int, of text: String) -> Bool {
        let lines = text.split(separator: "\n", maxSplits: max(0, line), omittingEmptySubsequences: false)
        return lines.dropFirst(max(0, line - 1)).first?.prefix { $0 == " " || $0 == "\t" }.contains("\t") ?? false
    }

    /// What the parser says of a file that is no YAML.
    private func error(_ fault: YamlError) -> SettingError {
        switch fault {
        case .composer(_, "found undefined alias", let mark, _):
            return error(mark.line, "an alias (*): the file may hold neither anchors nor aliases; a text that begins with * wants quotes")
        case .scanner(_, let problem, let mark, let text), .parser(_, let problem, let mark, let text),
            .composer(_, let problem, let mark, let text):
            let isTab = Self.beginsWithTab(mark.line, of: text)
            return error(mark.line, "no YAML: \(isTab ? "the line begins with a tab; expected spaces" : problem)")
        case .duplicatedKeysInMapping(let duplicates, let context):
            return error(context.mark.line, "a key stands twice: \(duplicates.sorted().joined(separator: ", "))")
        case .reader(let problem, _, _, _), .writer(let problem), .emitter(let problem), .representer(let problem):
            return error(1, "no YAML: \(problem)")
        case .no, .memory, .dataCouldNotBeDecoded:
            return error(1, "no YAML: \(fault)")
        }
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
