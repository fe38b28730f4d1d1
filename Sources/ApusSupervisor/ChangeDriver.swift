import ApusBus
import ApusPlatform
import Logging

/// Carries out the changes of a `ChangeQueue`: reload (HUP), one worker more or less (TTIN, TTOU),
/// upgrade (USR2); and the draining of all workers (WINCH).
final class ChangeDriver {
    private unowned let supervisor: Supervisor
    private let resources: MasterResources
    private let pool: WorkerPool
    private let steering: AdoptionDriver
    private let upgrade: UpgradeDriver
    private var queue: ChangeQueue
    /// The generation that a reload is starting.
    private var nextGeneration: Generation?
    private lazy var startTimer = ClosureTimer { [unowned self] _, _ in startNext() }
    private lazy var graceTimer = ClosureTimer { [unowned self] _, _ in completeShrinking() }

    init(
        _ supervisor: Supervisor, resources: MasterResources, pool: WorkerPool,
        steering: AdoptionDriver, upgrade: UpgradeDriver
    ) {
        self.supervisor = supervisor
        self.resources = resources
        self.pool = pool
        self.steering = steering
        self.upgrade = upgrade
        queue = ChangeQueue(target: pool.configuration.workers)
    }

    // MARK: Requests

    var isBusy: Bool { queue.isBusy }
    /// The workers were drained, and a reload must start new ones.
    var isParked: Bool { queue.isParked }
    /// The number of slots that new connections are steered to.
    var steeredSlots: Int { if case .shrink = queue.current { pool.slots - 1 } else { pool.slots } }

    func requestReload() { queue.requestReload() }

    func requestUpgrade() { queue.requestUpgrade() }

    /// Requests one worker more or less.
    ///
    /// - Returns: The number of workers that was requested before, and the one that is now.
    func requestWorkers(_ change: Int) -> (before: Int, now: Int) {
        let before = queue.target
        return (before, queue.requestWorkers(change, maximum: pool.configuration.maxWorkers))
    }

    /// Drains all workers. The addresses stay open: new connections wait for the workers of the
    /// next reload.
    func park() {
        switch queue.current {
        case .none: break
        case .reload, .grow, .shrink: giveUp("the workers were asked to drain")
        case .upgrade: upgrade.cancel()
        }
        queue.park()
        for worker in pool.incumbents { worker.drain(.handOver(closing: [])) }
    }

    // MARK: Events

    /// Starts the next change once the events of this turn are served, so that what is forked then
    /// inherits nothing of what has just ended.
    func schedule() { resources.loop.schedule(startTimer, at: resources.loop.now) }

    func workerBecameReady(_ worker: SupervisedWorker) {
        guard worker.role == .successor, queue.workerBecameReady(slot: worker.slot) else { return }
        switch queue.current {
        case .reload: completeReload()
        case .grow: completeGrowing()
        case .none, .shrink, .upgrade: break
        }
    }

    func workerDied(_ worker: SupervisedWorker) {
        if worker.role == .successor { queue.workerDied(slot: worker.slot) }
    }

    private func startNext() {
        guard supervisor.isUp else { return }
        switch queue.next(slots: pool.slots, isBlocked: pool.isBlocked) {
        case .none: logWaiting()
        case .reload: startReload()
        case .grow: startGrowing()
        case .shrink: startShrinking()
        case .upgrade: upgrade.start()
        }
    }

    private enum Outcome { case complete, givenUp }

    private func end(_ outcome: Outcome) {
        switch outcome {
        case .complete: queue.complete()
        case .givenUp: queue.giveUp(slots: pool.slots)
        }
        resources.notifier.ready(status: supervisor.status, mainProcess: nil)
        schedule()
    }

    /// Gives up the current change: the present workers serve as if it had not been requested.
    func giveUp(_ reason: String) {
        for worker in pool.successors { worker.drain(.handOver(closing: [])) }
        let logger = resources.logger
        switch queue.current {
        case .reload:
            logger.error("the reload is given up, the present workers go on: \(reason)")
            nextGeneration = nil
            resources.listeners.keep(only: pool.generation.listeners)
        case .grow:
            logger.error("the additional worker is given up: \(reason)")
            resources.listeners.removeLastSlot()
        case .shrink(let slot):
            logger.error("worker \(slot) is not taken away: \(reason)")
            resources.loop.cancel(graceTimer)
        case .upgrade:
            logger.error("the upgrade is given up, this program goes on: \(reason)")
        case .none:
            break
        }
        end(.givenUp)
        steering.steer()
    }

    private func logWaiting() {
        guard !queue.isBusy, queue.wantsReload else { return }
        let count = pool.leaving.count
        guard count > 0 else { return }
        let workers = count == 1 ? "the last worker" : "\(count) workers"
        let have = count == 1 ? "has" : "have"
        resources.logger.notice(
            "the reload waits until \(workers) of the previous generation \(have) drained")
    }

    // MARK: Reload

    private func startReload() {
        resources.notifier.reloading()
        do {
            let spec = try supervisor.delegate.makeWorkerSpec()
            let groups: [ListenerGroup]
            do throws(ListenError) {
                groups = try resources.listeners.open(spec.addresses)
            } catch {
                throw spec.locate(error)
            }
            let next = Generation(number: pool.generation.number + 1, spec: spec, listeners: groups)
            nextGeneration = next
            for slot in 0..<pool.slots { supervisor.startWorker(slot: slot, of: next, as: .successor) }
        } catch {
            resources.logger.error("the reload changes nothing: \(error)")
            end(.givenUp)
        }
    }

    private func completeReload() {
        guard let next = nextGeneration else { return }
        let old = pool.generation
        pool.replaceGeneration(with: next)
        nextGeneration = nil
        for worker in pool.incumbents {
            worker.drain(.handOver(closing: Self.dropped(from: old, by: next, slot: worker.slot)))
        }
        pool.promoteSuccessors()
        resources.listeners.keep(only: next.listeners)
        // TTIN and TTOU have effect until the configuration has another number of workers than
        // before.
        let (workers, maximum) = (pool.configuration.workers, pool.configuration.maxWorkers)
        if workers != old.spec.configuration.workers { queue.setTarget(min(workers, maximum)) }
        steering.schedule()
        let slots = pool.slots
        resources.logger.notice(
            "generation \(next.number) serves with \(slots) \(slots == 1 ? "worker" : "workers")")
        supervisor.delegate.supervisorReloaded(supervisor)
        end(.complete)
    }

    /// The listeners of `old` whose addresses `next` does not have: indices among the listeners of
    /// the slot's worker, which closes them when it has accepted what waits there.
    private static func dropped(from old: Generation, by next: Generation, slot: Int) -> [Int] {
        var closing: [Int] = []
        var index = 0
        for group in old.listeners {
            let count = group.sockets(of: slot).count
            if !next.listeners.contains(where: { $0 === group }) { closing += index..<(index + count) }
            index += count
        }
        return closing
    }

    // MARK: One worker more

    private func startGrowing() {
        do {
            try resources.scoreboard.grow(to: WorkerPool.rows(ofSlots: pool.slots + 1))
            try resources.listeners.addSlot()
            supervisor.startWorker(slot: pool.slots, of: pool.generation, as: .successor)
        } catch {
            resources.logger.error("cannot add a worker: \(error)")
            end(.givenUp)
        }
    }

    private func completeGrowing() {
        pool.addSlot()
        pool.promoteSuccessors()
        steering.steer()
        steering.schedule()
        resources.logger.notice("\(pool.slots) workers serve")
        end(.complete)
    }

    // MARK: One worker less

    /// Steers new connections away from the last slot. Connections that the kernel has assigned to
    /// it arrive while its worker still accepts; a worker that dies meanwhile is replaced as
    /// always.
    private func startShrinking() {
        do {
            try resources.listeners.steer(to: pool.slots - 1, except: steering.excludedSlots)
        } catch {
            resources.logger.error("cannot remove worker \(pool.slots - 1): \(error)")
            return end(.givenUp)
        }
        resources.loop.schedule(graceTimer, after: pool.configuration.retirementGrace)
    }

    private func completeShrinking() {
        guard case .shrink(let slot) = queue.current, supervisor.isUp else { return }
        for worker in pool.incumbents where worker.slot == slot {
            let listeners = SlotListeners.listeners(for: slot, of: worker.generation.listeners)
            let closing = listeners.enumerated().filter { !$0.element.isShared }.map(\.offset)
            worker.drain(.handOver(closing: closing))
        }
        pool.removeLastSlot()
        resources.listeners.removeLastSlot()
        steering.schedule()
        let slots = pool.slots
        resources.logger.notice("\(slots) \(slots == 1 ? "worker serves" : "workers serve")")
        end(.complete)
    }
}
