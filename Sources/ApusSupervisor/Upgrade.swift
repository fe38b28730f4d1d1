import ApusPlatform
import Logging

/// How an upgrade goes, for whoever keeps the pid file.
package enum UpgradeStage: Equatable {
    /// A new program is about to start.
    case starting
    /// It did not get ready: this one goes on.
    case failed
    /// It has everything; this one drains and ends.
    case done
}

/// The environment variables by which a program hands down what it has.
package enum Inheritance {
    /// `SlotListeners.handedDown`.
    package static let listeners = "APUS_LISTENERS"
    /// The descriptor on which the old program waits to hear that the new one is ready, and on which `Supervisor.bequest` lies.
    package static let channel = "APUS_UPGRADE"

    /// What the old program has left for the new one; nil if it leaves nothing.
    package static func bequest(on channel: Int32) -> [UInt8]? {
        guard case .record(let bytes) = ControlChannel.receive(from: channel) else { return nil }
        return bytes
    }
}

/// The new program, from its start until all its workers accept.
final class UpgradeProcess {
    private let child: ChildProcess
    let channel: ControlChannel
    var watches: [(watch: Watch, descriptor: Int32)] = []
    var alarm: Alarm?
    var reason: String?
    var isCancelled = false
    var hasEnded = false

    init(child: consuming ChildProcess, channel: consuming ControlChannel) {
        self.child = child
        self.channel = channel
    }

    var pid: Int32 { child.pid }
    var descriptors: [Int32] { [child.descriptor.rawValue, channel.descriptor] }
}

/// The program that started this one with its listeners, and serves until it is told not to.
final class Predecessor {
    private let channel: ControlChannel
    init(descriptor: Int32) { channel = ControlChannel(OwnedDescriptor(rawValue: descriptor)) }
    var descriptor: Int32 { channel.descriptor }

    /// All workers accept here. If the old program has died meanwhile, this one is alone, which is as well.
    func takeOver() { channel.send(WorkerReport.ready.record) }
}

extension Supervisor {
    /// Starts the program anew, with the listeners. This one serves on until the new one says that all its workers accept.
    func beginUpgrade() {
        guard let program else { return agenda.finished() }
        if let reason = whyNotUpgrade() { return giveUpWork(reason) }
        whenUpgrading(.starting)
        do {
            let pair = try Socket.packetPair().release()
            let channel = ControlChannel(OwnedDescriptor(rawValue: pair.first))
            let theirs = OwnedDescriptor(rawValue: pair.second)
            let number = theirs.rawValue
            let legacy = bequest()
            if !legacy.isEmpty { channel.send(legacy) }
            let closing = masterDescriptors + [channel.descriptor]
            let child = try Process.fork { runProgram(program, channel: number, closing: closing) }
            _ = consume theirs
            let process = UpgradeProcess(child: child, channel: channel)
            upgrade = process
            try watch(process)
            logger.notice("the new program has pid \(process.pid)")
        } catch {
            if let pid = upgrade?.pid { _ = Process.killAndReap(pid) }
            forgetUpgrade()
            whenUpgrading(.failed)
            giveUpWork("\(error)")
        }
    }

    /// The child's life until the new program takes its place.
    private func runProgram(_ program: [String], channel: Int32, closing masterOnly: [Int32]) -> Int32 {
        for descriptor in masterOnly { OwnedDescriptor.close(descriptor) }
        Self.restoreSignals(keeping: [])
        for signal in Self.handledSignals + [Signal.brokenPipe, Signal.fileSize] { Signal.restoreDefault(signal) }
        Process.setEnvironment(Inheritance.listeners, to: listeners.handedDown)
        Process.setEnvironment(Inheritance.channel, to: "\(channel)")
        // The watchdog is told of the new main process; systemd's variable still names the old one.
        Process.removeEnvironment("WATCHDOG_PID")
        let error = Process.execute(program, keeping: listeners.allDescriptors + [channel])
        ControlChannel(OwnedDescriptor(rawValue: channel)).send(WorkerReport.failed(reason: "\(program[0]): \(error)").record)
        return 127
    }

    private func watch(_ process: UpgradeProcess) throws(SystemError) {
        let endDescriptor = process.descriptors[0]
        let endWatch = Watch { [unowned self] _ in upgradeEnded() }
        try loop.add(endWatch, descriptor: endDescriptor, for: .readable)
        process.watches.append((endWatch, endDescriptor))
        let channel = process.channel.descriptor
        let channelWatch = Watch { [unowned self] watch in
            if !readUpgradeReports() { loop.remove(watch, descriptor: channel) }
        }
        try loop.add(channelWatch, descriptor: channel, for: .readable)
        process.watches.append((channelWatch, channel))
        let alarm = Alarm { [unowned self] _, _ in
            guard let upgrade else { return }
            logger.error("the new program (pid \(upgrade.pid)) is not \(upgrade.isCancelled ? "gone" : "ready") in time: sending SIGKILL")
            upgrade.reason = "it was not ready after \(configuration.upgradeTimeout)"
            Process.signal(upgrade.pid, Signal.kill)
        }
        process.alarm = alarm
        loop.schedule(alarm, after: configuration.upgradeTimeout)
    }

    private func forgetUpgrade() {
        guard let upgrade else { return }
        for (watch, descriptor) in upgrade.watches { loop.remove(watch, descriptor: descriptor) }
        upgrade.watches = []
        if let alarm = upgrade.alarm { loop.cancel(alarm) }
        upgrade.alarm = nil
        self.upgrade = nil
    }

    /// Whether the channel is still open.
    private func readUpgradeReports() -> Bool {
        guard let upgrade else { return false }
        // One that says more is heard in the next turn.
        for _ in 0..<64 {
            switch upgrade.channel.receive() {
            case .nothing:
                return true
            case .closed:
                return false
            case .record(let record):
                switch WorkerReport(record: record) {
                case .ready where upgrade.hasEnded:
                    break  // it lived too briefly to be trusted
                case .ready:
                    handOver(to: upgrade.pid)
                    return true
                case .failed(let reason):
                    upgrade.reason = reason
                case .wrote, .noted, nil:
                    logger.error("the new program (pid \(upgrade.pid)) sent an unknown record")
                }
            }
        }
        return true
    }

    /// The new program has everything: this one drains and ends.
    private func handOver(to pid: Int32) {
        guard case .up = course else { return }
        logger.notice("the new program (pid \(pid)) serves; this one drains")
        isHandedOver = true
        Process.setTitle("\(configuration.title): master (draining)")
        notifier.handOver(to: pid)
        forgetUpgrade()
        listeners.giveUpFiles()
        whenUpgrading(.done)
        leave(.handOver(closing: []))
    }

    private func upgradeEnded() {
        guard let process = upgrade, let end = Process.reap(process.pid) else { return }
        process.hasEnded = true
        _ = readUpgradeReports()  // its last words
        forgetUpgrade()
        whenUpgrading(.failed)
        if case .ending = course { return }
        giveUpWork(process.isCancelled ? "it was called off" : "\(end)\(process.reason.map { " (\($0))" } ?? "")")
    }

    /// The server ends: the new program, which may not be ready yet, must not stay behind.
    func cancelUpgrade() {
        guard let upgrade, !upgrade.isCancelled else { return }
        upgrade.isCancelled = true
        Process.signal(upgrade.pid, Signal.terminate)
        guard let alarm = upgrade.alarm else { return }
        loop.schedule(alarm, after: configuration.stopTimeout + configuration.stopTimeout)
    }
}
