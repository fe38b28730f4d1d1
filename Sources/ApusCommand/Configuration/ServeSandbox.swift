import Apus
import ArgumentParser

/// The options of `apus serve` about what workers give up.
struct ServeSandbox: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "enforced, or best-effort (what the system lacks is left out), or off.", valueName: "mode"))
    var sandbox: SandboxMode?

    @Option(name: .long, help: ArgumentHelp("What workers become when started as root: a name or a number; nobody.", valueName: "name"))
    var user: String?

    @Option(name: .long, help: ArgumentHelp("The workers' group; the user's own.", valueName: "name"))
    var group: String?

    @Option(name: .long, help: ArgumentHelp("A directory to become the root of the workers' file system.", valueName: "dir"))
    var chroot: String?

    @Option(
        name: .long,
        help: ArgumentHelp("What workers may do besides serving: \(SandboxOptions.permissionForms); repeatable.", valueName: "permission"),
        transform: { text in
            guard let permission = SandboxOptions.Permission(parsing: text) else {
                throw ValidationError("expected \(SandboxOptions.permissionForms), got \"\(text)\"")
            }
            return permission
        })
    var allow: [SandboxOptions.Permission] = []

    @Flag(name: .long, help: "As --allow connecting.")
    var allowConnect = false

    @Flag(name: .long, help: "Try what an attacker in a worker would, with and without each layer; print what was wanted and got.")
    var sandboxSelftest = false

    /// Puts what is said here over what the file says.
    func apply(to configuration: inout Configuration) {
        if let sandbox { configuration.sandboxMode = sandbox }
        configuration.sandbox.allows.formUnion(allow)
        if allowConnect { configuration.sandbox.allows.insert(.connecting) }
        for (name, value, path) in [("user", user, \SandboxOptions.user), ("group", group, \.group), ("chroot", chroot, \.root)] {
            guard let value else { continue }
            configuration.sandbox[keyPath: path] = value
            configuration.places[name] = .option(name)
        }
    }

    /// The self-test: one line for each attempt with all layers, and one for each that went otherwise than wanted.
    func test(_ server: Server) throws {
        var differences = 0
        var attempts = 0
        var lines = ""
        try server.testSandbox { finding in
            attempts += 1
            if !finding.isAsWanted { differences += 1 }
            let layers = finding.without.map { "without \($0)" } ?? "all layers"
            lines += "\(finding.isAsWanted ? "ok  " : "FAIL") \(finding.attempt), \(layers): wanted \(finding.wanted), got \(finding.got)\n"
        }
        try ApusCommand.write(lines + "\(attempts) attempts, \(differences) otherwise than wanted\n")
        if differences > 0 { throw ExitCode(1) }
    }
}

/// How much of the sandbox there must be, as it is written.
enum SandboxMode: String, ExpressibleByArgument, CaseIterable {
    case enforced
    case bestEffort = "best-effort"
    case off

    var option: SandboxOptions.Mode {
        switch self {
        case .enforced: .enforced
        case .bestEffort: .bestEffort
        case .off: .off
        }
    }
}
