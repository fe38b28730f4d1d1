package import ApusPlatform
import Synchronization

/// ApusBus connects the processes of one server: shared memory, and records that they send. It
/// knows nothing of WebSocket or HTTP.

/// A table in shared memory with one row per worker slot. The master creates rows before it forks
/// and reads all of them. A worker unmaps all rows but its own (`keepOnly`), so that a compromised
/// one cannot forge others' rows. Readers must still bound every value in a row, as its own worker
/// may write anything.
///
/// A row consists of eight-byte atomic cells in two groups of cache lines, so that the worker's
/// busy counters do not share lines with the master's writes: the worker's cells (counters,
/// heartbeat, phase) and the master's (PID, generation, state). Both groups have spare cells.
package final class Scoreboard {
    /// One mapping per row: with a shared mapping, unmapped pages could be regained by enlarging
    /// the rest (mremap(2)).
    private final class Page {
        let memory: SharedMemory
        init() throws(SystemError) { memory = try SharedMemory(byteCount: Row.byteCount) }
    }

    private var pages: [Page] = []

    /// Number of rows.
    package var slots: Int { pages.count }

    package init(slots: Int) throws(SystemError) {
        precondition(slots > 0, "a server has at least one worker")
        try grow(to: slots)
    }

    /// Adds rows up to `slots`. Children forked before do not have the new ones.
    package func grow(to slots: Int) throws(SystemError) {
        while pages.count < slots { pages.append(try Page()) }
    }

    /// Unmaps all rows but this one, in a worker. They must not be used afterwards.
    package func keepOnly(_ slot: Int) {
        for (place, page) in pages.enumerated() where place != slot { page.memory.giveUp() }
    }

    /// A slot's row, in memory of the scoreboard, which must outlive it.
    package subscript(slot: Int) -> Row {
        precondition(slot >= 0 && slot < slots, "slots are numbered from zero")
        // SAFETY: the mapping holds a row, is page-aligned, and zeros are valid atomics.
        return unsafe Row(start: pages[slot].memory.bytes.baseAddress.unsafelyUnwrapped)
    }
}

extension Scoreboard {
    /// A worker's counters.
    package enum Counter: Int, CaseIterable, Sendable {
        /// Connections accepted since the master started, over all processes of the slot.
        case accepted = 2
        /// Open connections; zero at the start of each process.
        case connections = 3
        /// Messages received since the master started, over all processes of the slot.
        case messages = 4
    }

    /// What the worker's loop is doing, to report where it is stuck.
    package enum Phase: UInt8, Sendable {
        case starting = 0
        /// Waiting for events.
        case waiting
        /// Running the application's code or ours for a connection.
        case handler
        /// Waiting for the last connections to end.
        case draining
    }

    /// The state of the slot's process, as the master sees it.
    package enum State: UInt8, Sendable {
        case idle = 0
        case starting, ready, draining, ending, backingOff, ended, abandoned
    }

    /// One slot's cells. Counters, heartbeat and phase have a single writer, the worker's loop
    /// thread, so a count is a load and a store without a locked instruction. Any process may read;
    /// all accesses are relaxed.
    @safe package struct Row: @unchecked Sendable {
        /// Two pairs of cache lines: processors fetch lines in pairs.
        static let byteCount = 256
        private static let masterCells = 16

        private let cells: UnsafeMutablePointer<Atomic<UInt64>>

        fileprivate init(start: UnsafeMutableRawPointer) {
            unsafe cells = start.assumingMemoryBound(to: Atomic<UInt64>.self)
        }

        private enum Cell {
            static let beat = 0
            static let phase = 1
            static let violation = 5
            static let (hostHigh, hostLow, serving, servingBytes) = (6, 7, 8, 9)
            static let pid = Row.masterCells
            static let generation = Row.masterCells + 1
            static let state = Row.masterCells + 2
        }

        private func load(_ cell: Int) -> UInt64 {
            // SAFETY: every cell index is below `byteCount / 8`, and the mapping outlives the row.
            unsafe cells[cell].load(ordering: .relaxed)
        }

        private func store(_ value: UInt64, _ cell: Int) {
            // SAFETY: as in `load`.
            unsafe cells[cell].store(value, ordering: .relaxed)
        }

        // MARK: Written by the worker

        /// Records the time of the loop's current turn.
        package func beat(at now: MonotonicTime) { store(now.milliseconds, Cell.beat) }

        /// The time of the loop's last turn; the process's start if there was none.
        package var lastBeat: MonotonicTime { MonotonicTime(milliseconds: load(Cell.beat)) }

        /// Records what the loop does next.
        package func enter(_ phase: Phase) { store(UInt64(phase.rawValue), Cell.phase) }

        package var phase: Phase { Phase(rawValue: UInt8(truncatingIfNeeded: load(Cell.phase))) ?? .starting }

        /// Where a dying worker writes the number, plus one, of the system call that the sandbox
        /// denied.
        @unsafe package var violationCell: UnsafeMutablePointer<UInt64> {
            // SAFETY: an atomic cell is eight plain bytes; no other process writes this one while
            // the worker lives.
            unsafe UnsafeMutableRawPointer(cells + Cell.violation).assumingMemoryBound(to: UInt64.self)
        }

        /// The number of the denied system call that ended the slot's last process; nil if none
        /// did.
        package var violation: Int32? {
            let noted = load(Cell.violation)
            return noted == 0 ? nil : Int32(truncatingIfNeeded: noted - 1)
        }

        /// Records the peer and the activity being served; read after a crash.
        package func serve(hostHigh: UInt64, hostLow: UInt64, what: UInt64) {
            store(hostHigh, Cell.hostHigh)
            store(hostLow, Cell.hostLow)
            store(0, Cell.servingBytes)
            store(what, Cell.serving)
        }

        /// Records another activity of the same peer.
        package func serve(what: UInt64, bytes: UInt64) {
            store(bytes, Cell.servingBytes)
            store(what, Cell.serving)
        }

        package func serve(what: UInt64) { store(what, Cell.serving) }

        package func serve(bytes: UInt64) { store(bytes, Cell.servingBytes) }

        /// What is being served; zeros for nothing.
        package var serving: (hostHigh: UInt64, hostLow: UInt64, what: UInt64, bytes: UInt64) {
            (load(Cell.hostHigh), load(Cell.hostLow), load(Cell.serving), load(Cell.servingBytes))
        }

        package func add(_ counter: Counter, _ amount: Int) {
            store(load(counter.rawValue) &+ UInt64(bitPattern: Int64(amount)), counter.rawValue)
        }

        /// Upper bound of a reported counter: the sum over all workers of a server cannot overflow.
        package static let maxCount = 1 << 48

        /// The counter, clamped to 0...`maxCount`, whatever a worker has written.
        package subscript(counter: Counter) -> Int { min(max(Int(truncatingIfNeeded: load(counter.rawValue)), 0), Self.maxCount) }

        // MARK: Written by the master

        /// Resets the row for a new process, except the running totals.
        package func begin(generation: Int, at now: MonotonicTime) {
            beat(at: now)
            enter(.starting)
            store(0, Counter.connections.rawValue)
            store(0, Cell.violation)
            store(0, Cell.serving)
            store(0, Cell.pid)
            store(UInt64(generation), Cell.generation)
        }

        package func setProcess(_ pid: Int32) { store(UInt64(UInt32(bitPattern: pid)), Cell.pid) }

        /// The slot's process ID; 0 for none.
        package var pid: Int32 { Int32(truncatingIfNeeded: load(Cell.pid)) }

        /// Number of processes that the slot has had, including the current one.
        package var generation: Int { Int(truncatingIfNeeded: load(Cell.generation)) }

        package func setState(_ state: State) { store(UInt64(state.rawValue), Cell.state) }

        package var state: State { State(rawValue: UInt8(truncatingIfNeeded: load(Cell.state))) ?? .idle }
    }
}
