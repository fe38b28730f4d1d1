import Apus
import ArgumentParser

/// The sandbox options of `apus serve`.
struct ServeSandbox: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "enforced, best-effort (without layers that the system lacks) or off.", valueName: "mode"))
    var sandbox: SandboxMode?

    @Option(
        name: .long, help: ArgumentHelp("The workers' user when started as root: a name or a number (default: nobody).", valueName: "name"))
    var user: String?

    @Option(name: .long, help: ArgumentHelp("The workers' group (default: the user's).", valueName: "name"))
    var group: String?

    @Option(name: .long, help: ArgumentHelp("A directory that becomes the root of the workers' file system.", valueName: "dir"))
    var chroot: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "A permission of the workers besides serving: \(SandboxOptions.permissionForms); repeatable.", valueName: "permission"),
        transform: { text in
            guard let permission = SandboxOptions.Permission(parsing: text) else {
                throw ValidationError("expected \(SandboxOptions.permissionForms), got \(Quotation.of(text))")
            }
            return permission
        })
    var allow: [SandboxOptions.Permission] = []

    @Flag(name: .long, help: "Same as --allow connecting.")
    var allowConnect = false

    @Flag(name: .long, help: "Run attacks of a compromised worker with and without each layer; print the expected and the actual results.")
    var sandboxSelftest = false

    /// Applies the options on top of the file's settings.
    func apply(to configuration: inout Configuration) {
        if let sandbox { configuration.sandboxMode = sandbox }
        configuration.sandbox.allows.formUnion(allow)
        if allowConnect { configuration.sandbox.allows.insert(.connecting) }
        for (name, value, path) in [("user", user, \SandboxOptions.user), ("group", group, \.group), ("chroot", chroot, \.root)] {
            guard let value else { continue }
            configuration.sandbox[keyPath: path] = value
            configuration.locations[name] = .option(name)
        }
    }

    /// Runs the self-test: prints one line for each attempt, and fails if a result is unexpected.
    func runSelfTest(of server: Server) throws {
        var differences = 0
        var attempts = 0
        var lines = ""
        try server.testSandbox { finding in
            attempts += 1
            if !finding.isAsWanted { differences += 1 }
            let layers = finding.without.map { "without \($0)" } ?? "all layers"
            lines +=
                "\(finding.isAsWanted ? "ok  " : "FAIL") \(finding.attempt), \(layers): expected \(finding.wanted), got \(finding.got)\n"
        }
        try ApusCommand.write(lines + "\(attempts) attempts, \(differences) unexpected results\n")
        if differences > 0 { throw ExitCode(1) }
    }
}

/// The mode of the sandbox, as written.
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
