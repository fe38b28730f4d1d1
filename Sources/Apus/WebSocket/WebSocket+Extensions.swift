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
        // What comes whole is inflated into a buffer that all connections share.
        var scratch = context.takeScratch()
        defer { context.giveBack(scratch) }
        switch try chain.receive(payload, part, into: &scratch, maxBytes: context.limits.maxMessageBytes) {
        case .unchanged: try deliver(piece, payload)
        case .replaced: try deliver(piece, scratch.rawSpan)
        }
    }

    /// What comes in pieces is inflated straight into the message.
    private func assemble(_ piece: DataPiece, _ payload: RawSpan, _ part: ExtensionPiece, _ chain: ExtensionChain) throws(FrameViolation) {
        let before = assembler.bytes.count
        let outcome = try assembler.extend { (bytes, maxBytes) throws(FrameViolation) in
            try chain.receive(payload, part, into: &bytes, maxBytes: maxBytes)
        }
        if outcome == .unchanged { return try deliver(piece, payload) }
        if piece.kind == .text {
            let bytes = assembler.bytes
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
