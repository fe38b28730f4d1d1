/// The protocol state of a WebSocket connection (RFC 6455): frames, text, fragments, the closing
/// handshake, pings and deadlines. It holds no clock, socket or closure: events and the time are
/// parameters.
///
/// Most connections are idle, so state that few need, and only for a time, is in `Cold`.
public struct WebSocketState: Equatable, Sendable {
    // In an order that leaves no gaps: every idle connection pays for them.

    /// When bytes were last received, or may have arrived but were not read.
    private var lastActivity: TimePoint
    /// When to check next: the peer's silence while the connection is open, its close frame after
    /// ours.
    private var nextCheck: TimePoint
    private var output = OutputProgress()
    /// At most one element: an empty array costs only a pointer.
    @usableFromInline var cold: [Cold] = []
    /// Decodes the peer's frames. A reader works on a local copy, so that no access is checked for
    /// exclusivity, and assigns it afterwards; decoding changes nothing else of this state.
    public var decoder: FrameDecoder
    private var text = UTF8Validator()
    /// The state of the closing handshake.
    package private(set) var session = SessionState.open
    /// Whether a ping was sent and nothing has been received since.
    package private(set) var hasPinged = false
    /// Whether a message sent in fragments is incomplete.
    package private(set) var isSendingFragments = false
    /// Whether the peer sent FIN while reading was paused.
    package private(set) var hasPeerEnded = false

    @usableFromInline
    struct Cold: Equatable, Sendable {
        /// The payload of the last ping, to be answered after the queued pong. Only the most recent
        /// ping needs an answer (RFC 6455 §5.5.3).
        var pong: [UInt8]?
        /// Bytes of output up to the end of the queued pong; 0 if none is queued.
        var queuedPongEnd = 0
        /// The application's deadline.
        var deadline: Deadline?
        /// While a message is being assembled.
        var progress: Progress?
        /// What the handler's `closed` reports when the closing handshake is done.
        var ending: WebSocketEnding?
    }

    struct Deadline: Equatable, Sendable {
        let due: TimePoint
        let ending: WebSocketEnding
    }

    struct Progress: Equatable, Sendable {
        /// Bytes of the message when the current period began.
        let bytes: Int
        /// When the period ends.
        let due: TimePoint
    }

    /// The state after the opening handshake.
    ///
    /// - Parameters:
    ///   - ownedReservedBits: bits 0x40, 0x20, 0x10 that a negotiated extension uses.
    ///   - maxMessageBytes: the limit of a message on the wire.
    package init(
        role: Role, ownedReservedBits: UInt8 = 0, maxMessageBytes: Int, now: TimePoint, limits: borrowing WebSocketLimits
    ) {
        decoder = FrameDecoder(role: role, ownedReservedBits: ownedReservedBits, maxMessageBytes: maxMessageBytes)
        lastActivity = now
        nextCheck = now + limits.pingInterval
    }

    private mutating func withCold(_ change: (inout Cold) -> Void) {
        if cold.isEmpty { cold.append(Cold()) }
        change(&cold[0])
    }

    // MARK: Receiving

    /// Notes when bytes were last received. Call it before `deadlineReached`; an arrival itself
    /// needs no call.
    package mutating func received(lastAt time: TimePoint) {
        guard time > lastActivity else { return }
        lastActivity = time
        hasPinged = false
    }

    /// Checks a part of a text message.
    ///
    /// - Throws: `FrameViolation.invalidUTF8` at the first octet that cannot be UTF-8 (RFC 6455
    ///   §8.1). This state must not be used again.
    package mutating func checkText(_ payload: borrowing RawSpan, endsMessage: Bool) throws(FrameViolation) {
        guard text.accept(payload), !endsMessage || text.isComplete else { throw .invalidUTF8 }
        if endsMessage { text = UTF8Validator() }
    }

    /// Whether the growth of the message being assembled is watched. If so, or inside a message,
    /// call `watchMessage` after each arrival.
    package var isWatchingMessage: Bool { cold.first?.progress != nil }

    /// Whether both sides may send messages.
    package var isOpen: Bool { if case .open = session { true } else { false } }

    /// Whether there is state that few connections need. If not, no message is watched and no pong
    /// is queued.
    @inlinable public var hasColdState: Bool { !cold.isEmpty }

    /// Starts or stops watching the growth of the message being assembled, after `decoder` was
    /// assigned.
    ///
    /// - Parameter assembledBytes: bytes of the message so far.
    /// - Returns: whether `deadline` may be earlier now.
    package mutating func watchMessage(assembledBytes: Int, now: TimePoint, limits: borrowing WebSocketLimits) -> Bool {
        guard decoder.isInsideMessage, case .open = session else {
            if isWatchingMessage { withCold { $0.progress = nil } }
            return false
        }
        if isWatchingMessage { return false }
        startProgressPeriod(assembledBytes, now, limits)
        return true
    }

    private mutating func startProgressPeriod(_ bytes: Int, _ now: TimePoint, _ limits: borrowing WebSocketLimits) {
        let progress = Progress(bytes: bytes, due: now + limits.messageProgressTimeout)
        withCold { $0.progress = progress }
    }

    /// Reading has resumed: the paused time does not count against the peer.
    package mutating func resumed(assembledBytes: Int, now: TimePoint, limits: borrowing WebSocketLimits) {
        lastActivity = now
        if isWatchingMessage { startProgressPeriod(assembledBytes, now, limits) }
    }

    /// The peer has sent FIN while reading was paused. What it sent before is delivered if reading
    /// resumes in time.
    package mutating func peerEndedWhilePaused(now: TimePoint, limits: borrowing WebSocketLimits) {
        hasPeerEnded = true
        lastActivity = now
        nextCheck = now + limits.silenceTimeout
    }

    // MARK: Pings

    /// A ping was received.
    ///
    /// - Parameter waitingBytes: bytes of queued output.
    package mutating func receivedPing(_ payload: borrowing RawSpan, waitingBytes: Int) -> PingAnswer {
        guard waitingBytes > 0 else { return .send }
        guard let queued = cold.first, queued.queuedPongEnd > 0 else { return .queue }
        let copy = payload.copied
        withCold { $0.pong = copy }
        return .wait
    }

    /// A pong was queued; `waitingBytes` are queued now, the pong included. At most one is queued,
    /// so that a peer that only sends pings cannot make the queue grow.
    package mutating func pongQueued(waitingBytes: Int) { withCold { $0.queuedPongEnd = waitingBytes } }

    /// `count` bytes of output were sent.
    ///
    /// - Returns: the payload of a pong to queue now; see `PingAnswer.queue`.
    package mutating func outputSent(_ count: Int) -> [UInt8]? {
        guard count > 0, let queued = cold.first, queued.queuedPongEnd > 0 else { return nil }
        withCold { $0.queuedPongEnd = max(0, $0.queuedPongEnd - count) }
        return queued.queuedPongEnd > count ? nil : takePong()
    }

    /// All queued output was sent.
    ///
    /// - Returns: the payload of a pong to queue now; see `PingAnswer.queue`.
    package mutating func outputDrained(now: TimePoint, limits: borrowing WebSocketLimits) -> [UInt8]? {
        if case .closeSent = session {
            // The peer's time to answer starts when our close frame has been sent.
            nextCheck = now + limits.closingTimeout
        }
        if cold.isEmpty { return nil }
        withCold { $0.queuedPongEnd = 0 }
        return takePong()
    }

    private mutating func takePong() -> [UInt8]? {
        guard case .open = session, let pong = cold.first?.pong else { return nil }
        withCold { $0.pong = nil }
        return pong
    }

    // MARK: Sending

    /// The opcode of the next fragment to send.
    ///
    /// - Parameters:
    ///   - kind: the message's kind, which its first fragment determines.
    ///   - isLast: whether the fragment ends the message.
    package mutating func nextFragmentOpcode(_ kind: MessageKind, isLast: Bool) -> Opcode {
        defer { isSendingFragments = !isLast }
        return isSendingFragments ? .continuation : kind.opcode
    }

    // MARK: Ending

    /// What the handler's `closed` reports: the peer's close frame, its violation, or neither.
    package var ending: WebSocketEnding { cold.first?.ending ?? .abnormal }

    /// This side closes the connection.
    ///
    /// - Parameter state: evaluated only while the connection is open.
    package mutating func close(
        _ code: CloseCode?, reason: String, output state: @autoclosure () -> OutputState, now: TimePoint,
        limits: borrowing WebSocketLimits
    ) -> SessionState.Action {
        let action = session.close(code, reason: reason)
        if case .sendClose = action {
            output.mark(state())
            nextCheck = now + limits.closingTimeout
        }
        return action
    }

    /// The peer's close frame was received.
    package mutating func receivedClose(_ code: CloseCode?, reason: String) -> SessionState.Action {
        withCold { $0.ending = WebSocketEnding(code ?? .noStatus, reason) }
        return session.receivedClose(code)
    }

    /// The peer violated the protocol.
    package mutating func fail(_ violation: FrameViolation) -> SessionState.Action {
        withCold { $0.ending = WebSocketEnding(violation.closeCode, violation.reason) }
        return session.fail(violation)
    }

    /// The connection has ended, or is about to, without a closing handshake.
    package mutating func didEnd() { session = .closed }

    /// Closes with `ending` at `due` unless called again; nil: never.
    package mutating func setDeadline(_ due: TimePoint?, _ ending: WebSocketEnding) {
        if cold.isEmpty, due == nil { return }
        withCold { $0.deadline = due.map { Deadline(due: $0, ending: ending) } }
    }

    // MARK: Time

    /// When `deadlineReached` is due; nil: never again.
    package var deadline: TimePoint? {
        switch session {
        case .open:
            guard let cold = cold.first else { return nextCheck }
            return min(nextCheck, cold.progress?.due ?? nextCheck, cold.deadline?.due ?? nextCheck)
        case .closeSent: return nextCheck
        case .closed: return nil
        }
    }

    /// The first action that is due. Call it until it returns `none`; it may be called too early.
    ///
    /// - Parameters:
    ///   - pauses: why the connection is not read.
    ///   - state: evaluated only if it matters, because it may cost a system call.
    ///   - assembledBytes: bytes of the message being assembled.
    package mutating func deadlineReached(
        now: TimePoint, pauses: PauseReasons, output state: @autoclosure () -> OutputState, assembledBytes: Int,
        limits: borrowing WebSocketLimits
    ) -> WebSocketTimeoutAction {
        switch session {
        case .closed: return .none
        case .closeSent: return now < nextCheck ? .none : checkClosing(now, state, limits)
        case .open: break
        }
        if now >= nextCheck {
            let action = checkSilence(now, pauses, state, limits)
            guard case .none = action else { return action }
        }
        if let deadline = cold.first?.deadline, now >= deadline.due {
            withCold { $0.deadline = nil }
            return .close(deadline.ending.code, reason: deadline.ending.reason)
        }
        return checkProgress(now, pauses, assembledBytes, limits)
    }

    /// The closing handshake has timed out, unless the peer still reads the output queued before
    /// our close frame.
    private mutating func checkClosing(
        _ now: TimePoint, _ state: () -> OutputState, _ limits: borrowing WebSocketLimits
    ) -> WebSocketTimeoutAction {
        guard output.hasProgressed(state(), minBytes: limits.minOutputProgressBytes) else { return .giveUp(reason: "") }
        nextCheck = now + limits.closingTimeout
        return .none
    }

    /// Sends a ping to a silent peer, and gives up one that does not answer.
    private mutating func checkSilence(
        _ now: TimePoint, _ pauses: PauseReasons, _ state: () -> OutputState, _ limits: borrowing WebSocketLimits
    ) -> WebSocketTimeoutAction {
        let givenUp = lastActivity + limits.silenceTimeout
        if pauses.contains(.application) {
            if hasPeerEnded {
                nextCheck = givenUp
                return now < givenUp ? .none : .giveUp(reason: "the peer ended the connection while receiving was paused")
            }
            // While receiving is paused, silence proves nothing, but an unanswered ping makes TCP
            // detect a dead host.
            nextCheck = now + limits.pingInterval
            return state().isWaiting ? .none : .sendPing
        }
        if now >= givenUp {
            // A peer that reads output is alive: its pong may be delayed behind it.
            guard output.hasProgressed(state(), minBytes: limits.minOutputProgressBytes) else {
                let cause = pauses.contains(.output) ? "no output was taken" : "no byte came"
                return .giveUp(reason: "\(cause) for \(Duration.milliseconds(Int64(clamping: limits.silenceTimeout)))")
            }
            lastActivity = now
            nextCheck = now + limits.pingInterval
            return .none
        }
        let quietUntil = lastActivity + limits.pingInterval
        guard now >= quietUntil else {
            nextCheck = quietUntil
            return .none
        }
        output.mark(state())
        nextCheck = givenUp
        if hasPinged { return .none }
        hasPinged = true
        return .sendPing
    }

    /// Closes the connection if the message being assembled grows too slowly.
    private mutating func checkProgress(
        _ now: TimePoint, _ pauses: PauseReasons, _ assembledBytes: Int, _ limits: borrowing WebSocketLimits
    ) -> WebSocketTimeoutAction {
        guard let progress = cold.first?.progress, now >= progress.due else { return .none }
        let minBytes = limits.minMessageProgressBytes
        guard !pauses.isEmpty || assembledBytes - progress.bytes >= minBytes else {
            return .close(.policyViolation, reason: "the message makes no progress")
        }
        startProgressPeriod(assembledBytes, now, limits)
        return .none
    }
}
