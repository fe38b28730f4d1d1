import Apus
import ArgumentParser
import Logging

/// `apus check`: prints the errors of a configuration, or the effective configuration.
struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check a configuration file and print the effective configuration.",
        discussion: "Takes the options of `apus serve`. Opens no listener and writes no file. Exit status 78: the configuration is invalid."
    )

    @OptionGroup var options: ServeOptions

    func run() throws {
        let configuration = try options.configuration()
        _ = try configuration.makeServer()
        try ApusCommand.write(configuration.text)
    }
}

extension Configuration {
    /// The configuration as a file with all settings.
    var text: String {
        var lines: [String] = []
        func add(_ key: String, _ value: String?) { if let value { lines.append("\(key): \(value)") } }
        func add(_ key: String, list: [String]) {
            guard !list.isEmpty else { return }
            lines.append("\(key):")
            lines += list.map { "  - \(Self.quoted($0))" }
        }
        add("listen", list: (listen.isEmpty ? [Self.defaultAddress] : listen).map(\.description))
        switch workers {
        case .auto: add("workers", "auto")
        case .count(let count): add("workers", "\(count)")
        }
        add("root", root.map(Self.quoted))
        add("demo", "\(servesDemo)")
        add("allow-origin", list: allowOrigin)
        if let tls {
            lines.append("tls:")
            add("  certificate", "[\(tls.certificates.map(Self.quoted).joined(separator: ", "))]")
            add("  key", "[\(tls.keys.map(Self.quoted).joined(separator: ", "))]")
            add("  passphrase", tls.passphrase.map(Self.quoted))
            add("  ocsp", tls.ocsp.map(Self.quoted))
            add("  ca", tls.authorities.map(Self.quoted))
            add("  client-certificate", tls.clientCertificate.rawValue)
            add("  allow-plain", "\(tls.allowsPlain)")
            add("  check-interval", tls.checkInterval.map(Quantity.text) ?? "off")
        }
        lines.append("sandbox:")
        add("  mode", sandboxMode.rawValue)
        add("  allow", "[\(sandbox.allows.map { Self.quoted("\($0)") }.sorted().joined(separator: ", "))]")
        add("user", sandbox.user.map(Self.quoted))
        add("group", sandbox.group.map(Self.quoted))
        add("chroot", sandbox.root.map(Self.quoted))
        add("log", log.map(Self.quoted))
        add("log-level", logLevel.rawValue)
        add("pid-file", pidFile.map(Self.quoted))
        add("port-file", portFile.map(Self.quoted))
        add("echo-subprotocol-list", "\(echoSubprotocolList)")
        add("quarantine", quarantine ? "on" : "off")
        lines.append("limits:")
        for (name, kind) in LimitSettings.all { add("  \(name)", LimitSettings.text(kind, in: limits)) }
        return lines.joined(separator: "\n") + "\n"
    }

    /// In double quotes, escaped for YAML.
    private static func quoted(_ text: String) -> String {
        "\"\(text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\""
    }
}
