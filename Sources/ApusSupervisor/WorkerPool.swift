import ApusPlatform

/// The workers of the server, by slot, and the generation that serves.
final class WorkerPool {
    /// All workers that are not over, and incumbents that are.
    private(set) var workers: [SupervisedWorker] = []
    /// The number of slots that serve: those that new connections are steered to.
    private(set) var slots: Int
    /// The generation that serves.
    private(set) var generation: Generation
    /// Processes started so far, by slot.
    private var incarnations: [Int: Int] = [:]
    private let resources: MasterResources

    init(slots: Int, generation: Generation, resources: MasterResources) {
        self.slots = slots
        self.generation = generation
        self.resources = resources
    }

    var configuration: SupervisorConfiguration { generation.spec.configuration }

    /// Rows of the scoreboard that `slots` slots need.
    static func rows(ofSlots slots: Int) -> Int { WorkerControl.mailbox(slot: slots, side: 0) }

    // MARK: Workers

    /// The workers that serve.
    var incumbents: [SupervisedWorker] { workers.filter { $0.role == .incumbent } }
    var successors: [SupervisedWorker] { workers.filter { $0.role == .successor } }
    var leaving: [SupervisedWorker] { workers.filter { $0.role == .leaving } }
    /// Workers that are about to end, and whose processes have not yet.
    var draining: [SupervisedWorker] { leaving.filter { $0.process != nil } }

    /// Whether a worker that is about to end still uses a side of the slot.
    func isBlocked(slot: Int) -> Bool { leaving.contains { $0.slot == slot } }

    /// Starts a worker in a slot, on the side that is free.
    func start(
        slot: Int, generation: Generation, role: SupervisedWorker.Role,
        delegate: any SupervisedWorkerDelegate
    ) {
        let taken = workers.filter { $0.slot == slot }.map(\.side)
        let side = taken.contains(0) ? 1 : 0
        precondition(!taken.contains(side), "a change waits for a free side")
        let worker = SupervisedWorker(
            slot: slot, side: side, generation: generation, role: role, resources: resources,
            delegate: delegate)
        workers.append(worker)
        worker.start()
    }

    /// - Returns: Whether the worker was there.
    func remove(_ worker: SupervisedWorker) -> Bool {
        guard let index = workers.firstIndex(where: { $0 === worker }) else { return false }
        workers.remove(at: index)
        return true
    }

    func nextIncarnation(inSlot slot: Int) -> Int {
        incarnations[slot, default: 0] += 1
        return incarnations[slot, default: 1]
    }

    /// The master's descriptors of all worker processes.
    var descriptors: [Int32] { workers.compactMap(\.process).flatMap(\.descriptors) }

    func owns(_ pid: Int32) -> Bool { workers.contains { $0.process?.pid == pid } }

    /// Sends an order to every process.
    func send(_ command: WorkerCommand) { for worker in workers { worker.process?.send(command) } }

    /// Kills every process and waits for its end.
    func killAll() {
        for process in workers.compactMap(\.process) { _ = Process.killAndReap(process.pid) }
    }

    // MARK: Changes

    /// The successors serve from now on.
    func promoteSuccessors() { for worker in successors { worker.becomeIncumbent() } }

    func replaceGeneration(with next: Generation) { generation = next }

    func addSlot() { slots += 1 }

    func removeLastSlot() { slots -= 1 }
}
