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
    /// The sockets to accept from; the supervisor's, never to be closed before the process ends.
    package let listeners: [Int32]
    /// The listeners' addresses, in the same order. A Unix socket is shared by all slots: watch it with `.exclusive`.
    package let addresses: [SocketAddress]
    package let scoreboard: Scoreboard
    /// This slot's row.
    package let row: Scoreboard.Row

    /// The exit status of a worker that another would fare no better than.
    package static let doNotRestart: Int32 = 78

    private let channel: ControlChannel
    private let beatInterval: Duration
    private let orphanTimeout: Duration

    init(
        slot: Int, generation: Int, listeners: SlotListeners, scoreboard: Scoreboard, channel: consuming ControlChannel,
        configuration: SupervisorConfiguration
    ) {
        self.slot = slot
        count = scoreboard.slots
        self.generation = generation
        self.listeners = listeners.descriptors(for: slot)
        addresses = listeners.boundAddresses
        self.scoreboard = scoreboard
        row = scoreboard[slot]
        self.channel = channel
        beatInterval = Self.beatInterval(for: configuration.heartbeatTimeout)
        orphanTimeout = configuration.orphanTimeout
    }

    /// What this process holds of the supervisor's.
    package var descriptors: [Int32] { listeners + [channel.descriptor] }

    /// A tenth of the timeout, so that one late beat is no verdict; at most a second, at least 10 ms.
    static func beatInterval(for timeout: Duration) -> Duration { min(max(timeout / 10, .milliseconds(10)), .seconds(1)) }

    /// Watches for commands and beats the heart in `loop`, until the process ends. `command` may be called more than once,
    /// a faster one after a slower one included.
    package func attach(to loop: EventLoop, on command: @escaping (WorkerCommand) -> Void) throws(SystemError) {
        let signals = try Signal.descriptor(for: [Signal.terminate, Signal.quit]).release()  // open until the process ends
        let signalWatch = Watch { _ in
            while let signal = Signal.next(from: signals) { command(signal == Signal.quit ? .drain : .stop) }
        }
        try loop.add(signalWatch, descriptor: signals, for: .readable)

        let channelWatch = Watch { [self] watch in
            while true {
                switch channel.receive() {
                case .nothing:
                    return
                case .record(let bytes):
                    if let order = bytes.first.flatMap(WorkerCommand.init(rawValue:)) { command(order) }
                case .closed:
                    loop.remove(watch, descriptor: channel.descriptor)
                    // Nobody is left to end a worker that drains for ever.
                    loop.schedule(Alarm { _, _ in Process.exitNow(0) }, after: orphanTimeout)
                    command(.masterDied)
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

    /// The worker serves: its slot counts as ready.
    package func reportReady() { channel.send(WorkerReport.ready.record) }

    /// Says why the worker is about to end; the supervisor logs it with the death.
    package func reportFailure(_ reason: String) { channel.send(WorkerReport.failed(reason: reason).record) }
}
