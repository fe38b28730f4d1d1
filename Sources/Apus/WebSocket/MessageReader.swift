import ApusCodec
import ApusPlatform
import ApusTransport

/// Makes messages of the frames that arrive, and passes them to the handler: what the fast path in
/// `WebSocket.received` does not.
struct MessageReader {
    private let socket: WebSocket
    private let stream: ByteStream
    private let handler: any WebSocketHandler

    init(_ socket: WebSocket, on stream: ByteStream) {
        self.socket = socket
        self.stream = stream
        handler = socket.handler
    }

    private var worker: Worker { socket.worker }

    /// Serves an event of the decoder.
    ///
    /// - Parameter bytes: what the event's range refers to.
    /// - Returns: the stream's next step if reading must stop.
    func serve(_ event: FrameEvent, _ bytes: RawSpan) throws(FrameViolation) -> Next? {
        switch event {
        case .close(let code, let reason): return socket.receivedClose(code, bytes.extracting(reason).string)
        // After our close frame, only the peer's close frame is processed.
        case _ where !socket.wire.isOpen: break
        case .data(let piece): try receive(piece, bytes.extracting(piece.range))
        case .ping(let range): socket.receivedPing(bytes.extracting(range))
        case .pong(let range):
            worker.serving(.pong, route: socket.routeNumber)
            handler.pong(bytes.extracting(range), on: socket)
        }
        return nil
    }

    // MARK: Messages

    private func receive(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        guard let extensions = socket.extensions else { return try deliver(piece, payload) }
        if socket.delivery == .messages, !(piece.startsMessage && piece.endsMessage) { return try assemble(piece, payload) }
        // Messages that are not assembled are decoded into a scratch buffer that all connections
        // share.
        var scratch = worker.memory.takeScratch()
        defer { worker.memory.giveBack(scratch) }
        switch try extensions.receive(piece, payload, into: &scratch, maxMessageBytes: worker.limits.maxMessageBytes) {
        case .unchanged: try deliver(piece, payload)
        case .replaced: try deliver(piece, scratch.rawSpan)
        }
    }

    /// Delivers payload after the extensions, as a message or a fragment, or assembles it.
    private func deliver(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        switch socket.delivery {
        case .messages where piece.startsMessage && piece.endsMessage:
            if piece.kind == .text, !UTF8Validator.isValid(payload) { throw .invalidUTF8 }
            deliver(Message(kind: piece.kind, payload: payload))
        case .messages: try assemble(piece, payload)
        case .fragments:
            try check(payload, of: piece)
            if piece.endsMessage { worker.messagesReceived &+= 1 }
            worker.serving(piece.kind, payload.byteCount)
            handler.received(Fragment(piece, payload: payload), on: socket)
        }
    }

    private func deliver(_ message: Message) {
        worker.messagesReceived &+= 1
        worker.serving(message.kind, message.payload.byteCount)
        handler.received(message, on: socket)
    }

    /// Checks a part of a message if it is text.
    private func check(_ payload: RawSpan, of piece: DataPiece) throws(FrameViolation) {
        guard piece.kind == .text else { return }
        try socket.change { wire throws(FrameViolation) in try wire.checkText(payload, endsMessage: piece.endsMessage) }
    }

    private func assemble(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        let count = try socket.changeAssembly { assembly throws(FrameViolation) in
            try assembly.append(piece, payload, worker.memory, worker.limits)
        }
        guard let count else { return socket.refuseForMemory() }
        try assembled(piece, count)
    }

    /// The message has grown by `count` bytes.
    private func assembled(_ piece: DataPiece, _ count: Int) throws(FrameViolation) {
        try socket.assembly.withLast(count) { bytes throws(FrameViolation) in try check(bytes, of: piece) }
        guard piece.endsMessage else { return }
        switch socket.changeAssembly({ $0.take(worker.memory) }) {
        case .chunk(let chunk): deliver(Message(kind: piece.kind, payload: chunk.span, in: SharedChunk(chunk)))
        case .bytes(let bytes): deliver(Message(kind: piece.kind, payload: bytes.rawSpan))
        }
    }

    /// Unmasks, checks and delivers `count` bytes that were received directly into the message.
    func readDirectly(_ count: Int) -> Next {
        var decoder = socket.wire.decoder
        do throws(FrameViolation) {
            let piece = try socket.assembly.unmask(count, by: &decoder)
            socket.wire.decoder = decoder
            try assembled(piece, count)
        } catch {
            return socket.violated(error)
        }
        watchMessage()
        return .more
    }

    /// Starts or stops watching the growth of the message being assembled, after received bytes
    /// were decoded.
    func watchMessage() {
        guard socket.delivery == .messages, socket.stream != nil else { return }
        if socket.wire.isOpen {
            let isInside = socket.wire.decoder.isInsideMessage
            if isInside { stream.canReceiveDirectly = socket.wire.decoder.remainingInFrame > 0 }
            if isInside == socket.wire.isWatchingMessage { return }
        }
        let (now, bytes) = (socket.now, socket.assembly.byteCount)
        if socket.change({ $0.watchMessage(assembledBytes: bytes, now: now, limits: worker.webSocketLimits) }) {
            stream.deadlineChanged()
        }
    }
}
