/// Joins the pieces of a message that did not arrive complete. Owns no memory while empty.
package struct MessageAssembler: Sendable {
    /// The payload so far.
    package private(set) var bytes: [UInt8] = []
    private let maxBytes: Int

    /// Bytes reserved at most before any payload has arrived: a header alone must not cost memory.
    private static let firstReserve = 64 * 1024

    /// - Parameter maxBytes: the limit of a message; never more than this is reserved.
    package init(maxBytes: Int) {
        self.maxBytes = maxBytes
    }

    package var isEmpty: Bool { bytes.isEmpty }

    /// Appends a piece.
    ///
    /// - Parameter remaining: payload bytes of the same frame still to arrive, for reserving
    ///   memory.
    /// - Throws: `FrameViolation.messageTooBig` if the message exceeds the limit.
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

    /// Calls `body`, an extension's decoder, with the bytes so far and the limit of the message.
    package mutating func extend<Result, Failure>(
        _ body: (inout [UInt8], Int) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(&bytes, maxBytes)
    }

    /// Returns the complete message and empties the assembler.
    package mutating func take() -> [UInt8] {
        defer { bytes = [] }
        return bytes
    }
}
