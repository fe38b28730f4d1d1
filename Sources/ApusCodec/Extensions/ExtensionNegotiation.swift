/// The negotiated extensions of one connection, in the order of the server's response. Sent payload
/// passes through the first one first, received payload through the last one first (RFC 6455 §9.1).
package final class ExtensionChain {
    private let sessions: [any ExtensionSession]
    /// The reserved bits of all extensions together.
    package let reservedBits: ReservedBits

    /// Bytes of the current message that have been delivered piece by piece. Limits a message that
    /// is never assembled.
    private var bytesDelivered = 0

    /// The current message after the extensions, where it is assembled.
    package var assembler = MessageAssembler(maxBytes: 0)

    /// What the result of `send` depends on besides the message; nil if a session keeps a context.
    package let sharingKey: String?

    init(_ agreed: [(name: String, session: any ExtensionSession)], reservedBits: ReservedBits) {
        sessions = agreed.map(\.session)
        self.reservedBits = reservedBits
        // A key is only unique within its extension. Prefixing the name, a token, and the key's
        // length makes the joined text unique.
        let keys = agreed.compactMap { agreed in agreed.session.sharingKey.map { "\(agreed.name) \($0.utf8.count) \($0)" } }
        sharingKey = keys.count == agreed.count ? keys.joined(separator: ",") : nil
    }

    /// Decodes a piece of a message that is not assembled, and appends the result to `output`.
    ///
    /// - Throws: `FrameViolation.messageTooBig` when the message exceeds the limit after the
    ///   extensions, or `extensionFailed`.
    package func receive(_ piece: DataPiece, _ payload: RawSpan, into output: inout [UInt8], maxMessageBytes: Int) throws(FrameViolation)
        -> ExtensionOutcome
    {
        if piece.startsMessage { bytesDelivered = 0 }
        let room = maxMessageBytes - bytesDelivered
        let outcome: ExtensionOutcome
        do throws(FrameViolation) {
            outcome = try receive(payload, ExtensionPiece(piece), into: &output, maxBytes: room)
        } catch .extensionFailed(.messageTooBig) {
            throw .messageTooBig(size: UInt64(maxMessageBytes + 1), limit: UInt64(maxMessageBytes))
        }
        let count = outcome == .unchanged ? payload.byteCount : output.count
        bytesDelivered += count
        // The decoder's limit is higher than this one, by the worst-case expansion of compression.
        guard count <= room else { throw .messageTooBig(size: UInt64(bytesDelivered), limit: UInt64(maxMessageBytes)) }
        return outcome
    }

    /// Decodes a piece and appends it to the message in `assembler`.
    ///
    /// - Throws: `FrameViolation.messageTooBig` when the message exceeds the limit after the
    ///   extensions, or `extensionFailed`.
    package func assemble(_ piece: DataPiece, _ payload: RawSpan) throws(FrameViolation) {
        let outcome = try assembler.extend { (bytes, maxBytes) throws(FrameViolation) in
            try receive(payload, ExtensionPiece(piece), into: &bytes, maxBytes: maxBytes)
        }
        if outcome == .unchanged { try assembler.append(payload, remaining: piece.remainingInFrame) }
    }

    /// Passes received payload through the chain and appends the result to `output`.
    ///
    /// - Throws: `FrameViolation.extensionFailed`.
    package func receive(
        _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
    ) throws(FrameViolation) -> ExtensionOutcome {
        do throws(ExtensionError) {
            return try transform(payload, piece, into: &output, maxBytes: maxBytes)
        } catch {
            throw .extensionFailed(error)
        }
    }

    private func transform(
        _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
    ) throws(ExtensionError) -> ExtensionOutcome {
        if sessions.count == 1 { return try sessions[0].receive(payload, piece, into: &output, maxBytes: maxBytes) }
        var current: [UInt8]?
        for session in sessions.reversed() {
            var result: [UInt8] = []
            let outcome =
                if let current {
                    try session.receive(current.rawSpan, piece, into: &result, maxBytes: maxBytes)
                } else {
                    try session.receive(payload, piece, into: &result, maxBytes: maxBytes)
                }
            if outcome != .unchanged { current = result }
        }
        guard let current else { return .unchanged }
        guard output.count + current.count <= maxBytes else { throw .messageTooBig(limit: maxBytes) }
        output.append(contentsOf: current)
        return .replaced()
    }

    /// Passes payload to send through the chain and appends the result to `output`.
    package func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome {
        if sessions.count == 1 { return sessions[0].send(payload, piece, into: &output) }
        var current: [UInt8]?
        var bits = ReservedBits()
        for session in sessions {
            var result: [UInt8] = []
            let outcome =
                if let current { session.send(current.rawSpan, piece, into: &result) } else { session.send(payload, piece, into: &result) }
            if case .replaced(let set) = outcome {
                bits.formUnion(set)
                current = result
            }
        }
        guard let current else { return .unchanged }
        output.append(contentsOf: current)
        return .replaced(bits)
    }
}

/// Extension negotiation in the opening handshake (RFC 6455 §9.1).
package enum ExtensionNegotiation {
    /// The extensions that a server accepts.
    package struct Agreement {
        /// The value of `Sec-WebSocket-Extensions` in the response.
        package let answer: String
        package let chain: ExtensionChain
    }

    /// Checks that a set of extensions can be configured together.
    ///
    /// - Returns: what is wrong, or nil.
    package static func conflict(in extensions: [any WebSocketExtension]) -> String? {
        for (index, one) in extensions.enumerated() {
            guard HTTPMethod(rawValue: one.name).isToken else { return "the extension name \"\(one.name)\" is not a token (RFC 6455 §9.1)" }
            for other in extensions[..<index] {
                if other.name == one.name { return "the extension \"\(one.name)\" is given twice" }
                if !other.reservedBits.isDisjoint(with: one.reservedBits) {
                    return "the extensions \"\(other.name)\" and \"\(one.name)\" both own a reserved bit"
                }
            }
        }
        return nil
    }

    /// A server's response to a client's offers. An extension is accepted at most once, with the
    /// first of its offers that it accepts, in the client's order.
    ///
    /// - Parameters:
    ///   - offers: the value of `Sec-WebSocket-Extensions` in the request.
    ///   - allows: the application's veto, called before the extension gets an offer.
    /// - Returns: nil if no offer is accepted.
    /// - Throws: `HandshakeViolation.extensionsMalformed`.
    package static func answer(
        _ offers: String, with extensions: [any WebSocketExtension], allows: (any WebSocketExtension) -> Bool
    ) throws(HandshakeViolation) -> Agreement? {
        guard let offered = ExtensionParameters.parse(offers) else { throw .extensionsMalformed }
        var answers: [ExtensionParameters] = []
        var agreed: [(name: String, session: any ExtensionSession)] = []
        var bits = ReservedBits()
        for offer in offered where !answers.contains(where: { $0.name == offer.name }) {
            guard let known = extensions.first(where: { $0.name == offer.name }), allows(known), let agreement = known.accept(offer) else {
                continue
            }
            answers.append(agreement.answer)
            agreed.append((known.name, agreement.session))
            bits.formUnion(known.reservedBits)
        }
        guard !answers.isEmpty else { return nil }
        return Agreement(
            answer: answers.map(\.description).joined(separator: ", "), chain: ExtensionChain(agreed, reservedBits: bits))
    }

    /// The value of `Sec-WebSocket-Extensions` in a client's request; nil without any offer.
    package static func offers(of extensions: [any WebSocketExtension]) -> String? {
        let offers = extensions.flatMap { $0.offers() }
        return offers.isEmpty ? nil : offers.map(\.description).joined(separator: ", ")
    }

    /// Checks a server's response: every element must be an extension that was offered, listed
    /// once.
    ///
    /// - Throws: `ExtensionError.negotiation`: "the client MUST _Fail the WebSocket Connection_"
    ///   (RFC 6455 §4.1).
    package static func agree(
        to answer: String, with extensions: [any WebSocketExtension]
    ) throws(ExtensionError) -> ExtensionChain? {
        guard let elements = ExtensionParameters.parse(answer) else {
            throw .negotiation("Sec-WebSocket-Extensions in the answer is malformed")
        }
        var agreed: [(name: String, session: any ExtensionSession)] = []
        var bits = ReservedBits()
        var names: Set<String> = []
        for element in elements {
            guard let known = extensions.first(where: { $0.name == element.name }) else {
                throw .negotiation("the server answers with the extension \(element.name.debugDescription), which was not offered")
            }
            guard names.insert(element.name).inserted else { throw .negotiation("the server answers \(element.name) twice") }
            agreed.append((known.name, try known.agree(to: element)))
            bits.formUnion(known.reservedBits)
        }
        return agreed.isEmpty ? nil : ExtensionChain(agreed, reservedBits: bits)
    }
}
