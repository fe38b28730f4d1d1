package import ApusPlatform
import Synchronization

/// Subscription and connection counts per worker, in shared memory: one row per mailbox (see
/// `Mailboxes`), written by the mailbox's owner and read by all processes, plus request bits that
/// every process may set.
///
/// A worker starts with an empty row and counts its connections in it; the master clears the row of
/// a process that has ended. A crash therefore leaves no stale counts, and no process sends to a
/// mailbox without a reader.
@safe package final class InterestTable: @unchecked Sendable {
    private let memory: SharedMemory
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    package let places: Int

    /// Most protocols of a server.
    package static let maxProtocols = 64
    /// Topics are counted per hash bucket: a collision may cost a needless record, never lose one.
    private static let topicBuckets = 1024

    /// The bucket of a topic's hash.
    static func bucket(of hash: UInt32) -> UInt32 { hash % UInt32(topicBuckets) }

    private enum Cell {
        /// One bit per protocol whose connections are to call `writable`.
        static let writable = 0
        /// One bit per protocol whose paused connections are to resume.
        static let resume = 1
        /// Number of subscriptions to patterns.
        static let patterns = 2
        /// The process that owns the row; 0 for none.
        static let generation = 3
        /// Number of connections, by protocol.
        static let protocols = 8
        static let topics = protocols + InterestTable.maxProtocols
        static let count = topics + InterestTable.topicBuckets
        static func topic(_ hash: UInt32) -> Int { topics + Int(InterestTable.bucket(of: hash)) }
    }

    package init(slots: Int) throws(SystemError) {
        places = slots * Mailboxes.placesPerSlot
        memory = try SharedMemory(byteCount: places * Cell.count * MemoryLayout<UInt64>.size)
        // SAFETY: zeroed memory is a valid atomic zero, and the mapping is page-aligned.
        unsafe cells = memory.bytes.bindMemory(to: Atomic<UInt64>.self).baseAddress.unsafelyUnwrapped
    }

    private func cell(_ place: Int, _ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        precondition((0..<places).contains(place) && (0..<Cell.count).contains(index))
        return unsafe cells + (place * Cell.count + index)
    }

    private func load(_ place: Int, _ index: Int) -> UInt64 { unsafe cell(place, index).pointee.load(ordering: .acquiring) }

    /// Clears the row and makes a process its owner.
    ///
    /// - Parameter generation: identifies the process; not 0.
    package func join(_ place: Int, generation: UInt32) {
        clear(place)
        unsafe cell(place, Cell.generation).pointee.store(UInt64(generation), ordering: .releasing)
    }

    /// Clears the row of a process that has ended; senders then stop sending to it.
    package func leave(_ place: Int, generation: UInt32) {
        if self.generation(of: place) == generation { clear(place) }
    }

    private func clear(_ place: Int) {
        unsafe cell(place, Cell.generation).pointee.store(0, ordering: .releasing)
        for index in 0..<Cell.count { unsafe cell(place, index).pointee.store(0, ordering: .releasing) }
    }

    /// The process that owns the row; 0 for none. Read it after the interest that it belongs to.
    package func generation(of place: Int) -> UInt32 { UInt32(truncatingIfNeeded: load(place, Cell.generation)) }

    // MARK: Interest

    /// Counts one connection more (1) or less (-1).
    package func count(_ change: Int, protocolIndex: Int, in place: Int) { add(change, place, Cell.protocols + protocolIndex) }

    /// Counts one subscription to a topic more (1) or less (-1).
    package func count(_ change: Int, topicHash: UInt32, in place: Int) { add(change, place, Cell.topic(topicHash)) }

    /// Counts one subscription to a pattern more (1) or less (-1).
    package func countPattern(_ change: Int, in place: Int) { add(change, place, Cell.patterns) }

    private func add(_ change: Int, _ place: Int, _ index: Int) {
        _ = unsafe cell(place, index).pointee.wrappingAdd(UInt64(bitPattern: Int64(change)), ordering: .acquiringAndReleasing)
    }

    package func isInterested(_ place: Int, protocolIndex: Int) -> Bool { load(place, Cell.protocols + protocolIndex) != 0 }

    package func isInterested(_ place: Int, topicHash: UInt32) -> Bool {
        load(place, Cell.topic(topicHash)) != 0 || load(place, Cell.patterns) != 0
    }

    // MARK: Requests

    /// What a request bit means.
    package enum Request: CaseIterable, Sendable {
        case writable
        case resume

        var cell: Int {
            switch self {
            case .writable: Cell.writable
            case .resume: Cell.resume
            }
        }
    }

    /// Sets a protocol's request bit in a row.
    ///
    /// - Returns: whether its worker must be woken: only if no bit of this kind was set.
    package func set(_ request: Request, protocolIndex: Int, in place: Int) -> Bool {
        let old = unsafe cell(place, request.cell).pointee.bitwiseOr(1 << UInt64(protocolIndex), ordering: .acquiringAndReleasing).oldValue
        return old == 0
    }

    /// Returns the request bits and clears them. Act on them only afterwards, so that a bit set
    /// meanwhile wakes the worker again.
    package func take(_ request: Request, of place: Int) -> UInt64 {
        if load(place, request.cell) == 0 { return 0 }
        return unsafe cell(place, request.cell).pointee.exchange(0, ordering: .acquiringAndReleasing)
    }
}
