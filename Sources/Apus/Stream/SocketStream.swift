import ApusCodec
import ApusPlatform
import ApusTransport

/// A byte stream carried by a connected socket, with or without TLS: sends through the socket's
/// transport, and passes received bytes to the session. The loop's events and the stream's phases
/// are its subclass's, `Connection`.
///
/// A class between the two, because a part of its own would cost every connection an object, and
/// every event a reference count.
class SocketStream: ByteStream {
    /// Whether TLS is in use.
    final var isSecure = false
    final let transport: Transport
    /// Received bytes that the session has not consumed: an incomplete frame header, or input
    /// received while reading is paused.
    final private var unconsumed: [UInt8] = [] {
        didSet { worker.memory.pool.note(unconsumed.count - oldValue.count) }
    }

    /// Most bytes of a large message received per event, for fairness to other connections.
    private static let mostReceivedDirectly = 1 << 20

    init(_ descriptor: consuming OwnedDescriptor, worker: Worker, from origin: PeerOrigin = .thisSide) {
        transport = Transport(descriptor, buffers: worker.memory.pool)
        super.init(worker: worker, origin: origin)
    }

    /// Ends an event of the stream: sends its corked output, and acts on what the session did.
    func endEvent() { preconditionFailure("a socket's events are served by a subclass") }

    // MARK: Receiving

    /// Receives once and processes the bytes.
    ///
    /// - Returns: false if no data was available, or at the end of input.
    @discardableResult
    final func receive(_ loop: EventLoop) -> Bool {
        if canReceiveDirectly, receiveDirectly() { return true }
        let buffer = worker.receiveBuffer
        let headroom = ReceiveBuffer.headroom
        // Reading was resumed in this turn: unconsumed bytes are processed at its end, and the
        // poller reports the socket again.
        guard unconsumed.count <= headroom else {
            worker.endTurn(of: self)
            return false
        }
        var start = headroom
        if !unconsumed.isEmpty {
            start = buffer.putBefore(unconsumed)
            unconsumed = []
        }
        do throws(SystemError) {
            let result = try buffer.receive(from: transport)
            if isSecure { noteAnswers() }
            switch result {
            case .done(0): inputEnded()
            case .done(let count):
                lastActivity = loop.now
                process(buffer, from: start, to: headroom + count)
                if isSecure { checkEndOfTLS() }
                if canReceiveDirectly, count == buffer.capacity { _ = receiveDirectly() }
                return true
            case .wouldBlock:
                if start < headroom { stash(start..<headroom) }
            }
        } catch {
            close()
        }
        return false
    }

    /// Receives a large message directly into its buffer.
    ///
    /// It repeats while the kernel fills each request: completing one message needs less of the
    /// processor's cache than assembling several at once.
    ///
    /// - Returns: false if no message can be received directly; nothing was received then.
    private func receiveDirectly() -> Bool {
        canReceiveDirectly = false
        guard !isSecure, unconsumed.isEmpty, let session, var target = session.directBuffer else { return false }
        if isBackedUp {
            pauseReading(.output)
            return true
        }
        beginCork()
        defer { endEvent() }
        var left = Self.mostReceivedDirectly
        do throws(SystemError) {
            while true {
                guard case .done(let count) = try target.chunk.receive(from: transport, atMost: target.maxBytes) else {
                    canReceiveDirectly = true
                    return true
                }
                guard count > 0 else {
                    inputEnded()
                    return true
                }
                lastActivity = worker.loop.now
                follow(session.receivedDirectly(count))
                left -= count
                guard count == target.maxBytes, left > 0, pauses.isEmpty, !isBackedUp, isOpen, let next = session.directBuffer else {
                    return true
                }
                target = next
            }
        } catch {
            close()
        }
        return true
    }

    /// Processes data received right behind the TLS handshake, which is not reported again.
    final func processReceivedByHandshake() {
        do throws(SystemError) {
            let result = try worker.receiveBuffer.openReceived(from: transport)
            noteAnswers()
            if case .done(let count) = result, count > 0 {
                process(worker.receiveBuffer, from: ReceiveBuffer.headroom, to: ReceiveBuffer.headroom + count)
            }
            checkEndOfTLS()
        } catch {
            close()
        }
    }

    /// Processes bytes received elsewhere.
    final func process(_ bytes: [UInt8]) {
        process(worker.receiveBuffer, from: ReceiveBuffer.headroom, to: worker.receiveBuffer.put(bytes))
    }

    /// Passes bytes of the worker's receive buffer to the session.
    private func process(_ buffer: ReceiveBuffer, from start: Int, to end: Int) {
        beginCork()
        var position = start
        while let session {
            follow(session.received(buffer, &position, until: end))
            // A new session continues where this one stopped.
            if self.session === session { break }
        }
        if position < end, isOpen || readsRest(end - position) { stash(position..<end) }
        endEvent()
    }

    // MARK: The end of input

    /// The peer may have ended TLS behind the received data, which is not reported again.
    /// Unconsumed bytes are processed first.
    final func checkEndOfTLS() {
        guard isSecure, transport.inputHasEnded, isOpen, unconsumed.isEmpty, pauses.isEmpty else { return }
        inputEnded()
    }

    private func inputEnded() {
        if let session { follow(session.inputEnded()) }
    }

    /// The peer has shut down its sending side while reading is paused.
    final func peerEndedWhilePaused() {
        guard !peerHasEnded, let session else { return }
        peerHasEnded = true
        follow(session.peerEndedWhilePaused(hasUnread: !unconsumed.isEmpty || isSecure || Socket.hasInput(transport.descriptor)))
    }

    // MARK: Unconsumed bytes

    /// Copies unconsumed bytes of the receive buffer.
    private func stash(_ range: Range<Int>) {
        let buffer = worker.receiveBuffer
        unconsumed = buffer.bytes.extracting(range).copied
        precondition(
            range.count <= ReceiveBuffer.headroom || !pauses.isEmpty,
            "a decoder left more than a header's beginning: \(range.count) bytes")
    }

    /// Passes unconsumed bytes to the session again.
    final func processUnconsumed() {
        guard !unconsumed.isEmpty else { return }
        let end = worker.receiveBuffer.put(unconsumed)
        // Freed before more bytes may be stashed, so that never two copies exist.
        unconsumed = []
        process(worker.receiveBuffer, from: ReceiveBuffer.headroom, to: end)
    }

    final func discardUnconsumed() { unconsumed = [] }

    /// Whether the session continues with unconsumed bytes although nothing can be written.
    private func readsRest(_ count: Int) -> Bool {
        guard hasWriteFailed, let session, session.readsAfterFailedWrite else { return false }
        return count <= ReceiveBuffer.headroom || !pauses.isEmpty
    }

    // MARK: Carrier

    override final func transmit(_ bytes: OutputBuffer) throws(SystemError) { try transport.write(bytes) }
    override final func transmit(_ head: OutputBuffer, _ payload: borrowing RawSpan, in chunk: ByteChunk?) throws(SystemError) {
        try transport.write(head, payload, in: chunk)
    }
    override final func transmit(_ shared: ByteChunk) throws(SystemError) { try transport.write(shared) }
    override final func enqueue(_ bytes: borrowing RawSpan) { transport.enqueue(copying: bytes) }
    override final func enqueue(_ bytes: OutputBuffer) { transport.enqueue(bytes) }
    override final func enqueue(_ shared: ByteChunk) { transport.enqueue(shared) }
    override final func enqueue(_ file: SharedFile, offset: Int, count: Int) { transport.enqueue(file, offset: offset, count: count) }
    override final func flush(gathering scratch: OutputBuffer?) throws(SystemError) { _ = try transport.flush(gathering: scratch) }
    override final func dropOutput() { transport.dropOutput(isIncomplete: isCorked && !worker.cork.isEmpty) }
    override final var waitingBytes: Int { transport.bufferedBytes }
    /// The kernel's send queue is subtracted: it may hold megabytes while the peer reads nothing.
    override final var takenBytes: Int {
        transport.writtenBytes - bufferedBytes - Socket.unacknowledgedBytes(transport.descriptor)
    }
    override final var hasUnacknowledgedOutput: Bool { hasBufferedOutput || Socket.unacknowledgedBytes(transport.descriptor) > 0 }
    override final var inputWasCut: Bool { transport.inputWasCut }
    override final var socket: Int32? { transport.descriptor }
    override final var peer: SocketAddress? { origin.peer ?? (try? Socket.peerAddress(of: transport.descriptor)) }
    override final var security: Security { isSecure ? transport.security : .plain }
}
