/// Implemented by the program that owns a `Supervisor`. All calls come in the master process, on
/// the thread that called `Supervisor.run`.
package protocol SupervisorDelegate: AnyObject {
    /// Every slot has a ready worker. Called once.
    func supervisorBecameReady(_ supervisor: Supervisor)

    /// HUP: makes the specification of the next generation.
    ///
    /// - Throws: Any error. It is logged, and the present generation stays.
    func makeWorkerSpec() throws -> WorkerSpec

    /// A reload is complete: the next generation serves.
    func supervisorReloaded(_ supervisor: Supervisor)

    /// Changes the log level of this process.
    ///
    /// - Returns: The name of the level; nil if there is no level of this number.
    func setLogLevel(_ number: UInt8) -> String?

    /// USR1.
    func reopenLogs()

    /// The program that USR2 starts, with its arguments; nil: USR2 has no effect.
    var program: [String]? { get }

    /// What the new program gets besides the listeners, such as keys; it is read there by
    /// `Inheritance.upgradePayload`. At most 1,000 bytes.
    var upgradePayload: [UInt8] { get }

    /// Why USR2 cannot start a program now; nil: it can.
    var upgradeObstacle: String? { get }

    /// An upgrade has reached `stage`.
    func upgradeReached(_ stage: UpgradeStage)
}

/// The stages of an upgrade.
package enum UpgradeStage: Equatable {
    /// A new program is about to start.
    case starting
    /// The new program did not get ready. This one continues to serve.
    case failed
    /// The new program serves. This one drains and ends.
    case done
}
