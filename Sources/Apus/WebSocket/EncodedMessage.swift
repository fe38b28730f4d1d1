import ApusCodec
import ApusTransport

/// A message for many connections: framed once, and compressed once for each set of extension parameters that its receivers have.
///
/// The receivers' queues share its bytes. Make one, then call `send(_:)` of each socket with it.
public final class EncodedMessage {
    public let kind: MessageKind
    let payload: [UInt8]
    /// The frame for connections without extensions.
    private var plainFrame: ByteChunk?
    /// Frames by what the extensions of a connection do to any message.
    private var frames: [String: ByteChunk] = [:]

    /// - Parameter payload: UTF-8 if the kind is text; the caller answers for it.
    public init(_ payload: [UInt8], as kind: MessageKind) {
        self.payload = payload
        self.kind = kind
    }

    /// A copy of a message that is being delivered.
    public convenience init(_ message: Message) { self.init(message.bytes, as: message.kind) }

    /// The frame for connections whose extensions are `chain`; nil if those treat each connection's messages differently.
    func frame(for chain: ExtensionChain?) -> ByteChunk? {
        guard let chain else {
            if let plainFrame { return plainFrame }
            let frame = makeFrame(nil)
            plainFrame = frame
            return frame
        }
        guard let key = chain.sharingKey else { return nil }
        if let frame = frames[key] { return frame }
        let frame = makeFrame(chain)
        frames[key] = frame
        return frame
    }

    private func makeFrame(_ chain: ExtensionChain?) -> ByteChunk {
        let payload = payload
        var changed: [UInt8] = []
        var bits = ReservedBits()
        var isChanged = false
        if let chain {
            let piece = ExtensionPiece(kind: kind, reservedBits: [], startsMessage: true, endsMessage: true)
            if case .replaced(let set) = chain.send(payload.rawSpan, piece, into: &changed) { (bits, isChanged) = (set, true) }
        }
        let body = isChanged ? changed : payload
        let header = FrameHeader(opcode: kind.opcode, payloadBytes: body.count, reservedBits: bits.rawValue)
        let frame = ByteChunk(capacity: header.byteCount + body.count)
        frame.append(header.bytes.rawSpan)
        frame.append(body.rawSpan)
        return frame
    }
}

extension WebSocket {
    /// Sends a message that goes to several connections; unless this one's extensions keep a context, its bytes are shared.
    @discardableResult
    public func send(_ message: EncodedMessage) -> SendOutcome {
        guard role == .server, let frame = message.frame(for: extensions) else { return send(message.payload, as: message.kind) }
        requireNoFragments()
        if context.hasPublications { context.deliverPublications(before: self) }
        guard isOpen, let connection else { return .closed }
        if connection.bufferedBytes > 0, !admitsMore(through: connection) { return refuseSlowConsumer() }
        connection.write(frame)
        return outcome(on: connection)
    }
}
