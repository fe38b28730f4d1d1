import ApusCodec
import ApusPlatform
import ApusTransport

// Payload on its way through the agreed extensions.
extension WebSocket {
    /// A data piece of a connection with extensions: changed, checked and delivered.
    func receive(_ piece: DataPiece, _ payload: RawSpan, through chain: ExtensionChain) throws(FrameViolation) {
        let part = ExtensionPiece(
            kind: piece.kind, reservedBits: ReservedBits(rawValue: piece.reservedBits), startsMessage: piece.startsMessage,
            endsMessage: piece.endsMessage)
        if delivery == .messages, !(piece.startsMessage && piece.endsMessage) { return try assemble(piece, payload, part, chain) }
        if piece.startsMessage { chain.bytesHandedOn = 0 }
        // What is not assembled is inflated into a buffer that all connections share.
        var scratch = context.takeScratch()
        defer { context.giveBack(scratch) }
        let room = context.limits.maxMessageBytes - chain.bytesHandedOn
        let outcome: ExtensionOutcome
        do throws(FrameViolation) {
            outcome = try chain.receive(payload, part, into: &scratch, maxBytes: room)
        } catch .extensionFailed(.messageTooBig) {
            throw tooBig(chain.bytesHandedOn + room + 1)
        }
        switch outcome {
        case .unchanged:
            // The wire's limit leaves room for what compression adds at worst.
            guard payload.byteCount <= room else { throw tooBig(chain.bytesHandedOn + payload.byteCount) }
            chain.bytesHandedOn += payload.byteCount
            try deliver(piece, payload)
        case .replaced:
            chain.bytesHandedOn += scratch.count
            try deliver(piece, scratch.rawSpan)
        }
    }

    private func tooBig(_ size: Int) -> FrameViolation {
        .messageTooBig(size: UInt64(size), limit: UInt64(context.limits.maxMessageBytes))
    }

    /// What comes in pieces is inflated straight into the message.
    private func assemble(_ piece: DataPiece, _ payload: RawSpan, _ part: ExtensionPiece, _ chain: ExtensionChain) throws(FrameViolation) {
        guard context.hasRoom(for: payload.byteCount) else { return refuseForMemory() }
        let before = chain.assembler.bytes.count
        let outcome = try withAssembler(of: chain) { (assembler) throws(FrameViolation) in
            try assembler.extend { (bytes, maxBytes) throws(FrameViolation) in
                try chain.receive(payload, part, into: &bytes, maxBytes: maxBytes)
            }
        }
        if outcome == .unchanged { return try deliver(piece, payload) }
        if piece.kind == .text {
            let bytes = chain.assembler.bytes
            try checkText(bytes.rawSpan.extracting(before...), endsMessage: piece.endsMessage)
        }
        if piece.endsMessage { deliverAssembled(piece.kind) }
    }

    /// Compresses a message, or whatever the extensions do, and writes it.
    func send(
        _ payload: borrowing RawSpan, opcode: Opcode, kind: MessageKind, isFinal: Bool, through chain: ExtensionChain,
        on connection: Connection
    ) {
        var scratch = context.takeScratch()
        let piece = ExtensionPiece(kind: kind, reservedBits: [], startsMessage: opcode != .continuation, endsMessage: isFinal)
        switch chain.send(copy payload, piece, into: &scratch) {
        case .unchanged:
            connection.write(
                FrameHeader(opcode: opcode, payloadBytes: payload.byteCount, isFinal: isFinal, maskingKey: maskingKey), payload)
        case .replaced(let bits):
            // The bits stand on the first frame only.
            let header = FrameHeader(
                opcode: opcode, payloadBytes: scratch.count, isFinal: isFinal, reservedBits: opcode == .continuation ? 0 : bits.rawValue,
                maskingKey: maskingKey)
            connection.write(header, scratch.rawSpan)
        }
        context.giveBack(scratch)
    }
}
