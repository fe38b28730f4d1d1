import ApusSupervisor
import Logging

/// Polls the certificate files in the master and sends changes to the workers. New handshakes use
/// the new certificates, connections stay open.
final class CertificateWatch {
    private unowned let supervisor: Supervisor
    private let logger: Logger
    private var timer: DeadlineTimer?
    /// The last error of loading, logged once until it changes.
    private var objection: String?
    /// The application of the serving generation.
    private let application: Application

    init(_ application: Application, every interval: Duration, _ supervisor: Supervisor, _ logger: Logger) {
        self.application = application
        self.supervisor = supervisor
        self.logger = logger
        timer = DeadlineTimer(supervisor.loop) { [unowned self] in
            look()
            timer?.start(after: interval)
        }
        timer?.start(after: interval)
    }

    deinit { timer?.cancel() }

    private func look() {
        guard application.server.canReplaceCertificates, application.tls.files.haveChanged else { return objection = nil }
        do {
            try application.replaceTLS()
            objection = nil
            logger.notice("certificates replaced; open connections are kept")
            for slot in supervisor.sendToWorkers(application.tls.files.encoded) {
                logger.error("cannot send the new certificates to worker \(slot): it uses the old ones until it is replaced")
            }
        } catch {
            if objection != "\(error)" { logger.error("cannot load the new certificates, the old ones stay in use: \(error)") }
            objection = "\(error)"
        }
    }
}
