import Apus
import ArgumentParser
import Logging

/// `apus serve`: serves the demo or the files of a directory from supervised workers.
struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve the demo, or the files of a directory, from supervised worker processes.",
        discussion: """
            Without options it serves the demo on 127.0.0.1:8080: a page that shows which worker served it, and at / the WebSocket protocols \
            echo (the default), dumb-increment-protocol, lws-mirror-protocol and fraggle-protocol.
            SIGTERM and SIGINT stop it, SIGQUIT drains it first. SIGHUP reads the configuration file again and replaces the workers; \
            SIGUSR1 reopens the log; SIGUSR2 starts the program again and hands over to it; SIGTTIN and SIGTTOU add and remove a worker; \
            SIGWINCH drains the workers.
            """)

    @OptionGroup var options: ServeOptions

    func run() throws {
        let configuration = try options.configuration()
        var server = try configuration.makeServer()
        let log = try openLog(configuration)
        LoggingSystem.bootstrap { label in
            // Each generation's logger has its own level.
            if let log { LogFile.Handler(log, label: label) } else { StandardErrorLogHandler(label: label) }
        }
        configuration.setLog(log, of: &server)
        if options.sandbox.sandboxSelftest { return try options.sandbox.runSelfTest(of: server) }
        server.reload = { [options] in
            let next = try options.configuration()
            var description = try next.makeServer()
            next.setLog(log, of: &description)
            if let path = next.log, let log, path != log.path {
                do throws(ConfigurationError) { try log.prepareMove(to: path) } catch { throw next.located(error) }
            }
            return description
        }
        do {
            try server.run()
        } catch {
            throw configuration.located(error)
        }
    }

    private func openLog(_ configuration: Configuration) throws -> LogFile? {
        guard let path = configuration.log else { return nil }
        do throws(ConfigurationError) {
            return try LogFile(path)
        } catch {
            throw configuration.located(error)
        }
    }
}
