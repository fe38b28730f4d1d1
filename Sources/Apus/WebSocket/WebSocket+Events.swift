import ApusCodec
import ApusPlatform
import ApusTransport

// What happens to a WebSocket: bytes, time, and the end.
extension WebSocket {
    /// Serves what lies in the worker's receive buffer from `position` on, which moves behind what was used.
    func process(_ position: inout Int, until end: Int) {
        guard let connection else { return }
        hasPinged = false
        let handler = handler
        let receiveBuffer = context.receiveBuffer
        var buffer = receiveBuffer.span
        // Decoded in a local variable: no handler can reach it, so no access needs to be checked.
        var decoder = self.decoder
        defer {
            self.decoder = decoder
            if decoder.isInsideMessage || rare != nil { watchMessage(decoder) }
        }
        while position < end, receiving == .active {
            if connection.isBackedUp, case .open = state, decoder.isAtData(in: buffer, at: position) {
                // Pings and close frames are read all the same.
                return connection.pauseReading(.output)
            }
            if takesShortWay, case .open = state,
                let short = decoder.nextShortMessage(in: &buffer, until: end, from: &position)
            {
                let payload = buffer.bytes.extracting(short.range)
                if short.kind == .text, !short.isASCII, !UTF8Validator.isValid(payload) { return violated(.invalidUTF8) }
                context.messagesReceived &+= 1
                context.serving(short.kind, payload.byteCount)
                handler.received(Message(kind: short.kind, payload: payload), on: self)
                continue
            }
            let event: FrameEvent?
            do throws(FrameViolation) {
                event = try decoder.next(in: &buffer, until: end, from: &position)
            } catch {
                return violated(error)
            }
            guard let event else { return }
            guard case .open = state else {
                // After our close frame only the peer's counts.
                if case .close(let code, let reason) = event { receivedClose(code, buffer.bytes.extracting(reason).string) }
                if self.connection == nil { return }
                continue
            }
            switch event {
            case .data(let piece):
                do throws(FrameViolation) {
                    try receive(piece, buffer.bytes.extracting(piece.range))
                } catch {
                    return violated(error)
                }
            case .ping(let range): answerPing(buffer.bytes.extracting(range))
            case .pong(let range):
                context.serving(.pong, route: webSocketProtocol.number)
                handler.pong(buffer.bytes.extracting(range), on: self)
            case .close(let code, let reason): return receivedClose(code, buffer.bytes.extracting(reason).string)
            }
        }
    }

    private func receive(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        if let extensions {
            try receive(piece, payload, through: extensions)
        } else {
            try deliver(piece, payload)
        }
    }

    /// Checks payload that has its final form, and hands it on or keeps it.
    func deliver(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        if delivery == .messages, piece.startsMessage, piece.endsMessage {
            if piece.kind == .text, !UTF8Validator.isValid(payload) { throw .invalidUTF8 }
            context.messagesReceived &+= 1
            context.serving(piece.kind, payload.byteCount)
            return handler.received(Message(kind: piece.kind, payload: payload), on: self)
        }
        if piece.kind == .text { try checkText(payload, endsMessage: piece.endsMessage) }
        switch delivery {
        case .fragments:
            if piece.endsMessage { context.messagesReceived &+= 1 }
            context.serving(piece.kind, payload.byteCount)
            handler.received(Fragment(piece, payload: payload), on: self)
        case .messages: try assemble(piece, payload)
        }
    }

    /// Checks a part of a text message, and fails at its first octet that cannot be UTF-8.
    func checkText(_ payload: RawSpan, endsMessage: Bool) throws(FrameViolation) {
        var validator = text
        guard validator.accept(payload), !endsMessage || validator.isComplete else { throw .invalidUTF8 }
        text = endsMessage ? UTF8Validator() : validator
    }

    // MARK: Control frames

    private func answerPing(_ payload: RawSpan) {
        guard let connection else { return }
        if !connection.hasBufferedOutput {
            sendControl(.pong, payload)
        } else if rareState.queuedPongEnd > 0 {
            rareState.pong = payload.copied
        } else {
            queuePong(payload, on: connection)
        }
    }

    /// Sends a pong behind what waits. One at a time, so that a peer that only pings cannot make more and more wait.
    private func queuePong(_ payload: RawSpan, on connection: Connection) {
        sendControl(.pong, payload)
        rareState.queuedPongEnd = connection.bufferedBytes
    }

    /// So many bytes of output have left.
    func outputSent(_ count: Int) {
        guard let rare, rare.queuedPongEnd > 0, count > 0 else { return }
        rare.queuedPongEnd = max(0, rare.queuedPongEnd - count)
        if rare.queuedPongEnd == 0 { sendPendingPong() }
    }

    private func sendPendingPong() {
        guard let rare, let pong = rare.pong, isOpen, let connection else { return }
        rare.pong = nil
        queuePong(pong.rawSpan, on: connection)
    }

    private func receivedClose(_ code: CloseCode?, _ reason: String) {
        rareState.ending = (code ?? .noStatus, reason)
        perform(change { $0.receivedClose(code) })
    }

    func violated(_ violation: FrameViolation) {
        rareState.ending = (violation.closeCode, violation.reason)
        perform(change { $0.fail(violation) })
    }

    /// Changes the state in a copy: no access to the property lasts, so reading it on the hot path needs no check.
    func change(_ body: (inout SessionState) -> SessionState.Action) -> SessionState.Action {
        var copy = state
        defer { state = copy }
        return body(&copy)
    }

    func perform(_ action: SessionState.Action) {
        guard let connection else { return }
        switch action {
        case .none: return
        case .sendClose(let code, let reason):
            sendClose(code, reason)
            connection.markOutput()
            context.loop.schedule(connection, after: context.limits.closingTimeout)
            // A paused reader would never see the answer.
            receiving = .active
            connection.resumeReading([.application, .output])
        case .answerCloseAndEnd(let code):
            sendClose(code, "")
            // The server closes the transport first (RFC 6455 §7.1.1).
            end(role == .server ? .close : .linger, peerLeft: true)
        case .failAndEnd(let code, let reason):
            sendClose(code, reason)
            // Closing at once could reset the connection before the peer has read our frame.
            end(.linger)
        case .end:
            end(.close)
        }
    }

    private func sendClose(_ code: CloseCode?, _ reason: String) {
        let payload = FrameEncoder.closePayload(code: code, reason: reason)
        sendControl(.close, payload.rawSpan)
    }

    /// The conversation is over; the connection ends when our last bytes have left.
    private func end(_ ending: Connection.Ending, peerLeft: Bool = false) {
        guard let connection else { return }
        let (code, reason) = rare?.ending ?? (.abnormal, "")
        let whenEnded = rare?.whenEnded
        detach()
        connection.finish(ending)
        tellClosed(code, reason)
        whenEnded?(peerLeft ? code : nil)
    }

    /// The peer or the network ended the connection.
    ///
    /// - Parameter reason: why it was given up, if it was.
    func connectionLost(_ reason: String = "") {
        guard connection != nil else { return }
        let wasOpen = state == .open
        state = .closed
        let whenEnded = rare?.whenEnded
        detach()
        tellClosed(.abnormal, reason)
        whenEnded?(wasOpen ? .abnormal : nil)
    }

    private func detach() {
        connection = nil
        context.count(-1, self)
        request = nil
        rare?.deadline?.cancel()
        rare = nil
        wantsWritable = false
        dropAssembled()
    }

    // MARK: Time and output

    /// The connection is open: it counts, and its silence is watched.
    func begin() {
        guard let connection else { return }
        context.count(1, self)
        context.loop.schedule(connection, after: context.limits.pingInterval)
    }

    func timerFired(at now: MonotonicTime) {
        guard let connection else { return }
        guard case .open = state else {
            // The closing handshake took too long, unless the peer still takes what stands before our close frame.
            guard connection.outputHasProgressed() else { return connection.lost() }
            return context.loop.schedule(connection, after: context.limits.closingTimeout)
        }
        guard let alive = checkSilence(connection, now), let moving = checkProgress(now) else { return }
        context.loop.schedule(connection, at: min(alive, moving))
    }

    /// Pings a silent peer and gives a dead one up. Gives when to look again; nil if the connection has ended.
    private func checkSilence(_ connection: Connection, _ now: MonotonicTime) -> MonotonicTime? {
        let limits = context.limits
        let givenUp = connection.lastActivity + limits.silenceTimeout
        if connection.pauses.contains(.application) {
            if connection.peerHasEnded {
                if now < givenUp { return givenUp }
                return giveUp(connection, "the peer ended the connection while receiving was paused")
            }
            // The handler does not read: silence says nothing, but a ping finds out that the peer's host is gone.
            if !connection.hasBufferedOutput { sendControl(.ping, RawSpan()) }
            return now + limits.pingInterval
        }
        if now >= givenUp {
            // Output taken is life: the answer to our ping may stand behind much of it.
            guard connection.outputHasProgressed() else {
                let what = connection.pauses.contains(.output) ? "no output was taken" : "no byte came"
                return giveUp(connection, "\(what) for \(limits.silenceTimeout)")
            }
            connection.lastActivity = now
            return now + limits.pingInterval
        }
        guard now >= connection.lastActivity + limits.pingInterval else { return connection.lastActivity + limits.pingInterval }
        connection.markOutput()
        if !hasPinged {
            hasPinged = true
            sendControl(.ping, RawSpan())
        }
        return givenUp
    }

    private func giveUp(_ connection: Connection, _ reason: String) -> MonotonicTime? {
        connection.close()
        connectionLost(reason)
        return nil
    }

    /// The peer has sent FIN while reading was paused; what it had sent before is delivered if the handler resumes in time.
    func peerEndedWhilePaused() {
        guard let connection else { return }
        connection.lastActivity = context.loop.now
        context.loop.schedule(connection, after: context.limits.silenceTimeout)
    }

    /// Reading goes on: the time that has passed does not count against the peer.
    func resumed() {
        let now = context.loop.now
        connection?.lastActivity = now
        if rare?.progress != nil { _ = startProgressPeriod(now) }
    }

    /// Closes on a message that does not grow. Gives when to look again; nil if it is closing.
    private func checkProgress(_ now: MonotonicTime) -> MonotonicTime? {
        guard let progress = rare?.progress else { return MonotonicTime(milliseconds: .max) }
        if now < progress.due { return progress.due }
        if let connection, !connection.pauses.isEmpty { return startProgressPeriod(now) }
        guard assembledBytes - progress.bytes >= context.limits.minMessageProgressBytes else {
            close(code: .policyViolation, reason: "the message makes no progress")
            return nil
        }
        return startProgressPeriod(now)
    }

    private func startProgressPeriod(_ now: MonotonicTime) -> MonotonicTime {
        let due = now + context.limits.messageProgressTimeout
        rareState.progress = (assembledBytes, due)
        return due
    }

    /// Begins or ends to watch the growth of a message that is being assembled, after what has come was decoded.
    func watchMessage(_ decoder: FrameDecoder) {
        guard decoder.isInsideMessage, delivery == .messages, case .open = state, let connection else {
            rare?.progress = nil
            return
        }
        connection.mayFill = decoder.remainingInFrame > 0
        guard rare?.progress == nil else { return }
        let due = startProgressPeriod(context.loop.now)
        if !connection.isScheduled || due.milliseconds < connection.deadline { context.loop.schedule(connection, at: due) }
    }

    /// Nothing is buffered any more.
    func outputDrained() {
        if let rare {
            rare.queuedPongEnd = 0
            sendPendingPong()
        }
        // The time that the peer has for its close frame begins when ours has left.
        if case .closeSent = state, let connection { context.loop.schedule(connection, after: context.limits.closingTimeout) }
        if wantsWritable { context.requestedWritable(self) }
    }

    /// Calls the handler's `writable` if it is still wanted and nothing is buffered.
    func serveWritable() {
        guard wantsWritable, isOpen, !hasBufferedOutput else { return }
        wantsWritable = false
        guard let connection else { return }
        context.serving(connection, .writable, route: webSocketProtocol.number)
        handler.writable(self)
        context.servingNothing()
    }
}
