import Apus
import ArgumentParser
import Logging

/// `apus log-level`: what a server logs, without new workers.
struct LogLevel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log-level", abstract: "Change from which level on a running server logs, in the master and all workers.",
        discussion:
            "It holds until the server's next reload (SIGHUP), which goes by the configuration, or its end. Connections notice nothing.")

    @Argument(help: "trace, debug, info, notice, warning, error or critical.")
    var level: String

    @Argument(help: ArgumentHelp("The master's process number, or its pid file.", valueName: "pid"))
    var master: String

    /// EX_UNAVAILABLE of sysexits.h: the process cannot be asked.
    private static let unavailable: Int32 = 69

    func validate() throws {
        guard Logger.Level(rawValue: level) != nil else {
            throw ValidationError("expected trace, debug, info, notice, warning, error or critical as the level, got \"\(level)\"")
        }
    }

    func run() throws {
        guard let level = Logger.Level(rawValue: level) else { return }
        do {
            try LogLevelRequest.send(level, to: try Int32(master) ?? LogLevelRequest.master(pidFile: master))
        } catch LogLevelRequest.Failure.notUnderstood {
            throw RuntimeFailure("process \(master) is no master of an Apus server", Self.unavailable)
        } catch LogLevelRequest.Failure.refused(let reason) {
            throw RuntimeFailure("\(master): \(reason)", Self.unavailable)
        }
    }
}
