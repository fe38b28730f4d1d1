import ApusBus
import ApusPlatform
import Testing

@Suite("Scoreboard")
struct ScoreboardTests {
    @Test("what a child writes, its parent reads, and only in the child's row")
    func acrossFork() throws {
        let board = try Scoreboard(slots: 3)
        let row = board[1]
        let moment = MonotonicTime(milliseconds: 1 << 40)
        // The runner has threads, so the child may do nothing that takes a lock: everything it uses has been used before.
        let work = { () -> Int32 in
            row.beat(at: moment)
            row.enter(.handler)
            for _ in 0..<1000 { row.add(.accepted, 1) }
            row.add(.connections, 7)
            row.add(.connections, -2)
            return 0
        }
        _ = work()
        row.begin(generation: 4, at: .now())
        row.add(.accepted, -1000)
        #expect(row[.connections] == 0)

        let child = try Process.fork(work)
        row.setProcess(child.pid)
        row.setState(.ready)
        var end: ProcessEnd?
        let deadline = MonotonicTime.now() + .seconds(10)
        while end == nil, MonotonicTime.now() < deadline { end = Process.reap(child.pid) }
        #expect(end == .exited(0))

        #expect(row.lastBeat == moment)
        #expect(row.phase == .handler)
        #expect(row[.accepted] == 1000)
        #expect(row[.connections] == 5)
        #expect(row[.messages] == 0)
        #expect(row.pid == child.pid)
        #expect(row.generation == 4)
        #expect(row.state == .ready)
        for other in [board[0], board[2]] {
            #expect(other.lastBeat == MonotonicTime(milliseconds: 0))
            #expect(other.pid == 0 && other.state == .idle && other.phase == .starting)
            #expect(Scoreboard.Counter.allCases.allSatisfy { other[$0] == 0 })
        }
    }

    @Test("a new process inherits totals, but neither connections nor pid nor an old heartbeat")
    func begin() throws {
        let row = try unownedBoard()[0]
        row.setProcess(17)
        row.add(.accepted, 10)
        row.add(.messages, 20)
        row.add(.connections, 3)
        row.enter(.handler)
        row.begin(generation: 2, at: MonotonicTime(milliseconds: 99))
        #expect(row[.accepted] == 10 && row[.messages] == 20 && row[.connections] == 0)
        #expect(row.pid == 0 && row.generation == 2 && row.phase == .starting)
        #expect(row.lastBeat == MonotonicTime(milliseconds: 99))
    }

    @Test(
        "whatever a worker writes as a count, sums of it do not overflow and none is below zero",
        arguments: [(Int.max, Scoreboard.Row.maxCount), (Int.min, 0), (-1, 0), (1 << 48, 1 << 48), (5, 5)])
    func lies(written: Int, read: Int) throws {
        let row = try unownedBoard()[0]
        row.add(.connections, written)
        #expect(row[.connections] == read)
        let most = 2 * 1024
        #expect((0..<most).reduce(0) { sum, _ in sum + row[.connections] } == most * read)
    }

    @Test("a worker has its own row only: its sibling's is no memory there any more")
    func ownRow() throws {
        let board = try Scoreboard(slots: 2)
        try board.grow(to: 4)
        let rows = (0..<4).map { board[$0] }
        let faults = Signal.memoryFaults
        for other in [0, 2, 3] {
            let child = try Process.fork {
                for fault in faults { Signal.restoreDefault(fault) }
                board.keepOnly(1)
                rows[1].add(.accepted, 1)
                rows[other].beat(at: MonotonicTime(milliseconds: .max))
                return 0
            }
            #expect(Process.waitForEnd(of: child.pid) == .signaled(Signal.memoryFaults[0]))
            #expect(rows[other].lastBeat == MonotonicTime(milliseconds: 0))
        }
        #expect(rows[1][.accepted] == 3)
    }

    /// Kept for ever, because a row does not keep its board.
    private func unownedBoard() throws -> Scoreboard {
        let board = try Scoreboard(slots: 1)
        _ = Unmanaged.passRetained(board)
        return board
    }
}
