import ApusCodec
import FuzzTargets
import TestSupport

/// What an endpoint's owner sees.
enum SimulatedEvent: Equatable {
    case message(MessageKind, [UInt8])
    case pong([UInt8])
    /// It is over: the code that the handler would be told.
    case ended(CloseCode)
}

/// A message to send.
struct PlannedMessage: Equatable {
    let kind: MessageKind
    let bytes: [UInt8]
    /// Where it is cut into frames; at least one.
    let fragments: [Range<Int>]
}

/// One side of a conversation: the codec as a connection puts it together, without a connection.
struct Endpoint {
    static let maxMessageBytes = 200_000

    let role: Role
    private(set) var state = SessionState.open
    private(set) var events: [SimulatedEvent] = []
    /// Bytes that wait for the pipe to take them.
    var output: [UInt8] = []
    /// Whether nothing will be written any more.
    private(set) var hasFinished = false

    private var decoder: FrameDecoder
    private var assembler = MessageAssembler(maxBytes: Endpoint.maxMessageBytes)
    private var text = UTF8Validator()
    private var carry: [UInt8] = []
    private let chain: ExtensionChain?
    private var keys: SeededGenerator
    /// Our pings in flight, in order.
    private var pings: [[UInt8]] = []

    init(role: Role, chain: ExtensionChain?, seed: UInt64) {
        self.role = role
        self.chain = chain
        keys = SeededGenerator(seed: seed)
        decoder = FrameDecoder(role: role, ownedReservedBits: chain?.reservedBits.rawValue ?? 0, maxMessageBytes: Endpoint.maxMessageBytes)
    }

    // MARK: Sending

    /// Sends one fragment of a message; nothing if closing.
    mutating func send(_ message: PlannedMessage, fragment: Int) {
        guard state == .open else { return }
        let (starts, ends) = (fragment == 0, fragment == message.fragments.count - 1)
        let payload = Array(message.bytes[message.fragments[fragment]])
        var replaced: [UInt8] = []
        var bits: UInt8 = 0
        let piece = ExtensionPiece(kind: message.kind, reservedBits: [], startsMessage: starts, endsMessage: ends)
        var outgoing = payload
        if let chain, case .replaced(let set) = chain.send(payload.rawSpan, piece, into: &replaced) {
            outgoing = replaced
            if starts { bits = set.rawValue }
        }
        write(starts ? message.kind.opcode : .continuation, outgoing, isFinal: ends, reservedBits: bits)
    }

    mutating func ping(_ payload: [UInt8]) {
        guard state == .open else { return }
        pings.append(payload)
        write(.ping, payload)
    }

    mutating func close(_ code: CloseCode?, reason: String) {
        var next = state
        perform(next.close(code, reason: reason), becoming: &next)
    }

    /// Writes bytes that break the protocol.
    mutating func misbehave(_ bytes: [UInt8]) { output += bytes }

    private mutating func write(_ opcode: Opcode, _ payload: [UInt8], isFinal: Bool = true, reservedBits: UInt8 = 0) {
        let key: UInt32? = role == .client ? UInt32(truncatingIfNeeded: keys.next()) : nil
        FrameEncoder.append(opcode, payload.rawSpan, isFinal: isFinal, reservedBits: reservedBits, maskingKey: key, to: &output)
    }

    private mutating func perform(_ action: SessionState.Action, becoming next: inout SessionState, ended code: CloseCode? = nil) {
        state = next
        switch action {
        case .none: break
        case .sendClose(let code, let reason): write(.close, FrameEncoder.closePayload(code: code, reason: reason))
        case .answerCloseAndEnd(let answer):
            write(.close, FrameEncoder.closePayload(code: answer, reason: ""))
            end(code ?? answer ?? .noStatus)
        case .failAndEnd(let failure, let reason):
            write(.close, FrameEncoder.closePayload(code: failure, reason: reason))
            end(failure)
        case .end: end(code ?? .noStatus)
        }
    }

    private mutating func end(_ code: CloseCode) {
        hasFinished = true
        events.append(.ended(code))
    }

    // MARK: Receiving

    /// The pipe has ended.
    mutating func lost() {
        guard !hasFinished else { return }
        state = .closed
        end(.abnormal)
    }

    /// Bytes have come.
    mutating func receive(_ bytes: [UInt8]) {
        guard !hasFinished else { return }
        var buffer = carry + bytes
        var position = 0
        do throws(FrameViolation) {
            while !hasFinished, let event = try nextEvent(&buffer, &position) { try serve(event, buffer) }
        } catch {
            var next = state
            perform(next.fail(error), becoming: &next, ended: error.closeCode)
        }
        carry = Array(buffer[position...])
    }

    private mutating func nextEvent(_ buffer: inout [UInt8], _ position: inout Int) throws(FrameViolation) -> FrameEvent? {
        let end = buffer.count
        var octets = buffer.mutableSpan
        var bytes = octets.mutableBytes
        return try decoder.next(in: &bytes, until: end, from: &position)
    }

    private mutating func serve(_ event: FrameEvent, _ buffer: [UInt8]) throws(FrameViolation) {
        switch event {
        case .close(let code, _):
            var next = state
            perform(next.receivedClose(code), becoming: &next, ended: code ?? .noStatus)
        case _ where state != .open: break
        case .ping(let range): write(.pong, Array(buffer[range]))
        case .pong(let range):
            let payload = Array(buffer[range])
            guard pings.first == payload else { fatalError("a pong that answers no ping, or not the next one") }
            pings.removeFirst()
            events.append(.pong(payload))
        case .data(let data): try receive(data, Array(buffer[data.range]))
        }
    }

    private mutating func receive(_ data: DataPiece, _ payload: [UInt8]) throws(FrameViolation) {
        var bytes = payload
        if let chain {
            var inflated: [UInt8] = []
            let piece = ExtensionPiece(
                kind: data.kind, reservedBits: ReservedBits(rawValue: data.reservedBits), startsMessage: data.startsMessage,
                endsMessage: data.endsMessage)
            let room = Endpoint.maxMessageBytes - assembler.bytes.count
            if try chain.receive(payload.rawSpan, piece, into: &inflated, maxBytes: room) != .unchanged { bytes = inflated }
        }
        if data.kind == .text {
            guard text.accept(bytes.rawSpan), !data.endsMessage || text.isComplete else { throw .invalidUTF8 }
        }
        try assembler.append(bytes.rawSpan, remaining: data.remainingInFrame)
        guard data.endsMessage else { return }
        text = UTF8Validator()
        events.append(.message(data.kind, assembler.take()))
    }
}
