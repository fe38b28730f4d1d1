package import ApusBus
package import ApusPlatform

/// The child's side: what a worker process is given, and its line to the master.
///
/// The process ends with the value that `runWorker` returns. Before `attach` it can be told nothing: TERM and QUIT are
/// blocked, commands wait in the channel, and only SIGKILL ends it.
package final class Worker {
    /// Which of `count` slots this process serves.
    package let slot: Int
    package let count: Int
    /// How many processes the slot has had, this one included.
    package let generation: Int
    /// Which of the slot's two rows and mailboxes is this process's: a worker that drains and the one that replaces it have different ones,
    /// one that takes over from a dead worker has that one's.
    package let side: Int
    /// The sockets to accept from, until `closeListeners`.
    package let listeners: [WorkerListener]
    /// Peers that are turned away when the worker starts.
    package let turnedAway: [(peer: SocketAddress, end: MonotonicTime)]
    /// The row of the scoreboard that this process writes.
    package let row: Scoreboard.Row

    /// The exit status of a worker that another would fare no better than.
    package static let doNotRestart: Int32 = 78

    /// Called when this worker is to accept for another slot, with the slot and the sockets, and when it is no longer: they must have left the loop
    /// then. They are closed here.
    package var whenAdopting: (_ slot: Int, [WorkerListener]) -> Void = { _, _ in }
    package var whenReleasing: (_ slot: Int) -> Void = { _ in }
    private var adopted: [Int: [WorkerListener]] = [:]
    private let channel: ControlChannel
    private let beatInterval: Duration
    private let orphanTimeout: Duration
    private let title: String
    private var areListenersClosed = false
    private let master: Int32

    init(
        line: WorkerLine, count: Int, listeners: [WorkerListener], turnedAway: [(peer: SocketAddress, end: MonotonicTime)],
        row: Scoreboard.Row, channel: consuming ControlChannel, master: Int32
    ) {
        self.turnedAway = turnedAway
        slot = line.slot
        self.count = count
        generation = line.life
        side = line.side
        self.listeners = listeners
        self.row = row
        self.channel = channel
        self.master = master
        let configuration = line.generation.blueprint.configuration
        beatInterval = Self.beatInterval(for: configuration.heartbeatTimeout)
        orphanTimeout = configuration.orphanTimeout
        title = "\(configuration.title): worker \(line.slot)"
    }

    /// What this process holds of the supervisor's.
    package var descriptors: [Int32] { listeners.map(\.descriptor) + [channel.descriptor] }

    /// Where the master's orders come from.
    package var channelDescriptor: Int32 { channel.descriptor }

    /// Where this worker's mail is among all: two places per slot.
    package var mailbox: Int { Self.mailbox(slot: slot, side: side) }

    static func mailbox(slot: Int, side: Int) -> Int { Mailboxes.place(slot: slot, side: side) }

    /// A tenth of the timeout, so that one late beat is no verdict; at least 10 ms, and at most 200 ms, of which `Adoption` misses two.
    static func beatInterval(for timeout: Duration) -> Duration { min(max(timeout / 10, .milliseconds(10)), .milliseconds(200)) }

    /// The master's death frees the listeners' addresses at once and ends this process in time, though it be stuck in a callback.
    /// `attach` does this; to be done again after the process has changed its user.
    ///
    /// - Throws: `ESRCH` when the master has died already.
    package func guardAgainstMasterDeath() throws(SystemError) {
        // A second more than the loop's own timer takes.
        let seconds = Int(clamping: orphanTimeout.wholeMilliseconds / 1000) + 1
        try Process.guardOrphan(of: master, listeners: openListeners.map(\.descriptor), seconds: seconds)
    }

    private var openListeners: [WorkerListener] { (areListenersClosed ? [] : listeners) + adopted.values.joined() }

    /// Watches for commands and beats the heart in `loop`, until the process ends. `command` may be called with more than one,
    /// a faster one after a slower one included.
    package func attach(to loop: EventLoop, on command: @escaping (WorkerCommand) -> Void) throws(SystemError) {
        Process.setTitle(title)
        try guardAgainstMasterDeath()
        let obey = { [title] (order: WorkerCommand) in
            switch order {
            case .application, .adopt, .release, .turnAway, .logLevel: break
            case .stop: Process.setTitle(title + " (stopping)")
            case .drain, .masterDied, .handOver: Process.setTitle(title + " (draining)")
            }
            command(order)
        }
        StandardError.relay(
            to: channel.descriptor, tag: WorkerReport.wroteTag, noteTag: WorkerReport.notedTag, maxBytes: WorkerReport.maxReasonBytes)
        let signals = try Signal.descriptor(for: [Signal.terminate, Signal.quit]).release()  // open until the process ends
        let signalWatch = Watch { _ in
            // The slot's socket stays with the master: a successor serves what waits there.
            while let signal = Signal.next(from: signals) { obey(signal.number == Signal.quit ? .handOver(closing: []) : .stop) }
        }
        try loop.add(signalWatch, descriptor: signals, for: .readable)

        let channelWatch = Watch { [self] watch in
            while true {
                var passed: [Int32] = []
                switch channel.receive(passed: &passed) {
                case .nothing:
                    return
                case .record(let bytes):
                    switch WorkerCommand(record: bytes) {
                    case .adopt(let slot, let places)?: adopt(slot, places, passed)
                    case .release(let slot)?: release(slot)
                    case let order?: obey(order)
                    case nil: break
                    }
                case .closed:
                    loop.remove(watch, descriptor: channel.descriptor)
                    // Nobody is left to end a worker that drains for ever.
                    loop.schedule(Alarm { _, _ in Process.exitNow(0) }, after: orphanTimeout)
                    obey(.masterDied)
                    return
                }
            }
        }
        try loop.add(channelWatch, descriptor: channel.descriptor, for: .readable)

        row.beat(at: loop.now)
        let heart = Alarm { [row, beatInterval] heart, now in
            row.beat(at: now)
            loop.schedule(heart, at: now + beatInterval)
        }
        loop.schedule(heart, at: loop.now)
    }

    /// What connections may take to end when the master has died: a little less than the process may.
    package var orphanPatience: Duration { orphanTimeout * 9 / 10 }

    /// Closes this process's copies: an address that nobody else holds open is free then. They must have left the loop.
    package func closeListeners() {
        if areListenersClosed { return }
        let open = openListeners
        areListenersClosed = true
        adopted = [:]
        // Their numbers may name connections soon.
        Process.guardListeners([])
        for listener in open { OwnedDescriptor.close(listener.descriptor) }
    }

    private func adopt(_ slot: Int, _ places: [Int], _ descriptors: [Int32]) {
        let sockets = zip(places, descriptors).compactMap { place, descriptor -> WorkerListener? in
            guard !areListenersClosed, let own = listeners.first(where: { $0.place == place }) else { return nil }
            // Whoever shares the socket may be the worker that does not wake up.
            return WorkerListener(descriptor: descriptor, place: place, address: own.address, isShared: false)
        }
        for descriptor in descriptors where !sockets.contains(where: { $0.descriptor == descriptor }) { OwnedDescriptor.close(descriptor) }
        guard !sockets.isEmpty else { return }
        adopted[slot, default: []] += sockets
        Process.guardListeners(openListeners.map(\.descriptor))
        whenAdopting(slot, sockets)
    }

    private func release(_ slot: Int) {
        guard let sockets = adopted.removeValue(forKey: slot) else { return }
        whenReleasing(slot)
        Process.guardListeners(openListeners.map(\.descriptor))
        for socket in sockets { OwnedDescriptor.close(socket.descriptor) }
    }

    /// The worker serves: its slot counts as ready.
    package func reportReady() { channel.send(WorkerReport.ready.record) }

    /// Says why the worker is about to end; the supervisor logs it with the death.
    package func reportFailure(_ reason: String) { channel.send(WorkerReport.failed(reason: reason).record) }
}
