import ApusCodec
import ApusPlatform
import ApusTransport

// Messages that come in pieces. Without extensions they are put together in a chunk of the worker's pool, which output can share; what
// extensions make of a message is put together in an array of theirs.
extension WebSocket {
    /// What is set aside for announced payload of which little has come, in bytes: a header alone must not cost memory.
    private static let firstReserve = 63 * 1024
    /// With more than this to come in a frame, in bytes, it is received where it will stay, instead of being copied there.
    private static let leastDirect = 32 * 1024
    /// Received at once there, in bytes: so little that it is still in the processor's cache when it is unmasked.
    private static let mostDirect = 256 * 1024

    /// Bytes of the message that is being assembled.
    var assembledBytes: Int {
        if let extensions { return extensions.assembler.bytes.count }
        return incoming?.count ?? 0
    }

    /// Keeps a piece of a message, and delivers the message if that was its last.
    ///
    /// - Throws: `FrameViolation.messageTooBig` when extensions make more of it than the limit. Without them the decoder has looked.
    func assemble(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        if let extensions {
            guard context.hasRoom(for: payload.byteCount) else { return refuseForMemory() }
            try withAssembler(of: extensions) { (assembler) throws(FrameViolation) in
                try assembler.append(payload, remaining: piece.remainingInFrame)
            }
        } else {
            guard let chunk = chunk(adding: payload.byteCount, announced: piece.remainingInFrame) else { return refuseForMemory() }
            chunk.append(payload)
        }
        if piece.endsMessage { deliverAssembled(piece.kind) }
    }

    /// Changes what extensions have made of a message, and counts how much more or less the worker holds.
    func withAssembler<Result, Failure>(
        of chain: ExtensionChain, _ body: (inout MessageAssembler) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let before = chain.assembler.bytes.count
        defer { context.buffers.note(chain.assembler.bytes.count - before) }
        return try body(&chain.assembler)
    }

    /// The chunk of the current message with room for `count` bytes more; nil if the worker must not hold so much.
    ///
    /// What the frame announces is set aside with it, up to seven times what has come: memory is at most in proportion to that. It doubles at
    /// least, up to the limit, so that it does not grow with each of many fragments.
    private func chunk(adding count: Int, announced: UInt64) -> ByteChunk? {
        let needed = (incoming?.count ?? 0) + count
        let held = incoming?.capacity ?? 0
        if let incoming, held >= needed { return incoming }
        guard context.hasRoom(for: needed - held) else { return nil }
        let (sevenfold, isTooMuch) = needed.multipliedReportingOverflow(by: 7)
        let most = isTooMuch ? Int.max - needed : max(Self.firstReserve, sevenfold)
        var wanted = needed + Int(clamping: min(announced, UInt64(most)))
        if incoming != nil { wanted = max(wanted, min(2 * needed, context.limits.maxMessageBytes)) }
        // Where memory may become short, nobody gets more than what has come: else a few bytes of many messages would take all of it.
        if !context.hasRoom(for: wanted - held + context.limits.maxWorkerBufferBytes / 2) { wanted = needed }
        guard let incoming else {
            let chunk = ByteChunk(capacity: wanted, from: context.buffers)
            self.incoming = chunk
            return chunk
        }
        incoming.reserve(wanted)
        return incoming
    }

    func deliverAssembled(_ kind: MessageKind) {
        context.messagesReceived &+= 1
        if let extensions {
            let message = withAssembler(of: extensions) { $0.take() }
            context.serving(kind, message.count)
            return handler.received(Message(kind: kind, payload: message.rawSpan), on: self)
        }
        guard let chunk = incoming else { preconditionFailure("a message that ends has begun") }
        incoming = nil
        // A handler may have another's handler called.
        let outer = context.delivering
        context.delivering = chunk
        context.serving(kind, chunk.span.byteCount)
        handler.received(Message(kind: kind, payload: chunk.span), on: self)
        context.delivering = outer
    }

    /// Lets go of what has been assembled.
    func dropAssembled() {
        incoming = nil
        if let extensions { withAssembler(of: extensions) { _ = $0.take() } }
    }

    /// The worker holds as much as it may: who asks for more goes, whether it sends or does not read.
    func refuseForMemory() {
        dropAssembled()
        context.noteShortage()
        close(code: .tryAgainLater, reason: "the server has no memory for more")
    }

    // MARK: Payload received where it stays

    /// How much of the current frame's payload can be received straight into the message; nil if it is not worth it, or nobody wants it.
    var directBytes: Int? {
        guard case .open = state, let incoming else { return nil }
        let most = min(Int(clamping: decoder.remainingInFrame), Self.mostDirect)
        guard most >= Self.leastDirect,
            let chunk = chunk(adding: Self.leastDirect, announced: decoder.remainingInFrame - UInt64(Self.leastDirect))
        else { return nil }
        return min(most, chunk.capacity - incoming.count)
    }

    /// Receives payload of the current frame, at most `most` bytes; `received` must follow.
    func receive(from transport: Transport, atMost most: Int) throws(SystemError) -> IOResult<Int> {
        guard let incoming else { preconditionFailure("directBytes was asked") }
        return try incoming.receive(from: transport, atMost: most)
    }

    /// The last `count` bytes of the message have come by `receive`: unmasks and checks them, and delivers the message if it is whole.
    func received(_ count: Int) {
        guard let incoming else { preconditionFailure("something was received") }
        hasPinged = false
        var decoder = self.decoder
        do throws(FrameViolation) {
            var event: FrameEvent?
            var position = 0
            try incoming.withLast(count) { (bytes) throws(FrameViolation) in
                event = try decoder.next(in: &bytes, until: count, from: &position)
            }
            self.decoder = decoder
            guard case .data(let piece) = event else { preconditionFailure("payload is data") }
            if piece.kind == .text {
                try checkText(incoming.span.extracting((incoming.count - count)...), endsMessage: piece.endsMessage)
            }
            if piece.endsMessage { deliverAssembled(piece.kind) }
        } catch {
            violated(error)
        }
        watchMessage(decoder)
    }
}
