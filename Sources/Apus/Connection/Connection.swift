import ApusCodec
import ApusPlatform
import ApusTransport
import Logging

/// One connected socket, a server's or a client's: the one place where a transport meets a codec.
///
/// It belongs to its context's thread. Output that is written while one of its own events is served goes into the context's cork
/// and leaves when the event is done; output written at any other time is queued and leaves at the end of the loop's turn.
final class Connection: EventSource {
    let context: Context
    let transport: Transport
    /// Who is at the other end.
    let origin: Origin
    var phase = Phase.closed
    /// Bytes that were received and not used: the start of a frame header, or what came while its reader is paused.
    private(set) var carry: [UInt8] = [] {
        didSet { context.buffers.note(carry.count - oldValue.count) }
    }
    /// When bytes came last.
    var lastActivity: MonotonicTime
    /// Where it stands in the context's list of connections.
    var index = 0
    /// Its event is being served: the context's cork holds its output.
    private var isCorked = false
    /// Bytes of output that wait for the peer: the transport's count, where reading it costs nothing.
    var bufferedBytes = 0
    /// All that waited has left, which nobody has been told yet.
    private var hasDrained = false
    /// It is in the context's list of connections to settle.
    var isUnsettled = false
    /// Nothing is written any more; the connection ends at the end of the turn, not inside `send`.
    private(set) var isBroken = false
    /// That is because a write failed: what the peer had sent before is still read.
    private var hasWriteFailed = false
    /// Bytes pass through TLS.
    var isSecure = false
    /// It is in the context's list of connections for which much waits.
    var isBehind = false
    var takenAtLastCheck = Int.min
    /// Why it does not read now.
    var pauses: PauseReasons = []
    /// The peer has sent FIN while reading was paused.
    var peerHasEnded = false
    /// Output that this peer's own messages and requests have caused, and that waits. What is published to it does not count.
    var caused = CausedOutput()
    /// So much of that waits that no more messages of the peer are read: a peer that does not take responses is sent no more of them. Never for
    /// a client's connection, whose server may have to send before it can receive.
    var isBackedUp = false

    /// More of a message is to come, which may be received where it stays: its WebSocket knows.
    var mayFill = false

    /// Received in one event of one connection for a large message, in bytes: then others have their turn.
    private static let mostFilled = 1 << 20
    /// Receives of what had arrived when a write failed.
    private static let mostReceivesOfRest = 64
    /// How long a peer may take to close after us.
    private static let lingerTimeout = Duration.seconds(1)
    /// Bytes of caused output at which a client's messages wait.
    static let backPressureBytes = 32 * 1024
    init(_ descriptor: consuming OwnedDescriptor, context: Context, from origin: Origin = .thisSide) {
        self.context = context
        self.origin = origin
        transport = Transport(descriptor, buffers: context.buffers)
        lastActivity = context.loop.now
        super.init()
    }

    var isOpen: Bool {
        switch phase {
        case .securing, .opening, .http, .exchange, .webSocket: !isBroken
        case .finishing, .lingering, .closed: false
        }
    }

    var hasBufferedOutput: Bool { bufferedBytes > 0 }

    /// Starts to be served. Throws if the kernel cannot watch it; then it is closed.
    func start(_ session: HTTPSession, tls: TLSContext?) throws(SystemError) {
        phase = .http(session)
        try watch(for: .readable)
        if let tls {
            secure(
                with: TLSSession(server: tls, buffers: context.tlsBuffers), for: .http(session), within: context.limits.tlsHandshakeTimeout)
        } else {
            session.expectHead()
        }
    }

    /// Starts as a client's connection, which is connected.
    func open(_ session: OpeningSession) throws(SystemError) {
        phase = .opening(session)
        do {
            try context.loop.add(self, descriptor: transport.descriptor, for: .readable)
        } catch {
            // Whoever opens it is told by the throw, not by the phase.
            phase = .lingering
            close()
            throw error
        }
        session.begin()
    }

    private func watch(for interest: Readiness) throws(SystemError) {
        do {
            try context.loop.add(self, descriptor: transport.descriptor, for: interest)
        } catch {
            close()
            throw error
        }
    }

    // MARK: Events

    override func ready(_ readiness: Readiness, in loop: EventLoop) {
        serve(readiness)
        context.servingNothing()
    }

    @inline(__always)
    private func serve(_ readiness: Readiness) {
        if readiness.contains(.writable) { settle() }
        guard !readiness.isDisjoint(with: [.readable, .peerClosed, .hangUp]) else { return }
        switch phase {
        case .securing(let next):
            context.serving(self, .handshake)
            handshake(for: next)
        case .opening, .http, .exchange, .webSocket:
            if pauses.isEmpty {
                receive()
            } else if !readiness.isDisjoint(with: .hangUp) {
                writeFailed()
            } else if readiness.contains(.peerClosed) {
                peerEndedWhilePaused()
            }
        case .finishing, .lingering: discardInput()
        case .closed: break
        }
    }

    override func timerFired(at now: MonotonicTime) {
        context.serving(self, .timer)
        deadlinePassed(at: now)
        context.servingNothing()
    }

    private func deadlinePassed(at now: MonotonicTime) {
        switch phase {
        case .securing(.opening(let session)), .opening(let session): session.deadlinePassed()
        case .securing(.http(let session)):
            context.logger.debug("a TLS handshake with \(session.peer) took longer than \(context.limits.tlsHandshakeTimeout)")
            close()
        case .http(let session): session.deadlinePassed()
        case .exchange(let exchange): exchange.deadlinePassed()
        case .webSocket(let socket): socket.timerFired(at: now)
        case .finishing:
            if outputHasProgressed() { context.loop.schedule(self, after: context.limits.closingTimeout) } else { close() }
        case .lingering:
            // The peer may be taking what the kernel holds; closing with bytes unread would take that from it.
            if hasUnacknowledgedOutput, outputHasProgressed() {
                context.loop.schedule(self, after: Self.lingerTimeout)
            } else {
                close()
            }
        case .closed: break
        }
    }

    /// Receives once and serves that; false if nothing was there, or the end.
    @discardableResult
    private func receive() -> Bool {
        if mayFill, fill() { return true }
        let headroom = ReceiveBuffer.headroom
        // Resumed in this very turn: what was kept is served when the turn ends, and the loop reports again what waits behind it.
        guard carry.count <= headroom else {
            context.unsettled(self)
            return false
        }
        var start = headroom
        if !carry.isEmpty {
            start = context.receiveBuffer.putBefore(carry)
            carry = []
        }
        do throws(SystemError) {
            let result = try context.receiveBuffer.receive(from: transport)
            if isSecure { noteAnswers() }
            switch result {
            case .done(0): peerEnded()
            case .done(let count):
                lastActivity = context.loop.now
                process(from: start, to: headroom + count)
                endOfTLS()
                if mayFill, count == context.receiveBuffer.capacity { _ = fill() }
                return true
            case .wouldBlock:
                if start < headroom { keep(start..<headroom) }
            }
        } catch {
            lost()
        }
        return false
    }

    /// Receives a large message where it stays; gives false, having done nothing, if there is none.
    ///
    /// It goes on while the kernel gives what it is asked for: one message that is finished and answered wants less of the processor's cache
    /// than several that grow side by side.
    private func fill() -> Bool {
        mayFill = false
        if isBackedUp, pauseUnlessClosing() { return true }
        guard !isSecure, carry.isEmpty, case .webSocket(let socket) = phase, var most = socket.directBytes else { return false }
        context.serving(self, .webSocket, route: socket.routeNumber)
        isCorked = true
        defer { uncork() }
        var left = Self.mostFilled
        do throws(SystemError) {
            while true {
                guard case .done(let count) = try socket.receive(from: transport, atMost: most) else {
                    mayFill = true
                    return true
                }
                guard count > 0 else {
                    peerEnded()
                    return true
                }
                lastActivity = context.loop.now
                socket.received(count)
                left -= count
                guard count == most, left > 0, pauses.isEmpty, !isBackedUp, let next = socket.directBytes else { return true }
                most = next
            }
        } catch {
            lost()
        }
        return true
    }

    /// TLS itself may have answered what was received: that is output like any other.
    func noteAnswers() {
        let before = bufferedBytes
        bufferedBytes = transport.bufferedBytes
        guard bufferedBytes > 0 else { return }
        noteCaused(bufferedBytes - before)
        context.unsettled(self)
        // A peer that has TLS answer, and does not take the answers, is not read.
        if bufferedBytes > before, caused.bytes >= backPressureBytes { pauseReading(.output) }
    }

    /// The peer may have ended its TLS behind what was received, which nothing reports again. What waits to be served comes first.
    func endOfTLS() {
        guard isSecure, transport.inputHasEnded, isOpen, carry.isEmpty, pauses.isEmpty else { return }
        peerEnded()
    }

    /// The peer will send no more. An HTTP client may do so behind its last request and still wait for the rest of its answers.
    private func peerEnded() {
        if case .exchange(let exchange) = phase { return exchange.peerEnded() }
        guard case .http = phase, transport.hasBufferedOutput else { return lost() }
        finish(.close)
    }

    /// Serves what lies in the context's receive buffer, with the cork on.
    func process(from start: Int, to end: Int) {
        isCorked = true
        var position = start
        serving: while true {
            switch phase {
            case .securing: preconditionFailure("the handshake passes nothing on")
            case .opening(let session):
                session.process(&position, until: end)
                switch phase {
                // What a proxy sent behind its answer, TLS has got.
                case .opening, .securing: break
                case .http, .exchange, .webSocket, .finishing, .lingering, .closed: continue serving
                }
            case .http(let session):
                context.serving(self, .head)
                session.process(&position, until: end)
                if case .webSocket = phase { continue serving }
            case .exchange(let exchange):
                exchange.process(&position, until: end)
            case .webSocket(let socket):
                context.serving(self, .webSocket, route: socket.routeNumber)
                socket.process(&position, until: end)
            case .finishing, .lingering, .closed:
                position = end
            }
            break
        }
        if position < end, isOpen || readsRest(end - position) { keep(position..<end) }
        uncork()
    }

    /// Keeps bytes of the receive buffer for later.
    private func keep(_ range: Range<Int>) {
        let buffer = context.receiveBuffer
        carry = buffer.bytes.extracting(range).copied
        precondition(
            range.count <= ReceiveBuffer.headroom || !pauses.isEmpty,
            "a decoder left more than a header's beginning: \(range.count) bytes")
    }

    private func discardInput() {
        do throws(SystemError) {
            if case .done(let count) = try context.receiveBuffer.discard(from: transport), count > 0 { return }
            if case .lingering = phase { close() } else { updateInterest(reading: false) }
        } catch {
            close()
        }
    }

    // MARK: Reading

    private func serveCarry() {
        guard !carry.isEmpty else { return }
        let bytes = carry
        carry = []
        process(from: ReceiveBuffer.headroom, to: context.receiveBuffer.put(bytes))
    }

    // MARK: Writing

    /// Copies a server's frame into the cork; false if that does not hold this connection's output now, or has no room.
    @inline(__always)
    func cork(_ header: FrameHeader, _ payload: borrowing RawSpan) -> Bool {
        isCorked && header.maskingKey == nil
            && context.cork.append(low: header.low, high: header.high, headerBytes: header.byteCount, payload)
    }

    /// Writes one frame. The payload is copied unless it leaves at once.
    func write(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        if cork(header, payload) { return }
        if isCorked { flushCork() }
        if isCorked, context.cork.hasRoom(payloadBytes: payload.byteCount) {
            append(header, payload, to: context.cork)
        } else if header.maskingKey == nil, !context.cork.hasRoom(payloadBytes: payload.byteCount) {
            // A payload larger than the cork goes to the kernel from where it lies, and waits there if it must.
            let head = isCorked ? context.cork : OutputBuffer(payloadBytes: 0)
            append(header, RawSpan(), to: head)
            attempt { () throws(SystemError) in try transport.write(head, payload, in: context.delivering) }
            head.removeAll()
        } else {
            // Outside the connection's own event the cork is another's: the frame passes through a buffer of its own.
            let frame = OutputBuffer(payloadBytes: payload.byteCount)
            append(header, payload, to: frame)
            enqueue { transport.enqueue(frame) }
        }
    }

    private func append(_ header: FrameHeader, _ payload: borrowing RawSpan, to buffer: OutputBuffer) {
        let fits = buffer.append(low: header.low, high: header.high, headerBytes: header.byteCount, payload)
        precondition(fits, "the caller made room")
        guard let key = header.maskingKey else { return }
        buffer.withLast(payload.byteCount) { Masking.apply(key: key, phase: 0, to: &$0, range: 0..<$0.byteCount) }
    }

    /// Writes bytes that are complete already, such as a response's head.
    func write(_ bytes: [UInt8]) {
        if isCorked {
            if context.cork.append(bytes.rawSpan) { return }
            flushCork()
            if context.cork.append(bytes.rawSpan) { return }
        }
        enqueue { transport.enqueue(copying: bytes.rawSpan) }
    }

    /// Queues bytes that other connections send too.
    func write(_ frame: ByteChunk) {
        if isCorked { flushCork() }
        enqueue(isCaused: false) { transport.enqueue(frame) }
    }

    /// Sends bytes that other connections send too, at once if nothing waits before them. Not for use in the connection's own event.
    @inline(__always)
    func send(_ frames: ByteChunk) {
        guard bufferedBytes == 0, !isCorked, !isBroken else { return write(frames) }
        do {
            try transport.write(frames)
            if !transport.hasBufferedOutput { return }
            bufferedBytes = transport.bufferedBytes
            context.unsettled(self)
        } catch {
            writeFailed()
        }
    }

    /// Queues a part of a file behind what was written.
    func write(_ file: SharedFile, offset: Int, count: Int) {
        if isCorked { flushCork() }
        enqueue { transport.enqueue(file, offset: offset, count: count) }
    }

    private func flushCork() {
        let cork = context.cork
        guard !cork.isEmpty else { return }
        attempt { () throws(SystemError) in try transport.write(cork) }
        cork.removeAll()
    }

    private func attempt(_ write: () throws(SystemError) -> Void) {
        guard !isBroken else { return }
        do {
            try write()
            let before = bufferedBytes
            bufferedBytes = transport.bufferedBytes
            guard bufferedBytes > 0 else { return }
            noteCaused(bufferedBytes - before)
            context.unsettled(self)
        } catch {
            writeFailed()
        }
    }

    /// Queues output, to leave at the end of the turn.
    private func enqueue(isCaused: Bool = true, _ append: () -> Void) {
        guard !isBroken else { return }
        append()
        let before = bufferedBytes
        bufferedBytes = transport.bufferedBytes
        if isCaused { noteCaused(bufferedBytes - before) }
        context.unsettled(self)
    }

    /// The end of this connection's own event: what was corked leaves in one write.
    private func uncork() {
        flushCork()
        isCorked = false
        advanceEnding()
        updateInterest(reading: true)
    }

    /// Brings the connection up to date: sends what is queued, tells who waits for it, and adjusts what epoll watches.
    func settle() {
        if case .closed = phase { return }
        if !isBroken, hasBufferedOutput, !offerOutput(gathering: context.cork) { writeFailed() }
        if isBroken {
            if hasWriteFailed { receiveRest() }
            return lost()
        }
        if hasDrained {
            hasDrained = false
            if !hasBufferedOutput {
                if isBehind { context.caughtUp(self) }
                outputDrained()
            }
        }
        if pauses.contains(.output), caused.bytes < backPressureBytes {
            pauses = pauses.subtracting(.output)
            if case .webSocket(let socket) = phase { socket.resumed() }
        }
        if pauses.isEmpty, isOpen { serveCarry() }
        endOfTLS()
        advanceEnding()
        updateInterest(reading: true)
    }

    /// Gives the kernel what waits, as far as it takes it; false if the peer has gone.
    ///
    /// - Parameter scratch: an empty buffer in which small pieces may be put together.
    func offerOutput(gathering scratch: OutputBuffer? = nil) -> Bool {
        do throws(SystemError) {
            let before = bufferedBytes
            _ = try transport.flush(gathering: scratch)
            bufferedBytes = transport.bufferedBytes
            hasDrained = bufferedBytes == 0
            let sent = before - bufferedBytes
            setCaused(caused.removing(sent))
            if case .webSocket(let socket) = phase { socket.outputSent(sent) }
            return true
        } catch {
            return false
        }
    }

    private func outputDrained() {
        switch phase {
        case .http(let session): session.outputDrained()
        case .webSocket(let socket): socket.outputDrained()
        case .securing, .opening, .exchange, .finishing, .lingering, .closed: break
        }
    }

    func updateInterest(reading: Bool) {
        if case .closed = phase { return }
        var interest: Readiness = []
        if reading {
            if pauses.isEmpty || !isOpen { interest.insert(.readable) } else if !peerHasEnded { interest.insert(.peerClosed) }
        }
        if hasBufferedOutput { interest.insert(.writable) }
        do {
            try context.loop.update(self, descriptor: transport.descriptor, for: interest)
        } catch {
            lost()
        }
    }

    // MARK: Phases

    /// The opening handshake is done.
    func becomeWebSocket(_ socket: WebSocket) { phase = .webSocket(socket) }

    /// The head of an answer has come.
    func becomeExchange(_ exchange: ClientExchange) { phase = .exchange(exchange) }

    /// Nothing more will be written; ends when everything has left.
    func finish(_ ending: Ending) {
        switch phase {
        // An exchange may outlive the connection: its answer is too late from here on.
        case .securing(.http(let session)), .http(let session): session.connectionLost()
        case .securing(.opening), .opening, .exchange, .webSocket: break
        case .finishing, .lingering, .closed: return
        }
        phase = .finishing(ending)
        carry = []
        pauses = []
        watchOutput()
        context.loop.schedule(self, after: context.limits.closingTimeout)
        context.unsettled(self)
    }

    /// Drops the connection at the end of the turn, without another word to the peer.
    func abort() {
        isBroken = true
        transport.dropOutput(isIncomplete: isCorked && !context.cork.isEmpty)
        bufferedBytes = 0
        context.unsettled(self)
    }

    /// The peer takes no more, but may have sent something before: a response to a request that it did not want whole, or a close frame.
    private func writeFailed() {
        hasWriteFailed = true
        abort()
        // The output was dropped, so reading need not wait for it.
        setCaused(CausedOutput())
        pauses = pauses.subtracting(.output)
    }

    /// Serves what had arrived when a write failed, unless its reader is paused.
    private func receiveRest() {
        for attempt in 0..<Self.mostReceivesOfRest where pauses.isEmpty {
            switch phase {
            case .opening, .exchange, .webSocket:
                if attempt == 0 { serveCarry() }
                if !receive() { return }
            case .securing, .http, .finishing, .lingering, .closed: return
            }
        }
    }

    /// Whether the reader goes on with bytes that it has left, although nothing can be written any more.
    private func readsRest(_ count: Int) -> Bool {
        switch phase {
        case .opening, .exchange, .webSocket: hasWriteFailed && (count <= ReceiveBuffer.headroom || !pauses.isEmpty)
        case .securing, .http, .finishing, .lingering, .closed: false
        }
    }

    private func advanceEnding() {
        guard case .finishing(let ending) = phase, !hasBufferedOutput, !isCorked else { return }
        switch ending {
        case .close: close()
        case .linger:
            phase = .lingering
            transport.shutdownWrite()
            context.loop.schedule(self, after: Self.lingerTimeout)
        }
    }

    /// The peer has gone, or the kernel gave the socket up.
    func lost() {
        switch phase {
        case .securing(.opening(let session)), .opening(let session): session.connectionLost()
        case .exchange(let exchange): exchange.connectionLost()
        case .webSocket(let socket):
            close()
            socket.connectionLost()
        case .securing(.http), .http, .finishing, .lingering, .closed: close()
        }
    }

    /// Closes the socket now. No handler hears of it from here.
    func close() {
        switch phase {
        case .closed: return
        case .securing(.http(let session)), .http(let session): session.connectionLost()
        case .securing(.opening), .opening, .exchange, .webSocket, .finishing, .lingering: break
        }
        phase = .closed
        carry = []
        context.loop.remove(self, descriptor: transport.descriptor)
        transport.close()
        bufferedBytes = 0
        context.connectionEnded(self)
    }
}
