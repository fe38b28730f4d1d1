import ApusCodec
import ApusPlatform
import ApusTransport

extension WebSocket: Session, WritableTarget {
    var openWebSocket: WebSocket? { isOpen ? self : nil }

    /// Called when the WebSocket is open: registers it with the broker and starts the silence
    /// check.
    func begin() {
        worker.broker.opened(self)
        stream?.deadlineChanged()
    }

    // MARK: Input

    func received(_ receiveBuffer: ReceiveBuffer, _ position: inout Int, until end: Int) -> Next {
        guard let stream else { return .more }
        worker.serving(stream, .webSocket, route: routeNumber)
        let handler = handler
        var buffer = receiveBuffer.span
        // A local copy is exclusive: no handler can access it, so the compiler emits no exclusivity
        // checks.
        var decoder = wire.decoder
        defer {
            wire.decoder = decoder
            if decoder.isInsideMessage || wire.hasColdState { MessageReader(self, on: stream).watchMessage() }
        }
        while position < end, receiving == .active {
            if stream.isBackedUp, case .open = wire.session, decoder.isAtData(in: buffer, at: position) {
                // Reading pauses at data frames only; pings and close frames are still processed.
                stream.pauseReading(.output)
                return .more
            }
            if usesReceiveFastPath, case .open = wire.session,
                let short = decoder.nextShortMessage(in: &buffer, until: end, from: &position)
            {
                let payload = buffer.bytes.extracting(short.range)
                if short.kind == .text, !short.isASCII, !UTF8Validator.isValid(payload) { return violated(.invalidUTF8) }
                worker.messagesReceived &+= 1
                worker.serving(short.kind, payload.byteCount)
                handler.received(Message(kind: short.kind, payload: payload), on: self)
                continue
            }
            do throws(FrameViolation) {
                guard let event = try decoder.next(in: &buffer, until: end, from: &position) else { return .more }
                if let next = try MessageReader(self, on: stream).serve(event, buffer.bytes) { return next }
            } catch {
                return violated(error)
            }
        }
        return .more
    }

    var directBuffer: (chunk: ByteChunk, maxBytes: Int)? {
        guard wire.isOpen else { return nil }
        return changeAssembly { $0.directBuffer(remaining: wire.decoder.remainingInFrame, worker.memory, worker.limits) }
    }

    func receivedDirectly(_ count: Int) -> Next {
        guard let stream else { return .more }
        worker.serving(stream, .webSocket, route: routeNumber)
        return MessageReader(self, on: stream).readDirectly(count)
    }

    func peerEndedWhilePaused(hasUnread: Bool) -> Next {
        guard hasUnread, let stream else { return .close("") }
        // Data received before the end of the stream is delivered if the handler resumes in time.
        let now = now
        change { $0.peerEndedWhilePaused(now: now, limits: worker.webSocketLimits) }
        stream.deadlineChanged()
        return .more
    }

    /// Receiving has resumed: the paused time does not count as silence.
    func resumed() {
        let now = now
        change { $0.resumed(assembledBytes: assembly.byteCount, now: now, limits: worker.webSocketLimits) }
    }

    func receivedPing(_ payload: RawSpan) {
        guard let writer else { return }
        switch change({ $0.receivedPing(payload, waitingBytes: bufferedBytes) }) {
        case .send: writer.write(payload, as: .pong)
        case .queue: queuePong(payload, by: writer)
        case .wait: break
        }
    }

    /// Queues a pong behind what waits.
    private func queuePong(_ payload: RawSpan, by writer: FrameWriter) {
        writer.write(payload, as: .pong)
        change { $0.pongQueued(waitingBytes: bufferedBytes) }
    }

    // MARK: Output

    func outputSent(_ count: Int) {
        guard wire.hasColdState, let writer else { return }
        if let pong = change({ $0.outputSent(count) }) { queuePong(pong.rawSpan, by: writer) }
    }

    func outputDrained() {
        guard let writer else { return }
        let now = now
        if let pong = change({ $0.outputDrained(now: now, limits: worker.webSocketLimits) }) { queuePong(pong.rawSpan, by: writer) }
        if case .closeSent = wire.session { writer.stream.deadlineChanged() }
        if wantsWritable { worker.requestedWritable(self) }
    }

    // MARK: Deadline

    var deadline: MonotonicTime? { wire.deadline.map { MonotonicTime(milliseconds: $0.milliseconds) } }

    func deadlineReached(at now: MonotonicTime) -> Next {
        while let stream {
            let action = change { wire in
                wire.received(lastAt: TimePoint(stream.lastActivity))
                return wire.deadlineReached(
                    now: TimePoint(now), pauses: stream.pauses, output: stream.output, assembledBytes: assembly.byteCount,
                    limits: worker.webSocketLimits)
            }
            switch action {
            case .none: return .more
            case .sendPing: writer?.write(RawSpan(), as: .ping)
            case .giveUp(let reason): return .close(reason)
            case .close(let code, let reason): return beginClosing(code: code, reason: reason)
            }
        }
        return .more
    }

    // MARK: The closing handshake, and the end

    func beginClosing(code: CloseCode, reason: String) -> Next {
        guard let stream else { return .more }
        if worker.broker.hasPublications { worker.broker.deliverPublications(before: self) }
        let now = now
        return perform(change { $0.close(code, reason: reason, output: stream.output, now: now, limits: worker.webSocketLimits) })
    }

    func receivedClose(_ code: CloseCode?, _ reason: String) -> Next { perform(change { $0.receivedClose(code, reason: reason) }) }

    func violated(_ violation: FrameViolation) -> Next { perform(change { $0.fail(violation) }) }

    private func perform(_ action: SessionState.Action) -> Next {
        guard let writer else { return .more }
        switch action {
        case .none: return .more
        case .sendClose(let code, let reason):
            writer.writeClose(code, reason: reason)
            writer.stream.deadlineChanged()
            // While reading is paused, the peer's close frame would not be received.
            receiving = .active
            writer.stream.resumeReading([.application, .output])
            return .more
        case .answerCloseAndEnd(let code):
            writer.writeClose(code, reason: "")
            let ending = wire.ending
            didEnd(ending, peerCode: ending.code)
            // The server closes the transport first (RFC 6455 §7.1.1).
            return .finish(role == .server ? .close : .linger)
        case .failAndEnd(let code, let reason):
            writer.writeClose(code, reason: reason)
            didEnd(wire.ending)
            // Closing at once could reset the connection before the peer has read our close frame.
            return .finish(.linger)
        case .end:
            didEnd(wire.ending)
            return .finish(.close)
        }
    }

    func ended(_ end: StreamEnd) {
        guard stream != nil else { return }
        let wasOpen = wire.isOpen
        change { $0.didEnd() }
        didEnd(WebSocketEnding(.abnormal, end.reason), peerCode: wasOpen ? .abnormal : nil)
    }

    /// Releases what is no longer needed and calls the handler's `closed`.
    ///
    /// - Parameter peerCode: if the peer ended an open connection.
    private func didEnd(_ ending: WebSocketEnding, peerCode: CloseCode? = nil) {
        guard let stream else { return }
        let client = client
        self.stream = nil
        self.client = nil
        request = nil
        wantsWritable = false
        worker.broker.ended(self)
        membership = nil
        dropAssembled()
        reportClosed(ending, stream)
        client?.didEnd(peerCode, at: worker.loop.now)
    }
}
