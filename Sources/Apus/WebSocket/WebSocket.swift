import ApusCodec
import ApusPlatform
import ApusTransport

/// One WebSocket connection, as its handler sees it. Belongs to its worker's thread.
///
/// It may be kept after the connection has ended: then it sends nothing and says so.
public final class WebSocket {
    /// What it was opened as.
    public let webSocketProtocol: WebSocketProtocol
    /// The subprotocol that was agreed on; nil if the client asked for none.
    public var subprotocol: String? { hasSubprotocol ? webSocketProtocol.name : nil }
    /// The worker this connection lives in.
    public let context: Context
    /// The opening request; nil as soon as `opened` has returned, so that an idle connection does not hold it. Keep a reference if you need it.
    public internal(set) var request: HTTPRequest?

    let role: Role
    /// Let go when the connection has ended, so that a handler may keep its socket.
    private(set) var handler: any WebSocketHandler
    /// The same for `apus bench`: looked at from outside, the property's accesses would all be checked.
    package var currentHandler: any WebSocketHandler {
        @inline(never) get { handler }
    }
    var connection: Connection?
    var state = SessionState.open
    var decoder: FrameDecoder
    /// A message that has begun and not ended; see `assemble`.
    var incoming: ByteChunk?
    var text = UTF8Validator()
    let delivery: Delivery
    let extensions: ExtensionChain?
    /// Whole messages can be delivered from where they lie.
    let takesShortWay: Bool
    /// A message's frame is its payload behind a header.
    let sendsShortWay: Bool
    let maxBufferedBytes: Int
    let hasSubprotocol: Bool
    /// Its protocol's, where it is looked at with each event.
    let routeNumber: UInt16
    var receiving = Receiving.active
    var wantsWritable = false
    var subscriptions: [Subscription] = []
    /// The last run of publications that concerns this connection in particular, see `PublicationRun`.
    var runMark = PublicationRun.Mark()
    /// A message of ours has begun and not ended.
    var isSendingFragments = false
    /// A ping has gone out and nothing has come since.
    var hasPinged = false
    var rare: Rare?

    /// What few connections need, and only for a while.
    final class Rare {
        /// The answer to the last ping, while another answer is queued. Only the last one counts (RFC 6455 §5.5.3).
        var pong: [UInt8]?
        /// Bytes of output that leave before a queued pong has left; 0: none is queued.
        var queuedPongEnd = 0
        var deadline: DeadlineTimer?
        /// Publications that came while a message was being sent in fragments.
        var deferred: [EncodedMessage] = []
        /// While a message is being assembled: how large it was when the current period began, and when the period ends.
        var progress: (bytes: Int, due: MonotonicTime)?
        /// What `closed` will report once the closing handshake is done.
        var ending: (code: CloseCode, reason: String)?
        /// Told after the handler when a client's connection has ended: the code if the peer left an open one, nil if this side closed it.
        var whenEnded: ((CloseCode?) -> Void)?
    }

    /// Whether the handler wants more.
    enum Receiving { case active, paused }

    init(
        _ webSocketProtocol: WebSocketProtocol, role: Role, hasSubprotocol: Bool, extensions: ExtensionChain?,
        handler: any WebSocketHandler, request: HTTPRequest?, connection: Connection
    ) {
        self.webSocketProtocol = webSocketProtocol
        self.role = role
        self.hasSubprotocol = hasSubprotocol
        routeNumber = webSocketProtocol.number
        self.handler = handler
        self.request = request
        self.connection = connection
        context = connection.context
        self.extensions = extensions
        delivery = handler.delivery
        takesShortWay = extensions == nil && delivery == .messages
        sendsShortWay = extensions == nil && role == .server
        maxBufferedBytes = context.limits.maxBufferedBytes
        decoder = FrameDecoder(
            role: role, ownedReservedBits: extensions?.reservedBits.rawValue ?? 0,
            maxMessageBytes: Self.maxWireBytes(context.limits.maxMessageBytes, extensions))
        extensions?.assembler = MessageAssembler(maxBytes: context.limits.maxMessageBytes)
    }

    /// Bytes that a message may have on the wire: what cannot be compressed grows a little.
    private static func maxWireBytes(_ maxMessageBytes: Int, _ extensions: ExtensionChain?) -> Int {
        guard extensions != nil else { return maxMessageBytes }
        let (bytes, isTooMany) = maxMessageBytes.addingReportingOverflow(maxMessageBytes / 1024 + 64)
        return isTooMany ? .max : bytes
    }

    // MARK: What it is

    /// What protects this connection (libwebsockets' `lws_is_ssl`); plain once it has ended.
    public var security: Security { connection?.security ?? .plain }

    /// Whether messages can be sent.
    public var isOpen: Bool {
        if case .open = state, let connection { !connection.isBroken } else { false }
    }

    /// The other side's address; nil when it cannot be told any more.
    public var peer: SocketAddress? {
        guard let connection else { return nil }
        return connection.origin.peer ?? (try? Socket.peerAddress(of: connection.transport.descriptor))
    }

    /// The socket's number, for diagnostics and socket options; nil when the connection has ended. Never close it.
    public var descriptor: Int32? { connection?.transport.descriptor }

    /// Bytes of output that wait for the peer.
    public var bufferedBytes: Int { connection?.bufferedBytes ?? 0 }

    /// Whether output waits for the peer (libwebsockets' `lws_partial_buffered`).
    public var hasBufferedOutput: Bool { connection?.hasBufferedOutput ?? false }

    // MARK: Sending

    /// What became of what was sent.
    public enum SendOutcome: Sendable, Equatable {
        /// It is on its way: written, or about to be when the handler returns.
        case accepted
        /// It waits behind this many bytes that the peer has not taken: slow down, and go on in `writable`.
        case buffered(Int)
        /// It was not sent: the connection is closing or has ended, or the peer is too slow (`Limits.maxBufferedBytes`,
        /// `maxWorkerBufferBytes`).
        case closed
    }

    /// Sends a message.
    @discardableResult
    public func send(_ message: Message) -> SendOutcome { send(message.payload, as: message.kind) }

    /// Sends a text message.
    @discardableResult
    public func send(text: String) -> SendOutcome {
        send(Array(text.utf8).rawSpan, as: .text)
    }

    /// Sends a binary message.
    @discardableResult
    public func send(binary bytes: [UInt8]) -> SendOutcome { send(bytes, as: .binary) }

    /// Sends a message whose bytes are in an array. The caller answers for text being UTF-8.
    @discardableResult
    public func send(_ bytes: [UInt8], as kind: MessageKind) -> SendOutcome { send(bytes.rawSpan, as: kind) }

    /// Sends a message. The caller answers for text being UTF-8.
    @discardableResult
    public func send(_ payload: borrowing RawSpan, as kind: MessageKind) -> SendOutcome {
        if sendShort(payload, as: kind) { return .accepted }
        requireNoFragments()
        return send(payload, opcode: kind.opcode, kind: kind, isFinal: true)
    }

    /// Sends a message of the simplest kind if nothing stands in its way: the counterpart of `FrameDecoder.nextShortMessage`.
    @inline(__always)
    private func sendShort(_ payload: borrowing RawSpan, as kind: MessageKind) -> Bool {
        guard sendsShortWay, !isSendingFragments, case .open = state, !context.hasPublications, payload.byteCount <= maxControlPayloadBytes,
            let connection, !connection.isBroken, !connection.hasBufferedOutput
        else { return false }
        return connection.cork(FrameHeader(opcode: kind.opcode, payloadBytes: payload.byteCount), payload)
    }

    /// Sends a part of a message as a frame of its own; the first one says what kind the message is. Until the last part has been sent,
    /// no other message can be.
    @discardableResult
    public func sendFragment(_ payload: borrowing RawSpan, as kind: MessageKind, isLast: Bool) -> SendOutcome {
        if context.hasPublications { context.deliverPublications(before: self) }
        let opcode = isSendingFragments ? Opcode.continuation : kind.opcode
        isSendingFragments = !isLast
        let outcome = send(payload, opcode: opcode, kind: kind, isFinal: isLast)
        if isLast, let deferred = rare?.deferred, !deferred.isEmpty {
            rare?.deferred = []
            for message in deferred { deliver(message) }
        }
        return outcome
    }

    /// Sends a part of a binary message as a frame of its own.
    @discardableResult
    public func sendFragment(binary bytes: [UInt8], isLast: Bool) -> SendOutcome {
        sendFragment(bytes.rawSpan, as: .binary, isLast: isLast)
    }

    /// Sends a ping of at most 125 bytes. The answer comes to the handler's `pong`.
    @discardableResult
    public func ping(_ payload: [UInt8] = []) -> SendOutcome {
        precondition(payload.count <= maxControlPayloadBytes, "a ping has at most \(maxControlPayloadBytes) bytes (RFC 6455 §5.5)")
        return send(payload.rawSpan, opcode: .ping, kind: nil, isFinal: true)
    }

    @inline(__always)
    func requireNoFragments() {
        precondition(!isSendingFragments, "a message is being sent in fragments: end it with sendFragment(_:as:isLast: true) first")
    }

    /// - Parameter kind: nil for control frames, which pass no extension.
    @inline(never)
    private func send(_ payload: borrowing RawSpan, opcode: Opcode, kind: MessageKind?, isFinal: Bool) -> SendOutcome {
        if context.hasPublications { context.deliverPublications(before: self) }
        guard case .open = state, let connection, !connection.isBroken else { return .closed }
        var buffered = connection.bufferedBytes
        if buffered > 0, buffered > admittedBytes {
            guard admitsMore(through: connection) else { return refuseSlowConsumer() }
            buffered = connection.bufferedBytes
        }
        if let extensions, let kind {
            send(payload, opcode: opcode, kind: kind, isFinal: isFinal, through: extensions, on: connection)
            return outcome(on: connection)
        }
        let header = FrameHeader(opcode: opcode, payloadBytes: payload.byteCount, isFinal: isFinal, maskingKey: maskingKey)
        if connection.cork(header, payload) { return buffered == 0 ? .accepted : .buffered(buffered) }
        return sendUncorked(header, payload, through: connection)
    }

    private func sendUncorked(_ header: FrameHeader, _ payload: borrowing RawSpan, through connection: Connection) -> SendOutcome {
        connection.write(header, payload)
        return outcome(on: connection)
    }

    /// What came of a message that was written.
    func outcome(on connection: Connection) -> SendOutcome {
        // One message may pass the limit, its connection must not live on it.
        if connection.bufferedBytes > 0, !context.hasRoom(), !admitsMore(through: connection) { refuseForMemory() }
        return connection.bufferedBytes == 0 ? .accepted : .buffered(connection.bufferedBytes)
    }

    /// A key for the next frame; nil for a server's, which are not masked.
    @inline(__always)
    var maskingKey: UInt32? {
        switch role {
        case .server: nil
        case .client: context.maskingKeys.next()
        }
    }

    /// Writes a control frame, whatever the state.
    func sendControl(_ opcode: Opcode, _ payload: borrowing RawSpan) {
        connection?.write(FrameHeader(opcode: opcode, payloadBytes: payload.byteCount, maskingKey: maskingKey), payload)
    }

    /// Bytes that may wait for the peer already when more is to be sent: none where memory is short.
    var admittedBytes: Int { context.hasRoom() ? maxBufferedBytes : 0 }

    /// Whether more may be sent behind what waits. Where memory is short, the kernel is offered that first: what was queued in this turn says
    /// nothing of the peer.
    func admitsMore(through connection: Connection) -> Bool {
        if !context.hasRoom() {
            guard connection.offerOutput() else {
                connection.abort()
                return false
            }
            // Who waits for that to be sent is told at the turn's end.
            context.unsettled(connection)
        }
        return connection.bufferedBytes <= admittedBytes
    }

    /// More waits than is admitted.
    func refuseSlowConsumer() -> SendOutcome {
        if context.hasRoom() || bufferedBytes > maxBufferedBytes {
            close(code: .tryAgainLater, reason: "the peer reads too slowly")
        } else {
            refuseForMemory()
        }
        return .closed
    }

    /// Asks for one call of the handler's `writable` when nothing is buffered (libwebsockets' `lws_callback_on_writable`).
    public func requestWritable() {
        guard isOpen, !wantsWritable else { return }
        wantsWritable = true
        if !hasBufferedOutput { context.requestedWritable(self) }
    }

    // MARK: Receiving

    /// Stops receiving (libwebsockets' `lws_rx_flow_control`): at once, even for messages that have been read already; these come first,
    /// in order, after `resumeReceiving`. While it is paused, a silent peer is pinged, but not given up; if the peer ends the connection meanwhile,
    /// that is told after what it had sent, or after `Limits.silenceTimeout`.
    public func pauseReceiving() {
        guard receiving == .active, let connection else { return }
        receiving = .paused
        connection.pauseReading(.application)
    }

    /// Goes on receiving.
    public func resumeReceiving() {
        guard receiving == .paused, let connection else { return }
        receiving = .active
        resumed()
        connection.resumeReading(.application)
    }

    // MARK: Ending

    /// Begins the closing handshake: the peer gets the code and the reason (at most 123 bytes are sent), and `closed` is called when it has
    /// answered or `Limits.closingTimeout` has passed. Messages that come until then are dropped. No effect when it is closing already.
    /// With `.noStatus` the frame has no code; other codes that must not be sent, such as `.abnormal`, go out as `.internalError`.
    public func close(code: CloseCode = .normal, reason: String = "") {
        if context.hasPublications { context.deliverPublications(before: self) }
        perform(change { $0.close(code, reason: reason) })
    }

    /// Ends the connection at once, without a closing handshake; `closed` reports 1006 at the end of the loop's turn.
    public func terminate() {
        guard let connection else { return }
        // What has been read already is not delivered any more.
        state = .closed
        connection.abort()
    }

    /// Closes with `code` unless called again, or with nil, in time (libwebsockets' `lws_set_timeout`).
    public func setDeadline(after delay: Duration?, code: CloseCode = .policyViolation, reason: String = "deadline passed") {
        rare?.deadline?.cancel()
        rare?.deadline = nil
        guard let delay, isOpen else { return }
        let timer = DeadlineTimer(context.loop) { [weak self] in self?.close(code: code, reason: reason) }
        timer.start(after: delay)
        rareState.deadline = timer
    }

    /// Tells the handler of the end, once, and lets it go.
    func tellClosed(_ code: CloseCode, _ reason: String) {
        let handler = handler
        self.handler = EndedHandler.shared
        if let connection { context.serving(connection, .closed, route: webSocketProtocol.number) }
        handler.closed(self, code: code, reason: reason)
    }

    var rareState: Rare {
        if let rare { return rare }
        let state = Rare()
        rare = state
        return state
    }
}

/// Stands where a handler was.
private final class EndedHandler: WebSocketHandler, Sendable {
    static let shared = EndedHandler()
}
