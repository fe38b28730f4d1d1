import ApusCodec
import ApusPlatform
import ApusTransport

/// Writes a WebSocket's messages and frames to its stream: limits what may be queued, passes
/// messages through the extensions, and masks frames on a client.
struct FrameWriter {
    let stream: ByteStream
    private let socket: WebSocket

    init(_ socket: WebSocket, on stream: ByteStream) {
        self.socket = socket
        self.stream = stream
    }

    private var worker: Worker { socket.worker }

    // MARK: Messages

    /// Sends a message, a part of one, or a ping.
    ///
    /// - Parameters:
    ///   - kind: nil for control frames, which bypass the extensions.
    ///   - chunk: the chunk that holds the payload, if it can be queued without a copy.
    func send(
        _ payload: borrowing RawSpan, as opcode: Opcode, of kind: MessageKind?, isFinal: Bool, in chunk: SharedChunk?
    ) -> WebSocket.SendOutcome {
        if let refusal = begin() { return refusal }
        if let kind, let extensions = socket.extensions {
            write(payload, as: opcode, of: kind, isFinal: isFinal, through: extensions)
        } else {
            write(payload, as: opcode, isFinal: isFinal, in: chunk?.chunk)
        }
        return outcome()
    }

    /// Sends a complete frame, whose bytes are shared with other connections.
    func send(_ frame: ByteChunk) -> WebSocket.SendOutcome {
        if let refusal = begin() { return refusal }
        stream.write(frame)
        return outcome()
    }

    /// - Returns: why nothing is to be sent; nil if something may be.
    private func begin() -> WebSocket.SendOutcome? {
        if worker.broker.hasPublications { worker.broker.deliverPublications(before: socket) }
        guard socket.isOpen else { return .closed }
        return makeRoom() ? nil : refuse()
    }

    /// The outcome of a message that was written.
    private func outcome() -> WebSocket.SendOutcome {
        // One message may exceed the memory limit, but the connection may then not continue.
        if !worker.memory.hasRoom(), !makeRoom() { socket.refuseForMemory() }
        return stream.hasBufferedOutput ? .buffered(stream.bufferedBytes) : .accepted
    }

    /// Closes the connection because more output is buffered than allowed.
    @discardableResult
    func refuse() -> WebSocket.SendOutcome {
        if worker.memory.hasRoom() || stream.bufferedBytes > worker.limits.maxBufferedBytes {
            socket.close(code: .tryAgainLater, reason: "the peer reads too slowly")
        } else {
            socket.refuseForMemory()
        }
        return .closed
    }

    // MARK: Room

    /// Whether more may be queued: when the worker's memory limit is reached, only behind nothing.
    static func hasRoom(on stream: ByteStream) -> Bool {
        stream.bufferedBytes <= (stream.worker.memory.hasRoom() ? stream.worker.limits.maxBufferedBytes : 0)
    }

    var hasRoom: Bool { Self.hasRoom(on: stream) }

    /// Whether more may be queued. At the memory limit, queued output is first written to the
    /// kernel: output queued in this turn does not mean that the peer is slow.
    func makeRoom() -> Bool {
        if hasRoom { return true }
        if worker.memory.hasRoom() { return false }
        guard stream.offerOutput() else {
            stream.abort()
            return false
        }
        // `writable` and resumed reads follow at the end of the turn.
        worker.endTurn(of: stream)
        return hasRoom
    }

    // MARK: Frames

    /// A key for the next frame; nil for a server, whose frames are not masked (RFC 6455 §5.1).
    private var maskingKey: UInt32? {
        switch socket.role {
        case .server: nil
        case .client: worker.maskingKeys.next()
        }
    }

    /// Writes a frame.
    ///
    /// - Parameter chunk: the chunk that holds the payload, if it can be queued without a copy.
    func write(
        _ payload: borrowing RawSpan, as opcode: Opcode, isFinal: Bool = true, reservedBits: UInt8 = 0, in chunk: ByteChunk? = nil
    ) {
        let header = FrameHeader(
            opcode: opcode, payloadBytes: payload.byteCount, isFinal: isFinal, reservedBits: reservedBits, maskingKey: maskingKey)
        stream.write(header, payload, in: chunk)
    }

    /// Writes a frame whose payload passes through the extensions first.
    func write(
        _ payload: borrowing RawSpan, as opcode: Opcode, of kind: MessageKind, isFinal: Bool, through extensions: ExtensionChain
    ) {
        var scratch = worker.memory.takeScratch()
        let piece = ExtensionPiece(kind: kind, reservedBits: [], startsMessage: opcode != .continuation, endsMessage: isFinal)
        switch extensions.send(copy payload, piece, into: &scratch) {
        case .unchanged: write(payload, as: opcode, isFinal: isFinal)
        case .replaced(let bits):
            // Reserved bits are set on the first frame of a message only (RFC 7692 §6).
            write(scratch.rawSpan, as: opcode, isFinal: isFinal, reservedBits: opcode == .continuation ? 0 : bits.rawValue)
        }
        worker.memory.giveBack(scratch)
    }

    /// Writes a close frame; nil: without a code.
    func writeClose(_ code: CloseCode?, reason: String) {
        let payload = FrameEncoder.closePayload(code: code, reason: reason)
        write(payload.rawSpan, as: .close)
    }
}
