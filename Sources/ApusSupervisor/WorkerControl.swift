package import ApusBus
package import ApusPlatform

/// A worker process's end of its control channel, and what the master gives it at the fork.
///
/// The process ends with the status that `WorkerSpec.run` returns. Before `attach` it receives
/// nothing: TERM and QUIT are blocked, orders wait in the channel, and only SIGKILL ends it.
package final class WorkerControl {
    /// The slot that this process serves, of `count`.
    package let slot: Int
    package let count: Int
    /// The number of this process among those of its slot, counted from 1.
    package let incarnation: Int
    /// Which of the slot's two rows and mailboxes this process uses. A worker that drains and the
    /// one that replaces it have different ones; the successor of a dead worker has the same.
    package let side: Int
    /// The sockets to accept from, until `closeListeners`.
    package let listeners: [WorkerListener]
    /// The peers that the worker refuses when it starts.
    package let quarantined: [QuarantinedPeer]
    /// The row of the scoreboard that this process writes.
    package let row: Scoreboard.Row

    /// The exit status that means that a restart would fail in the same way.
    package static let doNotRestart = WorkerSlot.doNotRestart

    /// Called when this worker must accept for another slot, from these sockets.
    package var onAdopt: (_ slot: Int, [WorkerListener]) -> Void = { _, _ in }
    /// Called when this worker must no longer accept for another slot. The sockets are closed
    /// afterwards, so they must have left the loop.
    package var onRelease: (_ slot: Int) -> Void = { _ in }

    private var adopted: [Int: [WorkerListener]] = [:]
    private let channel: ControlChannel
    private let beatInterval: Duration
    private let orphanTimeout: Duration
    private let title: String
    private var areListenersClosed = false
    private let master: Int32

    init(
        worker: SupervisedWorker, count: Int, listeners: [WorkerListener],
        quarantined: [QuarantinedPeer], row: Scoreboard.Row, channel: consuming ControlChannel,
        master: Int32
    ) {
        slot = worker.slot
        self.count = count
        incarnation = worker.incarnation
        side = worker.side
        self.listeners = listeners
        self.quarantined = quarantined
        self.row = row
        self.channel = channel
        self.master = master
        let configuration = worker.generation.spec.configuration
        beatInterval = Self.beatInterval(for: configuration.heartbeatTimeout)
        orphanTimeout = configuration.orphanTimeout
        title = "\(configuration.title): worker \(worker.slot)"
    }

    /// The descriptors that this process has from the supervisor.
    package var descriptors: [Int32] { listeners.map(\.descriptor) + [channel.descriptor] }

    /// The descriptor of the control channel.
    package var channelDescriptor: Int32 { channel.descriptor }

    /// The index of this worker's mailbox: two per slot.
    package var mailbox: Int { Self.mailbox(slot: slot, side: side) }

    static func mailbox(slot: Int, side: Int) -> Int { Mailboxes.place(slot: slot, side: side) }

    /// A tenth of the timeout, so that one late beat has no effect; at least 10 ms, and at most 200
    /// ms: `Adoption` tolerates one beat that is missed.
    static func beatInterval(for timeout: Duration) -> Duration {
        min(max(timeout / 10, .milliseconds(10)), .milliseconds(200))
    }

    /// Arranges that the death of the master frees the addresses of the listeners at once and ends
    /// this process in time, even if it hangs in a callback. `attach` calls this; call it again
    /// after a change of the user, which makes the kernel forget it.
    ///
    /// - Throws: `ESRCH` if the master has died already.
    package func guardAgainstMasterDeath() throws(SystemError) {
        // A second more than the timer of the loop takes.
        let seconds = Int(clamping: orphanTimeout.wholeMilliseconds / 1000) + 1
        let listeners = openListeners.map(\.descriptor)
        try Process.guardOrphan(of: master, listeners: listeners, seconds: seconds)
    }

    private var openListeners: [WorkerListener] {
        (areListenersClosed ? [] : listeners) + adopted.values.joined()
    }

    // MARK: Orders

    /// Receives orders and beats in `loop`, until the process ends.
    ///
    /// - Parameter command: Called with each order; there may be several, such as `stop` after
    ///   `drain`.
    package func attach(
        to loop: EventLoop, on command: @escaping (WorkerCommand) -> Void
    ) throws(SystemError) {
        Process.setTitle(title)
        try guardAgainstMasterDeath()
        let obey = { [title] (order: WorkerCommand) in
            switch order {
            case .application, .adopt, .release, .quarantine, .logLevel: break
            case .stop: Process.setTitle(title + " (stopping)")
            case .drain, .masterDied, .handOver: Process.setTitle(title + " (draining)")
            }
            command(order)
        }
        StandardError.relay(
            to: channel.descriptor, tag: WorkerReport.wroteTag, noteTag: WorkerReport.notedTag,
            maxBytes: WorkerReport.maxReasonBytes)
        try watchSignals(in: loop, obey)
        let source = ClosureSource { [self] source, _ in
            guard !receiveOrders(obey) else { return }
            loop.remove(source, descriptor: channel.descriptor)
            // The master would have ended a worker that drains for too long.
            loop.schedule(ClosureTimer { _, _ in Process.exitNow(0) }, after: orphanTimeout)
            obey(.masterDied)
        }
        try loop.add(source, descriptor: channel.descriptor, for: .readable)
        startBeating(in: loop)
    }

    private func watchSignals(
        in loop: EventLoop, _ obey: @escaping (WorkerCommand) -> Void
    ) throws(SystemError) {
        // Open until the process ends.
        let signals = try Signal.descriptor(for: [Signal.terminate, Signal.quit]).release()
        let source = ClosureSource { _, _ in
            while let signal = Signal.next(from: signals) {
                // The master keeps the sockets of the slot: a successor accepts what waits there.
                obey(signal.number == Signal.quit ? .handOver(closing: []) : .stop)
            }
        }
        try loop.add(source, descriptor: signals, for: .readable)
    }

    /// - Returns: Whether the channel is still open.
    private func receiveOrders(_ obey: (WorkerCommand) -> Void) -> Bool {
        while true {
            var passed: [Int32] = []
            switch channel.receive(passed: &passed) {
            case .nothing:
                return true
            case .closed:
                return false
            case .record(let bytes):
                switch WorkerCommand(record: bytes) {
                case .adopt(let slot, let places)?: adopt(slot, places, passed)
                case .release(let slot)?: release(slot)
                case let order?: obey(order)
                case nil: break
                }
            }
        }
    }

    private func startBeating(in loop: EventLoop) {
        row.beat(at: loop.now)
        let timer = ClosureTimer { [row, beatInterval] timer, now in
            row.beat(at: now)
            loop.schedule(timer, at: now + beatInterval)
        }
        loop.schedule(timer, at: loop.now)
    }

    /// How long connections may drain after the death of the master: a little less than the
    /// process.
    package var orphanDrainTimeout: Duration { orphanTimeout * 9 / 10 }

    // MARK: Listeners

    /// Closes this process's copies of all listeners: an address is free when no process holds it
    /// open. They must have left the loop.
    package func closeListeners() {
        if areListenersClosed { return }
        let open = openListeners
        areListenersClosed = true
        adopted = [:]
        // Their numbers may be those of connections soon.
        Process.guardListeners([])
        for listener in open { OwnedDescriptor.close(listener.descriptor) }
    }

    private func adopt(_ slot: Int, _ places: [Int], _ descriptors: [Int32]) {
        let sockets = zip(places, descriptors).compactMap { place, descriptor -> WorkerListener? in
            guard !areListenersClosed, let own = listeners.first(where: { $0.place == place }) else {
                return nil
            }
            // The other process that waits on the socket may be the one that does not run.
            return WorkerListener(
                descriptor: descriptor, place: place, address: own.address, isShared: false)
        }
        for descriptor in descriptors where !sockets.contains(where: { $0.descriptor == descriptor }) {
            OwnedDescriptor.close(descriptor)
        }
        guard !sockets.isEmpty else { return }
        adopted[slot, default: []] += sockets
        Process.guardListeners(openListeners.map(\.descriptor))
        onAdopt(slot, sockets)
    }

    private func release(_ slot: Int) {
        guard let sockets = adopted.removeValue(forKey: slot) else { return }
        onRelease(slot)
        Process.guardListeners(openListeners.map(\.descriptor))
        for socket in sockets { OwnedDescriptor.close(socket.descriptor) }
    }

    // MARK: Reports

    /// Reports that the worker serves: its slot counts as ready.
    package func reportReady() { channel.send(WorkerReport.ready.record) }

    /// Reports why the worker is about to end. The master logs it with the death.
    package func reportFailure(_ reason: String) {
        channel.send(WorkerReport.failed(reason: reason).record)
    }
}
