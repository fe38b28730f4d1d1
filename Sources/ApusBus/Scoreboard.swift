package import ApusPlatform
import Synchronization

/// ApusBus is how the processes of one server know of each other: memory they share, and (later) the records they send.
/// It knows nothing of WebSocket or HTTP.

/// A table in shared memory with one row per worker slot. The master makes rows before it forks who writes them, and reads all; a worker
/// keeps its own only (`keepOnly`), so that one that was taken over cannot speak for its siblings. What a row says of its own worker is still
/// the worker's word: readers bound every value before they reckon with it.
///
/// A row is cells of eight bytes, each an atomic, in two groups of cache lines so that the worker's busy counters never
/// bounce with what others write: the worker's own cells (counters, heartbeat, phase) and the master's (pid, generation,
/// state). Both groups have cells to spare.
package final class Scoreboard {
    /// A mapping of its own for each row: pages of one mapping could be had again by making what is left of it larger (mremap(2)).
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

    /// Makes rows until there are `slots`; children that were forked before do not have the new ones.
    package func grow(to slots: Int) throws(SystemError) {
        while pages.count < slots { pages.append(try Page()) }
    }

    /// In a worker: gives up every row but this one for good. They may not be used any more in this process.
    package func keepOnly(_ slot: Int) {
        for (place, page) in pages.enumerated() where place != slot { page.memory.giveUp() }
    }

    /// A slot's row. It is memory of the scoreboard, which must outlive it.
    package subscript(slot: Int) -> Row {
        precondition(slot >= 0 && slot < slots, "slots are numbered from zero")
        // SAFETY: the mapping holds a row, is page-aligned, and zeros are valid atomics.
        return unsafe Row(start: pages[slot].memory.bytes.baseAddress.unsafelyUnwrapped)
    }
}

extension Scoreboard {
    /// What a worker counts.
    package enum Counter: Int, CaseIterable, Sendable {
        /// Connections accepted since the master started; goes on over restarts.
        case accepted = 2
        /// Connections open now; back to zero with each new process.
        case connections = 3
        /// Messages received since the master started; goes on over restarts.
        case messages = 4
    }

    /// What the worker's loop is busy with, for the line that says where it got stuck.
    package enum Phase: UInt8, Sendable {
        case starting = 0
        /// For events, with nothing to do.
        case waiting
        /// In the application's code, or in ours on behalf of a connection.
        case handler
        /// For the last connections to end.
        case draining
    }

    /// What the master knows of the slot's process.
    package enum State: UInt8, Sendable {
        case idle = 0
        case starting, ready, draining, ending, backingOff, ended, abandoned
    }

    /// One slot's cells. Counters, heartbeat and phase have a single writer, the worker's loop thread, so that a count is
    /// a load and a store, not a locked instruction. Everybody may read; nothing is ordered with anything else.
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
            // SAFETY: every cell number is below `byteCount / 8`, and the mapping outlives the row.
            unsafe cells[cell].load(ordering: .relaxed)
        }

        private func store(_ value: UInt64, _ cell: Int) {
            // SAFETY: as in `load`.
            unsafe cells[cell].store(value, ordering: .relaxed)
        }

        // MARK: Written by the worker

        /// The loop turns: its time now.
        package func beat(at now: MonotonicTime) { store(now.milliseconds, Cell.beat) }

        /// When the loop last turned; when the process was started if it has not turned yet.
        package var lastBeat: MonotonicTime { MonotonicTime(milliseconds: load(Cell.beat)) }

        /// Says what the loop is about to do.
        package func enter(_ phase: Phase) { store(UInt64(phase.rawValue), Cell.phase) }

        package var phase: Phase { Phase(rawValue: UInt8(truncatingIfNeeded: load(Cell.phase))) ?? .starting }

        /// Where the number, plus one, of a system call that the sandbox forbids is put as the worker dies of it.
        @unsafe package var violationCell: UnsafeMutablePointer<UInt64> {
            // SAFETY: an atomic cell is eight plain bytes; nobody else writes this one while the worker lives.
            unsafe UnsafeMutableRawPointer(cells + Cell.violation).assumingMemoryBound(to: UInt64.self)
        }

        /// The number of the system call that ended the slot's last process; nil if none did.
        package var violation: Int32? {
            let noted = load(Cell.violation)
            return noted == 0 ? nil : Int32(truncatingIfNeeded: noted - 1)
        }

        /// Says whom the worker serves, and what, in its own words. Left by a process that dies.
        package func serve(hostHigh: UInt64, hostLow: UInt64, what: UInt64) {
            store(hostHigh, Cell.hostHigh)
            store(hostLow, Cell.hostLow)
            store(0, Cell.servingBytes)
            store(what, Cell.serving)
        }

        /// The same peer, something else.
        package func serve(what: UInt64, bytes: UInt64) {
            store(bytes, Cell.servingBytes)
            store(what, Cell.serving)
        }

        package func serve(what: UInt64) { store(what, Cell.serving) }

        package func serve(bytes: UInt64) { store(bytes, Cell.servingBytes) }

        /// What is served: zero for nothing.
        package var serving: (hostHigh: UInt64, hostLow: UInt64, what: UInt64, bytes: UInt64) {
            (load(Cell.hostHigh), load(Cell.hostLow), load(Cell.serving), load(Cell.servingBytes))
        }

        package func add(_ counter: Counter, _ amount: Int) {
            store(load(counter.rawValue) &+ UInt64(bitPattern: Int64(amount)), counter.rawValue)
        }

        /// The most that a counter tells: as many of them as a server can have add up without overflow.
        package static let maxCount = 1 << 48

        /// From 0 to `maxCount`, whatever a worker has written.
        package subscript(counter: Counter) -> Int { min(max(Int(truncatingIfNeeded: load(counter.rawValue)), 0), Self.maxCount) }

        // MARK: Written by the master

        /// A new process is about to start in the slot: nothing of its predecessor's but the running totals is left.
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

        /// The slot's process; 0 when there is none.
        package var pid: Int32 { Int32(truncatingIfNeeded: load(Cell.pid)) }

        /// How many processes the slot has had, the present one included.
        package var generation: Int { Int(truncatingIfNeeded: load(Cell.generation)) }

        package func setState(_ state: State) { store(UInt64(state.rawValue), Cell.state) }

        package var state: State { State(rawValue: UInt8(truncatingIfNeeded: load(Cell.state))) ?? .idle }
    }
}
