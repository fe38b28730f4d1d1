import ApusCodec
import ApusPlatform
import ApusTransport
import Logging

/// One connected socket, of a server or a client: serves the loop's events, and leads the stream
/// through its phases, from the TLS handshake to the end.
final class Connection: SocketStream {
    private enum State {
        case open
        /// The TLS handshake, with its deadline.
        case handshaking(until: MonotonicTime)
        /// All output is written or queued; input is discarded.
        case finishing(Ending, check: MonotonicTime)
        /// The sending side is shut down; input is discarded until the peer closes.
        case lingering(check: MonotonicTime)
        case closed
    }

    private var state = State.open
    /// The events that the poller reports.
    private var watched = Interest.readable

    /// Most receives of pending input after a write failed.
    private static let mostReceivesOfRest = 64
    /// How long to wait for the peer to close after our shutdown.
    private static let lingerTimeout = Duration.seconds(1)

    /// Starts serving `session`.
    ///
    /// - Parameter tls: a TLS session, whose handshake runs first, and the handshake's timeout.
    /// - Throws: `SystemError` if the socket cannot be registered. The connection is then closed,
    ///   and `ended` is not called.
    func start(_ session: any Session, tls: (session: TLSSession, time: Duration)? = nil) throws(SystemError) {
        do {
            try worker.loop.add(self, descriptor: transport.descriptor, for: .readable)
        } catch {
            close()
            throw error
        }
        beginCork()
        become(session)
        if let tls { startTLS(tls.session, within: tls.time) }
        endEvent()
    }

    // MARK: Events

    override func ready(_ readiness: Readiness, in loop: EventLoop) {
        serve(readiness, loop)
        worker.servingNothing()
    }

    /// - Parameter loop: The worker's, passed on because a parameter needs no reference count.
    @inline(__always)
    private func serve(_ readiness: Readiness, _ loop: EventLoop) {
        if readiness.contains(.writable) { endTurn() }
        guard !readiness.isDisjoint(with: [.readable, .peerClosed, .hangUp]) else { return }
        switch state {
        case .open:
            if pauses.isEmpty {
                receive(loop)
            } else if !readiness.isDisjoint(with: .hangUp) {
                writeFailed()
            } else if readiness.contains(.peerClosed) {
                peerEndedWhilePaused()
                updateInterest()
            }
        case .handshaking:
            worker.serving(self, .handshake)
            handshake()
        case .finishing, .lingering: discardInput()
        case .closed: break
        }
    }

    override func timerFired(at now: MonotonicTime) {
        worker.serving(self, .timer)
        // The deadline may have been moved earlier in this turn, after the timer had expired.
        if let currentDeadline, currentDeadline <= now { deadlineReached(at: now) }
        armDeadline()
        worker.servingNothing()
    }

    private func deadlineReached(at now: MonotonicTime) {
        switch state {
        case .open: if let session { follow(session.deadlineReached(at: now)) }
        case .handshaking:
            session?.handshakeFailed(nil)
            close()
        case .finishing(let ending, _):
            if outputHasProgressed() { state = .finishing(ending, check: time(after: worker.limits.closingTimeout)) } else { close() }
        case .lingering:
            // The peer may still be reading what the kernel holds; closing with unread input would
            // reset the connection and discard it.
            if hasUnacknowledgedOutput, outputHasProgressed() {
                state = .lingering(check: time(after: Self.lingerTimeout))
            } else {
                close()
            }
        case .closed: break
        }
    }

    private var currentDeadline: MonotonicTime? {
        switch state {
        case .open: session?.deadline
        case .handshaking(let due), .finishing(_, let due), .lingering(let due): due
        case .closed: nil
        }
    }

    /// Arms the timer; the only place that does.
    private func armDeadline() {
        noteDeadlineArmed()
        guard let currentDeadline else { return worker.loop.cancel(self) }
        if !isScheduled || currentDeadline.milliseconds != deadline { worker.loop.schedule(self, at: currentDeadline) }
    }

    /// Discards input of the last phases.
    private func discardInput() {
        do throws(SystemError) {
            if case .done(let count) = try worker.receiveBuffer.discard(from: transport), count > 0 { return }
            if case .lingering = state { close() } else { updateInterest(readsMore: false) }
        } catch {
            close()
        }
    }

    // MARK: The end of an event or a turn

    override func endEvent() {
        endCork()
        advanceEnding()
        updateLoop()
    }

    /// Executes deferred work: sends queued output, calls the session, and updates what the poller
    /// reports.
    override func endTurn() {
        if case .closed = state { return }
        if !isBroken, hasBufferedOutput, !offerOutput(gathering: worker.cork) { writeFailed() }
        if isBroken {
            if hasWriteFailed { receiveRest() }
            return close()
        }
        reportDrained()
        resumeAfterOutput()
        if pauses.isEmpty, isOpen { processUnconsumed() }
        checkEndOfTLS()
        advanceEnding()
        updateLoop()
    }

    /// Arms a deadline that has changed, and updates what the poller reports.
    @inline(__always)
    private func updateLoop() {
        if hasNewDeadline { armDeadline() }
        updateInterest()
    }

    private func updateInterest(readsMore: Bool = true) {
        if case .closed = state { return }
        var interest = Interest()
        if readsMore {
            if pauses.isEmpty || !isOpen { interest = .readable } else if !peerHasEnded { interest = .peerClosed }
        }
        if hasBufferedOutput { interest = interest.union(.writable) }
        guard interest != watched else { return }
        watched = interest
        do {
            try worker.loop.update(self, descriptor: transport.descriptor, for: interest)
        } catch {
            close()
        }
    }

    /// Processes input received before a write failed, unless reading is paused.
    private func receiveRest() {
        for attempt in 0..<Self.mostReceivesOfRest where pauses.isEmpty {
            guard case .open = state, let session, session.readsAfterFailedWrite else { return }
            if attempt == 0 { processUnconsumed() }
            if !receive(worker.loop) { return }
        }
    }

    // MARK: Ending

    /// Ends the connection if no request has begun.
    func endIfIdle() {
        if case .open = state, let session, session.isIdle { follow(.finish(.linger)) }
    }

    override func beginEnding(_ ending: Ending) {
        discardUnconsumed()
        state = .finishing(ending, check: time(after: worker.limits.closingTimeout))
        deadlineChanged()
    }

    private func advanceEnding() {
        guard case .finishing(let ending, _) = state, !hasBufferedOutput, !isCorked else { return }
        switch ending {
        case .close: close()
        case .linger:
            transport.shutdownWrite()
            state = .lingering(check: time(after: Self.lingerTimeout))
            deadlineChanged()
        }
    }

    /// Closes the socket at once, for a reason of ours or because the peer has closed.
    override func close(_ reason: String = "") {
        if case .closed = state { return }
        let end = StreamEnd(refusal: transport.refusal, reason: reason)
        state = .closed
        discardUnconsumed()
        worker.loop.remove(self, descriptor: transport.descriptor)
        transport.close()
        updateBufferedBytes()
        worker.connectionEnded(self)
        takeSession()?.ended(end)
    }

    // MARK: TLS

    override var isClosed: Bool { if case .closed = state { true } else { false } }

    override func startTLS(_ tls: TLSSession, within time: Duration) {
        transport.start(tls)
        state = .handshaking(until: self.time(after: time))
        deadlineChanged()
        // A client sends the first handshake message.
        if origin.isThisSide { handshake() }
    }

    private func handshake() {
        do throws(TLSError) {
            let progress = try transport.handshake()
            updateBufferedBytes()
            switch progress {
            case .waiting:
                updateLoop()
            case .done: secured()
            case .notTLS: continuePlainly()
            }
        } catch {
            session?.handshakeFailed(error)
            close()
        }
    }

    private func secured() {
        isSecure = true
        state = .open
        deadlineChanged()
        session?.secured()
        guard isOpen else { return }
        processReceivedByHandshake()
        updateLoop()
    }

    /// The client did not start TLS: continues without it, if the session accepts that.
    private func continuePlainly() {
        let bytes = transport.becomePlain()
        guard let session else { return }
        state = .open
        guard session.acceptsPlain(bytes) else { return close() }
        deadlineChanged()
        process(bytes)
    }
}
