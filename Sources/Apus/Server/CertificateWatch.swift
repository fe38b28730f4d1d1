import ApusSupervisor
import Logging

/// Looks for new certificates in the master, and gives them to the workers: handshakes from then on show the new ones, connections stay.
final class CertificateWatch {
    private unowned let supervisor: Supervisor
    private let logger: Logger
    private var timer: DeadlineTimer?
    /// What is wrong with the files as they are now: said once.
    private var objection: String?
    /// What serves now: its files are looked at.
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
            logger.notice("certificates replaced; connections go on")
            for slot in supervisor.tell(application.tls.files.encoded) {
                logger.error("worker \(slot) cannot be given the new certificates: it shows the old ones until it is replaced")
            }
        } catch {
            if objection != "\(error)" { logger.error("the old certificates are shown on: \(error)") }
            objection = "\(error)"
        }
    }
}
