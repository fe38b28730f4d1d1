import Apus
import ArgumentParser
import Logging

/// `apus log-level`: changes the log level of a running server without new workers.
struct LogLevel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log-level", abstract: "Change the log level of a running server, in the master and all workers.",
        discussion:
            "The level is in effect until the next reload (SIGHUP), which uses the configured one. Connections are not affected.")

    @Argument(help: "trace, debug, info, notice, warning, error or critical.")
    var level: String

    @Argument(help: ArgumentHelp("The master's process ID, or its PID file.", valueName: "pid"))
    var master: String

    /// EX_UNAVAILABLE of sysexits.h: the master cannot be reached.
    private static let unavailable: Int32 = 69

    func validate() throws {
        guard Logger.Level(rawValue: level) != nil else {
            throw ValidationError("level: expected trace, debug, info, notice, warning, error or critical, got \(Quotation.of(level))")
        }
    }

    func run() throws {
        guard let level = Logger.Level(rawValue: level) else { return }
        do {
            try LogLevelRequest.send(level, to: try Int32(master) ?? LogLevelRequest.master(pidFile: master))
        } catch LogLevelRequest.Failure.notUnderstood {
            throw RuntimeFailure("process \(master): expected the master of an Apus server", Self.unavailable)
        } catch LogLevelRequest.Failure.refused(let reason) {
            throw RuntimeFailure("\(master): \(reason)", Self.unavailable)
        }
    }
}
