import ApusBus
import ApusPlatform
import Logging

/// How the master carries out what `Adoption` decides.
extension Supervisor {
    /// Looks at who serves, once the events of this turn are done.
    func attend() {
        guard let adoptionAlarm else { return }
        loop.schedule(adoptionAlarm, at: loop.now)
    }

    func lookAtWorkers() {
        guard case .up = course, let adoptionAlarm else { return }
        var workers = [Adoption.Attendance?](repeating: nil, count: slots)
        for line in lines where line.role == .incumbent && line.machine.isReady && line.slot < slots {
            guard let process = line.process, !process.hasEnded else { continue }
            workers[line.slot] = Adoption.Attendance(process: process.pid, lastBeat: scoreboard[line.row].lastBeat)
        }
        for action in adoption.look(workers, now: loop.now) {
            switch action {
            case .steer: steer()
            case .adopt(let slot, let adopter): adopt(slot, by: adopter)
            case .release(let slot, let adopter):
                logger.info("worker \(adopter.slot) accepts for slot \(slot) no more")
                _ = line(of: adopter)?.process?.channel.send(WorkerCommand.release(slot: slot).record)
            }
        }
        if let next = adoption.nextLook { loop.schedule(adoptionAlarm, at: next) }
    }

    private func line(of adopter: Adoption.Adopter) -> WorkerLine? {
        lines.first { $0.slot == adopter.slot && $0.process?.pid == adopter.process }
    }

    private func adopt(_ slot: Int, by adopter: Adoption.Adopter) {
        logger.info("worker \(slot) does not serve: worker \(adopter.slot) accepts what waits for it")
        let sockets = SlotListeners.listeners(for: slot, of: generation.listeners)
        guard let process = line(of: adopter)?.process else { return adoption.failed(slot: slot, now: loop.now) }
        var start = 0
        while start < sockets.count {
            let part = sockets[start..<min(start + Socket.maxPassed, sockets.count)]
            start = part.endIndex
            let order = WorkerCommand.adopt(slot: slot, places: part.map(\.place))
            guard process.channel.send(order.record, passing: part.map(\.descriptor)) else {
                // What came before is taken back.
                _ = process.channel.send(WorkerCommand.release(slot: slot).record)
                return adoption.failed(slot: slot, now: loop.now)
            }
        }
    }

    /// New connections go to all slots that serve, but for one that is to be taken away.
    func steer() {
        let isRetiring = if case .shrink = agenda.work { true } else { false }
        let count = isRetiring ? slots - 1 : slots
        do {
            if listeners.slots > 1 { try listeners.steer(to: count, except: adoption.exceptions) }
        } catch {
            logger.error("cannot spread connections over \(count) workers: \(error)")
        }
    }
}
