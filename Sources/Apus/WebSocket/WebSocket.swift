import ApusCodec
import ApusPlatform
import ApusTransport

/// One WebSocket connection, as its handler uses it. It belongs to its worker's thread.
///
/// It may be kept after the connection has ended; sending then returns `.closed`.
public final class WebSocket {
    /// The protocol that the connection was opened with.
    public let webSocketProtocol: WebSocketProtocol
    /// The negotiated subprotocol; nil if the client requested none.
    public var subprotocol: String? { hasSubprotocol ? webSocketProtocol.name : nil }
    /// The worker that serves this connection.
    public let worker: Worker
    /// The opening request; nil once `opened` has returned, so that idle connections do not hold
    /// it. Keep a reference to use it later.
    public internal(set) var request: HTTPRequest?

    /// Released when the connection has ended, so that a handler may hold its socket.
    private(set) var handler: any WebSocketHandler
    /// The handler, for `apus bench`: inlined there, every access to the property would be checked
    /// for exclusivity.
    package var currentHandler: any WebSocketHandler {
        @inline(never) get { handler }
    }
    /// The transport; nil once it has ended.
    var stream: ByteStream?
    /// The message being assembled. Only assigned, as `wire`.
    var assembly: MessageAssembly
    /// Nil until the first subscription.
    var membership: TopicMembership?
    /// The client's connection that this is now; nil on a server.
    var client: ClientConnection?
    /// Frames, text, pings, deadlines and the closing handshake. Only assigned, as a whole or a
    /// part: while no call changes it in place, reading it needs no exclusivity check.
    var wire: WebSocketState

    // Small ones last, so that there are no gaps.
    let delivery: Delivery
    /// Whether complete messages may be delivered from the receive buffer.
    let usesReceiveFastPath: Bool
    /// Whether a message's frame is a header and the unchanged payload.
    let usesSendFastPath: Bool
    let hasSubprotocol: Bool
    /// `webSocketProtocol.number`, copied because every event reads it.
    let routeNumber: UInt16
    var receiving = Receiving.active
    var wantsWritable = false

    /// Whether the handler receives.
    enum Receiving { case active, paused }

    init(
        _ webSocketProtocol: WebSocketProtocol, role: Role, hasSubprotocol: Bool, extensions: ExtensionChain?,
        handler: any WebSocketHandler, request: HTTPRequest?, stream: ByteStream
    ) {
        self.webSocketProtocol = webSocketProtocol
        self.hasSubprotocol = hasSubprotocol
        routeNumber = webSocketProtocol.number
        self.handler = handler
        self.request = request
        self.stream = stream
        worker = stream.worker
        assembly = MessageAssembly(extensions, maxMessageBytes: worker.limits.maxMessageBytes)
        delivery = handler.delivery
        usesReceiveFastPath = extensions == nil && delivery == .messages
        usesSendFastPath = extensions == nil && role == .server
        wire = WebSocketState(
            role: role, ownedReservedBits: extensions?.reservedBits.rawValue ?? 0,
            maxMessageBytes: Self.maxWireBytes(worker.limits.maxMessageBytes, extensions),
            now: TimePoint(worker.loop.time(after: .zero)), limits: worker.webSocketLimits)
    }

    /// Most bytes of a message on the wire: data that does not compress expands a little.
    private static func maxWireBytes(_ maxMessageBytes: Int, _ extensions: ExtensionChain?) -> Int {
        guard extensions != nil else { return maxMessageBytes }
        let (bytes, isTooMany) = maxMessageBytes.addingReportingOverflow(maxMessageBytes / 1024 + 64)
        return isTooMany ? .max : bytes
    }

    // MARK: Properties

    /// The transport's security (libwebsockets' `lws_is_ssl`); plain once the connection has ended.
    public var security: Security { stream?.security ?? .plain }

    /// Whether messages can be sent.
    public var isOpen: Bool {
        if case .open = wire.session, let stream { !stream.isBroken } else { false }
    }

    /// This endpoint's side.
    var role: Role { wire.decoder.role }
    /// Nil if none were negotiated.
    var extensions: ExtensionChain? { assembly.extensions }

    /// The peer's address; nil once the connection has ended.
    public var peer: SocketAddress? { stream?.peer }

    /// The socket's descriptor, for diagnostics and socket options; nil once the connection has
    /// ended. Never close it.
    public var descriptor: Int32? { stream?.socket }

    /// Bytes of output that the kernel has not taken.
    public var bufferedBytes: Int { stream?.bufferedBytes ?? 0 }

    /// Whether output is buffered (libwebsockets' `lws_partial_buffered`).
    public var hasBufferedOutput: Bool { stream?.hasBufferedOutput ?? false }

    // MARK: Sending

    /// The result of sending.
    public enum SendOutcome: Sendable, Equatable {
        /// Written, or to be written when the handler returns.
        case accepted
        /// Queued; this many bytes are buffered. Send less, and continue in `writable`.
        case buffered(Int)
        /// Not sent: the connection is closing or has ended, or the peer reads too slowly
        /// (`Limits.maxBufferedBytes`, `maxWorkerBufferBytes`).
        case closed
    }

    /// Sends a message.
    @discardableResult
    public func send(_ message: Message) -> SendOutcome {
        if sendShort(message.payload, as: message.kind) { return .accepted }
        requireNoFragments()
        return send(message.payload, opcode: message.kind.opcode, kind: message.kind, isFinal: true, in: message.chunk)
    }

    /// Sends a text message.
    @discardableResult
    public func send(text: String) -> SendOutcome { send(Array(text.utf8).rawSpan, as: .text) }

    /// Sends a binary message.
    @discardableResult
    public func send(binary bytes: [UInt8]) -> SendOutcome { send(bytes, as: .binary) }

    /// Sends a message from an array. The caller ensures that text is valid UTF-8.
    @discardableResult
    public func send(_ bytes: [UInt8], as kind: MessageKind) -> SendOutcome { send(bytes.rawSpan, as: kind) }

    /// Sends a message. The caller ensures that text is valid UTF-8.
    @discardableResult
    public func send(_ payload: borrowing RawSpan, as kind: MessageKind) -> SendOutcome {
        if sendShort(payload, as: kind) { return .accepted }
        requireNoFragments()
        return send(payload, opcode: kind.opcode, kind: kind, isFinal: true)
    }

    /// The fast path for sending: a short message, no extensions, nothing buffered. The counterpart
    /// of `FrameDecoder.nextShortMessage`.
    ///
    /// - Returns: false if the message must be sent by the general path.
    @inline(__always)
    private func sendShort(_ payload: borrowing RawSpan, as kind: MessageKind) -> Bool {
        guard usesSendFastPath, !wire.isSendingFragments, case .open = wire.session, !worker.broker.hasPublications,
            payload.byteCount <= maxControlPayloadBytes,
            let stream, !stream.isBroken, !stream.hasBufferedOutput
        else { return false }
        return stream.cork(FrameHeader(opcode: kind.opcode, payloadBytes: payload.byteCount), payload)
    }

    /// Sends a part of a message as one frame. The first part determines the message's kind. No
    /// other message can be sent until the last part has been sent.
    @discardableResult
    public func sendFragment(_ payload: borrowing RawSpan, as kind: MessageKind, isLast: Bool) -> SendOutcome {
        if worker.broker.hasPublications { worker.broker.deliverPublications(before: self) }
        let opcode = change { $0.nextFragmentOpcode(kind, isLast: isLast) }
        let outcome = send(payload, opcode: opcode, kind: kind, isFinal: isLast)
        if isLast { membership?.fragmentsEnded(on: self) }
        return outcome
    }

    /// Sends a part of a binary message as one frame.
    @discardableResult
    public func sendFragment(binary bytes: [UInt8], isLast: Bool) -> SendOutcome {
        sendFragment(bytes.rawSpan, as: .binary, isLast: isLast)
    }

    /// Sends a ping with a payload of at most 125 bytes. The pong is delivered to the handler's
    /// `pong`.
    @discardableResult
    public func ping(_ payload: [UInt8] = []) -> SendOutcome {
        if payload.count > maxControlPayloadBytes { fatalError("expected a ping of at most 125 bytes, got \(payload.count)") }
        return send(payload.rawSpan, opcode: .ping, kind: nil, isFinal: true)
    }

    @inline(__always)
    func requireNoFragments() {
        if wire.isSendingFragments { fatalError("a message is being sent in fragments: end it with sendFragment(_:isLast: true) first") }
    }

    /// Sends a message that goes to several connections. The frame's bytes are shared unless this
    /// connection's extensions keep state between messages.
    @discardableResult
    public func send(_ message: EncodedMessage) -> SendOutcome {
        guard role == .server, let frame = message.frame(for: extensions) else { return send(message.payload, as: message.kind) }
        requireNoFragments()
        return writer?.send(frame) ?? .closed
    }

    /// The general path for sending; see `FrameWriter.send`.
    @inline(never)
    private func send(
        _ payload: borrowing RawSpan, opcode: Opcode, kind: MessageKind?, isFinal: Bool, in chunk: SharedChunk? = nil
    ) -> SendOutcome { writer?.send(payload, as: opcode, of: kind, isFinal: isFinal, in: chunk) ?? .closed }

    /// Nil once the connection has ended.
    var writer: FrameWriter? { stream.map { FrameWriter(self, on: $0) } }

    /// Requests one call of the handler's `writable`, made when nothing is buffered (libwebsockets'
    /// `lws_callback_on_writable`).
    public func requestWritable() {
        guard isOpen, !wantsWritable else { return }
        wantsWritable = true
        if !hasBufferedOutput { worker.requestedWritable(self) }
    }

    /// Calls the handler's `writable` if it is still requested and nothing is buffered.
    func serveWritable() {
        guard wantsWritable, isOpen, !hasBufferedOutput, let stream else { return }
        wantsWritable = false
        worker.serving(stream, .writable, route: routeNumber)
        handler.writable(self)
        worker.servingNothing()
    }

    // MARK: Topics

    /// Subscribes to a topic until the connection ends: an exact name, or a pattern that ends in
    /// `/#`, which matches the name before it and everything below; `#` matches all topics. Names
    /// are compared byte by byte.
    ///
    /// - Returns: false if the connection has ended or already has `Limits.maxSubscriptions`, or if
    ///   the topic has more than 65,535 bytes.
    @discardableResult
    public func subscribe(to topic: String) -> Bool {
        guard stream != nil, topic.utf8.count <= Topic.maxNameBytes,
            (membership?.subscriptions.count ?? 0) < worker.limits.maxSubscriptions
        else { return false }
        worker.broker.subscribe(self, to: topic)
        return true
    }

    var isSubscriber: Bool { membership?.subscriptions.isEmpty == false }

    /// Removes a subscription; no effect if there is none.
    public func unsubscribe(from topic: String) { worker.broker.unsubscribe(self, from: topic) }

    /// Sends a message to all subscribers of `topic`, on all workers, except this connection.
    public func publish(_ payload: [UInt8], as kind: MessageKind, to topic: String) {
        worker.publish(payload, as: kind, to: topic, excluding: self)
    }

    // MARK: Receiving

    /// Stops receiving at once (libwebsockets' `lws_rx_flow_control`). Messages already read are
    /// delivered first, in order, after `resumeReceiving`. While receiving is paused, a silent peer
    /// is sent pings but not closed; if the peer ends the connection, that is reported after the
    /// data it had sent, or after `Limits.silenceTimeout`.
    public func pauseReceiving() {
        guard receiving == .active, let stream else { return }
        receiving = .paused
        stream.pauseReading(.application)
    }

    /// Resumes receiving.
    public func resumeReceiving() {
        guard receiving == .paused, let stream else { return }
        receiving = .active
        resumed()
        stream.resumeReading(.application)
    }

    // MARK: Ending

    /// Closes the connection because the worker's memory limit is reached, for received messages
    /// and for output alike.
    func refuseForMemory() {
        dropAssembled()
        worker.memory.noteShortage()
        close(code: .tryAgainLater, reason: "the server has no memory for more")
    }

    /// Discards the message being assembled.
    func dropAssembled() { changeAssembly { $0.drop(worker.memory) } }

    /// Starts the closing handshake: sends a close frame with the code and the reason (truncated to
    /// 123 bytes). `closed` is called when the peer has answered or `Limits.closingTimeout` has
    /// passed; messages received until then are dropped. No effect if the connection is closing
    /// already. With `.noStatus` the frame has no code; other codes that must not be sent, such as
    /// `.abnormal`, are sent as `.internalError`.
    public func close(code: CloseCode = .normal, reason: String = "") {
        let stream = stream
        let next = beginClosing(code: code, reason: reason)
        stream?.follow(next)
    }

    /// Ends the connection at once, without a closing handshake. `closed` reports 1006 at the end
    /// of the loop's turn.
    public func terminate() {
        guard let stream else { return }
        // Data that was read already is not delivered.
        change { $0.didEnd() }
        stream.abort()
    }

    /// Closes with `code` after `delay`. A further call replaces the deadline; nil removes it
    /// (libwebsockets' `lws_set_timeout`).
    public func setDeadline(after delay: Duration?, code: CloseCode = .policyViolation, reason: String = "deadline passed") {
        guard let stream else { return }
        let due = delay.map { TimePoint(stream.time(after: $0)) }
        change { $0.setDeadline(due, WebSocketEnding(code, reason)) }
        stream.deadlineChanged()
    }

    /// Calls the handler's `closed` once, and releases the handler.
    func reportClosed(_ ending: WebSocketEnding, _ stream: ByteStream) {
        let handler = handler
        self.handler = EndedHandler.shared
        worker.serving(stream, .closed, route: routeNumber)
        handler.closed(self, code: ending.code, reason: ending.reason)
        worker.servingNothing()
    }

    // MARK: The wire

    /// The time from which a period is counted. The clock rounds down to milliseconds, this time is
    /// rounded up: no period is too short.
    var now: TimePoint { TimePoint(worker.loop.time(after: .zero)) }

    /// Changes the wire's state in a local copy; see `wire`.
    func change<Result, Failure>(_ body: (inout WebSocketState) throws(Failure) -> Result) throws(Failure) -> Result {
        var copy = wire
        defer { wire = copy }
        return try body(&copy)
    }

    /// Changes the message being assembled in a local copy; see `wire`.
    func changeAssembly<Result, Failure>(_ body: (inout MessageAssembly) throws(Failure) -> Result) throws(Failure) -> Result {
        var copy = assembly
        defer { assembly = copy }
        return try body(&copy)
    }
}

/// Replaces the handler of an ended connection.
private final class EndedHandler: WebSocketHandler, Sendable {
    static let shared = EndedHandler()
}
