import ApusBus
import ApusPlatform
import Logging

/// What all parts of the master use; one per process.
final class MasterResources {
    let loop: EventLoop
    let listeners: SlotListeners
    let scoreboard: Scoreboard
    let notifier: SystemdNotify
    var logger: Logger

    init(
        loop: EventLoop, listeners: SlotListeners, scoreboard: Scoreboard, notifier: SystemdNotify,
        logger: Logger
    ) {
        self.loop = loop
        self.listeners = listeners
        self.scoreboard = scoreboard
        self.notifier = notifier
        self.logger = logger
    }
}
