import ApusCodec
import ApusPlatform
import ApusTransport

/// A bidirectional byte stream with a protocol engine, its session: today a TCP connection, later
/// one stream of an HTTP/2 connection.
///
/// It belongs to its worker's thread. Output written during one of its own events is collected in
/// the worker's cork and sent when the event ends; output written at any other time is queued and
/// sent at the end of the loop's turn.
///
/// A base class instead of a protocol, so that a frame costs no dynamic dispatch: what a frame uses
/// is final.
class ByteStream: EventSource {
    // In an order that leaves no gaps: every idle connection pays for them.

    /// Whether so much caused output is queued that no more messages of the peer are read: a peer
    /// that does not read responses gets no more. Never for a client connection, whose server may
    /// have to send before it receives.
    final private(set) var isBackedUp = false
    /// Why reading is paused; the stream reads when the set is empty.
    final private(set) var pauses: PauseReasons = []
    /// Whether the peer has shut down its sending side while reading was paused.
    final var peerHasEnded = false
    /// Whether writing has ended; the stream ends at the end of the turn, not inside `send`.
    final private(set) var isBroken = false
    /// Whether `isBroken` was caused by a failed write.
    final private(set) var hasWriteFailed = false
    /// Whether one of the stream's own events is being served, so that the worker's cork holds its
    /// output.
    final private(set) var isCorked = false
    /// The rest of the current message may be received directly into its buffer.
    final var canReceiveDirectly = false
    final let worker: Worker
    /// The peer's address and the listener's.
    final let origin: PeerOrigin
    /// The index in the worker's table of connections.
    final var index: Int32 = 0
    /// The protocol engine; nil once the stream is ending.
    final private(set) var session: (any Session)?
    /// When bytes were last received, or when the silence began to count.
    final var lastActivity: MonotonicTime
    /// Bytes of queued output; the only count of them.
    final private(set) var bufferedBytes = 0
    /// The part of it caused by this peer's own messages and requests. Publications to it do not
    /// count.
    final private(set) var caused = CausedOutput()
    final private var progress = OutputProgress()
    /// Whether all output was sent and `outputDrained` has not been called yet.
    final private var hasDrained = false
    /// Whether the session's deadline may be earlier than the armed one.
    final private(set) var hasNewDeadline = false
    /// Whether the worker calls `endTurn` of the stream in this turn.
    final var needsEndOfTurn = false
    /// Whether the broker lists the stream as slow.
    final var isSlow = false

    /// Caused output, in bytes, from which a client's messages are not read.
    private static let backPressureBytes = 32 * 1024

    init(worker: Worker, origin: PeerOrigin) {
        self.worker = worker
        self.origin = origin
        lastActivity = worker.loop.now
        super.init()
    }

    // MARK: Carrier

    // Overridden by the carrier, such as a socket's transport. Each method sends what can be sent
    // at once or queues it; `waitingBytes` counts what is queued.

    func transmit(_ bytes: OutputBuffer) throws(SystemError) { abstract() }
    func transmit(_ head: OutputBuffer, _ payload: borrowing RawSpan, in chunk: ByteChunk?) throws(SystemError) { abstract() }
    func transmit(_ shared: ByteChunk) throws(SystemError) { abstract() }
    func enqueue(_ bytes: borrowing RawSpan) { abstract() }
    func enqueue(_ bytes: OutputBuffer) { abstract() }
    func enqueue(_ shared: ByteChunk) { abstract() }
    func enqueue(_ file: SharedFile, offset: Int, count: Int) { abstract() }
    /// Sends queued output until the kernel takes no more.
    func flush(gathering scratch: OutputBuffer?) throws(SystemError) { abstract() }
    /// Discards queued output.
    func dropOutput() { abstract() }
    /// Bytes of queued output.
    var waitingBytes: Int { abstract() }
    /// Bytes acknowledged by the peer, in total.
    var takenBytes: Int { abstract() }
    /// Whether output is queued here or unacknowledged in the kernel.
    var hasUnacknowledgedOutput: Bool { abstract() }
    /// Whether the end of input was not authenticated by TLS, so that an attacker may have
    /// truncated it (RFC 8446 §6.1).
    var inputWasCut: Bool { abstract() }
    /// Whether it is closed: then nothing is left to do for it.
    var isClosed: Bool { abstract() }
    /// The stream's security, computed by each call.
    var security: Security { abstract() }
    /// Starts TLS, and then calls the session's `secured` or `handshakeFailed`.
    func startTLS(_ tls: TLSSession, within time: Duration) { abstract() }
    /// Ends the stream when all output was sent.
    func beginEnding(_ ending: Ending) { abstract() }
    /// Executes deferred work at the end of a turn; see `Worker.endTurn(of:)`.
    func endTurn() { abstract() }
    /// Closes the stream at once.
    func close(_ reason: String = "") { abstract() }
    /// The peer's address; nil once it cannot be determined.
    var peer: SocketAddress? { origin.peer }
    /// The socket's descriptor; nil once it is closed.
    var socket: Int32? { nil }

    private func abstract() -> Never { preconditionFailure("a stream is carried by a subclass") }

    // MARK: Session

    final var isOpen: Bool { session != nil && !isBroken }

    /// Replaces the session; `ended` of the old one is not called.
    final func become(_ next: any Session) {
        session = next
        deadlineChanged()
    }

    /// Executes the result of a call of the session.
    final func follow(_ next: Next) {
        switch next {
        case .more: break
        case .finish(let ending): finish(ending)
        case .close(let reason): close(reason)
        }
    }

    /// Ends the session; the stream ends when all output was sent.
    private func finish(_ ending: Ending) {
        guard let session = takeSession() else { return }
        // An exchange may outlive the stream; from here on its response is discarded.
        session.ended(StreamEnd())
        pauses = []
        watchOutput()
        beginEnding(ending)
        worker.endTurn(of: self)
    }

    /// Detaches and returns the session.
    final func takeSession() -> (any Session)? {
        defer { session = nil }
        return session
    }

    /// Ends the stream at the end of the turn and sends nothing more.
    final func abort() {
        isBroken = true
        dropOutput()
        bufferedBytes = 0
        worker.endTurn(of: self)
    }

    /// A write failed. The peer may have sent something before: a response to a request that it
    /// rejected early, or a close frame.
    final func writeFailed() {
        hasWriteFailed = true
        abort()
        // The output was discarded, so reading need not wait for it.
        setCaused(CausedOutput())
        pauses = pauses.subtracting(.output)
    }

    // MARK: Deadline

    /// Call this whenever the session's deadline may have become earlier. The timer is armed when
    /// the current event or turn ends.
    final func deadlineChanged() {
        hasNewDeadline = true
        if !isCorked { worker.endTurn(of: self) }
    }

    final func noteDeadlineArmed() { hasNewDeadline = false }

    /// The time `delay` after the start of this turn: see `EventLoop.time(after:)`.
    final func time(after delay: Duration) -> MonotonicTime { worker.loop.time(after: delay) }

    // MARK: Reading

    /// Pauses reading.
    final func pauseReading(_ reason: PauseReasons) {
        guard !pauses.contains(reason) else { return }
        // Assigned as a whole, so that reading it in each event needs no exclusivity check.
        pauses = pauses.union(reason)
        worker.endTurn(of: self)
    }

    /// Removes a reason. When none is left, unconsumed bytes are processed first, at the end of the
    /// turn.
    final func resumeReading(_ reason: PauseReasons) {
        guard !pauses.isDisjoint(with: reason) else { return }
        pauses = pauses.subtracting(reason)
        worker.endTurn(of: self)
    }

    /// Reads messages again when the peer has taken enough of the caused output.
    final func resumeAfterOutput() {
        guard pauses.contains(.output), caused.bytes < mostCausedBytes else { return }
        pauses = pauses.subtracting(.output)
        session?.resumed()
    }

    /// Counts caused output that was just queued.
    private func noteCaused(_ bytes: Int) { setCaused(caused.appending(bytes, behind: bufferedBytes)) }

    private func setCaused(_ output: CausedOutput) {
        caused = output
        isBackedUp = !origin.isThisSide && output.bytes >= Self.backPressureBytes
    }

    /// Caused output, in bytes, at which reading pauses. For a client connection only TLS's own
    /// responses count; see `noteAnswers`.
    private var mostCausedBytes: Int { origin.isThisSide ? worker.limits.maxBufferedBytes : Self.backPressureBytes }

    /// Counts output that the carrier queued itself in response to received data, as TLS does.
    final func noteAnswers() {
        let before = bufferedBytes
        bufferedBytes = waitingBytes
        guard bufferedBytes > 0 else { return }
        noteCaused(bufferedBytes - before)
        worker.endTurn(of: self)
        // Do not read a peer that causes TLS responses and does not read them.
        if bufferedBytes > before, caused.bytes >= mostCausedBytes { pauseReading(.output) }
    }

    // MARK: Writing

    final var hasBufferedOutput: Bool { bufferedBytes > 0 }

    /// Copies a server's frame into the cork.
    ///
    /// - Returns: false if the cork does not hold this stream's output now, or has no room.
    @inline(__always)
    final func cork(_ header: FrameHeader, _ payload: borrowing RawSpan) -> Bool {
        isCorked && header.maskingKey == nil
            && worker.cork.append(low: header.low, high: header.high, headerBytes: header.byteCount, payload)
    }

    /// Writes one frame. The payload is copied unless it is sent at once or is the end of `chunk`.
    final func write(_ header: FrameHeader, _ payload: borrowing RawSpan, in chunk: ByteChunk? = nil) {
        if cork(header, payload) { return }
        if isCorked { flushCork() }
        if isCorked, worker.cork.hasRoom(payloadBytes: payload.byteCount) {
            append(header, payload, to: worker.cork)
        } else if header.maskingKey == nil, !worker.cork.hasRoom(payloadBytes: payload.byteCount) {
            // A payload larger than the cork is written without a copy; if `chunk` holds it, its
            // rest is queued by reference.
            let head = isCorked ? worker.cork : OutputBuffer(payloadBytes: 0)
            append(header, RawSpan(), to: head)
            attempt { () throws(SystemError) in try transmit(head, payload, in: chunk) }
            head.removeAll()
        } else {
            // Outside the stream's own events the cork holds another stream's output, so the frame
            // needs its own buffer.
            let frame = OutputBuffer(payloadBytes: payload.byteCount)
            append(header, payload, to: frame)
            enqueueing { enqueue(frame) }
        }
    }

    private func append(_ header: FrameHeader, _ payload: borrowing RawSpan, to buffer: OutputBuffer) {
        let fits = buffer.append(low: header.low, high: header.high, headerBytes: header.byteCount, payload)
        precondition(fits, "the caller made room")
        guard let key = header.maskingKey else { return }
        buffer.withLast(payload.byteCount) { Masking.apply(key: key, phase: 0, to: &$0, range: 0..<$0.byteCount) }
    }

    /// Writes encoded bytes, such as a response header section.
    final func write(_ bytes: [UInt8]) {
        if isCorked {
            if worker.cork.append(bytes.rawSpan) { return }
            flushCork()
            if worker.cork.append(bytes.rawSpan) { return }
        }
        enqueueing { enqueue(bytes.rawSpan) }
    }

    /// Queues bytes shared with other streams.
    final func write(_ frame: ByteChunk) {
        if isCorked { flushCork() }
        enqueueing(isCaused: false) { enqueue(frame) }
    }

    /// Sends bytes shared with other streams, at once if nothing is queued. Do not call it in the
    /// stream's own events.
    @inline(__always)
    final func send(_ frames: ByteChunk) {
        guard bufferedBytes == 0, !isCorked, !isBroken else { return write(frames) }
        do {
            try transmit(frames)
            let waiting = waitingBytes
            if waiting == 0 { return }
            bufferedBytes = waiting
            worker.endTurn(of: self)
        } catch {
            writeFailed()
        }
    }

    /// Queues a part of a file.
    final func write(_ file: SharedFile, offset: Int, count: Int) {
        if isCorked { flushCork() }
        enqueueing { enqueue(file, offset: offset, count: count) }
    }

    private func attempt(_ write: () throws(SystemError) -> Void) {
        guard !isBroken else { return }
        do {
            try write()
            let before = bufferedBytes
            bufferedBytes = waitingBytes
            guard bufferedBytes > 0 else { return }
            noteCaused(bufferedBytes - before)
            worker.endTurn(of: self)
        } catch {
            writeFailed()
        }
    }

    /// Queues output for the end of the turn.
    private func enqueueing(isCaused: Bool = true, _ append: () -> Void) {
        guard !isBroken else { return }
        append()
        let before = bufferedBytes
        bufferedBytes = waitingBytes
        if isCaused { noteCaused(bufferedBytes - before) }
        worker.endTurn(of: self)
    }

    final func beginCork() { isCorked = true }

    /// Sends the corked output in one write.
    final func endCork() {
        flushCork()
        isCorked = false
    }

    private func flushCork() {
        let cork = worker.cork
        guard !cork.isEmpty else { return }
        attempt { () throws(SystemError) in try transmit(cork) }
        cork.removeAll()
    }

    /// Writes queued output until the kernel takes no more.
    ///
    /// - Parameter scratch: an empty buffer in which small pieces may be coalesced.
    /// - Returns: false if the write failed.
    final func offerOutput(gathering scratch: OutputBuffer? = nil) -> Bool {
        do throws(SystemError) {
            let before = bufferedBytes
            try flush(gathering: scratch)
            bufferedBytes = waitingBytes
            hasDrained = bufferedBytes == 0
            let sent = before - bufferedBytes
            setCaused(caused.removing(sent))
            session?.outputSent(sent)
            return true
        } catch {
            return false
        }
    }

    /// Calls the session's `outputDrained` once after all output was sent.
    final func reportDrained() {
        guard hasDrained else { return }
        hasDrained = false
        guard !hasBufferedOutput else { return }
        if isSlow { worker.broker.caughtUp(self) }
        session?.outputDrained()
    }

    /// Updates the count after the carrier has sent output by itself.
    final func updateBufferedBytes() { bufferedBytes = waitingBytes }

    // MARK: Progress

    final var output: OutputState { OutputState(waitingBytes: bufferedBytes, takenBytes: takenBytes) }

    /// Whether the peer has taken enough output since the last call of this method or of
    /// `watchOutput`.
    final func outputHasProgressed() -> Bool {
        progress.hasProgressed(output, minBytes: worker.limits.minBodyProgressBytes)
    }

    /// Starts watching the progress of output. If output is queued already, the first period counts
    /// as progress: its start is unknown.
    final func watchOutput() {
        // Counting what the peer has taken costs a system call, which most responses can do
        // without.
        progress.watch(OutputState(waitingBytes: bufferedBytes, takenBytes: hasBufferedOutput ? takenBytes : 0))
    }
}
