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
    /// The row of the scoreboard that this process writes.
    package let row: Scoreboard.Row

    /// The exit status of a worker that another would fare no better than.
    package static let doNotRestart: Int32 = 78

    private let channel: ControlChannel
    private let beatInterval: Duration
    private let orphanTimeout: Duration
    private let title: String
    private var areListenersClosed = false
    private let master: Int32

    init(
        line: WorkerLine, count: Int, listeners: [WorkerListener], row: Scoreboard.Row, channel: consuming ControlChannel, master: Int32
    ) {
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

    /// Where this worker's mail is among all: two places per slot.
    package var mailbox: Int { Self.mailbox(slot: slot, side: side) }

    static func mailbox(slot: Int, side: Int) -> Int { Mailboxes.place(slot: slot, side: side) }

    /// A tenth of the timeout, so that one late beat is no verdict; at most a second, at least 10 ms.
    static func beatInterval(for timeout: Duration) -> Duration { min(max(timeout / 10, .milliseconds(10)), .seconds(1)) }

    /// The master's death frees the listeners' addresses at once and ends this process in time, though it be stuck in a callback.
    /// `attach` does this; to be done again after the process has changed its user.
    ///
    /// - Throws: `ESRCH` when the master has died already.
    package func guardAgainstMasterDeath() throws(SystemError) {
        // A second more than the loop's own timer takes.
        let seconds = Int(clamping: orphanTimeout.wholeMilliseconds / 1000) + 1
        let open = areListenersClosed ? [] : listeners.map(\.descriptor)
        try Process.guardOrphan(of: master, listeners: open, seconds: seconds)
    }

    /// Watches for commands and beats the heart in `loop`, until the process ends. `command` may be called with more than one,
    /// a faster one after a slower one included.
    package func attach(to loop: EventLoop, on command: @escaping (WorkerCommand) -> Void) throws(SystemError) {
        Process.setTitle(title)
        try guardAgainstMasterDeath()
        let obey = { [title] (order: WorkerCommand) in
            switch order {
            case .application: break
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
                switch channel.receive() {
                case .nothing:
                    return
                case .record(let bytes):
                    if let order = WorkerCommand(record: bytes) { obey(order) }
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
        areListenersClosed = true
        // Their numbers may name connections soon. A master that has died already takes no notice.
        try? guardAgainstMasterDeath()
        for listener in listeners { OwnedDescriptor.close(listener.descriptor) }
    }

    /// The worker serves: its slot counts as ready.
    package func reportReady() { channel.send(WorkerReport.ready.record) }

    /// Says why the worker is about to end; the supervisor logs it with the death.
    package func reportFailure(_ reason: String) { channel.send(WorkerReport.failed(reason: reason).record) }
}
