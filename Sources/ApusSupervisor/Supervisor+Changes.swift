import ApusBus
import ApusPlatform
import Logging

/// How the master carries out what stands on its agenda.
extension Supervisor {
    /// Takes up what waits, once the events of this turn are served: whatever is forked then inherits nothing of what has just ended.
    func proceed() {
        guard let agendaAlarm else { return }
        loop.schedule(agendaAlarm, at: loop.now)
    }

    func takeUpWork() {
        guard case .up = course else { return }
        let step = agenda.next(slots: slots) { slot in lines.contains { $0.slot == slot && $0.role == .leaving } }
        switch step {
        case .none: reportWaiting()
        case .reload: beginReload()
        case .grow: beginGrowing()
        case .shrink: beginShrinking()
        case .upgrade: beginUpgrade()
        }
    }

    /// A worker became ready.
    func becameReady(_ line: WorkerLine) {
        switch course {
        case .comingUp:
            if lines.allSatisfy(\.machine.hasBeenReady) { cameUp() }
        case .up:
            guard line.role == .successor, agenda.ready(slot: line.slot) else { return }
            switch agenda.work {
            case .reload: completeReload()
            case .grow: completeGrowing()
            case .none, .shrink, .upgrade: break
            }
        case .ending:
            break
        }
    }

    private func cameUp() {
        course = .up
        // The program before this one may have steered to fewer.
        if predecessor != nil { steer() }
        whenAllReady(generation.listeners.map(\.bound), slots)
        predecessor?.takeOver()
        listeners.takeFiles()
        notifier.ready(status: status, mainProcess: predecessor == nil ? nil : Process.id)
        predecessor = nil
        if parksWhenUp { park() }
        proceed()
        attend()
    }

    private enum Outcome { case done, givenUp }

    private func finished(_ outcome: Outcome = .done) {
        switch outcome {
        case .done: agenda.finished()
        case .givenUp: agenda.givenUp(slots: slots)
        }
        notifier.ready(status: status, mainProcess: nil)
        proceed()
    }

    /// Says once a second why a wish is not taken up.
    private func reportWaiting() {
        guard !agenda.isBusy, agenda.wantsReload else { return }
        let leaving = lines.count { $0.role == .leaving }
        guard leaving > 0 else { return }
        let workers = leaving == 1 ? "the last worker of the generation before has" : "\(leaving) workers of the generation before have"
        logger.notice("the reload waits until \(workers) drained")
    }

    // MARK: HUP

    private func beginReload() {
        notifier.reloading()
        do {
            let blueprint = try makeBlueprint?() ?? generation.blueprint
            let groups: [ListenerGroup]
            do throws(ListenError) { groups = try listeners.open(blueprint.addresses) } catch { throw blueprint.blame(error) }
            let next = Generation(number: generation.number + 1, blueprint: blueprint, listeners: groups)
            nextGeneration = next
            for slot in 0..<slots { begin(slot: slot, generation: next, role: .successor) }
        } catch {
            logger.error("the reload changes nothing: \(error)")
            finished(.givenUp)
        }
    }

    /// All new workers are ready: they serve alone from now on.
    private func completeReload() {
        guard let next = nextGeneration else { return }
        let old = generation
        generation = next
        nextGeneration = nil
        // Addresses that the new generation does not have are given up by the old one's workers when they have taken what waits there.
        let kept = next.listeners
        for line in incumbents {
            var closing: [Int] = []
            var place = 0
            for group in old.listeners {
                let count = group.sockets(of: line.slot).count
                if !kept.contains(where: { $0 === group }) { closing += place..<(place + count) }
                place += count
            }
            dismiss(line, .handOver(closing: closing))
        }
        for line in lines where line.role == .successor { line.role = .incumbent }
        listeners.keep(only: kept)
        // TTIN and TTOU hold until the configuration says another number than before.
        let workers = configuration.workers
        if workers != old.blueprint.configuration.workers { agenda.setTarget(min(workers, configuration.maxWorkers)) }
        attend()
        logger.notice("generation \(next.number) serves with \(slots) \(slots == 1 ? "worker" : "workers")")
        whenReloaded(kept.map(\.bound), slots)
        finished()
    }

    /// A new worker cannot be started: the present ones go on as if nothing had been asked.
    func giveUpWork(_ reason: String) {
        let successors = lines.filter { $0.role == .successor }
        for line in successors { dismiss(line, .handOver(closing: [])) }
        switch agenda.work {
        case .reload:
            logger.error("the reload is given up, the present workers go on: \(reason)")
            nextGeneration = nil
            listeners.keep(only: generation.listeners)
        case .grow:
            logger.error("the further worker is given up: \(reason)")
            listeners.removeLastSlot()
        case .shrink(let slot):
            logger.error("worker \(slot) is not taken away: \(reason)")
            if let graceAlarm { loop.cancel(graceAlarm) }
            graceAlarm = nil
        case .upgrade:
            logger.error("the upgrade is given up, this program goes on: \(reason)")
        case .none:
            break
        }
        finished(.givenUp)
        steer()
    }

    // MARK: TTIN

    private func beginGrowing() {
        do {
            try scoreboard.grow(to: Self.rows(of: slots + 1))
            try listeners.addSlot()
            begin(slot: slots, generation: generation, role: .successor)
        } catch {
            logger.error("no further worker: \(error)")
            finished(.givenUp)
        }
    }

    private func completeGrowing() {
        slots += 1
        for line in lines where line.role == .successor { line.role = .incumbent }
        steer()
        attend()
        logger.notice("\(slots) workers serve")
        finished()
    }

    // MARK: TTOU

    /// New connections go elsewhere; what the kernel has promised the slot arrives while its worker still accepts, and a worker that dies
    /// meanwhile is replaced as always.
    private func beginShrinking() {
        do {
            try listeners.steer(to: slots - 1, except: adoption.exceptions)
        } catch {
            logger.error("worker \(slots - 1) stays: \(error)")
            return finished(.givenUp)
        }
        if let graceAlarm { loop.cancel(graceAlarm) }
        let alarm = Alarm { [unowned self] _, _ in completeShrinking() }
        graceAlarm = alarm
        loop.schedule(alarm, after: configuration.retirementGrace)
    }

    private func completeShrinking() {
        guard case .shrink(let slot) = agenda.work, case .up = course else { return }
        for line in incumbents where line.slot == slot {
            let closing = SlotListeners.listeners(for: slot, of: line.generation.listeners).enumerated()
                .filter { !$0.element.isShared }.map(\.offset)
            dismiss(line, .handOver(closing: closing))
        }
        slots -= 1
        listeners.removeLastSlot()
        attend()
        logger.notice("\(slots) \(slots == 1 ? "worker serves" : "workers serve")")
        finished()
    }

    // MARK: WINCH

    /// The workers leave, the addresses stay open: what connects waits for the workers that HUP starts.
    func park() {
        switch agenda.work {
        case .none: break
        case .reload, .grow, .shrink: giveUpWork("the workers were asked to drain")
        case .upgrade: cancelUpgrade()
        }
        agenda.park()
        for line in incumbents { dismiss(line, .handOver(closing: [])) }
    }
}
