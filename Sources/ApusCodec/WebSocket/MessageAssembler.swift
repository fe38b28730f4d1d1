/// Collects the pieces of a message that did not arrive whole. Empty, it owns no memory.
package struct MessageAssembler: Sendable {
    /// The bytes collected so far.
    package private(set) var bytes: [UInt8] = []
    private let maxBytes: Int

    /// The most that is set aside before any payload has arrived, in bytes: a header alone must not cost memory.
    private static let firstReserve = 64 * 1024

    /// - Parameter maxBytes: the limit of a message; more than this is never reserved.
    package init(maxBytes: Int) {
        self.maxBytes = maxBytes
    }

    package var isEmpty: Bool { bytes.isEmpty }

    /// Appends a piece.
    ///
    /// - Parameter remaining: payload bytes of the same frame that are still to come, to reserve in good time.
    /// - Throws: `FrameViolation.messageTooBig` when the message passes the limit.
    package mutating func append(_ piece: borrowing RawSpan, remaining: UInt64) throws(FrameViolation) {
        let needed = bytes.count + piece.byteCount
        guard needed <= maxBytes else { throw .messageTooBig(size: UInt64(needed), limit: UInt64(maxBytes)) }
        if needed > bytes.capacity {
            let announced = needed + Int(clamping: min(remaining, UInt64(Self.firstReserve)))
            if bytes.isEmpty {
                bytes.reserveCapacity(min(maxBytes, announced))
            } else {
                bytes.reserve(growingTo: announced, maxBytes: maxBytes)
            }
        }
        bytes.append(piece)
    }

    /// Lets an extension append what a piece stands for; it is told how many bytes the message may have in all.
    package mutating func extend<Result, Failure>(
        _ body: (inout [UInt8], Int) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(&bytes, maxBytes)
    }

    /// The message, complete; the assembler is empty again and owns nothing.
    package mutating func take() -> [UInt8] {
        defer { bytes = [] }
        return bytes
    }
}
