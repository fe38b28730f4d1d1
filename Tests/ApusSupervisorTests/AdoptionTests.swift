import ApusPlatform
import Testing
import TestSupport

@testable import ApusSupervisor

@Suite("Adoption: the worker that accepts for a slot that does not serve")
struct AdoptionTests {
    /// Slots and their workers, on a clock of its own.
    private struct Server {
        var adoption = Adoption()
        var now = MonotonicTime(milliseconds: 10_000)
        var workers: [Adoption.ReadyWorker?]

        init(_ count: Int) {
            workers = []
            for slot in 0..<count { workers.append(Adoption.ReadyWorker(pid: Int32(100 + slot), lastBeat: now)) }
        }

        mutating func look() -> [Adoption.Action] { adoption.check(workers, now: now) }

        /// Time passes, in which these slots' workers beat.
        mutating func pass(_ milliseconds: UInt64, beating: [Int]) -> [Adoption.Action] {
            now = MonotonicTime(milliseconds: now.milliseconds + milliseconds)
            for slot in beating { workers[slot] = workers[slot].map { Adoption.ReadyWorker(pid: $0.pid, lastBeat: now) } }
            return look()
        }

        mutating func replace(_ slot: Int, with process: Int32) -> [Adoption.Action] {
            workers[slot] = Adoption.ReadyWorker(pid: process, lastBeat: now)
            return look()
        }

        mutating func lose(_ slot: Int) -> [Adoption.Action] {
            workers[slot] = nil
            return look()
        }

        func adopter(_ slot: Int) -> Adoption.Adopter { Adoption.Adopter(slot: slot, pid: Int32(100 + slot)) }
    }

    @Test("no action while all workers beat")
    func well() {
        var server = Server(4)
        var actions = server.look()
        for _ in 0..<100 { actions += server.pass(200, beating: [0, 1, 2, 3]) }
        #expect(actions.isEmpty)
        #expect(server.adoption.nextCheck == MonotonicTime(milliseconds: server.now.milliseconds + 450))
    }

    @Test("no action for a worker that is replaced within 100 ms")
    func replaced() {
        var server = Server(2)
        var actions = server.look() + server.lose(1)
        #expect(server.adoption.nextCheck == MonotonicTime(milliseconds: server.now.milliseconds + 100))
        actions += server.pass(99, beating: [0]) + server.replace(1, with: 201)
        #expect(actions.isEmpty)
    }

    @Test("without a worker for 100 ms a slot is adopted by the next, until its worker serves")
    func absent() {
        var server = Server(3)
        #expect(server.look() + server.lose(1) == [])
        let begun = server.pass(100, beating: [0, 2])
        #expect(begun == [.steer(except: [1]), .adopt(slot: 1, by: server.adopter(2))])
        #expect(server.pass(100, beating: [0, 2]) == [])
        let ended = server.replace(1, with: 201)
        #expect(ended == [.steer(except: []), .release(slot: 1, by: server.adopter(2))])
    }

    @Test("a worker that has not beaten for 450 ms is taken for stopped, and looked at every 100 ms")
    func stopped() {
        var server = Server(2)
        #expect(server.look() == [])
        #expect(server.pass(449, beating: [0]) == [])
        let begun = server.pass(1, beating: [0])
        #expect(begun == [.steer(except: [1]), .adopt(slot: 1, by: server.adopter(0))])
        #expect(server.adoption.nextCheck == MonotonicTime(milliseconds: server.now.milliseconds + 100))
        let ended = server.pass(10, beating: [0, 1])
        #expect(ended == [.steer(except: []), .release(slot: 1, by: server.adopter(0))])
    }

    @Test("an adopter that dies or stops is followed by another; one that stops is ordered to release when it continues")
    func adopterLost() {
        var server = Server(4)
        _ = server.look() + server.lose(1)
        #expect(server.pass(100, beating: [0, 2, 3]) == [.steer(except: [1]), .adopt(slot: 1, by: server.adopter(2))])
        let dead = server.lose(2)
        #expect(dead == [.adopt(slot: 1, by: server.adopter(3))])
        // Slot 2 comes back, slot 3 stops.
        _ = server.replace(2, with: 202)
        let stopped = server.pass(450, beating: [0, 2])
        #expect(
            stopped == [
                .steer(except: [1, 3]), .release(slot: 1, by: server.adopter(3)),
                .adopt(slot: 1, by: Adoption.Adopter(slot: 2, pid: 202)), .adopt(slot: 3, by: server.adopter(0)),
            ])
    }

    @Test("no action while no worker beats; the first that beats serves all")
    func nobody() {
        var server = Server(3)
        _ = server.look()
        #expect(server.pass(1000, beating: []) == [])
        let first = server.pass(10, beating: [1])
        #expect(
            first == [.steer(except: [0, 2]), .adopt(slot: 0, by: server.adopter(1)), .adopt(slot: 2, by: server.adopter(1))])
    }

    @Test("several slots are distributed over the workers that serve")
    func shared() {
        var server = Server(6)
        _ = server.look() + server.lose(0) + server.lose(1) + server.lose(2)
        let actions = server.pass(100, beating: [3, 4, 5])
        let adopters = actions.compactMap { if case .adopt(_, let adopter) = $0 { adopter.slot } else { nil } }
        #expect(Set(adopters) == [3, 4, 5])
    }

    @Test("an adopter that did not get the order is chosen again")
    func untold() {
        var server = Server(2)
        _ = server.look() + server.lose(1) + server.pass(100, beating: [0])
        server.adoption.adoptionFailed(slot: 1, now: server.now)
        #expect(server.adoption.nextCheck.map { $0 <= MonotonicTime(milliseconds: server.now.milliseconds + 100) } == true)
        #expect(server.pass(100, beating: [0]) == [.adopt(slot: 1, by: server.adopter(0))])
    }

    @Test("a slot that is taken away is adopted no more; a new one has its own worker")
    func scaled() {
        var server = Server(3)
        _ = server.look() + server.lose(2) + server.pass(100, beating: [0, 1])
        server.workers.removeLast()
        let ended = server.look()
        #expect(ended == [.steer(except: []), .release(slot: 2, by: server.adopter(0))])
        server.workers.append(Adoption.ReadyWorker(pid: 300, lastBeat: server.now))
        #expect(server.look() == [])
    }

    @Test("a single worker has no adopter")
    func alone() {
        var server = Server(1)
        #expect(server.look() + server.pass(5000, beating: []) + server.lose(0) + server.pass(5000, beating: []) == [])
        #expect(server.adoption.nextCheck == nil)
    }

    @Test(
        "whatever happens, each slot that is away has one adopter that serves, if any worker does",
        arguments: 1...200 as ClosedRange<UInt64>)
    func seeded(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let count = Int.random(in: 2...6, using: &random)
        var server = Server(count)
        var adopted: [Int: Adoption.Adopter] = [:]
        var except: [Int] = []
        for step in 0..<300 {
            let slot = Int.random(in: 0..<count, using: &random)
            var actions: [Adoption.Action]
            switch Int.random(in: 0..<4, using: &random) {
            case 0: actions = server.lose(slot)
            case 1: actions = server.replace(slot, with: Int32(1000 + step))
            default:
                let beating = (0..<count).filter { _ in Int.random(in: 0..<3, using: &random) > 0 }
                actions = server.pass(UInt64.random(in: 1...300, using: &random), beating: beating)
            }
            for action in actions {
                switch action {
                case .steer(let slots): except = slots
                case .adopt(let slot, let adopter): adopted[slot] = adopter
                case .release(let slot, let adopter):
                    #expect(adopted[slot] == adopter)
                    adopted[slot] = nil
                }
            }
            let serving = (0..<count).filter { slot in
                server.workers[slot].map { server.now.millisecondsSince($0.lastBeat) < 450 } ?? false
            }
            adopted = adopted.filter { server.workers[$0.value.slot]?.pid == $0.value.pid }
            guard !serving.isEmpty else { continue }
            #expect(except.allSatisfy { !serving.contains($0) } && Set(adopted.keys) == Set(except), "step \(step)")
            #expect(adopted.values.allSatisfy { serving.contains($0.slot) }, "step \(step)")
        }
    }
}
