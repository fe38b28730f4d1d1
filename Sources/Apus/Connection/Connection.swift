import ApusCodec
import ApusPlatform
import ApusTransport

/// One accepted socket: the one place where a transport meets a codec.
///
/// It belongs to its context's thread. Output that is written while one of its own events is served goes into the context's cork
/// and leaves when the event is done; output written at any other time is queued and leaves at the end of the loop's turn.
final class Connection: EventSource {
    enum Phase {
        case http(HTTPSession)
        case webSocket(WebSocket)
        /// All that will be sent is written or queued; what comes in is discarded. Then it lingers or closes.
        case finishing(Ending)
        /// Our side is shut; the peer has a moment to read what we sent and to close. Closing with bytes unread would reset it instead.
        case lingering
        case closed
    }

    enum Ending { case linger, close }

    let context: Context
    var transport: Transport
    private(set) var phase = Phase.closed
    /// Bytes that were received and not used: the start of a frame header, or what came while its reader is paused.
    private var carry: [UInt8] = []
    /// When bytes came last.
    var lastActivity: MonotonicTime
    /// Where it stands in the context's list of connections.
    var index = 0
    /// It is in the context's list of connections to settle.
    var isUnsettled = false
    /// A write failed: the peer has gone, which is told at the end of the turn, not inside `send`.
    private var isBroken = false
    private var bufferedAtLastCheck = Int.max
    /// The reader does not want more for now.
    private var isReadingPaused = false

    /// How long a peer may take to close after us.
    private static let lingerTimeout = Duration.seconds(1)
    /// With more than this queued, in bytes, nothing more is read: who does not take answers is not asked for questions.
    private static let backPressureBytes = 64 * 1024

    init(_ descriptor: consuming OwnedDescriptor, peer: SocketAddress, context: Context) {
        self.context = context
        transport = Transport(descriptor)
        lastActivity = context.loop.now
        super.init()
        phase = .http(HTTPSession(connection: self, peer: peer))
    }

    var isOpen: Bool {
        switch phase {
        case .http, .webSocket: !isBroken
        case .finishing, .lingering, .closed: false
        }
    }

    /// Too much output waits for the peer.
    var isBackedUp: Bool { transport.bufferedBytes >= Self.backPressureBytes }

    /// Starts to be served. Throws if the kernel cannot watch it; then it is dropped.
    func start() throws(SystemError) {
        try context.loop.add(self, descriptor: transport.descriptor, for: .readable)
        if case .http(let session) = phase { session.expectHead() }
    }

    // MARK: Events

    override func ready(_ readiness: Readiness, in loop: EventLoop) {
        if readiness.contains(.writable) { settle() }
        guard !readiness.isDisjoint(with: [.readable, .hangUp]) else { return }
        switch phase {
        case .http, .webSocket:
            if isReadingPaused || isBackedUp {
                if readiness.contains(.hangUp) { lost() }
            } else {
                receive()
            }
        case .finishing, .lingering: discardInput()
        case .closed: break
        }
    }

    override func timerFired(at now: MonotonicTime) {
        switch phase {
        case .http(let session): session.deadlinePassed()
        case .webSocket(let socket): socket.timerFired(at: now)
        case .finishing:
            if outputHasProgressed() { context.loop.schedule(self, after: context.limits.closingTimeout) } else { close() }
        case .lingering: close()
        case .closed: break
        }
    }

    /// Whether the peer has taken some of the output since this was last asked.
    func outputHasProgressed() -> Bool {
        defer { bufferedAtLastCheck = transport.bufferedBytes }
        return transport.bufferedBytes < bufferedAtLastCheck
    }

    private func receive() {
        let headroom = ReceiveBuffer.headroom
        var start = headroom
        if !carry.isEmpty {
            start = context.receiveBuffer.putBefore(carry)
            carry = []
        }
        do throws(SystemError) {
            switch try context.receiveBuffer.receive(from: transport) {
            case .done(0): lost()
            case .done(let count):
                lastActivity = context.loop.now
                process(from: start, to: headroom + count)
            case .wouldBlock:
                if start < headroom { keep(start..<headroom) }
            }
        } catch {
            lost()
        }
    }

    /// Serves what lies in the context's receive buffer, with the cork on.
    private func process(from start: Int, to end: Int) {
        context.corked = ObjectIdentifier(self)
        var position = start
        serving: while true {
            switch phase {
            case .http(let session):
                session.process(&position, until: end)
                if case .webSocket = phase { continue serving }
            case .webSocket(let socket):
                socket.process(&position, until: end)
            case .finishing, .lingering, .closed:
                position = end
            }
            break
        }
        if position < end, isOpen { keep(position..<end) }
        uncork()
    }

    /// Keeps bytes of the receive buffer for later.
    private func keep(_ range: Range<Int>) {
        let buffer = context.receiveBuffer
        carry = buffer.bytes.extracting(range).copied
        precondition(
            range.count <= ReceiveBuffer.headroom || isReadingPaused || isBackedUp,
            "a decoder left more than a header's beginning: \(range.count) bytes")
    }

    private func discardInput() {
        do throws(SystemError) {
            if case .done(let count) = try context.receiveBuffer.receive(from: transport), count > 0 { return }
            if case .lingering = phase { close() } else { updateInterest(reading: false) }
        } catch {
            close()
        }
    }

    // MARK: Reading

    /// Stops or resumes reading. What has been read and not used is served first on resuming, in the next part of the turn.
    func setReadingPaused(_ paused: Bool) {
        guard paused != isReadingPaused else { return }
        isReadingPaused = paused
        context.unsettled(self)
    }

    private func serveCarry() {
        guard !carry.isEmpty else { return }
        let bytes = carry
        carry = []
        process(from: ReceiveBuffer.headroom, to: context.receiveBuffer.put(bytes))
    }

    // MARK: Writing

    /// Writes one frame. The payload is copied unless it leaves at once.
    @inline(__always)
    func write(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        if context.corked == ObjectIdentifier(self), header.maskingKey == nil,
            payload.byteCount <= context.cork.capacity &- context.cork.count &- 16
        {
            context.cork.append(low: header.low, high: header.high, byteCount: header.byteCount)
            context.cork.append(payload)
        } else {
            writeSlowly(header, payload)
        }
    }

    private func writeSlowly(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        let size = payload.byteCount
        if size + 16 > context.cork.capacity {
            return writeLarge(header, payload)
        }
        let isOurs = context.corked == ObjectIdentifier(self)
        if isOurs, size + 16 > context.cork.capacity - context.cork.count { flushCork() }
        // Outside its own event the cork is another's: this frame passes through a buffer of its own.
        if isOurs {
            append(header, payload, to: &context.cork)
        } else {
            var frame = OutputBuffer(capacity: size + 16)
            append(header, payload, to: &frame)
            transport.enqueue(frame)
            context.unsettled(self)
        }
    }

    private func append(_ header: FrameHeader, _ payload: borrowing RawSpan, to buffer: inout OutputBuffer) {
        buffer.append(low: header.low, high: header.high, byteCount: header.byteCount)
        buffer.append(payload)
        guard let key = header.maskingKey else { return }
        buffer.withLast(payload.byteCount) { Masking.apply(key: key, phase: 0, to: &$0, range: 0..<$0.byteCount) }
    }

    /// A payload larger than the cork goes to the kernel from where it lies, behind what was corked.
    private func writeLarge(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        guard header.maskingKey == nil else {
            var frame = OutputBuffer(capacity: payload.byteCount + 16)
            append(header, payload, to: &frame)
            if context.corked == ObjectIdentifier(self) { flushCork() }
            return attempt { transport throws(SystemError) in try transport.write(frame) }
        }
        var head = OutputBuffer(capacity: 16)
        head.append(low: header.low, high: header.high, byteCount: header.byteCount)
        if context.corked == ObjectIdentifier(self) { flushCork() }
        attempt { transport throws(SystemError) in try transport.write(head, payload) }
        context.unsettled(self)
    }

    /// Writes bytes that are complete already, such as a response's head.
    func write(_ bytes: [UInt8]) {
        if context.corked == ObjectIdentifier(self) {
            if bytes.count + 16 > context.cork.capacity - context.cork.count { flushCork() }
            if bytes.count + 16 <= context.cork.capacity { return context.cork.append(bytes.rawSpan) }
        }
        transport.enqueue(copying: bytes.rawSpan)
        context.unsettled(self)
    }

    /// Queues a part of a file behind what was written.
    func write(_ file: SharedFile, offset: Int, count: Int) {
        if context.corked == ObjectIdentifier(self) { flushCork() }
        transport.enqueue(file, offset: offset, count: count)
        context.unsettled(self)
    }

    private func flushCork() {
        guard !context.cork.isEmpty else { return }
        attempt { transport throws(SystemError) in try transport.write(context.cork) }
        context.cork.removeAll()
    }

    private func attempt(_ write: (inout Transport) throws(SystemError) -> Void) {
        guard !isBroken else { return }
        do { try write(&transport) } catch { abort() }
    }

    /// The end of this connection's own event: what was corked leaves in one write.
    private func uncork() {
        if !context.cork.isEmpty { flushCork() }
        context.corked = nil
        advanceEnding()
        updateInterest(reading: true)
    }

    /// Brings the connection up to date: sends what is queued, tells who waits for it, and adjusts what epoll watches.
    func settle() {
        if case .closed = phase { return }
        if isBroken { return lost() }
        if transport.hasBufferedOutput {
            do throws(SystemError) {
                if try transport.flush() == .empty { outputDrained() }
            } catch {
                return lost()
            }
        }
        if !isReadingPaused, !isBackedUp, isOpen { serveCarry() }
        advanceEnding()
        updateInterest(reading: true)
    }

    private func outputDrained() {
        switch phase {
        case .http(let session): session.outputDrained()
        case .webSocket(let socket): socket.outputDrained()
        case .finishing, .lingering, .closed: break
        }
    }

    private func updateInterest(reading: Bool) {
        if case .closed = phase { return }
        var interest: Readiness = []
        if reading, !isOpen || !(isReadingPaused || isBackedUp) { interest.insert(.readable) }
        if transport.hasBufferedOutput { interest.insert(.writable) }
        do {
            try context.loop.update(self, descriptor: transport.descriptor, for: interest)
        } catch {
            close()
        }
    }

    // MARK: Phases

    /// The opening handshake is done.
    func becomeWebSocket(_ socket: WebSocket) { phase = .webSocket(socket) }

    /// Nothing more will be written; ends when everything has left.
    func finish(_ ending: Ending) {
        switch phase {
        case .http, .webSocket: break
        case .finishing, .lingering, .closed: return
        }
        phase = .finishing(ending)
        carry = []
        isReadingPaused = false
        context.loop.schedule(self, after: context.limits.closingTimeout)
        context.unsettled(self)
    }

    /// Drops the connection at the end of the turn, without another word to the peer.
    func abort() {
        isBroken = true
        transport.dropOutput()
        context.unsettled(self)
    }

    private func advanceEnding() {
        guard case .finishing(let ending) = phase, !transport.hasBufferedOutput, context.corked != ObjectIdentifier(self) else { return }
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
        let socket: WebSocket? = if case .webSocket(let socket) = phase { socket } else { nil }
        close()
        socket?.connectionLost()
    }

    /// Closes the socket now. No handler hears of it from here.
    func close() {
        switch phase {
        case .closed: return
        case .http(let session): session.connectionLost()
        case .webSocket, .finishing, .lingering: break
        }
        phase = .closed
        carry = []
        context.loop.remove(self, descriptor: transport.descriptor)
        transport.close()
        context.connectionEnded(self)
    }
}

// What a draining context asks for.
extension Connection {
    var openWebSocket: WebSocket? {
        if case .webSocket(let socket) = phase, socket.isOpen { socket } else { nil }
    }

    /// Ends an HTTP connection that waits for a request.
    func endIfIdle() {
        if case .http(let session) = phase, session.isIdle { finish(.linger) }
    }
}
