import ApusPlatform
import ApusTransport

/// A request's body that is collected in memory, which the worker's account contains.
struct CollectedBody {
    private var bytes: [UInt8] = []

    /// Appends a piece.
    ///
    /// - Returns: false if the worker's memory limit does not allow it.
    mutating func append(_ piece: borrowing RawSpan, _ memory: MemoryAccounts) -> Bool {
        guard memory.hasRoom(for: piece.byteCount) else { return false }
        bytes.append(piece)
        memory.pool.note(piece.byteCount)
        return true
    }

    /// Takes the bytes out of the account.
    mutating func take(_ memory: MemoryAccounts) -> [UInt8] {
        guard !bytes.isEmpty else { return [] }
        defer { bytes = [] }
        memory.pool.note(-bytes.count)
        return bytes
    }
}
