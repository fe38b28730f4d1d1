import ApusBus
import ApusPlatform
import ApusSupervisor
import Glibc

/// Answers a connection with the pid of the process that took it, and closes it.
final class Acceptor: EventSource {
    let descriptor: Int32
    let row: Scoreboard.Row
    init(_ descriptor: Int32, _ row: Scoreboard.Row) {
        self.descriptor = descriptor
        self.row = row
    }
    override func ready(_ readiness: Readiness, in loop: EventLoop) {
        while case .done(let connection)? = try? Socket.accept(descriptor) {
            row.add(.accepted, 1)
            var pid = UInt32(bitPattern: Process.id)
            _ = withUnsafeBytes(of: &pid) { try? Socket.send(connection.descriptor, $0) }
            OwnedDescriptor.close(connection.descriptor)
        }
    }
}

final class Hang: TimerNode {
    let row: Scoreboard.Row
    init(_ row: Scoreboard.Row) { self.row = row }
    override func timerFired(at now: MonotonicTime) {
        row.enter(.handler)
        while true { sched_yield() }
    }
}

/// Sends reports without a pause.
final class Flood: TimerNode {
    let worker: WorkerControl
    init(_ worker: WorkerControl) { self.worker = worker }
    override func timerFired(at now: MonotonicTime) {
        while true { worker.reportFailure("flood") }
    }
}

/// Sends unknown records.
final class Babble: TimerNode {
    let channel: Int32
    init(_ channel: Int32) { self.channel = channel }
    override func timerFired(at now: MonotonicTime) {
        for _ in 0..<100 { _ = try? Socket.send(channel, [0]) }
    }
}

/// Ends by a trap, without a message of the runtime.
final class SilentTrap: TimerNode {
    override func timerFired(at now: MonotonicTime) { kill(getpid(), SIGILL) }
}

final class Trap: TimerNode {
    override func timerFired(at now: MonotonicTime) { fatalError("a bug in a handler") }
}
