import Apus
import ArgumentParser
import Glibc

/// The `apus` command: a command line for the library.
@main
struct ApusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus", abstract: "A supervised multi-process WebSocket and HTTP/1.1 server.",
        version: Library.version, subcommands: [Serve.self, Check.self, Connect.self, Ping.self, Bench.self, LogLevel.self])

    /// Exit statuses of sysexits.h.
    enum Exit {
        /// The command line is invalid.
        static let usage: Int32 = 64
        /// Output cannot be written.
        static let output: Int32 = 74
        /// The configuration is invalid or cannot be set up.
        static let configuration: Int32 = 78
    }

    /// Reports every error here: one line on standard error each, with its reason.
    static func main() {
        StandardStreams.occupy()
        do {
            try checkName(of: CommandLine.arguments.dropFirst().first)
            var command = try parseAsRoot()
            try command.run()
        } catch let error as ConfigurationError {
            fail("\(error)", Exit.configuration)
        } catch let code as ExitCode {
            // The command has already written its message.
            exit(withError: code)
        } catch let error as SettingErrors {
            fail(error.lines, Exit.configuration)
        } catch let error as SettingError {
            fail("\(error)", Exit.configuration)
        } catch let error as RuntimeFailure {
            fail(error.description, error.status)
        } catch {
            let code = exitCode(for: error)
            if code.rawValue == 0 { help(fullMessage(for: error)) }
            fail(message(for: error), code == .validationFailure ? Exit.usage : code.rawValue)
        }
    }

    /// Refuses an unknown command and suggests the most similar one.
    private static func checkName(of word: String?) throws(ValidationError) {
        guard let word, !word.hasPrefix("-") else { return }
        let known = configuration.subcommands.map { $0.configuration.commandName ?? "\($0)".lowercased() } + ["help"]
        if known.contains(word) { return }
        let suggestion = Spelling.suggestion(for: word, among: known).map { "; did you mean \"\($0)\"?" } ?? ""
        throw ValidationError("unknown command \(Quotation.of(word)): expected one of \(known.joined(separator: ", "))\(suggestion)")
    }

    /// Writes the text of `--help` or `--version`.
    private static func help(_ text: String) -> Never {
        do { try write(text + "\n") } catch { fail(error.description, error.status) }
        Glibc.exit(0)
    }

    /// Writes to standard output. Ends the process, as SIGPIPE would, if the reader has closed the
    /// pipe.
    static func write(_ text: String) throws(RuntimeFailure) {
        switch StandardStreams.write(Array(text.utf8)) {
        case .written: break
        case .readerHasGone: Glibc.exit(0)
        case .failed(let reason): throw unwritable(reason)
        }
    }

    static func unwritable(_ reason: String) -> RuntimeFailure {
        RuntimeFailure("cannot write to standard output: \(reason)", Exit.output)
    }

    private static func fail(_ message: String, _ status: Int32) -> Never { fail([message], status) }

    /// Writes one line on standard error for each message and ends the process.
    private static func fail(_ messages: [String], _ status: Int32) -> Never {
        let lines = messages.map { message in
            message.split(whereSeparator: \.isNewline).map { $0.drop(while: \.isWhitespace) }.joined(separator: " ")
        }
        StandardStreams.note(lines.map { "apus: \($0)\n" }.joined())
        Glibc.exit(status)
    }
}
