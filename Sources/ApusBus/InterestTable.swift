package import ApusPlatform
import Synchronization

/// Who wants what, in memory that all processes share: one row per place (see `Mailboxes`), written by the place's worker, read by everybody,
/// plus bits that everybody may set.
///
/// A worker joins with an empty row and fills it as its connections come; the master empties the row of a process that has ended. So a crash
/// leaves no ghost, and nobody writes to a mailbox that nobody reads.
@safe package final class InterestTable: @unchecked Sendable {
    private let memory: SharedMemory
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    package let places: Int

    /// Protocols that can be told apart; a server has few.
    package static let maxProtocols = 64
    /// Topics are counted by a hash of so many values: another topic's subscriber may cost a needless record, never lose one.
    private static let topicBuckets = 1024

    /// The least of the hashes that are counted together with this one.
    static func bucket(of hash: UInt32) -> UInt32 { hash % UInt32(topicBuckets) }

    private enum Cell {
        /// Bits of protocols whose connections are to be asked to write.
        static let writable = 0
        /// Bits of protocols whose paused connections are to go on.
        static let resume = 1
        /// Subscriptions to patterns, which match more than one topic.
        static let patterns = 2
        /// Which process the row is about; 0 while there is none.
        static let generation = 3
        /// Connections by protocol.
        static let protocols = 8
        static let topics = protocols + InterestTable.maxProtocols
        static let count = topics + InterestTable.topicBuckets
        static func topic(_ hash: UInt32) -> Int { topics + Int(InterestTable.bucket(of: hash)) }
    }

    package init(slots: Int) throws(SystemError) {
        places = slots * Mailboxes.placesPerSlot
        memory = try SharedMemory(byteCount: places * Cell.count * MemoryLayout<UInt64>.size)
        // SAFETY: zeroed memory is a valid atomic zero, and the mapping is page aligned.
        unsafe cells = memory.bytes.bindMemory(to: Atomic<UInt64>.self).baseAddress.unsafelyUnwrapped
    }

    private func cell(_ place: Int, _ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        precondition((0..<places).contains(place) && (0..<Cell.count).contains(index))
        return unsafe cells + (place * Cell.count + index)
    }

    private func load(_ place: Int, _ index: Int) -> UInt64 { unsafe cell(place, index).pointee.load(ordering: .acquiring) }

    /// A worker begins at the place, with an empty row.
    ///
    /// - Parameter generation: of the process; not 0.
    package func join(_ place: Int, generation: UInt32) {
        clear(place)
        unsafe cell(place, Cell.generation).pointee.store(UInt64(generation), ordering: .releasing)
    }

    /// The process of the place has ended: nothing is said to it any more.
    package func leave(_ place: Int, generation: UInt32) {
        if self.generation(of: place) == generation { clear(place) }
    }

    private func clear(_ place: Int) {
        unsafe cell(place, Cell.generation).pointee.store(0, ordering: .releasing)
        for index in 0..<Cell.count { unsafe cell(place, index).pointee.store(0, ordering: .releasing) }
    }

    /// Which process is at the place; 0 if none. Read it after the interest that it explains.
    package func generation(of place: Int) -> UInt32 { UInt32(truncatingIfNeeded: load(place, Cell.generation)) }

    // MARK: Interest

    /// Counts a connection of the place's worker in (1) or out (-1).
    package func count(_ change: Int, protocolIndex: Int, in place: Int) { add(change, place, Cell.protocols + protocolIndex) }

    /// Counts a subscription to one topic.
    package func count(_ change: Int, topicHash: UInt32, in place: Int) { add(change, place, Cell.topic(topicHash)) }

    /// Counts a subscription to a pattern.
    package func countPattern(_ change: Int, in place: Int) { add(change, place, Cell.patterns) }

    private func add(_ change: Int, _ place: Int, _ index: Int) {
        _ = unsafe cell(place, index).pointee.wrappingAdd(UInt64(bitPattern: Int64(change)), ordering: .acquiringAndReleasing)
    }

    package func isInterested(_ place: Int, protocolIndex: Int) -> Bool { load(place, Cell.protocols + protocolIndex) != 0 }

    package func isInterested(_ place: Int, topicHash: UInt32) -> Bool {
        load(place, Cell.topic(topicHash)) != 0 || load(place, Cell.patterns) != 0
    }

    // MARK: Bits that only have to be noticed

    /// What a bit asks for.
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

    /// Sets a protocol's bit in a place's row. Gives whether its worker must be woken: only if no bit of this kind was set before.
    package func set(_ request: Request, protocolIndex: Int, in place: Int) -> Bool {
        let old = unsafe cell(place, request.cell).pointee.bitwiseOr(1 << UInt64(protocolIndex), ordering: .acquiringAndReleasing).oldValue
        return old == 0
    }

    /// Takes the bits, so that one set from now on wakes again; to be acted on after this, never before.
    package func take(_ request: Request, of place: Int) -> UInt64 {
        if load(place, request.cell) == 0 { return 0 }
        return unsafe cell(place, request.cell).pointee.exchange(0, ordering: .acquiringAndReleasing)
    }
}
