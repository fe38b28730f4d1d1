package import ApusCodec

/// The next event; the span's life is too short to leave the call.
func next(_ decoder: inout FrameDecoder, _ buffer: inout [UInt8], _ position: inout Int) throws(FrameViolation) -> FrameEvent? {
    let end = buffer.count
    var octets = buffer.mutableSpan
    var bytes = octets.mutableBytes
    return try decoder.next(in: &bytes, until: end, from: &position)
}

/// Puts messages together and closes, as a connection does.
package struct MessageReader {
    package enum Event: Equatable {
        case message(MessageKind, [UInt8])
        case ping([UInt8])
        case pong([UInt8])
        case close(CloseCode?, String)
        case violation(CloseCode)
    }

    private var decoder: FrameDecoder
    private var assembler: MessageAssembler
    private var text = UTF8Validator()
    private var carry: [UInt8] = []
    private let usesShortcut: Bool
    /// A close frame or a violation has come: nothing after it counts.
    package private(set) var isOver = false

    package init(role: Role, maxMessageBytes: Int, shortcut: Bool = true) {
        decoder = FrameDecoder(role: role, maxMessageBytes: maxMessageBytes)
        assembler = MessageAssembler(maxBytes: maxMessageBytes)
        usesShortcut = shortcut
    }

    static func read(_ bytes: [UInt8], role: Role, maxMessageBytes: Int, _ cut: Cut, shortcut: Bool) -> [Event] {
        var reader = MessageReader(role: role, maxMessageBytes: maxMessageBytes, shortcut: shortcut)
        return cut.pieces(of: bytes).flatMap { reader.receive($0) }
    }

    /// What comes of the next bytes.
    package mutating func receive(_ bytes: [UInt8]) -> [Event] {
        guard !isOver else { return [] }
        var events: [Event] = []
        var buffer = carry + bytes
        var position = 0
        do throws(FrameViolation) {
            while !isOver {
                if usesShortcut, let (kind, payload) = short(&buffer, &position) {
                    guard kind == .binary || UTF8Validator.isValid(payload.rawSpan) else { throw .invalidUTF8 }
                    events.append(.message(kind, payload))
                    continue
                }
                guard let event = try next(&decoder, &buffer, &position) else { break }
                switch event {
                case .data(let piece): if let message = try add(piece, buffer[piece.range]) { events.append(message) }
                case .ping(let range): events.append(.ping(Array(buffer[range])))
                case .pong(let range): events.append(.pong(Array(buffer[range])))
                case .close(let code, let reason):
                    events.append(.close(code, String(decoding: buffer[reason], as: UTF8.self)))
                    isOver = true
                }
            }
        } catch {
            events.append(.violation(error.closeCode))
            isOver = true
        }
        carry = Array(buffer[position...])
        return events
    }

    private mutating func add(_ piece: DataPiece, _ bytes: ArraySlice<UInt8>) throws(FrameViolation) -> Event? {
        let payload = Array(bytes)
        if piece.kind == .text {
            guard text.accept(payload.rawSpan), !piece.endsMessage || text.isComplete else { throw .invalidUTF8 }
        }
        try assembler.append(payload.rawSpan, remaining: piece.remainingInFrame)
        guard piece.endsMessage else { return nil }
        text = UTF8Validator()
        let message = assembler.take()
        require(assembler.isEmpty && (piece.kind == .binary || String(validating: message, as: UTF8.self) != nil))
        return .message(piece.kind, message)
    }

    private mutating func short(_ buffer: inout [UInt8], _ position: inout Int) -> (MessageKind, [UInt8])? {
        let end = buffer.count
        var found: (kind: MessageKind, range: Range<Int>, isASCII: Bool)?
        do {
            var octets = buffer.mutableSpan
            var bytes = octets.mutableBytes
            found = decoder.nextShortMessage(in: &bytes, until: end, from: &position)
        }
        guard let found else { return nil }
        let message = Array(buffer[found.range])
        require(found.isASCII == message.allSatisfy { $0 < 0x80 })
        return (found.kind, message)
    }
}
