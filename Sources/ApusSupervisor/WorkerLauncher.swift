import ApusBus
import ApusPlatform

/// Forks worker processes.
final class WorkerLauncher {
    private let resources: MasterResources

    init(_ resources: MasterResources) { self.resources = resources }

    /// Forks a process for `worker`.
    ///
    /// - Parameters:
    ///   - count: The number of slots, for the worker.
    ///   - quarantined: The peers that the worker refuses at first.
    ///   - masterOnly: Descriptors that the child must not keep. If a worker held the master's end
    ///     of another worker's channel, that one would not notice the death of the master.
    func launch(
        _ worker: SupervisedWorker, count: Int, quarantined: [QuarantinedPeer],
        closing masterOnly: [Int32], now: MonotonicTime
    ) throws(SystemError) -> WorkerProcess {
        let pair = try Socket.packetPair().release()
        let channel = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let workerEnd = OwnedDescriptor(rawValue: pair.second)
        let workerNumber = workerEnd.rawValue
        let closing = masterOnly + [channel.descriptor]
        let master = Process.id
        let child = try Process.fork {
            run(worker, count, quarantined, channel: workerNumber, closing: closing, master: master)
        }
        _ = consume workerEnd
        return WorkerProcess(child: child, channel: channel, startedAt: now, loop: resources.loop)
    }

    /// Runs in the child; the process ends by `_exit` when this returns.
    ///
    /// Inherited objects still own descriptor numbers that will be reused here, so none of the
    /// master's objects may be deinitialised.
    private func run(
        _ worker: SupervisedWorker, _ count: Int, _ quarantined: [QuarantinedPeer], channel: Int32,
        closing masterOnly: [Int32], master: Int32
    ) -> Int32 {
        for descriptor in masterOnly { OwnedDescriptor.close(descriptor) }
        let groups = worker.generation.listeners
        resources.listeners.keepOnly(slot: worker.slot, of: groups)
        resources.scoreboard.keepOnly(worker.mailbox)
        // TERM and QUIT stay blocked until `WorkerControl.attach` reads them.
        MasterSignals.restoreInChild(keepingBlocked: [Signal.terminate, Signal.quit])
        let control = WorkerControl(
            worker: worker, count: max(count, worker.slot + 1),
            listeners: SlotListeners.listeners(for: worker.slot, of: groups), quarantined: quarantined,
            row: worker.row,
            channel: ControlChannel(
                OwnedDescriptor(rawValue: channel), maxRecordBytes: WorkerCommand.maxRecordBytes),
            master: master)
        return worker.generation.spec.run(control)
    }
}
