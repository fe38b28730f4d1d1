package import ApusPlatform
import Synchronization

/// Who wants what, in memory that all processes share: one row per slot, written by the slot's worker, read by everybody, plus bits that
/// everybody may set.
///
/// A worker begins with an empty row and fills it as its connections come, so a crash leaves no ghost.
@safe package final class InterestTable {
    private let memory: SharedMemory
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    package let slots: Int

    /// Protocols that can be told apart; a server has few.
    package static let maxProtocols = 64
    /// Topics are counted by a hash of so many values: another topic's subscriber may cost a needless record, never lose one.
    private static let topicBuckets = 1024

    private enum Cell {
        /// Bits of protocols whose connections are to be asked to write.
        static let writable = 0
        /// Bits of protocols whose paused connections are to go on.
        static let resume = 1
        /// Subscriptions to patterns, which match more than one topic.
        static let patterns = 2
        /// Connections by protocol.
        static let protocols = 8
        static let topics = protocols + InterestTable.maxProtocols
        static let count = topics + InterestTable.topicBuckets
    }

    package init(slots: Int) throws(SystemError) {
        self.slots = slots
        memory = try SharedMemory(byteCount: slots * Cell.count * MemoryLayout<UInt64>.size)
        // SAFETY: zeroed memory is a valid atomic zero, and the mapping is page aligned.
        unsafe cells = memory.bytes.bindMemory(to: Atomic<UInt64>.self).baseAddress.unsafelyUnwrapped
    }

    private func cell(_ slot: Int, _ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        precondition((0..<slots).contains(slot) && (0..<Cell.count).contains(index))
        return unsafe cells + (slot * Cell.count + index)
    }

    private func load(_ slot: Int, _ index: Int) -> UInt64 { unsafe cell(slot, index).pointee.load(ordering: .acquiring) }

    /// Empties a slot's row, when its worker starts.
    package func clear(_ slot: Int) {
        for index in 0..<Cell.count { unsafe cell(slot, index).pointee.store(0, ordering: .releasing) }
    }

    // MARK: Interest

    /// Counts a connection of the slot's worker in (1) or out (-1).
    package func count(_ change: Int, protocolIndex: Int, in slot: Int) { add(change, slot, Cell.protocols + protocolIndex) }

    /// Counts a subscription to one topic.
    package func count(_ change: Int, topicHash: Int, in slot: Int) { add(change, slot, Cell.topics + topicHash) }

    /// Counts a subscription to a pattern.
    package func countPattern(_ change: Int, in slot: Int) { add(change, slot, Cell.patterns) }

    private func add(_ change: Int, _ slot: Int, _ index: Int) {
        _ = unsafe cell(slot, index).pointee.wrappingAdd(UInt64(bitPattern: Int64(change)), ordering: .acquiringAndReleasing)
    }

    package func isInterested(_ slot: Int, protocolIndex: Int) -> Bool { load(slot, Cell.protocols + protocolIndex) != 0 }

    package func isInterested(_ slot: Int, topicHash: Int) -> Bool {
        load(slot, Cell.topics + topicHash) != 0 || load(slot, Cell.patterns) != 0
    }

    /// The bucket of a topic: FNV-1a, the same in every process.
    package static func hash(_ topic: [UInt8]) -> Int {
        let hash = topic.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
        return Int((hash ^ hash >> 32) % UInt64(topicBuckets))
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

    /// Sets a protocol's bit in a slot's row. Gives whether the slot must be woken: only if no bit of this kind was set before.
    package func set(_ request: Request, protocolIndex: Int, in slot: Int) -> Bool {
        let old = unsafe cell(slot, request.cell).pointee.bitwiseOr(1 << UInt64(protocolIndex), ordering: .acquiringAndReleasing).oldValue
        return old == 0
    }

    /// Takes the bits, so that one set from now on wakes again; to be acted on after this, never before.
    package func take(_ request: Request, of slot: Int) -> UInt64 {
        if load(slot, request.cell) == 0 { return 0 }
        return unsafe cell(slot, request.cell).pointee.exchange(0, ordering: .acquiringAndReleasing)
    }
}
