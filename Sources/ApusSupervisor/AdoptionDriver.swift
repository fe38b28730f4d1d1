import ApusBus
import ApusPlatform
import Logging

/// Carries out what `Adoption` decides: steers new connections, and lets workers accept for slots
/// that do not serve.
final class AdoptionDriver {
    private unowned let supervisor: Supervisor
    private let resources: MasterResources
    private let pool: WorkerPool
    private var adoption = Adoption()
    private lazy var timer = ClosureTimer { [unowned self] _, _ in check() }

    init(_ supervisor: Supervisor, resources: MasterResources, pool: WorkerPool) {
        self.supervisor = supervisor
        self.resources = resources
        self.pool = pool
    }

    /// Slots that new connections are not steered to, because their workers do not serve.
    var excludedSlots: [Int] { adoption.excludedSlots }

    /// Checks the workers once the events of this turn are served.
    func schedule() { resources.loop.schedule(timer, at: resources.loop.now) }

    /// Steers new connections to all slots that serve, except one that is about to be removed.
    func steer() {
        let count = supervisor.steeredSlots
        do {
            guard resources.listeners.slots > 1 else { return }
            try resources.listeners.steer(to: count, except: excludedSlots)
        } catch {
            resources.logger.error("cannot spread connections over \(count) workers: \(error)")
        }
    }

    private func check() {
        guard supervisor.isUp else { return }
        var workers = [Adoption.ReadyWorker?](repeating: nil, count: pool.slots)
        for worker in pool.incumbents where worker.isReady && worker.slot < pool.slots {
            guard let process = worker.process, !process.hasEnded else { continue }
            workers[worker.slot] = Adoption.ReadyWorker(pid: process.pid, lastBeat: worker.row.lastBeat)
        }
        for action in adoption.check(workers, now: resources.loop.now) {
            switch action {
            case .steer: steer()
            case .adopt(let slot, let adopter): adopt(slot, by: adopter)
            case .release(let slot, let adopter):
                resources.logger.info("worker \(adopter.slot) no longer accepts for slot \(slot)")
                process(of: adopter)?.send(.release(slot: slot))
            }
        }
        if let next = adoption.nextCheck { resources.loop.schedule(timer, at: next) }
    }

    private func process(of adopter: Adoption.Adopter) -> WorkerProcess? {
        pool.workers.first { $0.slot == adopter.slot && $0.process?.pid == adopter.pid }?.process
    }

    private func adopt(_ slot: Int, by adopter: Adoption.Adopter) {
        resources.logger.info(
            "worker \(slot) does not serve: worker \(adopter.slot) accepts its connections")
        let sockets = SlotListeners.listeners(for: slot, of: pool.generation.listeners)
        let now = resources.loop.now
        guard let process = process(of: adopter) else { return adoption.adoptionFailed(slot: slot, now: now) }
        var start = 0
        while start < sockets.count {
            let part = sockets[start..<min(start + Socket.maxPassed, sockets.count)]
            start = part.endIndex
            let order = WorkerCommand.adopt(slot: slot, places: part.map(\.place))
            guard process.send(order, passing: part.map(\.descriptor)) else {
                // Undoes the orders that were sent.
                process.send(.release(slot: slot))
                return adoption.adoptionFailed(slot: slot, now: now)
            }
        }
    }
}
