import ApusCodec
import ApusTransport

/// A message for many connections: framed once, and compressed once per distinct set of extension
/// parameters.
///
/// Its bytes are shared by the receivers' output queues. Create one, then pass it to `send(_:)` of
/// each socket.
public final class EncodedMessage {
    public let kind: MessageKind
    let payload: [UInt8]
    /// The frame for connections without extensions.
    private var plainFrame: ByteChunk?
    /// Frames by `ExtensionChain.sharingKey`.
    private var frames: [String: ByteChunk] = [:]

    /// - Parameter payload: the message's bytes; the caller ensures that text is valid UTF-8.
    public init(_ payload: [UInt8], as kind: MessageKind) {
        self.payload = payload
        self.kind = kind
    }

    /// Copies a message that is being delivered.
    public convenience init(_ message: Message) { self.init(message.bytes, as: message.kind) }

    /// The frame for connections with the extensions `chain`.
    ///
    /// - Returns: nil if those extensions keep state per connection, so that frames cannot be
    ///   shared.
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
